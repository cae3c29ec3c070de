"""Problems with the directory that a run is saved into: it is full, it is gone, or a write failed."""

import os
import re
import shutil

from etils import epath


def check_space(directory: epath.Path, needed: int) -> None:
    """Raises OSError if a local disk has less space than `needed` bytes, which a save would fill."""
    if "://" in str(directory):
        return
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(f"No space left on device: it takes {needed:,} bytes, and {free:,} are free")


def inode_of(directory: epath.Path) -> int | None:
    """Returns what tells a directory from another one created in its place; None on object storage."""
    try:
        return None if "://" in str(directory) else os.stat(directory).st_ino
    except FileNotFoundError:
        return 0


def innermost_cause(error: BaseException) -> str:
    """Returns the innermost cause of an error in one line."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    # TensorStore wraps what the operating system said: '…: No space left on device [os_error_code='28']'.
    wrapped = re.search(r"([^:]+) \[os_error_code", text)
    return wrapped[1].strip() if wrapped else text[:300]

"""The base of every error that the package raises on purpose, and the exit codes of the command line."""

import errno
from typing import ClassVar

DONE, FAILED, USAGE, RESUMABLE, INTERRUPTED = 0, 1, 2, 75, 130
"""Exit codes: done; failed; a mistake of the user; stopped and saved, the same command resumes; Ctrl-C."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)

STORAGE_CLIENTS = ("gcsfs", "s3fs", "aiohttp", "requests", "google", "botocore")
"""Packages whose errors are those of object storage or of the way to it."""


class ResNetError(Exception):
    """Base of all errors of this package; the message says in one line what is wrong and what to do.

    Attributes:
        exit_code: Exit code of a command that ends with this error.
    """

    exit_code: ClassVar[int] = FAILED


class UsageError(ResNetError):
    """A mistake of the user: an option, file, directory or value that does not exist or does not fit."""

    exit_code: ClassVar[int] = USAGE


def exit_status(error: BaseException) -> tuple[int, str] | None:
    """Returns the exit code and the line to print when a command ends with an error; None if it is a bug.

    The line is empty if standard output was closed by its reader.
    """
    if isinstance(error, ResNetError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "stopped before anything was saved"
    if isinstance(error, BrokenPipeError):
        return FAILED, ""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        where = f" ({error.filename})" if error.filename else ""
        return FAILED, f"{error.strerror}{where}; fix the disk and run the same command again: it resumes"
    if type(error).__module__.partition(".")[0] in STORAGE_CLIENTS or isinstance(error, TimeoutError):
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        return FAILED, f"object storage does not answer as it should: {reason}; run the same command again"
    return None

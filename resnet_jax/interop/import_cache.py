"""Files and folders of weights as runs, imported once into the user's cache directory."""

import hashlib
import os
from pathlib import Path

from resnet_jax.console import print_note
from resnet_jax.files import as_path, expand_home
from resnet_jax.interop.hub_folders import FILES
from resnet_jax.interop.importer import import_weights
from resnet_jax.interop.loading import is_foreign
from resnet_jax.training.checkpoints import steps_in


def as_run(source: str) -> str:
    """Returns the directory of a run with these weights: of a run itself, or of an import made now or before.

    An import lies in the user's cache directory, by the contents of the file.

    Raises:
        InteropError: The weights cannot be read, or are of another network.
    """
    path = as_path(source)
    if not is_foreign(path):
        return expand_home(source)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = base / "resnet_jax" / "imported" / f"{Path(source).stem}-{_contents(Path(path))}"
    if not steps_in(target):
        imported = import_weights(source, target)
        for note in imported.notes:
            print_note(note)
        print_note(f"{source} is imported into {target}")
    return str(target)


def _contents(path: Path) -> str:
    """Returns a digest of a file of weights, or of a folder's weights and config."""
    files = [path] if path.is_file() else [path / name for name in ("config.json", *FILES)]
    digest = hashlib.sha256()
    for file in files:
        if file.exists():
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:12]

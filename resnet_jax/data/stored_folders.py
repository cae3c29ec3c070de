"""Folders of a bucket, which has none: the names of all its objects are listed once and taken apart."""

import dataclasses
import time

from resnet_jax.object_storage import list_objects

_SECONDS = 60.0  # For which a listing is taken to be what is there.


@dataclasses.dataclass(frozen=True)
class StoredEntry:
    """An object, or what would be a folder on a disk.

    Attributes:
        name: Its name within the folder.
        folder: Whether it is one.
    """

    name: str
    folder: bool

    def is_dir(self) -> bool:
        """Returns whether it is a folder."""
        return self.folder

    def is_file(self) -> bool:
        """Returns whether it is an object."""
        return not self.folder


_Tree = dict[str, dict[str, StoredEntry]]  # Entries by name, by folder.
_trees: dict[str, tuple[float, _Tree]] = {}


def stored_entries(folder: str) -> list[StoredEntry]:
    """Returns the entries of a folder in object storage by name; of one that is not there, none.

    All that is below it is listed, and remembered for a minute: whoever looks at the folders in it next does
    not ask again.
    """
    folder = folder.rstrip("/")
    now = time.monotonic()
    fresh = (root for root, (listed, _) in _trees.items() if now - listed < _SECONDS)
    root = next((root for root in fresh if f"{folder}/".startswith(f"{root}/")), None)
    if root is None:
        root = folder
        _trees[root] = now, _tree_of(root)
    tree = _trees[root][1]
    found = tree.get(folder[len(root) + 1 :], {})
    return [found[name] for name in sorted(found)]


def _tree_of(root: str) -> _Tree:
    tree: _Tree = {}
    for path in list_objects(root):
        above, _, name = path.rpartition("/")
        tree.setdefault(above, {})[name] = StoredEntry(name, folder=False)
        while above:
            above, _, name = above.rpartition("/")
            entries = tree.setdefault(above, {})
            if name in entries and entries[name].folder:
                break
            entries[name] = StoredEntry(name, folder=True)
    return tree

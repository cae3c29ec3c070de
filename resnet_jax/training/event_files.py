"""TensorBoard's event files of a run, which tensorboardX writes on a disk and nowhere else."""

import os
import tempfile
from collections.abc import Mapping

from etils import epath
from tensorboardX import SummaryWriter

from resnet_jax.lease import confirm_ownership
from resnet_jax.object_storage import is_url, upload
from resnet_jax.training.background_uploads import BackgroundUploads


class EventFiles:
    """Events of one process, in a directory beside those of earlier ones.

    In object storage they are written into a temporary directory and uploaded every minute and at the end.

    Args:
        directory: Directory of the events of the run.
        step: The step that the run resumes from: TensorBoard leaves out earlier events beyond it.
    """

    def __init__(self, directory: epath.Path, *, step: int) -> None:
        self._directory = directory
        self._uploads: BackgroundUploads | None = None
        self._local = os.fspath(directory)
        if is_url(directory):
            self._temporary = tempfile.TemporaryDirectory(prefix="resnet_jax-")
            self._local = self._temporary.name
            self._uploads = BackgroundUploads(self._upload, seconds=60.0)
        self._writer = SummaryWriter(self._local, purge_step=step + 1)

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Writes scalars by their names."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        if self._uploads:
            self._uploads.changed()

    def close(self) -> None:
        """Writes what is left and closes the files."""
        self._writer.close()
        if self._uploads:
            self._uploads.close()
            self._temporary.cleanup()

    def _upload(self) -> None:
        confirm_ownership(self._directory.parent)
        self._writer.flush()
        for name in os.listdir(self._local):
            upload(os.path.join(self._local, name), self._directory / name)

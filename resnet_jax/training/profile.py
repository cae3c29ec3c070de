"""Profiles of some steps of a run, on demand."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator

import jax
from etils import epath
from jaxtyping import PyTree

from resnet_jax.object_storage import is_url, upload_directory
from resnet_jax.training.config_sections import PROFILED

FOLDER = "profile"


@contextlib.contextmanager
def profiled(steps: str | None, workdir: epath.Path) -> Iterator[Callable[[int, PyTree], None]]:
    """Yields a function to call before every step with its number and the state.

    A profile begins and ends with it ready.

    From the first of the steps to the end of the last JAX records what host and devices do, into the
    workdir's folder `profile`, which TensorBoard with tensorboard-plugin-profile shows, and xprof.

    Args:
        steps: "10-15", or None.
        workdir: Directory of the run.
    """
    match = PROFILED.fullmatch(steps) if steps else None
    chosen = range(int(match[1]), int(match[2]) + 1) if match else range(0)
    running = False

    def before(step: int, state: PyTree) -> None:
        nonlocal running
        if running == (step in chosen):
            return
        jax.block_until_ready(state)
        if running:
            jax.profiler.stop_trace()
        else:
            jax.profiler.start_trace(folder)
        running = not running

    with contextlib.ExitStack() as stack:
        folder = os.fspath(workdir / FOLDER)
        if is_url(workdir):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="resnet_jax-"))
            stack.callback(upload_directory, folder, workdir / FOLDER)
        try:
            yield before
        finally:
            if running:
                jax.profiler.stop_trace()

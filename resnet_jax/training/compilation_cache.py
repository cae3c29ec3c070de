"""Keeps compiled programs in the user's cache directory, so that the next start of a run compiles nothing."""

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path

_CPU_LINES = ("flags", "Features", "model name")
"""Lines of /proc/cpuinfo that tell what a processor can do."""

LEAST_SECONDS = 0.1
"""Programs that compile faster are not kept."""


def cache_directory() -> str | Path | None:
    """Returns where compiled programs are kept; None if the user's home cannot be found.

    JAX_COMPILATION_CACHE_DIR is respected. Otherwise it is a directory of the user's cache directory, one for
    each kind of processor and version of jaxlib: a program that was compiled for another processor may use
    instructions that this one lacks.
    """
    if given := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return given  # A path or a URL.
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    key = hashlib.sha256(f"{version('jaxlib')} {_processor()}".encode()).hexdigest()[:16]
    return base / "resnet_jax" / "compiled" / key


def keep_compiled_programs() -> None:
    """Turns the cache on, unless JAX_COMPILATION_CACHE_DIR has done so or the directory cannot be written."""
    import jax  # Here, so that naming the directory needs no JAX.

    directory = cache_directory()
    if not isinstance(directory, Path) or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(directory, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)


def _processor() -> str:
    """Returns the machine type and the features of the processor, as far as the system tells them."""
    features = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = [line for line in lines if line.partition(":")[0].strip() in _CPU_LINES]
        features = " ".join(sorted(set(named)))
    except OSError:
        features = platform.processor()
    return f"{platform.machine()} {features}"

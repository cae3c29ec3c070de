"""`resnet-jax doctor`: what this machine and environment have, and what is wrong with them."""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from resnet_jax.console import format_table, print_json
from resnet_jax.object_storage import is_url

EXAMPLES = ("resnet-jax doctor", "resnet-jax doctor --json")
OPTIONS = ()

EXAMINED_PACKAGES = (
    *("resnet-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy"),
    *("tensorflow-datasets", "opencv-python-headless", "simplejpeg", "pillow"),
)
OPTIONAL = {
    "tensorflow": "preparing most TFDS datasets",
    "torch": "comparing with PyTorch",
    "onnx": "exporting to ONNX",
    "libtpu": "TPUs, and planning for them",
}
LITTLE_SPACE = 1 << 30  # Bytes of a disk below which it is reported.


def execute(arguments: argparse.Namespace) -> None:
    """Prints versions, devices, cores, the JPEG library, disk space and cache directories, and problems."""
    found, problems = examine()
    if arguments.json:
        print_json({**found, "problems": problems})
        return
    rows = [(name, _text(value)) for name, value in found.items()]
    print(format_table(("what", "found"), rows, text_columns=2))
    print(
        "\n".join(["", *(f"problem: {problem}" for problem in problems)])
        if problems
        else "\nno problems found"
    )


def examine() -> tuple[dict[str, object], list[str]]:
    """Returns what was found by name, and a sentence for each problem, with what to do."""
    problems: list[str] = []
    found: dict[str, object] = {"python": f"{platform.python_version()} ({sys.executable})"}
    found["system"] = f"{platform.platform()}, {platform.machine()}"
    found["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for package in EXAMINED_PACKAGES:
        found[package] = _version(package)
        if found[package] is None:
            problems.append(f"{package} is not installed; run `pip install resnet-jax` again")
    found["optional"] = ", ".join(
        f"{package} {'yes' if importlib.util.find_spec(package) else 'no'} (for {use})"
        for package, use in OPTIONAL.items()
    )
    found["devices"] = _devices(problems)
    found["JPEG regions"] = _jpeg(problems)
    for name, directory in _directories().items():
        found[name] = _describe(name, directory, problems)
    return found, problems


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices(problems: list[str]) -> str:
    import jax

    try:
        devices = jax.devices()
    except RuntimeError as error:
        problems.append(
            f"JAX finds no device: {' '.join(str(error).split())[:200]}; another process may "
            "hold the accelerator"
        )
        return "none"
    if devices[0].platform == "cpu" and shutil.which("nvidia-smi"):
        problems.append("there is a GPU, and JAX does not use it; run `pip install 'resnet-jax[cuda]'`")
    return f"{len(devices)} {devices[0].platform} ({devices[0].device_kind})"


def _jpeg(problems: list[str]) -> str:
    from resnet_jax.data.turbojpeg import library_path

    path = library_path()
    if path is None:
        problems.append(
            "no TurboJPEG 3 is found: JPEGs are decoded whole, a quarter slower; install libturbojpeg, or "
            "the package turbojpeg where it has wheels"
        )
    return path or "none; whole images are decoded"


def _directories() -> dict[str, str | Path]:
    from resnet_jax.training.compilation_cache import cache_directory

    return {
        "current directory": Path.cwd(),
        "TFDS datasets": os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets",
        "compiled programs": cache_directory() or Path.cwd(),
    }


def _describe(name: str, place: str | Path, problems: list[str]) -> str:
    if is_url(place):
        return f"{place}, in object storage"
    directory = Path(place)
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if not os.access(existing, os.W_OK):
        problems.append(f"{name}: {existing} cannot be written; choose another directory")
    if free < LITTLE_SPACE:
        problems.append(f"{name}: {existing} has {free / 1e6:.0f} MB free; make room")
    there = "" if directory.exists() else " (not created yet)"
    return f"{directory}{there}, {free / 1e9:.1f} GB free"


def _text(value: object) -> str:
    return "not installed" if value is None else str(value)

"""Exports a trained network as a file for other programs, with a record of its preprocessing and classes."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path

from etils import epath

from resnet_jax.files import JsonObject, open_for_replacing
from resnet_jax.inference import Trained, load_trained
from resnet_jax.interop.export_metadata import describe, record_path
from resnet_jax.interop.foreign_weights import InteropError
from resnet_jax.interop.onnx_graph import INPUT, OUTPUT, to_onnx
from resnet_jax.interop.safetensors_file import differences_from_torchvision, to_safetensors
from resnet_jax.interop.stablehlo import to_stablehlo

SAFETENSORS, STABLEHLO, ONNX = FORMATS = ("safetensors", "stablehlo", "onnx")
"""What a net can be written as; each is also the suffix of its files."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        file: The weights or the program.
        record: The JSON file beside it.
        file_format: Of FORMATS.
        model: Name of the net.
        step: Of the checkpoint.
        size: Of the file, in bytes.
        notes: What a user should be told.
    """

    file: Path
    record: Path
    file_format: str
    model: str
    step: int
    size: int
    notes: tuple[str, ...]


def export(
    workdir: epath.PathLike,
    to: str | os.PathLike[str],
    *,
    file_format: str | None = None,
    step: int | None = None,
    overwrite: bool = False,
) -> Exported:
    """Writes a net's weights, or a program of it, and a record beside the file: both whole, or neither.

    Args:
        workdir: Of a run or an import.
        to: The file: FILE.safetensors, FILE.stablehlo or FILE.onnx. Its record is FILE.SUFFIX.json.
        file_format: Of FORMATS; None follows from the suffix.
        step: Of the checkpoint; None is the newest.
        overwrite: Replace a file that is there.

    Raises:
        InteropError: The format or the suffix is not known, a file is there already, or the package onnx is
            not.
        CheckpointError: There is no such checkpoint, or it is damaged.
        OSError: The disk is full, or may not be written; nothing is left behind.
    """
    if "://" in os.fspath(to):
        raise InteropError(f"{to} is a URL; export to a file of this machine, and copy it there")
    file = Path(to)
    chosen = _format(file, file_format)
    for path in (file, record_path(file)):
        _check_free(path, overwrite=overwrite)
    trained = load_trained(workdir, step)
    data = trained.config.data
    source = (
        "" if data.labels else data.source or ""
    )  # Labels of the network are then not those of the data set.
    record = describe(trained.model_arguments, trained.preprocessing, trained.class_names or (), source)
    notes = trained.notes
    if chosen == SAFETENSORS:
        exported = to_safetensors(trained, record)
        notes += tuple(differences_from_torchvision(trained))
    else:
        record["program"] = _interface(trained, chosen)
        exported = to_onnx(trained, record) if chosen == ONNX else to_stablehlo(trained)
    _write({record_path(file): _pretty(record).encode(), file: exported})
    return Exported(
        file, record_path(file), chosen, trained.model_arguments["name"], trained.step, len(exported), notes
    )


def _format(file: Path, wanted: str | None) -> str:
    suffix = file.suffix.removeprefix(".")
    if wanted is not None and wanted not in FORMATS:
        raise InteropError(f"unknown format {wanted!r}; allowed are {', '.join(FORMATS)}")
    if suffix not in FORMATS:
        allowed = f"for format {wanted} it is .{wanted}" if wanted else f"allowed are .{', .'.join(FORMATS)}"
        raise InteropError(f"{file} has the suffix {file.suffix!r}; {allowed}")
    if wanted not in (None, suffix):
        raise InteropError(
            f"{file} has the suffix of format {suffix}, and --format is {wanted}; name it "
            f"{file.stem}.{wanted}"
        )
    return suffix


def _check_free(path: Path, *, overwrite: bool) -> None:
    if path.is_dir():
        raise InteropError(f"{path} is a folder; give a file that is to be made")
    if path.exists() and not overwrite:
        raise InteropError(f"{path} exists already; choose another --to, or give --overwrite")


def _interface(trained: Trained, chosen: str) -> JsonObject:
    """Returns what a program takes and gives; the mean and the scale of `preprocessing` are inside it."""
    side = trained.preprocessing.crop
    return {
        "format": chosen,
        "input": {"name": INPUT, "dtype": "uint8", "shape": ["batch", side, side, 3]},
        "applies": ["mean", "scale"],
        "output": {
            "name": OUTPUT,
            "dtype": "float32",
            "shape": ["batch", trained.model_arguments["num_classes"]],
        },
    }


def _pretty(record: JsonObject) -> str:
    """Returns JSON with a line for each key."""
    return (
        "{\n"
        + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items())
        + "\n}\n"
    )


def _write(contents: dict[Path, bytes]) -> None:
    """Writes files under temporary names, and renames them when all are written."""
    try:
        with contextlib.ExitStack() as stack:
            for path, data in contents.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(open_for_replacing(path)).write(data)
    except (FileExistsError, NotADirectoryError) as error:
        raise InteropError(
            f"{path} cannot be made, since {error.filename} is no folder; choose another --to"
        ) from error

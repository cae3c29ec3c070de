"""Exports a trained network as a file for other programs, with a record of its preprocessing and classes."""

import contextlib
import dataclasses
import json
import os
from functools import partial
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy
from etils import epath

from resnet_jax.files import JsonObject, open_for_replacing
from resnet_jax.inference import Trained
from resnet_jax.interop.export_metadata import METADATA, describe, names_of, record_path
from resnet_jax.interop.foreign_weights import InteropError, to_foreign
from resnet_jax.interop.loading import load_source
from resnet_jax.interop.onnx_graph import INPUT, OUTPUT, to_onnx
from resnet_jax.models.blocks import BottleneckBlock
from resnet_jax.models.network_names import IMAGENET_STAGES, VGG_STAGES
from resnet_jax.models.registry import model_class

# What a net can be written as; each is also the suffix of its files.
SAFETENSORS, STABLEHLO, ONNX = FORMATS = ("safetensors", "stablehlo", "onnx")

IN_TORCHVISION = {*(f"resnet{depth}" for depth in IMAGENET_STAGES), *(f"vgg{depth}" for depth in VGG_STAGES)}
BOTTLENECKS = {f"resnet{depth}" for depth, (block, _) in IMAGENET_STAGES.items() if block is BottleneckBlock}
VGG_INPUT = 224  # Pixels of a side, for which torchvision's VGG nets are built.


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        file: The weights or the program.
        record: The JSON file beside it.
        file_format: One of FORMATS.
        model: Name of the net.
        step: Step of the checkpoint.
        size: Size of the file in bytes.
        notes: What a user should know.
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
        workdir: Directory of a run or an import, or a file or folder of weights.
        to: The file: FILE.safetensors, FILE.stablehlo or FILE.onnx. Its record is FILE.SUFFIX.json.
        file_format: One of FORMATS. Defaults to that of the suffix.
        step: Checkpoint to export. Defaults to the newest.
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
        if path.is_dir():
            raise InteropError(f"{path} is a folder; give a file that is to be made")
        if path.exists() and not overwrite:
            raise InteropError(f"{path} exists already; choose another --to, or give --overwrite")
    trained = load_source(workdir, step)
    if trained.model_arguments.get("task"):
        return _export_program(trained, file, chosen)
    data = trained.config.data
    # With data.labels, the labels of the network are not those of the data set.
    source = "" if data.labels else data.source or ""
    record = describe(trained.model_arguments, trained.preprocessing, trained.class_names or (), source)
    notes = trained.notes
    if chosen == SAFETENSORS:
        exported = to_safetensors(trained, record)
        notes += tuple(differences_from_torchvision(trained))
    else:
        side, classes = trained.preprocessing.crop, trained.model_arguments["num_classes"]
        record["program"] = {
            "format": chosen,
            "input": {"name": INPUT, "dtype": "uint8", "shape": ["batch", side, side, 3]},
            "applies": ["mean", "scale"],  # Of the preprocessing.
            "output": {"name": OUTPUT, "dtype": "float32", "shape": ["batch", classes]},
        }
        exported = to_onnx(trained, record) if chosen == ONNX else to_stablehlo(trained)
    return _write(trained, file, chosen, record, exported, notes)


def _export_program(trained: Trained, file: Path, chosen: str) -> Exported:
    """Writes the program of a network that is no classifier, and what goes in and comes out of it.

    Raises:
        InteropError: Its weights or an ONNX model are asked for.
    """
    if chosen != STABLEHLO:
        raise InteropError(
            f"a detector is exported as .stablehlo: {chosen} is for classifiers. Its suppression of "
            "duplicates is a "
            "loop over blocks, with sorting and scattering, which the ONNX of this package does not have"
        )
    program, described = trained.exported_program()
    record: JsonObject = {"model": dict(trained.model_arguments), "classes": list(trained.class_names or ())}
    record["program"] = {"format": chosen, **described}
    return _write(trained, file, chosen, record, program, trained.notes)


def _write(
    trained: Trained, file: Path, chosen: str, record: JsonObject, exported: bytes, notes: tuple[str, ...]
) -> Exported:
    """Writes a file and its record, both or neither."""
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items())
    try:
        with contextlib.ExitStack() as stack:  # Renames the files when all are written.
            for path, content in ((record_path(file), f"{{\n{lines}\n}}\n".encode()), (file, exported)):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(open_for_replacing(path)).write(content)
    except (FileExistsError, NotADirectoryError) as error:
        raise InteropError(
            f"{path} cannot be made, since {error.filename} is no folder; choose another --to"
        ) from error
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


def to_safetensors(trained: Trained, record: JsonObject) -> bytes:
    """Returns a safetensors file: float32 arrays in PyTorch's layout, and the record in its metadata.

    PyTorch's counters of batches (`num_batches_tracked`) are not in it, and `load_state_dict` does not ask
    for them.
    """
    name_of = names_of(trained.model_arguments)
    arrays = {name_of(path): array for path, array in to_foreign(trained.variables).items()}
    # One key: the order of several is not defined.
    return safetensors.numpy.save(arrays, {METADATA: json.dumps(record)})


def differences_from_torchvision(trained: Trained) -> list[str]:
    """Returns how the network differs from torchvision's of the same name, as sentences, if it does."""
    arguments = trained.model_arguments
    name, crop, shortcut = arguments["name"], trained.preprocessing.crop, arguments.get("shortcut")
    changed = [option for option in ("variants", "block", "norm", "activation") if arguments.get(option)]
    unlike = {
        f"torchvision has no {name} of this shape; the names follow its manner, for `resnet-jax import` "
        "and nets like it": name not in IN_TORCHVISION
        or any(arguments.get(option) for option in ("stage_depths", "width", "hidden")),
        f"torchvision's {name} is without what this net has in {' and '.join(changed)}: it does not load "
        "there": bool(changed),
        f"torchvision's {name} has shortcut option B, and this net {shortcut}: it does not load "
        "there": shortcut not in (None, "B"),
    }
    differing = {
        f"torchvision's {name} is for images of {VGG_INPUT} pixels, and this net for {crop}": not model_class(
            name
        ).takes_any_size
        and crop != VGG_INPUT,
        "torchvision's bottlenecks have the stride on the 3x3, and this net on the 1x1: move it after "
        "loading": name in BOTTLENECKS and arguments.get("stride_on", "1x1") == "1x1",
        "torchvision's maximum after conv1 is padded on all sides, and this net's as in Caffe": arguments.get(
            "pool", "centered"
        )
        != "centered",
        f"torchvision's normalization has epsilon 1e-5, and this net {arguments.get('epsilon')}: set it "
        "after loading": arguments.get("epsilon", 1e-5) != 1e-5,
    }
    return [text for text, holds in unlike.items() if holds][:1] or [
        text for text, holds in differing.items() if holds
    ]


def to_stablehlo(trained: Trained) -> bytes:
    """Returns a serialized `jax.export` program from uint8[batch, crop, crop, 3] to logits, float32."""
    side = trained.preprocessing.crop
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, side, side, 3), np.uint8)
    program = jax.jit(partial(trained.forward, trained.variables))
    return bytes(jax.export.export(program, platforms=("cpu", "cuda", "tpu"))(images).serialize())

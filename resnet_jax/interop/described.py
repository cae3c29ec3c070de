"""The record that stands beside exported weights: the net, its preprocessing, its classes. With it they come back as they went."""

import json
import os
from pathlib import Path
from typing import Any

import safetensors

from resnet_jax.inference.preprocessing import Preprocessing
from resnet_jax.interop import names
from resnet_jax.interop.foreign import Foreign, InteropError, NameOf
from resnet_jax.interop.pytorch import COUNTER, read_arrays
from resnet_jax.models.registry import VGG_STAGES, model_class

FORMAT = "resnet-jax weights"
VERSION = 1
METADATA = "resnet_jax"
"""Key of a safetensors file's metadata, and of an ONNX model's, under which the record stands once more."""

OPTIONS = {
    *(
        "name",
        "num_classes",
        "dtype",
        "shortcut",
        "stride_on",
        "stage_depths",
        "width",
        "hidden",
        "dropout",
        "epsilon",
        "momentum",
    ),
    *("variance", "group_size", "input_scale", "pool", "variants"),
}
"""Arguments of create_model that a record may hold."""


def record_path(file: Path) -> Path:
    """Returns the path of the record of a file: `resnet50.safetensors` has `resnet50.safetensors.json`."""
    return file.with_name(f"{file.name}.json")


def embedded_record(file: Path) -> dict[str, Any] | None:
    """Returns the record in the metadata of a safetensors file, for one that has lost its record; None where there is none."""
    if file.suffix != ".safetensors":
        return None
    try:
        with safetensors.safe_open(os.fspath(file), framework="numpy") as opened:
            found = json.loads((opened.metadata() or {}).get(METADATA, "null"))
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError):
        return None  # What is wrong with the file is said where its arrays are read.
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def describe(
    model: dict[str, Any], preprocessing: Preprocessing, class_names: tuple[str, ...], source: str
) -> dict[str, Any]:
    """Returns the record as JSON has it."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": json.loads(
            json.dumps({name: value for name, value in model.items() if name != "code_dir"}, sort_keys=True)
        ),
        "preprocessing": preprocessing.to_json(),
        "class_names": list(class_names),
        "data": source,
    }


def from_record(file: Path, record: dict[str, Any]) -> Foreign:
    """Returns the weights of a file that this package exported.

    Raises:
        InteropError: The record or the file is not as it was written.
    """
    where = path if (path := record_path(file)).exists() else file
    try:
        if record["version"] > VERSION:
            raise InteropError(
                f"{where} has version {record['version']}; this version reads up to {VERSION}: upgrade resnet-jax"
            )
        model = dict(record["model"])
        if unknown := set(model) - OPTIONS:
            raise InteropError(
                f"{where} gives the net the option {', '.join(sorted(unknown))}; allowed are {', '.join(sorted(OPTIONS))}"
            )
        preprocessing = Preprocessing.from_json(record["preprocessing"])
        class_names, source = tuple(map(str, record["class_names"])), str(record["data"])
        name_of = names_of(model)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InteropError(
            f"{where} is not as `resnet-jax export` writes it ({type(error).__name__}: {error}); export again, or remove it to "
            "have the net recognised by its arrays"
        ) from error
    arrays = read_arrays(file)
    ignored = tuple(name for name in arrays if name.endswith(COUNTER))
    weights = {name: array for name, array in arrays.items() if name not in ignored}
    return Foreign(str(file), weights, name_of, model, preprocessing, class_names, ignored, source=source)


def names_of(model: dict[str, Any]) -> NameOf:
    """Returns the names of a net's arrays in torchvision's manner."""
    if not model_class(model["name"]).normalized:
        return names.vgg(
            tuple(model.get("stage_depths") or VGG_STAGES[int(model["name"].removeprefix("vgg"))])
        )
    return names.residual(names.TORCHVISION)

"""The record beside exported weights: the model, its preprocessing and its classes, for import."""

import contextlib
import json
import os
from pathlib import Path

import safetensors

from resnet_jax.errors import ResNetError
from resnet_jax.files import JsonObject, read_json
from resnet_jax.inference.preprocessing import Preprocessing
from resnet_jax.interop.foreign_weights import (
    TORCHVISION,
    Foreign,
    InteropError,
    NameOf,
    residual_names,
    vgg_names,
)
from resnet_jax.interop.hub_folders import ForeignJson
from resnet_jax.interop.weights_files import read_arrays
from resnet_jax.models.network_names import VGG_STAGES
from resnet_jax.models.registry import ModelArguments, model_class
from resnet_jax.models.trusted_code import require_trust

RECORD_FORMAT = "resnet-jax weights"
RECORD_VERSION = 1
# Key of a safetensors file's metadata, and of an ONNX model's, under which the record stands once more.
METADATA = "resnet_jax"

# Arguments of create_model that a record may hold.
OPTIONS = {
    *("name", "num_classes", "dtype", "shortcut", "stride_on", "stage_depths", "width", "hidden", "dropout"),
    *("epsilon", "momentum", "variance", "group_size", "input_scale", "pool", "variants"),
}


def record_path(file: Path) -> Path:
    """Returns the path of the record of a file: `resnet50.safetensors` has `resnet50.safetensors.json`."""
    return file.with_name(f"{file.name}.json")


def find_record(file: Path) -> ForeignJson | None:
    """Returns the record beside a file of weights or inside a safetensors file; None if there is none.

    Raises:
        InteropError: The file beside the weights cannot be read.
    """
    found, path = None, record_path(file)
    if path.is_file():
        try:
            found = read_json(path)
        except (OSError, ValueError, RecursionError) as error:
            raise InteropError(
                f"{path}, beside the weights, cannot be read as JSON; fix or remove it"
            ) from error
    if not _is_record(found) and file.suffix == ".safetensors":
        # What is wrong with the file is said where its arrays are read.
        with (
            contextlib.suppress(OSError, ValueError, RecursionError, safetensors.SafetensorError),
            safetensors.safe_open(os.fspath(file), framework="numpy") as opened,
        ):
            found = json.loads((opened.metadata() or {}).get(METADATA, "null"))
    return found if _is_record(found) else None


def _is_record(found: object) -> bool:
    return isinstance(found, dict) and found.get("format") == RECORD_FORMAT


def describe(
    model: ModelArguments, preprocessing: Preprocessing, class_names: tuple[str, ...], source: str
) -> JsonObject:
    """Returns the record as JSON has it."""
    return {
        "format": RECORD_FORMAT,
        "version": RECORD_VERSION,
        "model": json.loads(
            json.dumps({name: value for name, value in model.items() if name != "code_dir"}, sort_keys=True)
        ),
        "preprocessing": preprocessing.to_json(),
        "class_names": list(class_names),
        "data": source,
    }


def from_record(file: Path, record: ForeignJson) -> Foreign:
    """Returns the weights of a file that this package exported.

    Raises:
        InteropError: The record or the file is not as it was written.
        UntrustedCodeError: The record names code that is not trusted.
    """
    where = path if (path := record_path(file)).exists() else file
    try:
        if record["version"] > RECORD_VERSION:
            raise InteropError(
                f"{where} has version {record['version']}; this version reads up to {RECORD_VERSION}: "
                "upgrade resnet-jax"
            )
        model = dict(record["model"])
        if unknown := set(model) - OPTIONS:
            raise InteropError(
                f"{where} gives the net the option {', '.join(sorted(unknown))}; allowed are "
                f"{', '.join(sorted(OPTIONS))}"
            )
        require_trust(model, str(where))
        return Foreign(
            str(file),
            read_arrays(file),
            names_of(model),
            model,
            Preprocessing.from_json(record["preprocessing"]),
            tuple(map(str, record["class_names"])),
            source=str(record["data"]),
        )
    except ResNetError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InteropError(
            f"{where} is not as `resnet-jax export` writes it ({type(error).__name__}: {error}); export "
            "again, or remove it to "
            "have the net recognized by its arrays"
        ) from error


def names_of(model: ModelArguments) -> NameOf:
    """Returns the names of a net's arrays in torchvision's manner."""
    if not model_class(model["name"]).normalized:
        return vgg_names(
            tuple(model.get("stage_depths") or VGG_STAGES[int(model["name"].removeprefix("vgg"))])
        )
    return residual_names(TORCHVISION)

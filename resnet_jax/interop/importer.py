"""Weights of another framework as the workdir of a run, or as a net and its variables."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.typing import VariableDict

from resnet_jax.data.choices import DIGITS, SYNTHETIC
from resnet_jax.files import as_path, is_junk
from resnet_jax.inference.preprocessing import PILLOW_FILTERS, Preprocessing
from resnet_jax.interop import caffe, hub_folders, pytorch
from resnet_jax.interop.assembly import Imported, assemble
from resnet_jax.interop.export_metadata import find_record, from_record
from resnet_jax.interop.foreign_weights import IMAGENET_DATASET, Foreign, InteropError
from resnet_jax.training.checkpoint_writer import CheckpointWriter
from resnet_jax.training.checkpoints import Checkpoint, to_arrays
from resnet_jax.training.config import Config, base_config, to_json
from resnet_jax.training.state import TrainState
from resnet_jax.training.stored_preprocessing import evaluation_preprocessing
from resnet_jax.training.workdir import WorkdirError, store_config

WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".caffemodel")


def read_source(
    source: str | os.PathLike[str],
    *,
    stride_on: str | None = None,
    mean: str | None = None,
    shortcut: str | None = None,
) -> Foreign:
    """Returns what a file or folder holds.

    Args:
        source: A state dict of torchvision's or timm's (`.pth`, `.safetensors`), a folder of Hugging Face's
            (config.json and weights), the authors' `.caffemodel`, or what `resnet-jax export` wrote.
        stride_on: "1x1" or "3x3", for files that do not tell.
        mean: Image mean of a `.caffemodel`: a `.binaryproto` file, or red, green and blue in pixels:
            "123.7,116.3,103.5".
        shortcut: Shortcut of a CIFAR net without projections: "A" or "A_centered" (the default).

    Raises:
        InteropError: It cannot be read, or is of another net.
    """
    path = Path(as_path(source))
    if mean is not None and path.suffix != ".caffemodel":
        raise InteropError(f"--mean is for a .caffemodel, and {path} is none; leave it out")
    if path.is_dir():
        if not (path / "config.json").exists():
            raise InteropError(
                f"{path} is a folder without config.json; give a folder of Hugging Face's or timm's, or a "
                "file"
            )
        foreign = hub_folders.from_folder(path)
    elif not path.is_file():
        raise InteropError(
            f"there is no {path}; give a file ({', '.join(WEIGHT_SUFFIXES)}) or a folder with config.json. "
            "Weights come from torchvision (download.pytorch.org) or the Hugging Face Hub; docs/weights.md "
            "says how"
        )
    elif path.suffix == ".caffemodel":
        foreign = caffe.from_caffemodel(path, mean=mean)
    else:
        record = find_record(path)
        foreign = (
            from_record(path, record)
            if record
            else pytorch.from_torch_file(path, stride_on=stride_on, shortcut=shortcut)
        )
    told = foreign.model.get("stride_on", "1x1")
    if stride_on is not None and stride_on != told:
        raise InteropError(
            f"--stride-on is {stride_on}, and {path} is a net with the stride on {told}; leave it out"
        )
    return foreign


def load_pretrained(
    source: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    stride_on: str | None = None,
    mean: str | None = None,
) -> tuple[nn.Module, VariableDict, Preprocessing]:
    """Returns a net with weights of another framework, its variables, and what it expects of its images.

    The third is a `resnet_jax.inference.Preprocessing`: pictures are resized to its `resize` and cropped to
    its `crop`, and the net takes pixels from 0 to 255, RGB, less its `image_mean`. The net itself applies the
    scale that they were divided by there.

    Args:
        source: A state dict of torchvision's or timm's (`.pth`, `.safetensors`), a folder of Hugging Face's
            or timm's (config.json and weights), or one of the authors' `.caffemodel` files.
        num_classes: Another number than the source's gives a fresh last layer.
        stride_on: Stride of bottlenecks, "1x1" or "3x3", if the source does not tell; None is torchvision's
            "3x3".
        mean: Image mean of a `.caffemodel`: a `.binaryproto` file, or red, green and blue in pixels:
            "123.7,116.3,103.5".

    Raises:
        InteropError: The source cannot be read, or is of another net; what does not fit is listed. Nothing in
            it is executed.

    Example:
        >>> model, variables, preprocessing = load_pretrained("resnet50.pth")
        >>> logits = model.apply(variables, images - preprocessing.image_mean)
    """
    foreign = read_source(source, stride_on=stride_on, mean=mean)
    imported = assemble(foreign, num_classes=num_classes)
    return imported.model, imported.variables, foreign.preprocessing


def import_weights(
    source: str | os.PathLike[str],
    workdir: epath.PathLike,
    *,
    num_classes: int | None = None,
    stride_on: str | None = None,
    mean: str | None = None,
    shortcut: str | None = None,
    class_names: Sequence[str] = (),
) -> Imported:
    """Writes the weights of a source as the workdir of a run, whole or not at all, and returns the network.

    Args:
        source: See `read_source`.
        workdir: To be made; may exist if it is empty.
        num_classes: Another number than the source's gives a fresh last layer.
        stride_on: For files that do not tell.
        mean: Image mean of a `.caffemodel`.
        shortcut: Shortcut of a CIFAR net without projections: "A" or "A_centered".
        class_names: By label, where the source does not tell them.

    Raises:
        InteropError: The source cannot be read, or is of another net; what does not fit is listed.
        WorkdirError: The workdir holds something already.
    """
    checkpoint, imported, config, state = read_as_checkpoint(
        source,
        num_classes=num_classes,
        stride_on=stride_on,
        mean=mean,
        shortcut=shortcut,
        class_names=class_names,
    )
    with _whole_or_nothing(workdir) as directory:
        writer = CheckpointWriter(
            directory,
            keep=1,
            config=checkpoint.config,
            model=checkpoint.model,
            class_names=checkpoint.class_names,
            preprocessing=checkpoint.preprocessing,
        )
        with contextlib.closing(writer):
            writer.save(0, state)
            writer.wait()
        store_config(directory, config)
    return imported


class AsCheckpoint(NamedTuple):
    """Weights of another framework, as a run that was saved at step 0 would have them.

    Attributes:
        checkpoint: What the checkpoint holds.
        imported: The network.
        config: The config of the run.
        state: The state that was saved.
    """

    checkpoint: Checkpoint
    imported: Imported
    config: Config
    state: TrainState


def read_as_checkpoint(
    source: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    stride_on: str | None = None,
    mean: str | None = None,
    shortcut: str | None = None,
    class_names: Sequence[str] = (),
) -> AsCheckpoint:
    """Returns the weights of a source as a checkpoint, without writing one; see `import_weights`."""
    foreign = read_source(source, stride_on=stride_on, mean=mean, shortcut=shortcut)
    imported = assemble(foreign, num_classes=num_classes)
    classes = imported.model_arguments["num_classes"]
    kept = num_classes is None or len(foreign.class_names) == classes
    names = tuple(class_names) or (foreign.class_names if kept else ())
    if names and len(names) != classes:
        raise InteropError(f"{len(names)} class names are given, and the net has {classes} classes")
    config = _config(foreign, imported, names)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=imported.variables["params"],
        batch_stats=imported.variables.get("batch_stats", {}),
        opt_state=(),
        image_mean=jnp.asarray(foreign.preprocessing.image_mean, jnp.float32),
    )
    checkpoint = Checkpoint(
        step=0,
        arrays={name: np.asarray(array) for name, array in to_arrays(state).items()},
        config=to_json(config),
        model=json.loads(json.dumps(imported.model_arguments)),
        class_names=names or None,
        preprocessing=evaluation_preprocessing(config, foreign.preprocessing.crop),
    )
    return AsCheckpoint(checkpoint, imported, config, state)


def _config(foreign: Foreign, imported: Imported, class_names: tuple[str, ...]) -> Config:
    """Returns the config of a run of this net: what evaluation, fine-tuning and prediction need of it.

    Its source is empty where the data is not known: of ImageNet are nets with ImageNet's number of classes
    alone.
    """
    config, arguments = base_config(), imported.model_arguments
    for field in ("name", "shortcut", "stride_on", "variance"):
        if arguments.get(field):
            config.model[field] = arguments[field]
    config.inference.class_names = class_names
    if foreign.preprocessing.interpolation in PILLOW_FILTERS:
        config.inference.interpolation = foreign.preprocessing.interpolation
    preprocessing, data = foreign.preprocessing, config.data
    data.source = (
        foreign.source if foreign.source != IMAGENET_DATASET or arguments["num_classes"] == 1000 else ""
    )
    data.mean = "pixel" if preprocessing.image_mean.ndim > 1 else "channel"
    if data.source == IMAGENET_DATASET:
        data.test_split = "validation"
    if data.source in (DIGITS, SYNTHETIC):  # Of one size, which the data itself has.
        config.inference.resize, config.inference.crop = preprocessing.resize, preprocessing.crop
    else:
        crop, resize = preprocessing.crop, preprocessing.resize
        data.image_size, data.test_scale = crop, resize
        data.scales = (resize, resize * 480 // 256)  # §3.4: [256, 480] for 224.
    return config


@contextlib.contextmanager
def _whole_or_nothing(workdir: epath.PathLike) -> Iterator[epath.Path]:
    """Yields a directory that is renamed to the workdir when the block ends, and removed on failure."""
    target = as_path(workdir)
    there = list(target.iterdir()) if target.is_dir() else []
    if (target.exists() and not target.is_dir()) or not all(is_junk(entry.name) for entry in there):
        raise WorkdirError(f"workdir {target} exists already and is not empty; choose another --to")
    if "://" in str(target):
        # Object storage has no rename of folders; the config, without which it is no workdir, comes last.
        yield target
        return
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        yield partial
        if target.exists():
            for entry in there:
                entry.unlink()
            target.rmdir()
        partial.rename(target)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise WorkdirError(
            f"workdir {target} cannot be made: {error.strerror}; choose another --to"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)

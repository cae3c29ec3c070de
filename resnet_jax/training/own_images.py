"""Fits a recipe to a folder of images: splits, image size, network, batch size and schedule."""

import dataclasses
import math
from collections.abc import Collection

import numpy as np

from resnet_jax.data.data_error import CorruptImageError
from resnet_jax.data.datasets import is_path, open_encoded
from resnet_jax.data.decode import image_size
from resnet_jax.data.encoded import Examples
from resnet_jax.data.folder import VALIDATION_NAMES, data_root, has_splits
from resnet_jax.data.image_files import folders_in
from resnet_jax.data.prepared import is_prepared, read_manifest
from resnet_jax.files import expand_home
from resnet_jax.training.config import Config, with_fields
from resnet_jax.training.config_fields import ConfigError

SAMPLE = 100  # Images whose size is looked at.
SIZES = (32, 64, 128, 224)
FITTED = (
    *("batch_size", "model.name", "model.group_size", "data.train_split", "data.test_split"),
    *("data.image_size", "data.test_scale", "data.scales", "optimizer.learning_rate"),
    *("optimizer.boundaries", "run.steps", "run.evaluate_every", "run.checkpoint_every"),
)
"""Fields that are chosen."""


@dataclasses.dataclass(frozen=True)
class FolderFacts:
    """Facts of an image folder or a prepared set, known before training.

    Attributes:
        train_split: Name of the training split.
        test_split: Name of the split that is held out.
        images: Number of training images.
        classes: Number of classes.
        shorter_side: Median shorter side of the images in pixels.
    """

    train_split: str
    test_split: str
    images: int
    classes: int
    shorter_side: int


def look_at_folder(source: str, *, train_split: str = "", test_split: str = "") -> FolderFacts:
    """Returns the facts of a folder.

    Args:
        source: Image folder, prepared set, or URL.
        train_split: Name of the training split. Defaults to "train".
        test_split: Name of the other. Defaults to the first that is there of val, validation, valid and test.

    Raises:
        DataError: There is no such folder, or it has no images in folders of classes.
        ConfigError: It has no split that could be held out.
    """
    train = train_split or "train"
    test = test_split or _held_out_split(source)
    examples = open_encoded(source, train)
    return FolderFacts(train, test, len(examples), len(examples.class_names), _shorter_side(examples))


def _held_out_split(source: str) -> str:
    root = expand_home(source)
    open_encoded(source, "train")  # Says what is wrong with the folder.
    if is_prepared(root):
        names = list(read_manifest(root)["splits"])
    else:
        root = data_root(root)
        names = folders_in(root) if has_splits(root) else ["test"]
    for name in (*VALIDATION_NAMES, "test"):
        if name in names:
            return name
    raise ConfigError(
        f"{source} has the splits {', '.join(names)}, and none to test on; add val/CLASS or test/CLASS, or "
        f"name {source}/train, whose images are then split by a hash of their names"
    )


def _shorter_side(examples: Examples) -> int:
    sides = []
    for index in np.linspace(0, len(examples) - 1, min(SAMPLE, len(examples))).astype(int):
        payload, _ = examples.read(int(index))
        try:
            size = image_size(payload) if isinstance(payload, bytes) else payload.shape[:2]
        except CorruptImageError:
            continue
        sides.append(min(size))
    return int(np.median(sides)) if sides else SIZES[0]


def fit_recipe(config: Config, given: Collection[str], *, network: bool = True) -> Config:
    """Returns a recipe with fields that fit its folder of images; fields that the user gave stay.

    Args:
        config: The recipe, with the folder as `data.source`.
        given: Paths of the fields that the user gave.
        network: Whether to choose network and image size too; a network that is fine-tuned brings its own.

    Raises:
        ConfigError: No folder is named, or it has nothing to test on.
        DataError: There is no such folder, or it has no images.
    """
    source = config.data.source
    if source is None or not is_path(source):
        raise ConfigError(
            f"config.data.source is {source!r}, which is no folder here; name the folder of your images: "
            "--config.data.source=FOLDER"
        )
    splits = {name: getattr(config.data, name) for name in ("train_split", "test_split")}
    asked = {name: value for name, value in splits.items() if f"data.{name}" in given}
    facts = look_at_folder(source, **asked)
    chosen: dict[str, object] = {"data.train_split": facts.train_split, "data.test_split": facts.test_split}
    if network:
        chosen |= _network_for(facts)
    size = config.data.image_size if "data.image_size" in given or not network else chosen["data.image_size"]
    if network and isinstance(size, int):
        chosen |= {"data.test_scale": round(size * 1.125), "data.scales": (size, round(size * 1.5))}
    chosen |= _schedule_for(facts, config, given)
    return with_fields(config, {path: value for path, value in chosen.items() if path not in given})


def _network_for(facts: FolderFacts) -> dict[str, object]:
    """Returns image size and network: larger ones for more images, and never larger than the images are."""
    by_number = 64 if facts.images < 2_000 else 128 if facts.images < 20_000 else 224
    fitting = [size for size in SIZES if size <= facts.shorter_side] or [SIZES[0]]
    size = min(by_number, fitting[-1])
    name = "cifar_resnet20" if size <= 64 else "resnet18" if facts.images < 50_000 else "resnet50"
    return {"data.image_size": size, "model.name": name}


def _schedule_for(facts: FolderFacts, config: Config, given: Collection[str]) -> dict[str, object]:
    """Returns batch size, groups, steps, boundaries and learning rate, in proportion to the batch."""
    batch = config.batch_size
    if "batch_size" not in given:
        batch = 32 if facts.images < 1_000 else 64 if facts.images < 5_000 else 128
    per_epoch = max(1, math.ceil(facts.images / batch))
    steps = config.run.steps
    if "run.steps" not in given:
        steps = max(300, per_epoch * (60 if facts.images < 5_000 else 30))
    every = max(1, steps // 10)
    return {
        "batch_size": batch,
        "model.group_size": math.gcd(batch, 32) if batch % 2 == 0 else None,
        "run.steps": steps,
        "run.evaluate_every": every,
        "run.checkpoint_every": every,
        "optimizer.boundaries": tuple(sorted({max(1, steps // 2), max(2, steps * 3 // 4)})),
        "optimizer.learning_rate": round(config.optimizer.learning_rate * batch / 128, 6),
    }


def explicit_command(config: Config, name: str, base: Config) -> str:
    """Returns the command that trains a config, with every field that differs from a base."""
    from resnet_jax.training.config import flat_fields

    before = flat_fields(base)
    words = [
        f"--config.{path}={_word(value)}"
        for path, value in flat_fields(config).items()
        if (value != before[path] or path in FITTED) and path != "run.code_dir"
    ]
    return " ".join(["resnet-jax train", f"--config={name}", *words])


def _word(value: object) -> str:
    text = str(value)
    return f"'{text.replace(' ', '')}'" if isinstance(value, tuple) or " " in text else text

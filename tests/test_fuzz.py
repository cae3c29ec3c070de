"""One wrong byte in any file that a user gives ends in an error of this package, never in a traceback."""

import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import open_source
from resnet_jax.data.encoded import DecodeOptions
from resnet_jax.data.folder import open_folder
from resnet_jax.data.prepare import prepare
from resnet_jax.data.statistics import color_components
from resnet_jax.errors import ResNetError
from resnet_jax.interop import load_pretrained
from resnet_jax.interop.foreign_weights import read_class_names
from resnet_jax.training.checkpoints import read_checkpoint
from resnet_jax.training.data_record import trained_class_names
from resnet_jax.training.logging import read_metrics
from resnet_jax.training.recipes import load_recipe
from resnet_jax.training.run import run
from resnet_jax.training.stored_classes import read_class_map
from resnet_jax.training.wall_time import read_wall_time
from resnet_jax.training.workdir import read_config
from tests.data.colors import color_image, write_colors
from tests.data.test_folder import flat_imagenet
from tests.interop import nets, torch_like
from tests.interop.test_real_files import cifar
from tests.training import tiny

DECODING = DecodeOptions("center", size=8, scales=(8, 8), areas=(1, 1), test_scale=8)
RECIPE = """from resnet_jax.training.config import base_config

def get_config():
    config = base_config()
    config.batch_size = 16
    config.model.name = "cifar_resnet8"
    config.data.labels = (1, 2, 3)
    return config
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """A file of a user, and what reads it.

    Attributes:
        file: The file that is changed.
        read: Reads it.
        head: Number of bytes at its beginning that are changed; 0 is all.
    """

    file: Path
    read: Callable[[], object]
    head: int = 0


def read_split(root: Path) -> None:
    source = open_source(str(root), "train", decoding=DECODING)
    source.read(range(len(source)))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    root = tmp_path_factory.mktemp("fuzz")
    workdir = root / "run"
    run(tiny.get_config(**{"run.steps": 2, "run.devices": 1}), workdir)
    checkpoint = workdir / "checkpoints" / "2"
    (root / "recipe.py").write_text(RECIPE)
    (root / "classes.txt").write_text("tench\ngoldfish\n")
    (root / "classes.json").write_text('{"0": "tench", "1": ["n01", "goldfish"]}')
    (root / "map.csv").write_text("a,tench\nb,goldfish\n")
    (root / "map.json").write_text('{"a": "tench", "b": 1}')
    photos = write_colors(root / "photos", ["a", "b"], splits={"train": 2})
    prepared = root / "set"
    prepare(str(photos), str(prepared))
    half = root / "half"
    half.mkdir()
    (half / "plan.json").write_text(json.dumps({"plan": "0" * 64}))
    flat = flat_imagenet(root / "flat")
    tiny_val = root / "tiny" / "val"
    (tiny_val / "images").mkdir(parents=True)
    color_image(0, 2, 0).save(tiny_val / "images" / "a.png")
    (tiny_val / "val_annotations.txt").write_text("a.png\tn01440764\t0\t0\t9\t9\n")
    save_file(cifar(), root / "net.safetensors")
    torch_like.save({"state_dict": cifar(), "epoch": 3}, root / "net.pth")
    nets.write_hugging_face(root / "hf", "18")
    np.savez(
        root / "statistics.npz",
        mean=np.zeros((8, 8, 3)),
        eigenvalues=np.ones(3),
        eigenvectors=np.eye(3),
        examples=np.array(3),
    )
    picture = next(photos.glob("train/*/*.png"))

    def import_hf() -> None:
        load_pretrained(root / "hf")

    return [
        Case(root / "recipe.py", lambda: load_recipe(str(root / "recipe.py"))),
        Case(workdir / "config.json", lambda: read_config(workdir)),
        Case(workdir / "data.json", lambda: trained_class_names(workdir)),
        Case(workdir / "metrics.jsonl", lambda: read_wall_time(workdir, read_metrics(workdir))),
        Case(workdir / "wall_time.json", lambda: read_wall_time(workdir, [])),
        Case(checkpoint / "checksums.json", lambda: read_checkpoint(workdir)),
        Case(checkpoint / "description" / "metadata", lambda: read_checkpoint(workdir)),
        Case(root / "classes.txt", lambda: read_class_names(root / "classes.txt")),
        Case(root / "classes.json", lambda: read_class_names(root / "classes.json")),
        Case(root / "map.csv", lambda: read_class_map(str(root / "map.csv"))),
        Case(root / "map.json", lambda: read_class_map(str(root / "map.json"))),
        Case(prepared / "manifest.json", lambda: (read_split(prepared), prepare(str(photos), str(prepared)))),
        Case(prepared / "train-00000-of-00001.array_record", lambda: read_split(prepared)),
        Case(half / "plan.json", lambda: prepare(str(photos), str(half))),
        Case(root / "flat" / "LOC_val_solution.csv", lambda: open_folder(str(flat), "val")),
        Case(tiny_val / "val_annotations.txt", lambda: open_folder(str(root / "tiny"), "val")),
        Case(picture, lambda: read_split(photos)),
        Case(root / "net.safetensors", lambda: load_pretrained(root / "net.safetensors"), head=4000),
        Case(root / "net.pth", lambda: load_pretrained(root / "net.pth"), head=4000),
        Case(root / "hf" / "config.json", import_hf),
        Case(root / "hf" / "preprocessor_config.json", import_hf),
        Case(root / "statistics.npz", lambda: color_components(str(root / "statistics.npz"))),
    ]


def failures(cases: list[Case], count: int, seed: int) -> list[str]:
    """Changes a byte of each file in turn, and returns what ended in anything but an error of the package."""
    found: list[str] = []
    draw = random.Random(seed)
    for number in range(count):
        case = cases[number % len(cases)]
        whole = case.file.read_bytes()
        place = draw.randrange(min(case.head or len(whole), len(whole)))
        changed = bytearray(whole)
        kind = draw.randrange(3)
        if kind == 0:
            changed[place] = draw.randrange(256)
        elif kind == 1:
            changed[place] ^= 1 << draw.randrange(8)
        else:
            changed[place : place + 1] = draw.choice([b"", b'"', b"\0", b"\xff", b"}", b"9", b"-"])
        case.file.write_bytes(changed)
        try:
            case.read()
        except ResNetError:
            pass
        except Exception as error:
            found.append(
                f"{case.file.name}, byte {place}: {whole[max(0, place - 20) : place + 20]!r} became "
                f"{bytes(changed[max(0, place - 20) : place + 20])!r}: {type(error).__name__}: {error}"
            )
        finally:
            case.file.write_bytes(whole)
    return found


def test_a_wrong_byte_ends_in_a_clear_error(cases: list[Case]) -> None:
    assert failures(cases, 210, seed=0) == []


@pytest.mark.slow
def test_many_wrong_bytes_end_in_clear_errors(cases: list[Case]) -> None:
    assert failures(cases, 2000, seed=1) == []


def test_an_unfinished_set_with_another_plan_is_refused(tmp_path: Path) -> None:
    photos = write_colors(tmp_path / "photos", ["a", "b"], splits={"train": 1})
    shutil.rmtree(tmp_path / "half", ignore_errors=True)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "plan.json").write_text('{"plan": 3}')
    with pytest.raises(DataError, match="of another source"):
        prepare(str(photos), str(tmp_path / "half"))

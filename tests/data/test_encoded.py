"""Photographs in batches: the same bits from threads, processes and runs, at any step.

And What happens to damaged ones.
"""

import dataclasses
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.data.batches import EvaluationBatches, TrainBatches, draws, read_ahead
from resnet_jax.data.crops import Box, Sight
from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import open_source
from resnet_jax.data.encoded import DecodedSource, DecodeOptions
from resnet_jax.data.folder import FolderExamples
from resnet_jax.data.prepare import prepare
from resnet_jax.data.relabeled import with_labels
from resnet_jax.data.source import ArraySource, Source, SyntheticSource, read_all, read_decodable
from tests.data.photographs import write_folder

DECODING = DecodeOptions("scale", size=64, scales=(80, 120), areas=(0.1, 1.0), test_scale=72)
KINDS = ("folder", "prepared", "raw", "photographs")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same 24 + 12 photographs as an image folder, prepared, prepared as pixels, and as a set of TFDS."""
    from tests.data.stand_in import prepare_photographs  # Here, since the other run needs no TFDS.

    root = tmp_path_factory.mktemp("sets")
    write_folder(root / "folder", train=8, val=4)
    prepare(str(root / "folder"), str(root / "prepared"), shard_examples=7)
    prepare(str(root / "folder"), str(root / "raw"), shard_examples=7, raw_share=1.0)
    prepare_photographs(str(root))
    return root


def opened(sets: Path, kind: str, split: str = "train") -> Source:
    name = kind if kind == "photographs" else str(sets / kind)
    return open_source(name, split, data_dir=str(sets), decoding=DECODING)


def digest(batches: TrainBatches, steps: range, **options: int) -> str:
    found = hashlib.sha256()
    for batch in read_ahead(batches, steps.start, steps.stop, **{"workers": 1, "buffer": 2, **options}):
        for name in sorted(batch):
            found.update(batch[name].tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_processes_give_the_same_bits(sets: Path, kind: str) -> None:
    batches = TrainBatches(opened(sets, kind), 10, 3, slice(0, 10))
    direct = hashlib.sha256()
    for step in range(4, 9):
        batch = batches[step]
        for name in sorted(batch):
            direct.update(batch[name].tobytes())
    assert digest(batches, range(4, 9), workers=4) == digest(batches, range(4, 9)) == direct.hexdigest()
    if kind in (
        "folder",
        "photographs",
    ):  # Each takes seconds to start; these two differ most in what is sent to them.
        assert digest(batches, range(4, 9), workers=2, processes=2) == direct.hexdigest()


def test_another_run_gives_the_same_bits(sets: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.data.test_encoded import *; "
        "print(digest(TrainBatches(opened(Path(sys.argv[1]), 'folder'), 10, 3, slice(0, 10)), range(4, 9)))"
    )
    command = [sys.executable, "-c", code, str(sets)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert run.stdout.split()[-1] == digest(
        TrainBatches(opened(sets, "folder"), 10, 3, slice(0, 10)), range(4, 9)
    )


def test_a_folder_and_what_was_prepared_of_it_give_the_same_batches(sets: Path) -> None:
    digests = [
        digest(TrainBatches(opened(sets, kind), 24, 0, slice(0, 24)), range(3))
        for kind in ("folder", "prepared", "raw")
    ]
    assert len(set(digests)) == 1


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_the_union_over_processes_is_the_batch_position_by_position(sets: Path, processes: int) -> None:
    source = opened(sets, "folder")
    whole = TrainBatches(source, 24, 1, slice(0, 24))[17]
    part = 24 // processes
    parts = [TrainBatches(source, 24, 1, slice(first, first + part))[17] for first in range(0, 24, part)]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([each[name] for each in parts]), values)


@pytest.mark.parametrize("batch_size", [8, 10])
def test_evaluation_sees_every_photograph_once(sets: Path, batch_size: int) -> None:
    source = opened(sets, "prepared", "validation")
    batches = list(EvaluationBatches(source, batch_size, slice(0, batch_size), workers=2))
    images = np.concatenate([batch["image"][batch["mask"]] for batch in batches])
    np.testing.assert_array_equal(images, source.read(range(12))[0])
    assert np.bincount(np.concatenate([batch["label"][batch["mask"]] for batch in batches])).tolist() == [
        4,
        4,
        4,
    ]


def test_the_names_val_and_validation_are_one(sets: Path) -> None:
    for kind in ("folder", "prepared"):
        assert len(opened(sets, kind, "val")) == len(opened(sets, kind, "validation")) == 12


def large(sets: Path, examples: int) -> DecodedSource:
    """Returns an index of many examples, which are 24 files again and again."""
    small = opened(sets, "folder")
    assert isinstance(small, DecodedSource)
    assert isinstance(small.examples, FolderExamples)
    files, labels = list(small.examples.files), list(small.examples.labels)
    times = -(-examples // len(files))
    return DECODING.source(
        FolderExamples(
            small.examples.root, small.class_names, (files * times)[:examples], (labels * times)[:examples]
        )
    )


def test_step_400000_of_imagenet_begins_as_soon_as_step_0(sets: Path) -> None:
    batches = TrainBatches(large(sets, 1_281_167), 256, 0, slice(0, 256))

    def seconds(step: int) -> float:
        began = time.process_time()
        batch = next(read_ahead(batches, step, 600_000, workers=1, buffer=1))
        assert batch["image"].shape == (256, 64, 64, 3)
        return time.process_time() - began

    first = min(seconds(step) for step in (0, 5_005))  # Of two epochs, whose orders are made anew.
    assert seconds(400_000) - first < 1


def resident() -> int:
    """Returns the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_memory_is_flat_over_20000_batches(sets: Path) -> None:
    batches = TrainBatches(large(sets, 1_281_167), 8, 0, slice(0, 8))
    sizes = []
    for number, _ in enumerate(read_ahead(batches, 0, 20_000, workers=2, buffer=4)):
        if number % 1000 == 999:
            sizes.append(resident())
    assert max(sizes[10:]) - max(sizes[2:10]) < 8e6
    assert max(sizes) - sizes[2] < 32e6


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A folder with two of 24 training images damaged, and one of 12 for testing."""
    write_folder(tmp_path, train=8, val=4)
    for name, content in {
        "train/china/0003.jpg": b"",
        "train/flower/0001.jpg": b"text",
        "val/negative/0009.jpg": b"\xff\xd8",
    }.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_corrupt_file_is_named_with_its_index(damaged: Path) -> None:
    source = open_source(str(damaged), "train", decoding=DECODING)
    batches = TrainBatches(source, 24, 0, slice(0, 24))
    with pytest.raises(
        DataError,
        match=r"train/(china/0003.jpg \(example 3\): the file is empty|flower/0001.jpg \(example 9\))",
    ):
        next(read_ahead(batches, 0, 1, workers=2, buffer=1))
    with pytest.raises(DataError, match=r"train/(china/0003|flower/0001).jpg"):
        next(read_ahead(batches, 0, 1, workers=2, buffer=1, processes=2))


def test_corrupt_files_are_left_out_counted_and_reported_once(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decoding = DecodeOptions(
        "scale", size=64, scales=(80, 120), areas=(0.1, 1.0), test_scale=72, corrupt="skip"
    )
    source = open_source(str(damaged), "train", decoding=decoding)
    assert isinstance(source, DecodedSource)
    batches = TrainBatches(source, 24, 0, slice(0, 24))
    labels = [batches[step]["label"] for step in range(2)]
    assert all(
        sorted(batch) == [0] * 8 + [1] * 8 + [2] * 8 for batch in labels
    )  # The next file of the class stands in.
    assert len(source.skipped) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[-1].startswith("resnet-jax: left out ")
    assert lines[-1].endswith("; 2 so far")
    test = open_source(str(damaged), "validation", decoding=decoding)
    evaluated = list(EvaluationBatches(test, 8, slice(0, 8)))
    assert sum(batch["mask"].sum() for batch in evaluated) == 11
    assert "val/negative/0009.jpg (example 9)" in capsys.readouterr().err


@pytest.mark.parametrize("labels", [None, (2, 0)])
def test_every_kind_of_source_keeps_one_protocol(sets: Path, labels: tuple[int, ...] | None) -> None:
    """What `read`, `labels`, `look` and `describe` say of an example agrees, for whole splits and for
    subsets."""
    fixed = [
        ArraySource(
            np.arange(144, dtype=np.uint8).reshape(6, 2, 4, 3), np.arange(6, dtype=np.int32) % 3, "abc"
        ),
        SyntheticSource(examples=7, image_size=4, classes=3, seed=1),
    ]
    for whole in [*fixed, *(opened(sets, kind) for kind in KINDS)]:
        source: Source = whole if labels is None else with_labels(whole, labels)
        images, found, mask = source.read(range(len(source)))
        assert images.shape == (len(source), *source.image_shape)
        assert mask.all()
        np.testing.assert_array_equal(source.labels, found)
        assert set(found) == set(range(len(source.class_names)))
        last, label = len(source) - 1, int(found[-1])
        view = source.view
        box = Box(0, 0, *source.image_shape[1::-1])
        seen = source.look(
            last,
            lambda width, height, view=view, box=box: [
                Sight(view.box(width, height) if view else box, *images.shape[1:3])  # noqa: B023
            ],
        )
        assert seen
        np.testing.assert_array_equal(seen[0], images[-1:])
        assert seen[1] == label
        assert source.describe(last) != source.describe(0)
        drawn, again, _ = source.read([last], draws(0, 0, 1))
        assert (drawn.shape[1:], again.tolist()) == (source.image_shape, [label])


def test_an_example_that_is_skipped_is_masked_replaced_or_refused(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skipping = dataclasses.replace(DECODING, corrupt="skip")
    whole = open_source(str(damaged), "train", decoding=skipping)
    for source, number in ((whole, 9), (with_labels(whole, (2, 1)), 1)):
        images, labels, mask = source.read([number, number + 1])
        assert mask.tolist() == [False, True]
        assert not images[0].any()
        assert labels.tolist() == [0, 1]
        assert source.look(number, lambda width, height: [Sight(Box(0, 0, width, height), 8, 8)]) is None
        with pytest.raises(DataError, match=r"flower/0001.jpg \(example 9\) cannot be decoded"):
            read_all(source, [number - 1, number])
        given = draws(0, 0, 2)
        replaced = read_decodable(source, [number, number + 1], given)
        for found, expected in zip(replaced, source.read([number + 1, number + 1], given), strict=False):
            np.testing.assert_array_equal(found, expected)
    capsys.readouterr()
    for name in ("china", "flower", "negative"):
        for file in (damaged / "train" / name).iterdir():
            file.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 24 images can be decoded"):
        read_decodable(open_source(str(damaged), "train", decoding=skipping), [3])

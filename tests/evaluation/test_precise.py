"""Precise statistics, against one pass over the training set in float64, on one device and on four.

And the file of them.
"""

import functools
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax import load_checkpoint
from resnet_jax.data.batches import TrainBatches
from resnet_jax.data.source import SyntheticSource
from resnet_jax.evaluation.evaluate import evaluate_checkpoint
from resnet_jax.evaluation.precise_statistics import measure_statistics, recompute_batch_statistics
from resnet_jax.evaluation.protocols import ProtocolError
from resnet_jax.evaluation.scoring import Scorer
from resnet_jax.models import ScannedStage
from resnet_jax.models.stacking import stack_blocks
from resnet_jax.parallel import create_mapping
from resnet_jax.training.checkpoints import CheckpointError
from tests.interop import workdirs

IMAGES, GROUP, BATCH = 46, 4, 16
"""The last batch is not full, and neither is its last group."""

NET = {"name": "cifar_resnet12", "stage_depths": [3, 1, 1], "width": 4, "num_classes": 7}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fields = {"batch_size": BATCH, "model__group_size": GROUP, "data__synthetic_examples": IMAGES}
    return workdirs.write(
        tmp_path_factory.mktemp("runs") / "run",
        NET,
        side=8,
        mean=workdirs.pixel_mean(8),
        steps=(4, 5),
        **fields,
    )


class Recorder(nn.Module):
    """Normalizes in groups, in NumPy's words, and records what it is given."""

    record: Callable[[str, jax.Array], None]
    group_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), x.dtype)
        self.record("/".join(self.path), x)
        parts = []
        for start in range(0, len(x), self.group_size):
            group = x[start : start + self.group_size]
            mean, variance = group.mean((0, 1, 2)), group.var((0, 1, 2))
            parts.append((group - mean) / np.sqrt(variance + 1e-5) * scale + bias)
        return np.concatenate(parts)


@functools.cache
def one_pass(workdir: Path, seed: int) -> dict[str, np.ndarray]:
    """Returns mean and variance of all inputs of every normalization, the whole set going through the net at
    once in float64."""
    source = SyntheticSource(examples=IMAGES, image_size=8, classes=7, seed=0)
    model, variables = load_checkpoint(str(workdir))
    order = TrainBatches(source, BATCH, seed, slice(0, BATCH)).examples_at(np.arange(len(source)))
    images = source.read(order)[0].astype(np.float64) - workdirs.pixel_mean(8)
    found: dict[str, np.ndarray] = {}

    def record(path: str, x: Any) -> None:
        values = np.asarray(x, np.float64)
        found[f"batch_stats/{path}/mean"], found[f"batch_stats/{path}/var"] = (
            values.mean((0, 1, 2)),
            values.var((0, 1, 2)),
        )

    def norm(*, name: str, **_: Any) -> Recorder:
        return Recorder(record, GROUP, name=name)

    params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    model.clone(norm=norm, dtype=np.float64).apply({"params": params}, images, train=True)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("devices", [1, 4])
def test_statistics_of_the_whole_set_equal_one_pass_in_float64(devices: int, workdir: Path) -> None:
    source = SyntheticSource(examples=IMAGES, image_size=8, classes=7, seed=0)
    expected = one_pass(workdir, seed=3)
    model, variables = load_checkpoint(str(workdir))
    net = Scorer(model, variables, workdirs.pixel_mean(8), create_mapping("auto", jax.devices()[:devices]))
    arguments: dict[str, Any] = {"images": IMAGES, "batch_size": BATCH, "group_size": GROUP, "seed": 3}
    found = measure_statistics(net, source, **arguments)
    assert found.keys() == expected.keys()
    assert len(found) == 2 * 11
    for name, array in found.items():
        np.testing.assert_allclose(
            array, expected[name], rtol=1e-5, atol=1e-5 * np.abs(expected[name]).max(), err_msg=name
        )
    if devices == 1:
        return
    looped = Scorer(model.clone(stage=ScannedStage), stack_blocks(variables), net.image_mean, net.mapping)
    again = measure_statistics(looped, source, **arguments)
    for name, array in found.items():
        np.testing.assert_allclose(again[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


def test_frozen_layers_keep_their_statistics(workdir: Path) -> None:
    source = SyntheticSource(examples=IMAGES, image_size=8, classes=7, seed=0)
    model, variables = load_checkpoint(str(workdir))
    net = Scorer(model, variables, workdirs.pixel_mean(8), create_mapping("auto", jax.devices()[:2]))
    measure = partial(measure_statistics, net, source, images=16, batch_size=16, group_size=4, seed=0)
    before = {
        f"batch_stats/{name}": array
        for name, array in flatten_dict(variables["batch_stats"], sep="/").items()
    }
    found = measure(frozen=("stem", "stage1"))
    for name, array in before.items():
        if name.startswith(("batch_stats/stem", "batch_stats/stage1")):
            np.testing.assert_allclose(found[name], array, rtol=1e-6, err_msg=name)
        else:
            assert not np.allclose(found[name], array, rtol=1e-3), name


@pytest.mark.slow
def test_they_are_stored_beside_the_moving_ones_and_evaluated_with(workdir: Path, tmp_path: Path) -> None:
    run = shutil.copytree(workdir, tmp_path / "run")
    moving = evaluate_checkpoint(run)
    done = recompute_batch_statistics(run)
    assert (done.step, done.images) == (5, IMAGES)
    assert evaluate_checkpoint(run) == moving
    precise = evaluate_checkpoint(run, statistics="precise")
    assert precise["loss"] != moving["loss"]
    assert (precise["statistics"], precise["statistics_images"]) == ("precise", IMAGES)

    (_, before), (_, after) = load_checkpoint(str(run)), load_checkpoint(str(run), statistics="precise")
    jax.tree.map(np.testing.assert_array_equal, before["params"], after["params"])
    with np.load(done.file) as stored:
        for name, array in flatten_dict(after["batch_stats"], sep="/").items():
            np.testing.assert_array_equal(array, stored[f"statistics/batch_stats/{name}"], err_msg=name)
            assert not np.allclose(array, flatten_dict(before["batch_stats"], sep="/")[name], rtol=1e-3), name

    with pytest.raises(
        CheckpointError, match=r"no precise statistics of step 4 in .*--step 4 --precise-bn IMAGES"
    ):
        load_checkpoint(str(run), 4, statistics="precise")
    with pytest.raises(CheckpointError, match="unknown statistics 'exact'; allowed are moving, precise"):
        load_checkpoint(str(run), statistics="exact")


def test_a_file_that_is_damaged_or_of_other_weights_is_refused(workdir: Path, tmp_path: Path) -> None:
    run = shutil.copytree(workdir, tmp_path / "run")
    file = Path(recompute_batch_statistics(run, images=8).file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    with pytest.raises(CheckpointError, match=r"5\.npz is damaged"):
        load_checkpoint(str(run), statistics="precise")
    file.write_bytes(whole)
    with np.load(file) as stored:
        altered = {name: stored[name] for name in stored.files}
    altered["statistics/batch_stats/stem/norm/mean"][0] += 1
    np.savez(file, **altered)
    with pytest.raises(CheckpointError, match="its checksum differs"):
        load_checkpoint(str(run), statistics="precise")
    file.with_name("4.npz").write_bytes(whole)
    with pytest.raises(CheckpointError, match="is of other weights than the checkpoint of step 4"):
        load_checkpoint(str(run), 4, statistics="precise")


@pytest.mark.parametrize("images", [-1, IMAGES + 1])
def test_more_images_than_there_are_is_a_mistake(images: int, workdir: Path) -> None:
    with pytest.raises(
        ProtocolError, match=f"statistics of {images} images are asked for; allowed are 1 to {IMAGES}"
    ):
        recompute_batch_statistics(workdir, images=images)


def test_a_net_without_normalization_has_none(tmp_path: Path) -> None:
    vgg = {"name": "vgg8", "stage_depths": [1, 1, 1, 1, 1], "width": 2, "hidden": 4, "num_classes": 3}
    run = workdirs.write(tmp_path / "run", vgg, side=32, data__synthetic_examples=8)
    with pytest.raises(ProtocolError, match="vgg8 has no batch normalization"):
        recompute_batch_statistics(run)

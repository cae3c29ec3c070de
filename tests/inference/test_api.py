"""`resnet_jax.load` is the trained network of a run, with the statistics that are asked for."""

from pathlib import Path

import numpy as np
import pytest

import resnet_jax
from resnet_jax.training.checkpoints import CheckpointError, read_checkpoint
from resnet_jax.training.stored_statistics import save_precise
from tests.interop import workdirs

MODEL = {"name": "cifar_resnet8", "num_classes": 3}


def test_load_gives_a_trained_network_of_a_step(tmp_path: Path) -> None:
    workdir = workdirs.write(tmp_path / "run", MODEL, side=8, steps=(4, 9))
    trained = resnet_jax.load(workdir)
    assert isinstance(trained, resnet_jax.Trained)
    assert (trained.step, resnet_jax.load(workdir, 4).step) == (9, 4)
    assert trained.config.data.synthetic_image_size == 8
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    model, variables = resnet_jax.load_checkpoint(workdir)
    expected = model.apply(variables, images - workdirs.RGB_MEAN)
    np.testing.assert_allclose(trained.logits(images), expected, rtol=1e-4, atol=1e-4)


def test_load_takes_recomputed_statistics(tmp_path: Path) -> None:
    workdir = workdirs.write(tmp_path / "run", MODEL, side=8)
    with pytest.raises(CheckpointError, match="there are no precise statistics"):
        resnet_jax.load(workdir, statistics="precise")
    checkpoint = read_checkpoint(workdir)
    doubled = {
        name: 2 * array for name, array in checkpoint.arrays.items() if name.startswith("batch_stats/")
    }
    save_precise(workdir, checkpoint, doubled, images=5)
    moving, precise = (
        resnet_jax.load(workdir, statistics=kind).variables["batch_stats"] for kind in ("moving", "precise")
    )
    mean = moving["stem"]["norm"]["mean"]
    np.testing.assert_array_equal(precise["stem"]["norm"]["mean"], 2 * mean)

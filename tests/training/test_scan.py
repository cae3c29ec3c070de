"""A run goes on under another layout of the blocks, on the same curve; deep nets train.

The step is compiled once.
"""

from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax.models import create_model
from resnet_jax.models.stacking import is_stacked
from resnet_jax.training.checkpoints import from_arrays, read_checkpoint, to_arrays
from resnet_jax.training.config import resolve
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.logging import read_metrics
from resnet_jax.training.network import with_scanned_stages
from resnet_jax.training.task import build_experiment
from tests.training.runs import train
from tests.training.tiny import PATH, get_config

DEEP = ["--config.model.name=cifar_resnet20", "--config.model.dtype=float64", "--config.run.keep=5"]


def losses(workdir: Path, *arguments: str) -> list[float]:
    assert train([f"--config={PATH}", f"--workdir={workdir}", *DEEP, *arguments]) == 0
    return [record["loss"] for record in read_metrics(workdir)]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_run_goes_on_with_its_blocks_stacked_and_back_on_the_same_curve(tmp_path: Path) -> None:
    undisturbed = losses(tmp_path / "one", "--config.run.steps=9")
    losses(tmp_path / "other", "--config.run.steps=3", "--config.run.scan=no")
    losses(tmp_path / "other", "--config.run.steps=6", "--config.run.remat=1")
    disturbed = losses(tmp_path / "other", "--config.run.steps=9", "--config.run.scan=auto")
    np.testing.assert_allclose(disturbed, undisturbed, rtol=1e-9)
    assert not is_stacked(read_checkpoint(tmp_path / "other", 6).arrays)


def test_a_whole_state_is_converted_without_loss() -> None:
    states = {}
    for scan in ("yes", "no"):
        config = get_config(**{"model.name": "cifar_resnet20", "run.scan": scan})
        states[scan] = build_experiment(resolve(config)).initial_state()
    stacked, unrolled = (to_arrays(states[scan]) for scan in ("yes", "no"))
    assert is_stacked(stacked)
    assert not is_stacked(unrolled)
    for template, arrays in (("yes", unrolled), ("no", stacked)):
        converted = from_arrays(states[template], arrays)
        jax.tree.map(np.testing.assert_array_equal, converted, states[template])


def test_the_steps_of_training_and_of_evaluation_are_compiled_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with jax.log_compiles():
        assert (
            train(
                [
                    f"--config={PATH}",
                    f"--workdir={tmp_path}",
                    "--config.run.steps=6",
                    "--config.model.group_size=8",
                ]
            )
            == 0
        )
    compiled = [
        record.getMessage() for record in caplog.records if "Finished XLA compilation" in record.getMessage()
    ]
    assert len([text for text in compiled if "jit(_fun)" in text]) == 2, (
        compiled
    )  # This is what pmap calls the steps of training and of evaluation.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.name": "vgg16", "run.scan": "yes"}, "scan and remat are for nets of blocks"),
        ({"run.remat": 2, "run.scan": "no"}, "leave one out"),
        ({"run.remat": 2, "optimizer.frozen": ("stem",)}, "fine-tuning tells apart"),
        ({"run.scan": "maybe"}, "must be one of auto, yes, no"),
        ({"run.remat": -1}, "must be a number above 0"),
    ],
)
def test_what_cannot_be_scanned_is_said(fields, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        build_experiment(resolve(get_config(**{"data.synthetic_image_size": 32, **fields})))


@pytest.mark.parametrize(
    ("name", "fields", "scanned"),
    [
        ("cifar_resnet50", {}, False),
        ("cifar_resnet56", {}, True),
        ("cifar_resnet56", {"run.scan": "no"}, False),
        ("cifar_resnet56", {"optimizer.frozen": ("stem",)}, False),
        ("cifar_resnet20", {"run.scan": "yes"}, True),
        ("cifar_resnet20", {"run.remat": 1}, True),
        ("vgg16", {}, False),
    ],
)
def test_which_nets_are_scanned(name, fields, scanned) -> None:  # type: ignore[no-untyped-def]
    assert with_scanned_stages(create_model(name), get_config(**fields)).scanned is scanned


@pytest.mark.slow
def test_1202_layers_take_ten_steps_on_one_batch_and_learn(tmp_path: Path) -> None:
    """At a tenth of the recipe's warm-up rate.

    600 blocks add up, the first loss is 27, and at 0.01 it rises.
    """
    arguments = [
        "--config=digits_resnet20",
        "--config.model.name=cifar_resnet1202",
        "--config.batch_size=32",
        "--config.run.steps=10",
    ]
    arguments += [
        "--config.data.train_split=train[:32]",
        "--config.data.pad=0",
        "--config.optimizer.learning_rate=0.001",
    ]
    assert (
        train(
            [*arguments, "--config.run.remat=14", "--config.run.evaluate_every=100", f"--workdir={tmp_path}"]
        )
        == 0
    )
    values = [record["loss"] for record in read_metrics(tmp_path)]
    assert max(values[-3:]) < min(values[:3]), values

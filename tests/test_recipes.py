"""Golden files of every recipe.

The whole of its fields, and of every parameter whether it decays and how it begins.

A change of a recipe is a change of these files. `python -m tests.test_recipes` writes them anew.
"""

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax import create_model
from resnet_jax.models import default_image_size
from resnet_jax.training.config import to_json
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.factories import build_optimizer
from resnet_jax.training.recipes import load_recipe, recipe_name, recipes

GOLDEN = Path(__file__).parent / "golden" / "recipes"
SPECS = [
    "digits_resnet20",
    "cifar10",
    "cifar10:resnet110",
    "cifar10:plain20,cifar100,validation",
    "imagenet:resnet50",
    "imagenet:plain18",
    "imagenet_pod",
    "finetune",
    "folder",
    "faster_rcnn:backbone",
]
LARGE = ("imagenet:resnet50", "imagenet:plain18", "imagenet_pod")


def describe(spec: str) -> dict[str, Any]:
    """Returns the fields of a recipe, and for each of its parameters the decay and the initial
    distribution."""
    config = load_recipe(spec)
    model = create_model(
        config.model.name, group_size=config.model.group_size, variants=config.model.variants
    )
    size = 16 if config.data.source == "digits" else default_image_size(config.model.name)
    params = model.lazy_init(jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))[
        "params"
    ]
    _, optimizer = build_optimizer(config.optimizer)
    ones = jax.tree.map(lambda array: jnp.ones((1,) * array.ndim), params)  # Few shapes compile fast.
    nothing = jax.tree.map(jnp.zeros_like, ones)
    updates, _ = optimizer.update(nothing, optimizer.init(ones), ones, value=jnp.float32(1))
    moved = flatten_dict(updates, sep="/")
    return {
        "config": to_json(config),
        "params": {
            name: ("decayed" if float(jnp.abs(moved[name]).max()) > 0 else "not decayed")
            + f", {distribution(np.asarray(value))}"
            for name, value in flatten_dict(params, sep="/").items()
        },
    }


def distribution(values: np.ndarray) -> str:
    """Names how initial values are distributed, judged by the values."""
    for number, name in ((0, "zeros"), (1, "ones")):
        if (values == number).all():
            return name
    fan_in = math.prod(values.shape[:-1])
    ratio = values.var() * fan_in / 2
    assert abs(values.mean()) < 6 * values.std() / math.sqrt(values.size)
    # The variance of n normal values is right to sqrt(2 / n).
    within = abs(ratio - 1) < 6 * math.sqrt(2 / values.size)
    return f"normal of variance 2/{fan_in}" if within else f"variance {values.var():.3g} at fan {fan_in}"


def path(spec: str) -> Path:
    return GOLDEN / f"{recipe_name(spec).replace(',', '_')}.json"


@pytest.mark.parametrize("spec", SPECS)
def test_the_fields_of_the_recipe_are_what_they_were(spec: str) -> None:
    assert to_json(load_recipe(spec)) == json.loads(path(spec).read_text())["config"], (
        "if this is meant: python -m tests.test_recipes"
    )


@pytest.mark.parametrize(
    "spec", [pytest.param(spec, marks=pytest.mark.slow if spec in LARGE else ()) for spec in SPECS]
)
def test_the_recipe_is_what_it_was(spec: str) -> None:
    assert describe(spec) == json.loads(path(spec).read_text()), (
        "if this is meant: python -m tests.test_recipes"
    )


def test_a_workdir_is_named_after_its_recipe_and_the_end_of_a_path() -> None:
    names = [
        recipe_name(spec)
        for spec in ("my/own.py", "cifar10:resnet56,cifar100", "finetune:gs://bucket/runs/a/")
    ]
    assert names == ["own", "cifar10_resnet56,cifar100", "finetune_a"]


def test_every_recipe_has_a_golden_file() -> None:
    assert {spec.partition(":")[0] for spec in SPECS} == set(recipes())


def test_the_cifar_recipe_is_the_papers() -> None:
    config = load_recipe("cifar10:resnet110")
    assert (config.batch_size, config.model.group_size, config.run.steps) == (128, 64, 64_000)
    assert config.optimizer.boundaries == (32_000, 48_000)
    assert (config.optimizer.warmup_until_error, config.optimizer.warmup_rate) == (0.8, 0.01)
    assert load_recipe("cifar10:resnet1202").optimizer.warmup_until_error is None
    validation = load_recipe("cifar10:validation")
    assert (validation.data.train_split, validation.data.test_split) == ("train[:45000]", "train[45000:]")


@pytest.mark.parametrize(
    ("spec", "message"), [("cifar10:resnext20", "unknown 'resnext20'"), ("cifar10:mnist", "unknown 'mnist'")]
)
def test_an_argument_that_means_nothing_is_named(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(spec)


def test_a_recipe_file_from_before_typed_configs_loads(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from ml_collections import ConfigDict\n"
        "from resnet_jax.training.config import base_config\n"
        "def get_config(net: str = 'cifar_resnet8') -> ConfigDict:\n"
        "    config = base_config()\n"
        "    config.model.name, config.model.shortcut, config.model.group_size = net, '', 0\n"
        "    config['optimizer']['boundaries'] = [3, 4]\n"
        "    config.optimizer.update({'gradient_clip': 0.0, 'momentum': 0})\n"
        "    config.update_from_flattened_dict({'run.devices': 0, 'run.steps': 5})\n"
        "    return config\n"
    )
    config = load_recipe(f"{tmp_path / 'mine.py'}:cifar_resnet14", [("seed", "3")])
    assert (config.model.name, config.model.shortcut, config.model.group_size) == (
        "cifar_resnet14",
        None,
        None,
    )
    assert (config.optimizer.boundaries, config.optimizer.gradient_clip) == ((3, 4), None)
    assert (config.optimizer.momentum, config.run.devices, config.seed) == (0.0, None, 3)


def test_decay_at_boundaries_and_on_a_plateau_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="boundaries and a plateau_patience"):
        load_recipe("cifar10", [("optimizer.plateau_patience", "3")])
    with pytest.raises(ConfigError, match="warmup_steps and warmup_until_error"):
        load_recipe("cifar10:resnet110", [("optimizer.warmup_steps", "3")])


def test_the_optimiser_of_a_recipe_is_that_of_its_fields() -> None:
    schedule, optimizer = build_optimizer(load_recipe("cifar10").optimizer)
    assert [float(schedule(jnp.asarray(step))) for step in (0, 32_000, 48_000)] == pytest.approx(
        [0.1, 0.01, 0.001]
    )
    params = {"kernel": jnp.ones(1)}
    updates, _ = optimizer.update(
        {"kernel": jnp.ones(1)}, optimizer.init(params), params, value=jnp.float32(1)
    )
    assert float(optax.apply_updates(params, updates)["kernel"][0]) == pytest.approx(1 - 0.1 * (1 + 1e-4))


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for each in SPECS:
        path(each).write_text(json.dumps(describe(each), indent=1, sort_keys=True) + "\n")

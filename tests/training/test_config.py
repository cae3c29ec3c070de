"""Fields are typed, checked, and either recipe or operation."""

import pytest
from ml_collections import ConfigDict

from resnet_jax.training.config import ConfigError, base_config, recipe_differences, resolve, to_json
from resnet_jax.training.workdir import WorkdirError, occupy, read_config, store_config
from tests.training.tiny import get_config


def test_a_config_may_leave_fields_out() -> None:
    config = resolve(ConfigDict({"seed": 3, "optimizer": {"learning_rate": 1}}))
    assert (config.seed, config.optimizer.learning_rate, config.run.steps) == (
        3,
        1.0,
        base_config().run.steps,
    )


def test_the_json_of_a_config_resolves_to_it() -> None:
    config = resolve(get_config())
    assert resolve(ConfigDict(to_json(config))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "config.batch_size is 0; it must be a number above 0"),
        ({"seed": -1}, "config.seed is -1; it must be 0 or more"),
        (
            {"optimizer.momentum": 1.0},
            "config.optimizer.momentum is 1.0; it must be 0 or more and less than 1",
        ),
        (
            {"model.dtype": "float16"},
            "config.model.dtype is 'float16'; it must be one of float32, bfloat16, float64",
        ),
        ({"data.mean": "image"}, "config.data.mean is 'image'; it must be one of pixel, channel"),
        (
            {"optimizer.boundaries": (20, 10)},
            r"config.optimizer.boundaries is \(20, 10\); it must be rising steps above 0",
        ),
        ({"optimizer.decayed": "none"}, "must be one of all, kernels"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(get_config(**changes))


@pytest.mark.parametrize("fields", [{"steps": 3}, {"run": {"step": 3}}, {"seed": "three"}, {"run": 3}])
def test_fields_that_do_not_exist_or_of_another_type_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        resolve(ConfigDict(fields))


def test_only_the_recipe_is_compared() -> None:
    old = to_json(get_config())
    assert recipe_differences(old, to_json(get_config(**{"run.steps": 9, "run.mapping": "pmap"}))) == []
    new = to_json(get_config(seed=4, **{"optimizer.boundaries": (1, 2), "run.keep": 7}))
    assert recipe_differences(old, new) == ["optimizer.boundaries: [30, 45] -> [1, 2]", "seed: 0 -> 4"]


def test_a_workdir_keeps_one_recipe(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with occupy(tmp_path / "run") as workdir:
        store_config(workdir, to_json(get_config()))
        store_config(workdir, to_json(get_config(**{"run.steps": 9})))
        assert read_config(workdir)["run"]["steps"] == 9
        with pytest.raises(WorkdirError, match="holds a run of another recipe: seed: 0 -> 4; choose another"):
            store_config(workdir, to_json(get_config(seed=4)))
        assert read_config(workdir)["seed"] == 0

"""Fields are typed, checked, and either recipe or operation."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from resnet_jax.training.config import (
    Config,
    all_fields,
    base_config,
    flat_fields,
    from_json,
    mutable_copy,
    recipe_differences,
    resolve,
    to_json,
    with_fields,
    with_overrides,
)
from resnet_jax.training.config_fields import ConfigError
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
    assert resolve(ConfigDict(to_json(config))) == from_json(to_json(config)) == config


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
        ({"optimizer.decay_mask": "none"}, "must be one of all, kernels"),
        ({"data.scales": (256,)}, r"config.data.scales is \(256,\); it must be a list such as \(256, 480\)"),
        ({"data.labels": ("cat",)}, "it must be a list such as .*, or None"),
        ({"optimizer.momentum": None}, "config.optimizer.momentum is None; it must be a number"),
        ({"run.profile": "10"}, "it must be the first and the last step, such as 10-15"),
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
    old = resolve(get_config())
    assert recipe_differences(old, get_config(**{"run.steps": 9, "run.mapping": "pmap"})) == []
    new = get_config(seed=4, **{"optimizer.boundaries": (1, 2), "run.keep": 7})
    assert recipe_differences(old, new) == ["optimizer.boundaries: (30, 45) -> (1, 2)", "seed: 0 -> 4"]


def test_a_resolved_config_is_frozen_and_its_copies_are_not() -> None:
    config = resolve(get_config())
    for assign in (
        lambda: setattr(config, "seed", 1),
        lambda: setattr(config.run, "steps", 1),
        lambda: config.update({"run": {"steps": 1}}),
        lambda: config.data.__setitem__("pad", 3),
    ):
        with pytest.raises(ConfigError, match="a resolved config is frozen"):
            assign()
    copy = mutable_copy(config)
    copy.run.steps = 5
    assert with_fields(config, {"run.steps": 5}) == resolve(copy) != config
    assert config.run.steps == 60


def test_a_section_may_be_assigned_whole() -> None:
    config, other = base_config(), resolve(get_config())
    config.model = other.model
    config.model.name = "resnet18"
    assert (config.model.group_size, other.model.name) == (4, "cifar_resnet8")


@pytest.mark.parametrize("empty", ["", 0, 0.0, (), []])
def test_empty_values_of_format_1_mean_none(empty: object) -> None:
    for field in all_fields().values():
        if field.optional:
            assert flat_fields(with_fields(base_config(), {field.path: empty}))[field.path] is None


OLD = {
    "data": {"colour": "imagenet", "colour_deviation": 0.2, "crop": "centre"},
    "initial": {"workdir": "runs/a"},
    "images": {"resize": 40, "crop": 32, "class_names": ["a", "b"]},
    "optimizer": {"decayed": "kernels"},
}


def test_a_stored_config_of_format_1_is_read_with_the_names_of_today() -> None:
    config = from_json(OLD)
    data, inference = config.data, config.inference
    assert (data.color, data.color_deviation, data.crop) == ("imagenet", 0.2, "center")
    assert (inference.resize, inference.crop, inference.class_names) == (40, 32, ("a", "b"))
    assert (config.initial.source, config.optimizer.decay_mask) == ("runs/a", "kernels")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.colour", "imagenet", "config.data.colour is now config.data.color"),
        ("initial.workdir", "runs/a", "config.initial.workdir is now config.initial.source"),
        ("images.resize", 40, "config.images(.resize)? is now config.inference"),
        ("optimizer.decayed", "all", "config.optimizer.decayed is now config.optimizer.decay_mask"),
        ("data.crop", "centre", "config.data.crop 'centre' is now 'center'"),
        ("optimizer.learning_rates", 1.0, "config.optimizer.learning_rates does not exist; did you mean"),
    ],
)
def test_an_old_or_mistyped_name_is_answered_with_the_new_one(path: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        base_config().update_from_flattened_dict({path: value})
    with pytest.raises(ConfigError, match=message):
        with_overrides(resolve(base_config()), [(path, str(value))])


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("optimizer.boundaries", "(40,)", (40,)),
        ("optimizer.boundaries", "[40, 50]", (40, 50)),
        ("optimizer.learning_rate", "1", 1.0),
        ("model.shortcut", "B", "B"),
        ("model.shortcut", "None", None),
        ("run.devices", "None", None),
        ("run.devices", "0", None),
        ("run.tensorboard", "false", False),
        ("data.labels", "(3,1)", (3, 1)),
        ("model.variants", '("stochastic_depth:0.8",)', ("stochastic_depth:0.8",)),
    ],
)
def test_text_is_a_python_literal_or_a_bare_word(path: str, text: str, value: object) -> None:
    assert flat_fields(with_overrides(resolve(base_config()), [(path, text)]))[path] == value


def test_every_field_says_what_it_is() -> None:
    for field in all_fields().values():
        assert field.meaning.endswith((".", ")")), field.path
        assert field.type_text
    kinds = {path.partition(".")[0] for path, field in all_fields().items() if field.kind == "operation"}
    assert kinds == {"run"}
    assert {field.name for field in dataclasses.fields(Config)} >= {"seed", "task", "model"}


def test_a_workdir_keeps_one_recipe_once_it_holds_a_checkpoint(tmp_path) -> None:
    with occupy(tmp_path / "run") as workdir:
        store_config(workdir, resolve(get_config(seed=7)))
        store_config(workdir, resolve(get_config()))
        assert read_config(workdir).seed == 0
        (workdir / "checkpoints" / "7").mkdir(parents=True)
        store_config(workdir, resolve(get_config(**{"run.steps": 9})))
        assert read_config(workdir).run.steps == 9
        with pytest.raises(WorkdirError, match="holds a run of another recipe: seed: 0 -> 4; choose another"):
            store_config(workdir, resolve(get_config(seed=4)))
        assert read_config(workdir).seed == 0

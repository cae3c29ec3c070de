"""`import resnet_jax as rj` is enough to train, look and predict."""

import doctest
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import PIL.Image
import pytest
from safetensors.numpy import save_file

import resnet_jax as rj
from resnet_jax.data.augment import pad_crop_mirror
from tests.interop.test_real_files import cifar
from tests.training import tiny


def test_every_public_name_is_there_and_documented() -> None:
    for name in rj.__all__:
        found = getattr(rj, name)
        assert found is not None
        assert name == "__version__" or found.__doc__
    assert set(rj.__all__) <= set(dir(rj))


SHORT = {"run.steps": 1, "run.devices": 1, "model.name": "cifar_resnet8", "run.evaluate_every": 1}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the examples of the docstrings may use, in a directory with a run, pictures and weights."""
    root = tmp_path_factory.mktemp("examples")
    rj.train("digits_resnet20", root / "runs" / "digits_resnet20", SHORT, quiet=True)
    for name in ("seven.png", "two.png"):
        PIL.Image.fromarray(np.zeros((16, 16), np.uint8)).save(root / name)
    save_file(cifar(), root / "resnet50.pth")
    model = rj.create_model("cifar_resnet8", num_classes=10)
    optimizer = rj.sgd(0.1)
    state = rj.create_state(
        model, optimizer, seed=0, image_shape=(16, 16, 3), image_mean=np.zeros(3, np.float32)
    )
    pixels = np.zeros((4, 16, 16, 3), np.uint8)
    numbers = jnp.arange(4, dtype=jnp.int32)
    return {
        **{name: getattr(rj, name) for name in rj.__all__},
        "jax": jax,
        "jnp": jnp,
        "np": np,
        "resnet_jax": rj,
        "root": root,
        "model": model,
        "ScannedStage": rj.models.ScannedStage,
        "optimizer": optimizer,
        "state": state,
        "train": lambda recipe, workdir, _: rj.train(recipe, workdir, SHORT, quiet=True),
        "variables": state.variables,
        "images": pixels,
        "augment": pad_crop_mirror(pad=0, mirror=False),
        "schedule": rj.step_decay(0.1, boundaries=(3,)),
        "batch": {"image": pixels, "label": numbers, "index": numbers, "mask": jnp.ones(4, bool)},
    }


@pytest.mark.parametrize("name", sorted(set(rj.__all__) - {"__version__", "analysis"}))
def test_the_example_of_every_public_name_runs(
    name: str, names: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(names["root"]))
    examples = doctest.DocTestParser().get_examples(getattr(rj, name).__doc__ or "")
    assert examples
    namespace = dict(names)
    for example in examples:
        exec(compile(example.source, f"the docstring of {name}", "single"), namespace)


def test_importing_is_quick_and_loads_no_library() -> None:
    code = "import sys, resnet_jax; print(resnet_jax.__version__); "
    code += "assert not {'jax', 'numpy', 'flax'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == rj.__version__


def test_networks_are_listed_by_pattern() -> None:
    assert rj.list_models("*50*") == ["resnet50"]
    assert rj.list_models("vgg??") == ["vgg16", "vgg19"]
    assert "cifar_resnet20" in rj.list_models()


@pytest.mark.parametrize("classes", ["10", 10.0, True, 0])
def test_a_wrong_number_of_classes_is_named(classes: object) -> None:
    with pytest.raises(rj.models.ModelError, match="num_classes"):
        rj.create_model("cifar_resnet8", num_classes=classes)  # type: ignore[arg-type]


def test_one_variant_may_be_given_as_a_word() -> None:
    models = [
        rj.create_model("cifar_resnet8", variants=word) for word in ("preactivation", ("preactivation",))
    ]
    images = jnp.zeros((1, 8, 8, 3))
    one, other = (jax.eval_shape(model.init, jax.random.key(0), images) for model in models)
    assert one == other


def test_a_recipe_is_trained_resumed_and_loaded(tmp_path: Path) -> None:
    overrides = {"run.steps": 2, "run.devices": 1}
    result = rj.train(str(tiny.PATH), tmp_path / "run", overrides, quiet=True)
    assert isinstance(result, rj.Result)
    assert [record["step"] for record in result.history] == [1, 2]
    assert 0 <= result.metrics["test_top1"] <= 1
    again = rj.train(str(tiny.PATH), tmp_path / "run", overrides | {"run.steps": 3}, quiet=True)
    assert again.metrics["step"] == 3
    trained = rj.load(again.workdir)
    assert trained.logits(np.zeros((2, 8, 8, 3), np.uint8)).shape == (2, 7)


@pytest.mark.slow
def test_the_parts_make_a_loop_of_ones_own() -> None:
    model = rj.create_model("cifar_resnet8", num_classes=3, width=4)
    optimizer = rj.sgd(0.05)
    state = rj.create_state(
        model, optimizer, seed=0, image_shape=(8, 8, 3), image_mean=np.zeros(3, np.float32)
    )
    assert isinstance(state, rj.TrainState)
    step = jax.jit(
        rj.make_train_step(
            model,
            optimizer,
            pad_crop_mirror(pad=0, mirror=False),
            schedule=optax.constant_schedule(0.05),
            seed=0,
        )
    )
    draw = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(draw.integers(0, 256, (6, 8, 8, 3), np.uint8)),
        "label": jnp.arange(6, dtype=jnp.int32) % 3,
        "index": jnp.arange(6, dtype=jnp.int32),
        "mask": jnp.ones(6, bool),
    }
    losses = []
    for _ in range(8):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]

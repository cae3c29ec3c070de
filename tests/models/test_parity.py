"""The nets compute what an independent implementation in PyTorch computes: logits, statistics and gradients.

Against golden files that PyTorch wrote (make_golden.py), and where torch is installed against PyTorch itself,
array by array. Float32 gradients of deep nets are ill-conditioned, so gradients are compared in float64.
"""

from functools import cache
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from resnet_jax.models import create_model
from tests.models.parity import CASES, GOLDEN, NUM_CLASSES, Arrays, Results, digest, draw, images_and_labels

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
MODULES = {
    "stem": "",
    "head": "fc",
    "conv": "conv1",
    "norm": "bn1",
    "projection": "downsample.0",
    "projection_norm": "downsample.1",
}


def quick_for(*names: str) -> list:
    """All cases, with all but those names marked slow."""
    return [pytest.param(name, marks=() if name in names else pytest.mark.slow) for name in CASES]


FORWARD_CASES = quick_for(*CASES.keys() - {"resnet14"})
GRADIENT_CASES = quick_for("resnet14", "cifar_resnet20")


def torch_name(path: tuple[str, ...]) -> str:
    """Returns the name in PyTorch of a path such as ("stage2", "block1", "norm1", "scale")."""
    *modules, leaf = path
    parts = []
    for module in modules:
        if module.startswith("block"):
            parts.append(str(int(module.removeprefix("block")) - 1))
        else:
            parts.append(MODULES.get(module, module.replace("stage", "layer").replace("norm", "bn")))
    return ".".join(part for part in [*parts, LEAVES[leaf]] if part)


def torch_layout(array: np.ndarray) -> np.ndarray:
    """HWIO → OIHW, and [in, out] → [out, in]."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def torch_arrays(tree: dict) -> Arrays:
    return {torch_name(path): torch_layout(np.asarray(array)) for path, array in flatten_dict(tree).items()}


def drawn_variables(shapes: dict) -> dict:
    drawn = {}
    for path, array in flatten_dict(shapes).items():
        values = draw(torch_name(path[1:]), torch_layout(np.empty(array.shape)).shape)
        drawn[path] = values.transpose(2, 3, 1, 0) if values.ndim == 4 else values.T
    return unflatten_dict(drawn)


@cache
def run_ours(name: str, *, gradients: bool) -> Results:
    """Returns what our net computes for a case: in float32, or with gradients in float64."""
    case = CASES[name]
    with jax.enable_x64(gradients):
        dtype = jnp.float64 if gradients else jnp.float32
        model = create_model(
            case.model, num_classes=NUM_CLASSES, dtype=dtype, variance="unbiased", **case.overrides
        )
        images, labels = images_and_labels(name, case)
        images = jnp.asarray(images, dtype)
        shapes = jax.eval_shape(model.init, jax.random.key(0), images)
        variables = jax.tree.map(lambda array: jnp.asarray(array, dtype), drawn_variables(shapes))

        def train(params, batch_stats):
            logits, updated = model.apply(
                {"params": params, "batch_stats": batch_stats}, images, train=True, mutable=["batch_stats"]
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, (logits, updated["batch_stats"])

        @jax.jit
        def compute(variables):
            eval_logits = model.apply(variables, images)
            if gradients:
                grads, (logits, statistics) = jax.grad(train, has_aux=True)(
                    variables["params"], variables["batch_stats"]
                )
                return eval_logits, logits, statistics, grads
            return eval_logits, *train(variables["params"], variables["batch_stats"])[1], {}

        eval_logits, train_logits, statistics, grads = jax.device_get(compute(variables))
        assert eval_logits.dtype == dtype
        return Results(eval_logits, train_logits, torch_arrays(statistics), torch_arrays(grads))


@cache
def run_torch(name: str, dtype: str) -> Results:
    import torch

    from tests.models.make_golden import run_reference

    return run_reference(name, getattr(torch, dtype))


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """In norm, and element by element against the largest."""
    assert actual.shape == expected.shape
    assert np.linalg.norm(actual - expected) <= tolerance * np.linalg.norm(expected)
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def assert_all_close(actual: Arrays, expected: Arrays, tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    for name in expected:
        assert actual[name].shape == expected[name].shape, name
        error = np.linalg.norm(actual[name] - expected[name]) / np.linalg.norm(expected[name])
        assert error <= tolerance, f"{name} differs by {error:.1e} in norm"


def assert_digest(arrays: Arrays, golden: dict, kind: str, tolerance: float) -> None:
    names, rows = digest(arrays)
    assert names == golden[f"{kind}_names"].tolist()
    errors = np.abs(rows - golden[kind]).max(1) / golden[kind][:, 0]
    assert errors.max() <= tolerance, (
        f"{names[errors.argmax()]} differs by {errors.max():.1e} in norm or direction"
    )


@pytest.mark.parametrize("name", FORWARD_CASES)
def test_logits_and_statistics_equal_the_golden_ones(name):
    golden, ours = np.load(GOLDEN / f"{name}.npz"), run_ours(name, gradients=False)
    assert_close(ours.eval_logits, golden["eval_logits"], 1e-4)
    assert_close(ours.train_logits, golden["train_logits"], 1e-4)
    assert_digest(ours.statistics, golden, "statistics", 1e-4)


@pytest.mark.parametrize("name", GRADIENT_CASES)
def test_float64_gradients_equal_the_golden_ones(name):
    golden, ours = np.load(GOLDEN / f"{name}.npz"), run_ours(name, gradients=True)
    assert_close(ours.train_logits, golden["train_logits"], 1e-10)
    assert_digest(ours.statistics, golden, "statistics", 1e-10)
    assert_digest(ours.gradients, golden, "gradients", 1e-8)


@needs_torch
@pytest.mark.parametrize("name", FORWARD_CASES)
def test_logits_and_statistics_equal_those_of_torch(name):
    theirs, ours = run_torch(name, "float32"), run_ours(name, gradients=False)
    assert_close(ours.eval_logits, theirs.eval_logits, 1e-4)
    assert_close(ours.train_logits, theirs.train_logits, 1e-4)
    assert_all_close(ours.statistics, theirs.statistics, 1e-4)


@needs_torch
@pytest.mark.parametrize("name", GRADIENT_CASES)
def test_float64_gradients_equal_those_of_torch(name):
    theirs, ours = run_torch(name, "float64"), run_ours(name, gradients=True)
    assert_all_close(ours.gradients, theirs.gradients, 1e-8)


def test_the_weights_of_a_case_are_far_from_their_initial_values():
    assert np.abs(draw("bn1.weight", (64,)) - 1).max() > 0.4
    assert np.abs(draw("bn1.running_mean", (64,))).max() > 1

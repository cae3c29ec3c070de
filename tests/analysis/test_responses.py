"""Responses against direct captures: the same forward pass written out with the layers in NumPy."""

from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax import create_model, stack_blocks
from resnet_jax.analysis import analyze_checkpoint, analyze_run, gradient_norms, measure_responses
from resnet_jax.data.datasets import open_source
from resnet_jax.models import ScannedStage
from resnet_jax.training.checkpoints import read_checkpoint
from resnet_jax.training.run import run
from tests.models.numpy_reference import convolution, normalization, randomised, relu
from tests.training import tiny

WIDTH = 4


def net(name: str, **options: object) -> tuple[object, dict]:
    """Returns a small net of the CIFAR family with variables far from the initial ones."""
    model = create_model(name, num_classes=5, width=WIDTH, **options)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    return model, randomised(variables, seed=1)


def images(count: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, side, side, 3)).astype(np.float32)


def captured(model: nn.Module, variables: dict, x: np.ndarray) -> dict:
    """Returns what every module of a net gives."""
    apply = jax.jit(partial(model.apply, capture_intermediates=True, mutable=["intermediates"]))
    return jax.device_get(apply(variables, x)[1]["intermediates"])


def forward(variables: dict, x: np.ndarray, *, residual: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the deviation of every layer and the distance of every block, of a net of basic blocks with
    shortcut A or none."""
    params, statistics = variables["params"], variables["batch_stats"]
    deviations, distances = {}, {}

    def layer(path: str, norm: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
        *parents, name = path.split("/")
        kernels, means = params, statistics
        for parent in parents:
            kernels, means = kernels[parent], means[parent]
        y = normalization(convolution(x, kernels[name]["kernel"], stride), kernels[norm], means[norm])
        deviations[path] = y.std()
        return y

    x = relu(layer("stem/conv", "norm", x.astype(np.float64)))
    for stage in sorted(name for name in params if name.startswith("stage")):
        for number in range(1, len(params[stage]) + 1):
            stride = 2 if number == 1 and stage != "stage1" else 1
            path = f"{stage}/block{number}"
            y = layer(f"{path}/conv2", "norm2", relu(layer(f"{path}/conv1", "norm1", x, stride)))
            around = np.pad(x[:, ::stride, ::stride], [(0, 0)] * 3 + [(0, y.shape[-1] - x.shape[-1])])
            if residual:
                distances[path] = np.linalg.norm(y) / np.linalg.norm(x)
            x = relu(y + around if residual else y)
    return deviations, distances


@pytest.mark.parametrize(
    ("name", "scan"), [("cifar_resnet14", False), ("cifar_resnet26", True), ("cifar_plain14", False)]
)
def test_responses_and_distances_equal_a_forward_pass_that_is_written_out(name: str, scan: bool) -> None:
    model, variables = net(name)
    deviations, distances = forward(variables, images(7), residual="resnet" in name)
    if scan:
        model, variables = model.clone(stage=partial(ScannedStage, remat=2)), stack_blocks(variables)
    found = measure_responses(model, variables, images(7), batch_size=3)
    assert list(found.deviations) == list(deviations)
    assert len(found.deviations) == int(name[-2:]) - 1
    assert list(found.distances) == list(distances)
    np.testing.assert_allclose(list(found.deviations.values()), list(deviations.values()), rtol=1e-4)
    np.testing.assert_allclose(list(found.distances.values()), list(distances.values()), rtol=1e-4)


def test_the_3x3_layers_of_bottlenecks_are_found_and_projections_are_not() -> None:
    model = create_model("resnet14", num_classes=5, stage_depths=(2, 2), width=WIDTH, shortcut="C")
    x = images(2, 32)
    variables = randomised(jax.eval_shape(model.init, jax.random.key(0), x), seed=2)
    found = measure_responses(model, variables, x)
    blocks = [f"stage{stage}/block{number}" for stage in (1, 2) for number in (1, 2)]
    assert list(found.deviations) == [f"{block}/conv2" for block in blocks]
    assert list(found.distances) == blocks
    kept = captured(model, variables, x)
    norms = {path[:-1]: value[0] for path, value in flatten_dict(kept).items() if path[-1] == "__call__"}
    for block in blocks:
        stage, name = block.split("/")
        np.testing.assert_allclose(
            found.deviations[f"{block}/conv2"], norms[stage, name, "norm2"].std(), rtol=1e-5
        )
    inside, around = norms["stage1", "block2", "norm3"], norms["stage1", "block1"]
    np.testing.assert_allclose(
        found.distances["stage1/block2"], jnp.linalg.norm(inside) / jnp.linalg.norm(around), rtol=1e-5
    )


def test_without_normalization_the_response_is_the_convolutions() -> None:
    model = create_model("vgg8", num_classes=5, stage_depths=(1,) * 5, width=WIDTH, hidden=8)
    x = images(2, 32)
    variables = randomised(jax.eval_shape(model.init, jax.random.key(0), x), seed=2)
    kept = captured(model, variables, x)
    expected = {name: value["__call__"][0].std() for name, value in kept.items() if "_conv" in name}
    found = measure_responses(model, variables, x).deviations
    assert len(found) == 5
    for name, deviation in found.items():
        np.testing.assert_allclose(deviation, expected[name], rtol=1e-5)


@pytest.mark.slow
def test_gradients_by_layer_are_those_of_the_loss_scanned_or_not() -> None:
    model, variables = net("cifar_resnet20")
    x, labels = images(6), np.arange(6) % 5
    norms = gradient_norms(model, variables, x, labels, train=False)
    assert list(norms) == list(measure_responses(model, variables, x).deviations)
    scanned = gradient_norms(model.clone(stage=ScannedStage), stack_blocks(variables), x, labels, train=False)
    np.testing.assert_allclose(list(scanned.values()), list(norms.values()), rtol=1e-4)
    layer = ("stage2", "block2", "conv1", "kernel")

    def loss(kernel: jax.Array) -> jax.Array:
        params = jax.tree.map(jnp.asarray, variables["params"])
        params[layer[0]][layer[1]][layer[2]]["kernel"] = kernel
        logits = model.apply(variables | {"params": params}, x)
        return -jnp.mean(jnp.log(jax.nn.softmax(logits))[jnp.arange(6), labels])

    kernel = jnp.asarray(variables["params"]["stage2"]["block2"]["conv1"]["kernel"])
    np.testing.assert_allclose(
        norms["stage2/block2/conv1"], jnp.linalg.norm(jax.grad(loss)(kernel)), rtol=1e-3
    )


@pytest.mark.slow
def test_a_run_is_analysed_at_every_checkpoint_that_it_keeps(tmp_path: Path) -> None:
    run(tiny.get_config(**{"run.steps": 4, "run.checkpoint_every": 2, "data.source": "digits"}), tmp_path)
    found = analyze_run(tmp_path, examples=20)
    assert [analysis.step for analysis in found] == [2, 4]
    last = analyze_checkpoint(tmp_path, examples=20, gradients=True)
    assert last.responses == found[-1].responses
    assert found[0].responses.deviations != last.responses.deviations
    assert last.gradients is not None
    assert list(last.gradients) == list(last.responses.deviations)
    checkpoint = read_checkpoint(tmp_path)
    seen = open_source("digits", "test").read(range(20))[0] - checkpoint.arrays["image_mean"]
    variables = {"params": {}, "batch_stats": {}}
    for path, array in checkpoint.arrays.items():
        *parents, name = path.split("/")
        tree = variables
        if parents[:1] in (["params"], ["batch_stats"]):
            for parent in parents:
                tree = tree.setdefault(parent, {})
            tree[name] = array
    expected, _ = forward(variables, seen, residual=True)
    np.testing.assert_allclose(list(last.responses.deviations.values()), list(expected.values()), rtol=1e-4)

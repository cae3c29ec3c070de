"""Every variant learns; scanned on four devices is unrolled on one.

And it leaves as the formats can express it, or is refused.
"""

import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax import create_model
from resnet_jax.data.augment import normalize
from resnet_jax.inference.preprocessing import Preprocessing
from resnet_jax.inference.trained import Trained
from resnet_jax.interop import InteropError
from resnet_jax.interop.assembly import assemble
from resnet_jax.interop.export_metadata import describe, from_record
from resnet_jax.interop.exporter import differences_from_torchvision, to_safetensors, to_stablehlo
from resnet_jax.interop.onnx_graph import to_onnx
from resnet_jax.models import ScannedStage, Stage
from resnet_jax.models.stacking import stack_blocks, unstack_blocks
from resnet_jax.models.variants import VARIANTS
from resnet_jax.parallel import AXIS_NAME, create_mapping
from resnet_jax.training.config import base_config
from resnet_jax.training.optimizer import sgd
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import make_train_step
from tests.models.numpy_reference import randomised

BASIC = {"name": "cifar_resnet10", "stage_depths": [1, 3], "width": 4}
BOTTLENECK = {"name": "cifar_resnet14", "stage_depths": [1, 3], "width": 8, "shortcut": "B"}
IMAGENET = {"name": "resnet14", "stage_depths": [1, 3], "width": 4}
NETS: dict[str, dict[str, Any]] = {
    "preactivation": BASIC,
    "wide": BASIC | {"variants": ["wide:2"]},
    "resnext": BOTTLENECK | {"variants": ["resnext:4,16"]},
    "squeeze_excitation": BASIC | {"variants": ["squeeze_excitation:2"]},
    "stochastic_depth": BASIC | {"variants": ["stochastic_depth:0.8"]},
    "group_norm": BASIC,
    "resnet_d": IMAGENET,
    "zero_last_scale": BASIC,
    "blur_shortcut": BASIC,
    "skip_init": BASIC,
    "width": BASIC | {"variants": ["width:6"]},
    "small_stem": IMAGENET,
}
TOGETHER = {
    "preactivation, wide, excited, at random": BOTTLENECK
    | {"name": "cifar_resnet11", "stage_depths": [3]}
    | {"variants": ["wide:2", "preactivation", "squeeze_excitation:4", "stochastic_depth:0.8"]},
    "grouped, without the batch, blurred": IMAGENET
    | {"width": 8, "variants": ["resnext:4,16", "group_norm:2", "blur_shortcut"]},
}
ALL = {name: {"variants": [name], **net} for name, net in NETS.items()} | TOGETHER
CASES = [pytest.param(name, id=name, marks=[pytest.mark.slow]) for name in ALL]
IN_ONNX = ("wide", "resnext", "zero_last_scale")
CLASSES, IMAGES = 5, 8


def side(net: dict[str, Any]) -> int:
    return 8 if net["name"].startswith("cifar") else 16


def random_variables(net: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Returns variables of a net, of every block by itself, which take no program to compute."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side(net), side(net), 3)))
    return {name: tree for name, tree in randomised({"batch_stats": {}, **shapes}, seed=1).items() if tree}


def trained_on(
    net: dict[str, Any], *, devices: int, scan: bool, steps: int
) -> tuple[list[float], dict[str, np.ndarray]]:
    """Returns the losses of steps on one batch, and the parameters after them, of every block by itself."""
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (IMAGES, side(net), side(net), 3), np.uint8)
    indices = np.arange(IMAGES, dtype=np.int32)
    batch = {"image": images, "label": indices % CLASSES, "index": indices, "mask": np.ones(IMAGES, bool)}
    model = create_model(**net, num_classes=CLASSES, dtype="float64", stage=ScannedStage if scan else Stage)
    schedule = lambda step: jnp.full_like(step, 0.01, float)  # noqa: E731
    optimizer = sgd(schedule, momentum=0.9, weight_decay=1e-4)
    mapping = create_mapping("shard_map", jax.devices()[:devices])
    step = make_train_step(
        model.clone(axis_name=AXIS_NAME),
        optimizer,
        lambda _, images, mean: normalize(images, mean) / 64,
        schedule=schedule,
        seed=0,
        axis_name=AXIS_NAME,
    )
    variables = random_variables(net, model.clone(stage=Stage))
    variables = stack_blocks(variables) if scan else variables
    params = variables["params"]
    momentum = jax.tree.map(
        lambda array: np.zeros(array.shape, array.dtype), jax.eval_shape(optimizer.init, params)
    )
    state = TrainState(np.int32(0), params, variables.get("batch_stats", {}), momentum, np.full(3, 128.0))
    state, mapped, losses = mapping.replicate(jax.device_get(state)), mapping.map(step, donate=False), []
    for _ in range(steps):
        state, metrics = mapped(state, mapping.shard(batch))
        losses.append(float(metrics["loss"]))
    return losses, flatten_dict(unstack_blocks(jax.device_get(state.params)), sep="/")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES)
def test_it_learns_and_scanned_on_four_devices_is_unrolled_on_one(case: str) -> None:
    losses, params = trained_on(ALL[case], devices=1, scan=False, steps=6)
    again, others = trained_on(ALL[case], devices=4, scan=True, steps=6)
    np.testing.assert_allclose(again, losses, rtol=1e-9)
    for name, array in params.items():
        assert np.linalg.norm(array - others[name]) <= 1e-8 * max(1, np.linalg.norm(array)), name
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("case", CASES)
def test_it_leaves_whole_or_is_refused(case: str, tmp_path: Path) -> None:
    arguments = {**ALL[case], "num_classes": CLASSES, "dtype": "float32"}
    model, size = create_model(**arguments), side(ALL[case])
    variables = jax.tree.map(np.float32, random_variables(ALL[case], model))
    preprocessing = Preprocessing(np.full(3, 120, np.float32), None, size, size)
    trained = Trained(model, variables, base_config(), None, preprocessing, arguments, step=4)
    record = describe(arguments, preprocessing, (), "")
    images = np.random.RandomState(0).randint(0, 256, (3, size, size, 3), np.uint8)
    expected = trained.logits(images)

    program = jax.export.deserialize(bytearray(to_stablehlo(trained)))
    np.testing.assert_allclose(program.call(images), expected, rtol=1e-4, atol=1e-4)

    file = tmp_path / "net.safetensors"
    file.write_bytes(to_safetensors(trained, record))
    back = assemble(from_record(file, json.loads(json.dumps(record))))
    jax.tree.map(np.testing.assert_array_equal, back.variables, variables)
    logits = back.model.apply(back.variables, normalize(images, preprocessing.image_mean))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert differences_from_torchvision(trained)

    pytest.importorskip("onnx")
    if case not in IN_ONNX:
        with pytest.raises(InteropError, match=r"this net has another .*export it as stablehlo"):
            to_onnx(trained, record)
        return
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(to_onnx(trained, record), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, rtol=1e-3, atol=1e-3)


def test_no_variant_is_left_out() -> None:
    assert set(NETS) == set(VARIANTS)

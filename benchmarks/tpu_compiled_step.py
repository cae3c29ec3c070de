"""The training step of ResNet-50 by the TPU compiler, against that of Flax's ImageNet example.

    python benchmarks/tpu_compiled_step.py
    python benchmarks/tpu_compiled_step.py --images 32 --topology v6e:2x2 --json
    python benchmarks/tpu_compiled_step.py --only v1 --json

Needs libtpu (`pip install 'resnet-jax[tpu]'`) and no TPU; each of the four programs takes minutes of a core.
All are compiled by `resnet_jax.parallel.plan.compile_step`: bfloat16, 128 images a chip, donated state. Ours
are the steps of the recipe imagenet_pod: uint8 images in, mirrored and varied in color on the device, label
smoothing, metrics. The peer is written again after the example (github.com/google/flax, examples/imagenet):
v1.5, `nn.BatchNorm` by device, images that are bfloat16 already, Nesterov momentum, decay in the loss. Ratios
are of cycles, which the compiler estimates, and of bytes; nothing is timed.
"""

import argparse
import json
import platform
import sys
from functools import partial
from importlib.metadata import version
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from resnet_jax.parallel import AXIS_NAME
from resnet_jax.parallel.chips import parse_topology
from resnet_jax.parallel.plan import Compiled, compile_step, devices_of, prepare_compiler
from resnet_jax.training.config import with_fields
from resnet_jax.training.recipes import load_recipe
from resnet_jax.training.task import open_task

SHAPE, CLASSES = (224, 224, 3), 1000
EXAMPLE_BATCH = (("image", SHAPE, jnp.bfloat16), ("label", (), jnp.int32))
VARIANTS = {
    "v15": {"stride_on": "3x3", "group_size": 32},
    "v1": {"stride_on": "1x1", "group_size": 32},
    "v15_by_device": {"stride_on": "3x3", "group_size": 0},
}
"""Fields of the model by the name of a program; the group size 0 stands for the images of a device."""


class ExampleBlock(nn.Module):
    """A bottleneck that strides in its 3×3 convolution."""

    filters: int
    stride: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        strides, wide = (self.stride, self.stride), 4 * self.filters
        y = nn.relu(self.norm()(self.conv(self.filters, (1, 1))(x)))
        y = nn.relu(self.norm()(self.conv(self.filters, (3, 3), strides)(y)))
        y = self.norm(scale_init=nn.initializers.zeros)(self.conv(wide, (1, 1))(y))
        if x.shape != y.shape:
            x = self.norm()(self.conv(wide, (1, 1), strides)(x))
        return nn.relu(x + y)


class ExampleNet(nn.Module):
    """ResNet-50 in bfloat16, of the layers that Flax brings."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        conv = partial(nn.Conv, use_bias=False, dtype=jnp.bfloat16)
        norm = partial(
            nn.BatchNorm, use_running_average=False, momentum=0.9, epsilon=1e-5, dtype=jnp.bfloat16
        )
        x = nn.relu(norm()(conv(64, (7, 7), (2, 2), padding=[(3, 3), (3, 3)])(images)))
        x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
        for stage, depth in enumerate((3, 4, 6, 3)):
            for number in range(depth):
                x = ExampleBlock(64 * 2**stage, 2 if stage and not number else 1, conv, norm)(x)
        return nn.Dense(CLASSES, dtype=jnp.bfloat16)(x.mean((1, 2)))


def compile_example(images: int, devices: Any) -> Compiled:
    """Compiles the peer with this many images on a device."""
    net = ExampleNet()
    rate = optax.join_schedules(
        [optax.linear_schedule(0, 0.2, 3_000), optax.cosine_decay_schedule(0.2, 60_000)], [3_000]
    )
    optimizer = optax.sgd(rate, 0.9, nesterov=True)

    def train_step(state: Any, batch: Any) -> tuple[Any, Any]:
        targets = jax.nn.one_hot(batch["label"], CLASSES)

        def loss_function(params: Any) -> tuple[jax.Array, Any]:
            logits, updated = net.apply(
                {"params": params, "batch_stats": state["stats"]}, batch["image"], mutable=["batch_stats"]
            )
            decay = 0.5e-4 * sum(jnp.sum(x**2) for x in jax.tree.leaves(params) if x.ndim > 1)
            return optax.softmax_cross_entropy(logits, targets).mean() + decay, (
                logits,
                updated["batch_stats"],
            )

        (_, (logits, stats)), gradients = jax.value_and_grad(loss_function, has_aux=True)(state["params"])
        updates, opt_state = optimizer.update(
            lax.pmean(gradients, AXIS_NAME), state["opt_state"], state["params"]
        )
        accuracy = jnp.mean(jnp.argmax(logits, -1) == batch["label"])
        metrics = lax.pmean(
            {"loss": optax.softmax_cross_entropy(logits, targets).mean(), "accuracy": accuracy}, AXIS_NAME
        )
        params = optax.apply_updates(state["params"], updates)
        new = {"step": state["step"] + 1, "params": params, "stats": stats, "opt_state": opt_state}
        return new, metrics | {"learning_rate": rate(state["step"])}

    total = images * len(devices)
    batch = {name: jax.ShapeDtypeStruct((total, *shape), kind) for name, shape, kind in EXAMPLE_BATCH}
    variables = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *SHAPE), jnp.bfloat16))
    params = variables["params"]
    state = {"step": jax.ShapeDtypeStruct((), jnp.int32), "params": params, "stats": variables["batch_stats"]}
    return compile_step(
        train_step, state | {"opt_state": jax.eval_shape(optimizer.init, params)}, batch, devices
    )


def compile_ours(images: int, devices: Any, *, stride_on: str, group_size: int) -> Compiled:
    """Compiles the step of the recipe imagenet_pod with this many images on a device."""
    fields = {"model.stride_on": stride_on, "model.group_size": group_size or images}
    config = with_fields(load_recipe("imagenet_pod"), fields)
    training = open_task(config).abstract(config, classes=CLASSES)
    return compile_step(training.train_step, training.state, training.batch(images * len(devices)), devices)


def main() -> None:
    """Prints cycles and bytes of every program and the ratios, or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--images", type=int, default=128, help="on a device")
    parser.add_argument(
        "--only", choices=VARIANTS, nargs="+", default=[], help="programs beside the peer; default all"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    prepare_compiler()
    devices = devices_of(parse_topology(arguments.topology))
    programs = {"example": compile_example(arguments.images, devices)}
    for name in arguments.only or VARIANTS:
        print(f"compiled {', '.join(programs)}; now {name}", file=sys.stderr)
        programs[name] = compile_ours(arguments.images, devices, **VARIANTS[name])
    report = ratios(programs) | {
        "programs": {
            name: {"cycles": one.cycles, "bytes": one.bytes_accessed, "flops": one.flops}
            for name, one in programs.items()
        },
        "topology": arguments.topology,
        "images_per_device": arguments.images,
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("jax", "flax", "libtpu")},
    }
    if arguments.json:
        print(json.dumps(report))
        return
    for name, one in programs.items():
        print(
            f"{name:14} {one.cycles / 1e6:7.2f} million cycles, {one.bytes_accessed / 1e9:6.2f} GB, "
            f"{one.flops / 1e12:.3f} TFLOP"
        )
    for name, value in ratios(programs).items():
        print(f"{name:20} {value:.4f}")


def ratios(programs: dict[str, Compiled]) -> dict[str, float]:
    """Returns ours over the peer's, and grouped statistics over those by device."""
    found = {}
    for name in ("v15", "v1"):
        if name in programs:
            found[f"cycles_ratio_{name}"] = programs[name].cycles / programs["example"].cycles
            found[f"bytes_ratio_{name}"] = programs[name].bytes_accessed / programs["example"].bytes_accessed
    if {"v15", "v15_by_device"} <= set(programs):
        found["cycles_ratio_grouped"] = programs["v15"].cycles / programs["v15_by_device"].cycles
    return found


if __name__ == "__main__":
    main()

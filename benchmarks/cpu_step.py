"""A training step and inference on CPU, against the same net in PyTorch and in plain Flax, in one run.

    python benchmarks/cpu_step.py
    python benchmarks/cpu_step.py --nets cifar_resnet20 --repetitions 15 --json

Needs PyTorch (`pip install -e '.[parity]'`). Ours is the step of `python train.py`: one virtual device per
core, with decay, momentum and metrics. PyTorch is eager, contiguous or channels-last, whichever is faster;
and compiled with --compiled. Plain Flax is `nn.Conv` and `nn.BatchNorm` under one `jit`. Each peer has a
process of its own. They take turns of four steps, of which the first does not count, since it finds the
caches full of another's; the median of each is printed, and our time over PyTorch's. Two steps of each are
run first. The cache of compiled programs is off.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.nn import functional

from resnet_jax import create_model
from resnet_jax.data.augment import normalize
from resnet_jax.parallel import AXIS_NAME, choose_devices, create_mapping, prepare_backend
from resnet_jax.training.optimizer import sgd
from resnet_jax.training.schedules import step_decay
from resnet_jax.training.state import create_state
from resnet_jax.training.step import make_evaluation_step, make_train_step

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.models import torch_reference

NETS = {
    "cifar_resnet20": (128, 32),
    "cifar_resnet56": (128, 32),
    "resnet18": (16, 224),
    "resnet50": (16, 224),
}
"""Batch and image size of each net."""

Step = Callable[[], Any]


def examples(batch: int, size: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a batch of uint8 images and their labels."""
    rng = np.random.RandomState(0)
    return rng.randint(0, 256, (batch, size, size, 3), np.uint8), rng.randint(0, classes, batch).astype(
        np.int32
    )


def ours(name: str, batch: int, size: int) -> tuple[Step, Step]:
    """Returns a training step and an inference of a batch by this package."""
    model = create_model(name)
    schedule = step_decay(0.1, boundaries=(), factor=0.1, warmup_steps=0, warmup_rate=0.1)
    optimizer = sgd(schedule, momentum=0.9, weight_decay=1e-4)
    mapping = create_mapping("auto", choose_devices(batch, None))
    spread = model.clone(axis_name=AXIS_NAME)
    images, labels = examples(batch, size, model.num_classes)
    mean = np.full(3, 128, np.float32)
    state = create_state(model, optimizer, seed=0, image_shape=images.shape[1:], image_mean=mean)
    placed = [mapping.replicate(jax.device_get(state))]
    arguments = {"schedule": schedule, "seed": 0, "axis_name": AXIS_NAME}
    train = make_train_step(spread, optimizer, lambda _, x, mean: normalize(x, mean), **arguments)
    train_step = mapping.map(train, donate=True)
    evaluation_step = mapping.map(make_evaluation_step(spread, normalize, axis_name=AXIS_NAME), donate=False)
    shards = mapping.shard(
        {"image": images, "label": labels, "index": np.arange(batch), "mask": np.ones(batch, bool)}
    )

    def step() -> None:
        placed[0], metrics = train_step(placed[0], shards)
        jax.block_until_ready((placed[0], metrics))

    return step, lambda: jax.block_until_ready(evaluation_step(placed[0], shards))


class PlainBlock(nn.Module):
    """A residual block as one writes it in Flax without a second thought."""

    filters: int
    stride: int
    bottleneck: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        sizes = (
            ((1, self.filters), (3, self.filters), (1, 4 * self.filters))
            if self.bottleneck
            else ((3, self.filters),) * 2
        )
        y = x
        for index, (side, channels) in enumerate(sizes):
            stride = self.stride if index == 0 else 1
            y = nn.Conv(channels, (side, side), stride, padding=side // 2, use_bias=False)(y)
            y = nn.BatchNorm(not train, momentum=0.9)(y)
            y = nn.relu(y) if index < len(sizes) - 1 else y
        if x.shape != y.shape:
            x = nn.Conv(y.shape[-1], (1, 1), self.stride, use_bias=False)(x)
            x = nn.BatchNorm(not train, momentum=0.9)(x)
        return nn.relu(x + y)


class PlainFlax(nn.Module):
    """The nets of NETS, with projections where the shape changes."""

    depths: tuple[int, ...]
    bottleneck: bool
    cifar: bool
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = 16 if self.cifar else 64
        x = nn.Conv(
            width,
            (3, 3) if self.cifar else (7, 7),
            1 if self.cifar else 2,
            padding=1 if self.cifar else 3,
            use_bias=False,
        )(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
        if not self.cifar:
            x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1)] * 2)
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                x = PlainBlock(width * 2**stage, 2 if stage and not block else 1, self.bottleneck)(x, train)
        return nn.Dense(self.classes)(x.mean((1, 2)))


def plain_flax(name: str, batch: int, size: int) -> tuple[Step, Step]:
    """Returns a training step and an inference of a batch by PlainFlax."""
    net = create_model(name)
    model = PlainFlax(net.stage_depths, name == "resnet50", name.startswith("cifar"), net.num_classes)
    images, labels = examples(batch, size, net.num_classes)
    x = images.astype(np.float32) - 128
    variables = model.lazy_init(
        jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32), train=False
    )
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, momentum=0.9))
    state = [(variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))]

    def train(state: Any, x: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, stats, momentum = state

        def loss(params: Any) -> tuple[jax.Array, Any]:
            logits, updated = model.apply(
                {"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated[
                "batch_stats"
            ]

        (value, stats), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, momentum = optimizer.update(gradients, momentum, params)
        return (optax.apply_updates(params, updates), stats, momentum), value

    train_step = jax.jit(train, donate_argnums=0)
    infer = jax.jit(
        lambda state, x: model.apply({"params": state[0], "batch_stats": state[1]}, x, train=False)
    )

    def step() -> None:
        state[0], value = train_step(state[0], x, labels)
        jax.block_until_ready((state[0], value))

    return step, lambda: jax.block_until_ready(infer(state[0], x))


def pytorch(name: str, batch: int, size: int, *, channels_last: bool, compiled: bool) -> tuple[Step, Step]:
    """Returns a training step and an inference of a batch by PyTorch."""
    net = create_model(name)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    architecture = torch_reference.BasicBlock if name != "resnet50" else torch_reference.Bottleneck
    cifar = name.startswith("cifar")
    model = torch_reference.ResNet(
        architecture, net.stage_depths, "A" if cifar else "B", cifar=cifar, num_classes=net.num_classes
    )
    model = model.to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    images, labels = examples(batch, size, net.num_classes)
    x = (torch.tensor(images).permute(0, 3, 1, 2).float() - 128).contiguous(memory_format=layout)
    targets = torch.tensor(labels).long()
    forward = torch.compile(model) if compiled else model

    def step() -> float:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(forward(x), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    def infer() -> torch.Tensor:
        model.eval()
        with torch.inference_mode() if not compiled else torch.no_grad():
            return forward(x)

    return step, infer


PEERS: dict[str, Callable[[str, int, int], tuple[Step, Step]]] = {
    "ours": ours,
    "pytorch contiguous": partial(pytorch, channels_last=False, compiled=False),
    "pytorch channels-last": partial(pytorch, channels_last=True, compiled=False),
    "flax": plain_flax,
    "pytorch compiled": partial(pytorch, channels_last=True, compiled=True),
}


def serve(connection: Connection, peer: str, name: str) -> None:
    """Takes steps of a peer whenever it is asked for some, and says how long each took."""
    jax.config.update("jax_enable_compilation_cache", False)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    batch, size = NETS[name]
    if peer == "ours":
        prepare_backend(batch, None, 0)
    steps = PEERS[peer](name, batch, size)
    while (asked := connection.recv()) is not None:
        which, times = asked
        taken = []
        for _ in range(times):
            start = time.perf_counter()
            steps[which]()
            taken.append(time.perf_counter() - start)
        connection.send(taken)


class Contender:
    """A peer in a process of its own, with the memory and the threads that it has there."""

    def __init__(self, peer: str, name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, peer, name))
        self._process.start()
        theirs.close()

    def seconds(self, which: int, times: int) -> list[float]:
        """Returns the times of training steps (0) or inferences (1)."""
        self._connection.send((which, times))
        return self._connection.recv()

    def close(self) -> None:
        """Ends the process."""
        self._connection.send(None)
        self._process.join()


def measure(name: str, repetitions: int, *, compiled: bool) -> dict[str, Any]:
    """Returns times and ratios of training and inference, in turns of four steps, without the first."""
    contenders = {peer: Contender(peer, name) for peer in PEERS if compiled or peer != "pytorch compiled"}
    results: dict[str, Any] = {}
    for which, what in enumerate(("train", "infer")):
        taken: dict[str, list[float]] = {peer: [] for peer in contenders}
        for contender in contenders.values():
            contender.seconds(which, 2)
        for _ in range(repetitions):
            for peer, contender in contenders.items():
                taken[peer] += contender.seconds(which, 4)[1:]
        times = {peer: median(several) for peer, several in taken.items()}
        eager = min(times["pytorch contiguous"], times["pytorch channels-last"])
        results[what] = {
            "seconds": times,
            "ratio_to_pytorch": times["ours"] / eager,
            "ratio_to_flax": times["ours"] / times["flax"],
        }
        if "pytorch compiled" in times:
            results[what]["ratio_to_pytorch_compiled"] = times["ours"] / times["pytorch compiled"]
    for contender in contenders.values():
        contender.close()
    return results


def main() -> None:
    """Prints a line a net, or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument(
        "--compiled", action="store_true", help="torch.compile as a peer too; needs a C++ compiler"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    report: dict[str, Any] = {
        "cores": cores,
        "jax": jax.__version__,
        "torch": torch.__version__,
        "seconds": {},
    }
    for name in arguments.nets:
        results = measure(name, arguments.repetitions, compiled=arguments.compiled)
        short = name.removeprefix("cifar_")
        for what, result in results.items():
            times = result.pop("seconds")
            report["seconds"][f"{what}_{short}"] = times
            report |= {f"{what}_{ratio}_{short}": value for ratio, value in result.items()}
            if not arguments.json:
                shown = ", ".join(f"{peer} {1e3 * value:.0f}" for peer, value in times.items())
                print(
                    f"{what} {name}, ms: {shown}; ours / PyTorch {result['ratio_to_pytorch']:.2f}", flush=True
                )
    if arguments.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()

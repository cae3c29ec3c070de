"""The gradients that convolutions and the maximum have on CPU, form by form, against XLA's own, on one core.

    python benchmarks/weight_gradient.py
    python benchmarks/weight_gradient.py --repetitions 15 --json

Shapes are those of ResNet-20 with 64 images and of ResNet-50 with 8, one core of two in
`benchmarks/cpu_step.py`. Times are milliseconds, medians of repetitions in which the forms take turns; a star
marks the form that `weight_gradient_form` chooses.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from resnet_jax.models.kernels.convolution import (
    CANONICAL,
    WEIGHT_GRADIENTS,
    input_gradient,
    weight_gradient_form,
)
from resnet_jax.models.kernels.pooling import max_pool

SHAPES = [  # Images, side, channels, filters, side of the kernel, stride.
    (64, 32, 16, 16, 3, 1),
    (64, 32, 16, 32, 3, 2),
    (64, 16, 32, 32, 3, 1),
    (64, 8, 64, 64, 3, 1),
    (8, 224, 3, 64, 7, 2),
    (8, 56, 64, 64, 3, 1),
    (8, 56, 64, 256, 1, 1),
    (8, 56, 256, 128, 1, 2),
    (8, 28, 128, 128, 3, 1),
    (8, 28, 256, 256, 3, 2),
    (8, 14, 256, 256, 3, 1),
    (8, 7, 512, 512, 3, 1),
]
Forms = dict[str, Callable[[], Any]]


def plain(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the convolution with XLA's own gradients."""
    padding = [(side // 2, side // 2) for side in kernel.shape[:2]]
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=CANONICAL)


def forms_of(shape: tuple[int, ...]) -> tuple[Forms, Forms]:
    """Returns the forms of the weights' gradient, and those of the input's, for a shape of SHAPES."""
    images, side, channels, filters, size, stride = shape
    rng = np.random.RandomState(0)
    x = jnp.asarray(rng.standard_normal((images, side, side, channels)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((size, size, channels, filters)), jnp.float32)
    gradient = jnp.asarray(
        rng.standard_normal((images, -(-side // stride), -(-side // stride), filters)), jnp.float32
    )
    weights = {
        "xla": jax.jit(lambda x, gradient: jax.vjp(lambda k: plain(x, k, stride), kernel)[1](gradient)[0])
    }
    for name, form in WEIGHT_GRADIENTS.items():
        if (size == 1) == (name == "product"):
            weights[name] = jax.jit(partial(form, size=(size, size), stride=stride))
    inputs = {
        "xla": jax.jit(
            lambda kernel, gradient: jax.vjp(lambda x: plain(x, kernel, stride), x)[1](gradient)[0]
        ),
        "ours": jax.jit(lambda kernel, gradient: input_gradient(gradient, kernel, x.shape, stride)),
    }
    return (
        {name: partial(form, x, gradient) for name, form in weights.items()},
        {name: partial(form, kernel, gradient) for name, form in inputs.items()},
    )


def forms_of_maximum() -> Forms:
    """Returns the two gradients of the maximum of the ImageNet stem for 8 images."""
    x = jnp.maximum(jnp.asarray(np.random.RandomState(0).standard_normal((8, 112, 112, 64)), jnp.float32), 0)
    around = [(0, 0), (1, 1), (1, 1), (0, 0)]

    def theirs(x: jax.Array) -> jax.Array:
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), around)

    both = {"xla": theirs, "ours": lambda x: max_pool(x, 3, 2, 1)}
    return {name: partial(jax.jit(jax.grad(lambda x, f=f: f(x).sum())), x) for name, f in both.items()}


def milliseconds(forms: Forms, repetitions: int) -> dict[str, float]:
    """Returns the median time of each form; they take turns.

    Each runs once untimed before it is timed: a form that allocates much makes the next one slow.
    """
    taken: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(repetitions):
        for name, form in forms.items():
            jax.block_until_ready(form())
            start = time.perf_counter()
            jax.block_until_ready(form())
            taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: median(times) for name, times in taken.items()}


def main() -> None:
    """Prints a line a shape, or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = []
    for shape in SHAPES:
        images, side, channels, filters, size, stride = shape
        chosen = weight_gradient_form((images, side, side, channels), (size, size, channels, filters), stride)
        weights, inputs = (milliseconds(forms, arguments.repetitions) for forms in forms_of(shape))
        rows.append({"shape": shape, "chosen": chosen, "weights": weights, "input": inputs})
        if not arguments.json:
            shown = ", ".join(
                f"{name}{'*' if name == chosen else ''} {value:.1f}" for name, value in weights.items()
            )
            print(
                f"{shape}: weights {shown}; input xla {inputs['xla']:.1f}, ours {inputs['ours']:.1f}",
                flush=True,
            )
    maximum = milliseconds(forms_of_maximum(), arguments.repetitions)
    if arguments.json:
        print(json.dumps({"convolutions": rows, "maximum": maximum}))
        return
    print(f"maximum of the stem: xla {maximum['xla']:.1f}, ours {maximum['ours']:.1f}")


if __name__ == "__main__":
    main()

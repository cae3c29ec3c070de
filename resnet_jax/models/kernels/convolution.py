"""Convolution with a gradient of its own on CPU, and the maximum over windows likewise.

XLA compiles the gradient of a convolution for a CPU into another convolution whose dimensions are permuted,
which inside a loop is some forty times slower than outside, and makes the gradient of a 1×1 kernel a
convolution too. Here the gradient is written as convolutions in XLA's canonical order (NHWC, HWIO, NHWC) and
as products of matrices. Which is used where is a rule of the shapes, `weight_gradient_form`, and
`benchmarks/weight_gradient.py` prints what it rests on. Convolutions of few channels, which XLA is slow at,
are made of fewer with more channels (`pixels_at_once`). The choice between this and XLA's own is made when a
program is lowered, so TPUs and GPUs get XLA's. A strided 1×1 kernel is one without a stride on the pixels
that it sees, everywhere.

Reverse mode, products with the Hessian (forward over reverse), `vmap` and `scan` work; a plain `jax.jvp` is
refused by JAX.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Float

Size = tuple[int, int]
# (images, gradient of the output, size of the kernel, stride) → gradient of the kernel.
WeightGradient = Callable[[Array, Array, Size, int], Array]

CANONICAL = ("NHWC", "HWIO", "NHWC")


def convolve(
    x: Float[Array, "n h w c"], kernel: Float[Array, "a b i k"], stride: int, groups: int = 1
) -> Float[Array, "n h2 w2 k"]:
    """Returns the convolution of x, padded by half the kernel's odd size: [N, ⌈H / stride⌉, ⌈W / stride⌉, K].

    Args:
        x: Images or activations.
        kernel: Its third axis has C / groups channels: output channels of a group see the input channels of
            that group.
        stride: From one place of the kernel to the next.
        groups: Number of groups of input and output channels, in order; it divides both.
    """
    if kernel.shape[:2] == (1, 1):
        # The gradient of the pixels between, which it does not see, is padding and not arithmetic. By the TPU
        # compiler ResNet-50's step has 1 to 3 % fewer cycles for that, and moves 2 to 3 % fewer bytes
        # (docs/pods.md).
        x, stride = x[:, ::stride, ::stride], 1
    return _convolution(x, kernel, stride, groups)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution(x: Array, kernel: Array, stride: int, groups: int) -> Array:
    return _on_this_platform(x, kernel, stride, groups)


def _on_this_platform(x: Array, kernel: Array, stride: int, groups: int) -> Array:
    default = partial(_convolve, stride=stride, groups=groups)
    if pixels_at_once(x.shape, kernel.shape, stride, groups) == 1:
        return default(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=several_pixels, default=default)


def _convolve(x: Array, kernel: Array, stride: int, groups: int) -> Array:
    padding = [(side // 2, side // 2) for side in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=CANONICAL, feature_group_count=groups
    )


def _forward(x: Array, kernel: Array, stride: int, groups: int) -> tuple[Array, tuple[Array, Array]]:
    # Not `_convolution`: it could not be differentiated forward once more.
    return _on_this_platform(x, kernel, stride, groups), (x, kernel)


def _backward(stride: int, groups: int, saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    cpu = partial(_cpu_gradients, stride=stride, groups=groups)
    default = partial(_xla_gradients, stride=stride, groups=groups)
    return lax.platform_dependent(*saved, gradient, cpu=cpu, default=default)


_convolution.defvjp(_forward, _backward)


def _xla_gradients(
    x: Array, kernel: Array, gradient: Array, *, stride: int, groups: int
) -> tuple[Array, Array]:
    return jax.vjp(partial(_convolve, stride=stride, groups=groups), x, kernel)[1](gradient)


def _cpu_gradients(
    x: Array, kernel: Array, gradient: Array, *, stride: int, groups: int
) -> tuple[Array, Array]:
    size = kernel.shape[0], kernel.shape[1]
    whole = WEIGHT_GRADIENTS[weight_gradient_form(x.shape, kernel.shape, stride)]
    form = whole if groups == 1 else partial(by_columns, groups=groups)
    # XLA is kept from merging this with the rest. Otherwise it fuses the transposition of x with all that x
    # was computed from: normalizations and additions back to the beginning of the stage, once more for every
    # block.
    with set_xla_metadata(inlineable="false"):
        weights = jax.jit(form, static_argnums=(2, 3))(x, gradient, size, stride)
    return input_gradient(gradient, kernel, x.shape, stride, groups), weights


def input_gradient(
    gradient: Float[Array, "n h2 w2 k"],
    kernel: Float[Array, "a b i k"],
    shape: tuple[int, ...],
    stride: int,
    groups: int = 1,
) -> Float[Array, "n h w c"]:
    """Returns the gradient of the input, of that shape: the output's, convolved with the mirrored kernel."""
    sides = list(zip(shape[1:3], gradient.shape[1:3], kernel.shape[:2], strict=True))
    # What of the input lies beyond the last window has no gradient: `height - reach` rows.
    after = [height - ((out - 1) * stride + 1) + side // 2 for height, out, side in sides]
    padding = [(side // 2, below) for (_, _, side), below in zip(sides, after, strict=True)]
    by_group = jnp.flip(kernel, (0, 1)).reshape(*kernel.shape[:3], groups, -1)
    mirrored = by_group.swapaxes(2, 4).reshape(*kernel.shape[:2], -1, shape[3])
    if pixels_at_once(gradient.shape, mirrored.shape, stride, groups) > 1:
        return several_pixels(gradient, mirrored)
    return lax.conv_general_dilated(
        gradient,
        mirrored,
        (1, 1),
        padding,
        lhs_dilation=(stride, stride),
        dimension_numbers=CANONICAL,
        feature_group_count=groups,
    )


def pixels_at_once(shape: tuple[int, ...], kernel: tuple[int, ...], stride: int, groups: int = 1) -> int:
    """Returns how many neighbors in a row of the output a CPU computes as channels of one pixel: 1, 2 or 4.

    The number was measured fastest on a core. XLA's fast convolutions (YNNPACK) are for more channels than
    the first stage of a CIFAR net has.

    Args:
        shape: Shape of the images, [N, H, W, C].
        kernel: Its shape, [height, width, C, K].
        stride: Stride of the convolution.
        groups: Groups of its channels.
    """
    channels, filters = kernel[2:]
    if stride != 1 or groups != 1 or kernel[1] == 1 or channels > 16:
        return 1
    enough = 64 if channels == 3 else 32
    pixels = next((pixels for pixels in (4, 2) if pixels * filters <= enough), 1)
    return pixels if shape[2] % pixels == 0 else 1


def several_pixels(x: Float[Array, "n h w c"], kernel: Float[Array, "a b c k"]) -> Float[Array, "n h w k"]:
    """Returns the convolution of stride 1, computed with neighbors in a row as channels of one pixel."""
    pixels = pixels_at_once(x.shape, kernel.shape, 1)
    height, width, _, filters = kernel.shape
    placed = [
        jnp.pad(kernel, ((0, 0), (place, pixels - 1 - place), (0, 0), (0, 0))) for place in range(pixels)
    ]
    padding = [(height // 2, height // 2), (width // 2, width // 2)]
    out = lax.conv_general_dilated(
        x, jnp.concatenate(placed, -1), (1, pixels), padding, dimension_numbers=CANONICAL
    )
    return out.reshape(*x.shape[:3], filters)


def weight_gradient_form(shape: tuple[int, ...], kernel: tuple[int, ...], stride: int) -> str:
    """Returns which of WEIGHT_GRADIENTS a CPU takes: measured fastest, or as fast as the fastest, on a core.

    Args:
        shape: Shape of the images, [N, H, W, C].
        kernel: Its shape, [height, width, C, K].
        stride: Stride of the convolution.
    """
    pixels = -(-shape[1] // stride) * -(-shape[2] // stride)
    if kernel[:2] == (1, 1):
        return "product"
    return "columns" if shape[3] >= 128 and pixels <= 14 * 14 else "convolution"


def by_product(x: Array, gradient: Array, _: Size, stride: int) -> Array:
    """Returns the gradient of a 1×1 kernel, one matrix product."""
    return _product(x[:, ::stride, ::stride], gradient)[None, None]


def by_columns(x: Array, gradient: Array, size: Size, stride: int, groups: int = 1) -> Array:
    """One product for every group of channels, with all pixels of a window side by side as channels."""
    padded = jnp.pad(x, [(0, 0), *((side // 2, side // 2) for side in size), (0, 0)])
    height, width = ((out - 1) * stride + 1 for out in gradient.shape[1:3])
    windows = [
        padded[:, row : row + height : stride, column : column + width : stride]
        for row in range(size[0])
        for column in range(size[1])
    ]
    if groups == 1:
        return _product(jnp.concatenate(windows, -1), gradient).reshape(*size, x.shape[-1], -1)
    columns = jnp.stack(windows, 3).reshape(*gradient.shape[:3], len(windows), groups, -1)
    weights = jnp.einsum("nhwpgc,nhwgk->pcgk", columns, gradient.reshape(*gradient.shape[:3], groups, -1))
    return weights.reshape(*size, -1, gradient.shape[-1])


def by_convolution(x: Array, gradient: Array, size: Size, stride: int) -> Array:
    """A convolution over the channels as images and the images as channels, in canonical order."""
    sides = zip(x.shape[1:3], gradient.shape[1:3], size, strict=True)
    padding = [(side // 2, (out - 1) * stride + side - side // 2 - length) for length, out, side in sides]
    weights = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        (1, 1),
        padding,
        rhs_dilation=(stride, stride),
        dimension_numbers=CANONICAL,
    )
    return weights.transpose(1, 2, 0, 3)


def _product(x: Float[Array, "n h w c"], gradient: Float[Array, "n h w k"]) -> Float[Array, "c k"]:
    return jnp.einsum("nhwc,nhwk->ck", x, gradient)


WEIGHT_GRADIENTS: dict[str, WeightGradient] = {
    "product": by_product,
    "columns": by_columns,
    "convolution": by_convolution,
}

"""Evaluation of a network at the full speed of the platform."""

import flax.linen as nn
from jax import lax
from jaxtyping import Array, Float, PyTree


def apply_in_slices(
    model: nn.Module, variables: PyTree, images: Float[Array, "n h w c"]
) -> Float[Array, "n classes"]:
    """Returns `model.apply(variables, images, train=False)`; a CPU computes it for a few images at a time.

    A CPU's caches hold the activations of a few images: a network for 32×32 pixels takes a tenth less time
    (docs/performance.md). A slice has 4 to 16 images, if the batch size has such a divisor. The choice is
    made when a program is lowered, so TPUs and GPUs take all at once.
    """

    def net(images: Array) -> Array:
        return model.apply(variables, images, train=False)  # type: ignore[return-value]

    count = len(images)
    few = next((few for few in range(16, 3, -1) if count % few == 0), count)
    if few == count:
        return net(images)

    def by_few(images: Array) -> Array:
        return lax.map(net, images.reshape(-1, few, *images.shape[1:])).reshape(count, -1)

    return lax.platform_dependent(images, cpu=by_few, default=net)

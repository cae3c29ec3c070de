"""The gradient of every example by itself."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int

from resnet_jax.functional.losses import Params, Variables, cross_entropy


def per_example_gradients(
    model: nn.Module, variables: Variables, images: Float[Array, "n h w 3"], labels: Int[Array, " n"]
) -> Params:
    """Returns the gradient of the cross-entropy of every example: a tree like the parameters, its arrays with a first axis [n].

    Normalisation is with the running statistics: with those of the batch an example has no gradient of its own. It takes n times
    the memory of the parameters.

    Args:
        model: Takes the images.
        variables: Of the net.
        images: Normalised.
        labels: Of the images.

    Example:
        >>> gradients = per_example_gradients(model, variables, images, labels)
        >>> norms = jax.vmap(optax.tree.norm)(gradients)  # float32[n]
    """

    def of_one(params: Params, image: Array, label: Array) -> Array:
        return cross_entropy(model, variables, image[None], label[None])(params)

    return jax.vmap(jax.grad(of_one), in_axes=(None, 0, 0))(variables["params"], images, labels)

"""Gradients of every example by itself, and their norms by layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float, Int

from resnet_jax.analysis.layer_responses import find_layers
from resnet_jax.analysis.losses import Params, Variables, loss_function
from resnet_jax.models import ScannedStage, stack_blocks, unstack_blocks


def per_example_gradients(
    model: nn.Module, variables: Variables, images: Float[Array, "n h w 3"], labels: Int[Array, " n"]
) -> Params:
    """Returns the gradient of the cross-entropy of every example.

    The gradients are a tree like the parameters, whose arrays have a first axis [n].
    Normalization uses the running statistics: with those of the batch an example has no gradient of its own.
    It takes n times the memory of the parameters.

    Args:
        model: Network that takes the images.
        variables: Its variables.
        images: Normalized images.
        labels: Their labels.

    Example:
        >>> gradients = per_example_gradients(model, variables, images, labels)
        >>> norms = jax.vmap(optax.tree.norm)(gradients)  # float32[n]
    """

    def of_one(params: Params, image: Array, label: Array) -> Array:
        return loss_function(model, variables, image[None], label[None])(params)

    return jax.vmap(jax.grad(of_one), in_axes=(None, 0, 0))(variables["params"], images, labels)


def gradient_norms(
    model: nn.Module,
    variables: Variables,
    images: Float[Array | np.ndarray, "n h w 3"],
    labels: Int[Array | np.ndarray, " n"],
    *,
    train: bool = True,
) -> dict[str, float]:
    """Returns the norm of the gradient with respect to the kernel of every 3×3 layer, as in `Responses`.

    The loss is the mean cross-entropy of the images, without weight decay.

    Args:
        model: Any network, scanned or not.
        variables: Its `params` and `batch_stats`.
        images: Images normalized as for `model.apply`, and with `train` a multiple of the model's
            `group_size`.
        labels: Their labels.
        train: Normalize with the batch's statistics, as in training; else with the running ones.
    """
    layers = find_layers(model, variables, images)
    if model.scannable and not model.scanned:
        model, variables = model.clone(stage=ScannedStage), stack_blocks(variables)
    loss = loss_function(model, variables, jnp.asarray(images), jnp.asarray(labels), batch_statistics=train)
    gradient = unstack_blocks(jax.device_get(jax.jit(jax.grad(loss))(variables["params"])))
    kernels = flatten_dict(gradient, sep="/")
    return {layer: float(np.linalg.norm(kernels[f"{layer}/kernel"].astype(np.float64))) for layer in layers}

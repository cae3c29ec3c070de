"""The state of a training run: with the step number in it, all that resuming needs."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import unflatten_dict
from jaxtyping import Array, Float, Int, PyTree


class TrainState(flax.struct.PyTreeNode):
    """A pytree, the same on every device.

    Attributes:
        step: Updates made so far.
        params: Parameters of the model.
        batch_stats: Running statistics of batch normalization.
        opt_state: State of the optimizer, the momentum in it.
        image_mean: float32[H, W, 3] or [3] in units of pixels, subtracted from every image. A constant of the
            run, kept with the state so that a checkpoint is complete.

    Example:
        >>> logits = model.apply(state.variables, images - state.image_mean)
    """

    step: Int[Array, ""]
    params: PyTree
    batch_stats: PyTree
    opt_state: optax.OptState
    image_mean: Float[Array, "..."]

    @property
    def variables(self) -> dict[str, PyTree]:
        """The collections that `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    image_shape: tuple[int, int, int],
    image_mean: Float[np.ndarray, "..."],
) -> TrainState:
    """Returns the state before the first step: He initialization from the seed, zero momentum.

    Args:
        model: A net without a mapped axis (`axis_name` None).
        optimizer: Optimizer whose state is kept.
        seed: Seed of the initial parameters.
        image_shape: H, W, 3 of the images that the model will see.
        image_mean: See TrainState.

    Example:
        >>> mean = np.zeros(3, np.float32)
        >>> state = create_state(model, optimizer, seed=0, image_shape=(16, 16, 3), image_mean=mean)
    """

    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    # Lazily, array by array: a program of the whole net takes the longer to compile the deeper it is.
    variables = model.lazy_init(jax.random.fold_in(jax.random.key(seed), INIT_STREAM), images)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    return TrainState(
        jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params), jnp.asarray(image_mean)
    )


def split_variables(arrays: dict[str, np.ndarray]) -> tuple[dict[str, PyTree], PyTree]:
    """Returns the collections that `model.apply` takes, and the image mean, of a checkpoint's arrays."""
    tree = unflatten_dict(arrays, sep="/")
    variables = {name: tree[name] for name in ("params", "batch_stats") if name in tree}
    return variables, tree["image_mean"]


INIT_STREAM, AUGMENTATION_STREAM, DROPOUT_STREAM, EXAMPLES_STREAM = range(4)
"""Folded into the run's seed, so that initialization, augmentation and layers draw independent numbers."""

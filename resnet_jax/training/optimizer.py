"""SGD as the paper's authors ran it: the learning rate inside the momentum, decay as part of the gradient."""

import jax
import optax

from resnet_jax.training.schedules import Schedule

DECAYED = ("all", "kernels")


def sgd(schedule: Schedule, *, momentum: float, weight_decay: float, decayed: str = "all") -> optax.GradientTransformation:
    """Returns v ← momentum · v + rate · (gradient + weight_decay · w);  w ← w - v, the form of Caffe.

    It differs from optax.sgd (v without the rate, w ← w - rate · v) whenever the rate changes: here what was gathered at the
    old rate goes on with the old rate.

    Args:
        schedule: Learning rate by step, from 0.
        momentum: 0.9 in the paper (§3.4).
        weight_decay: 1e-4 in the paper, the factor of w in the gradient (half of it is the factor of w² in the loss).
        decayed: Parameters that decay: "all", as Caffe's weight_decay on every learnable blob; or "kernels", those of
            convolutions and fully connected layers. The paper leaves open which.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=None if decayed == "all" else is_kernel),
        optax.scale_by_learning_rate(schedule),
        optax.trace(momentum),
    )


def is_kernel(params: optax.Params) -> optax.Params:
    """Returns a tree like `params` that is True at kernels, False at biases and at the scales of normalisation."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)

"""Several networks of one architecture: evaluated together by `vmap` over their variables, and interpolated.

An interpolated network has weights on the line between two others, and needs statistics of its own.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from resnet_jax.analysis.losses import Variables
from resnet_jax.models import ModelError


def stack_variables(members: Sequence[Variables]) -> Variables:
    """Returns the variables of several nets of one architecture, every array with a first axis [members].

    Raises:
        ModelError: There are none, or they are of different nets.
    """
    if not members:
        raise ModelError("an ensemble needs a member or more, and there is none")
    shapes = list(map(_shapes, members))
    different = next((number for number, shape in enumerate(shapes) if shape != shapes[0]), None)
    if different is not None:
        raise ModelError(f"member {different} is of another net than member 0; members have one architecture")
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *members)


def member_logits(
    model: nn.Module, stacked: Variables, images: Float[Array, "n h w 3"]
) -> Float[Array, "m n c"]:
    """Returns the logits of every member; a pure function, one program for all of them.

    Args:
        model: Network of every member.
        stacked: See `stack_variables`.
        images: Normalized, the same for all.
    """
    return jax.vmap(model.apply, in_axes=(0, None))(stacked, images)  # type: ignore[return-value]


def ensemble_probabilities(
    model: nn.Module, stacked: Variables, images: Float[Array, "n h w 3"]
) -> Float[Array, "n c"]:
    """Returns the mean over the members of their probabilities.

    Example:
        >>> members = [load_checkpoint(f"runs/compare/ResNet-20/seed{seed}")[1] for seed in range(3)]
        >>> probabilities = ensemble_probabilities(model, stack_variables(members), images)
    """
    return jax.nn.softmax(member_logits(model, stacked, images)).mean(0)


def interpolate(one: Variables, other: Variables, share: float | Array) -> Variables:
    """Returns (1 - share) · one + share · other, parameters and running statistics alike.

    The statistics of a net between two are not between theirs: `estimate_statistics` measures them.

    Args:
        one: At share 0.
        other: At share 1, of the same net.
        share: May lie outside of [0, 1] too.

    Raises:
        ModelError: The two are of different nets; the first array that differs is named.
    """
    first, second = _shapes(one), _shapes(other)
    differing = next((path for path in [*first, *second] if first.get(path) != second.get(path)), None)
    if differing:
        raise ModelError(
            f"the two nets differ: {differing} is {first.get(differing, 'missing')} in one and "
            f"{second.get(differing, 'missing')} in the other; "
            "only nets of one architecture can be interpolated"
        )
    return jax.tree.map(lambda a, b: (1 - share) * a + share * b, one, other)


def estimate_statistics(
    model: nn.Module, variables: Variables, batches: Iterable[Float[Array, "n h w 3"]]
) -> Variables:
    """Returns the variables with running statistics that are computed from these batches alone.

    Every layer sees what the layers before it make of the batch with the batch's statistics, as in training;
    means and variances over all batches are those of the images together. Without batch normalization the
    variables are returned as they are.

    Args:
        model: Its `norm` takes a `momentum`, as batch normalization does.
        variables: Variables of the network.
        batches: Normalized images, of equal number each; all of training images, without augmentation.

    Raises:
        ModelError: There is no batch.
    """
    if not variables.get("batch_stats"):
        return variables
    # With momentum 0 the running statistics after a batch are the batch's own.
    forgetful = model.clone(norm=partial(model.norm, momentum=0.0))

    @jax.jit
    def moments(variables: Variables, images: Array) -> Variables:
        _, updated = forgetful.apply(variables, images, train=True, mutable=["batch_stats"])
        return _map_statistics(
            lambda mean, variance: (mean, variance + jnp.square(mean)), updated["batch_stats"]
        )

    found = [moments(variables, images) for images in batches]
    if not found:
        raise ModelError("there are no batches to take statistics of; give one or more")
    means = jax.tree.map(lambda *arrays: sum(arrays) / len(arrays), *found)
    statistics = _map_statistics(lambda mean, square: (mean, square - jnp.square(mean)), means)
    return {**variables, "batch_stats": statistics}


def _map_statistics(
    function: Callable[[Array, Array], tuple[Array, Array]], statistics: Variables
) -> Variables:
    """Applies a function of a pair to `mean` and `var` of every layer."""
    if "mean" in statistics and "var" in statistics:
        return dict(zip(("mean", "var"), function(statistics["mean"], statistics["var"]), strict=True))
    return {name: _map_statistics(function, part) for name, part in statistics.items()}


def _shapes(variables: Variables) -> dict[str, tuple[int, ...]]:
    return {path: array.shape for path, array in flatten_dict(variables, sep="/").items()}

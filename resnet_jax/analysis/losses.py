"""The loss of a network as a function of its parameters alone: gradients, curvature, and slices.

The curvature is in products with the Hessian, and the largest eigenvalue by Lanczos's method. Slices of the
landscape are along filter-normalized directions (arXiv 1712.09913).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

Params: TypeAlias = PyTree[Float[Array, "..."]]

Variables = Mapping[str, Params]  # `params`, and `batch_stats` where the network has them.

ParamsLoss = Callable[[Params], Float[Array, ""]]


def loss_function(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "n h w 3"],
    labels: Int[Array, " n"],
    *,
    batch_statistics: bool = False,
) -> ParamsLoss:
    """Returns the mean cross-entropy of these examples as a function of the parameters; without weight decay.

    Args:
        model: Network that takes the images.
        variables: Its variables, whose running statistics are held fixed.
        images: Normalized images.
        labels: Their labels.
        batch_statistics: Normalize with the statistics of the images, as in training; they depend on the
            parameters. Dropout, where the network has it, is then active, with one fixed key.

    Example:
        >>> loss = loss_function(model, variables, images, labels)
        >>> gradient = jax.grad(loss)(variables["params"])
    """
    held = {name: collection for name, collection in variables.items() if name != "params"}

    def loss(params: Params) -> Array:
        applied = {"params": params, **held}
        if batch_statistics:
            logits, _ = model.apply(
                applied, images, train=True, mutable=list(held), rngs={"dropout": jax.random.key(0)}
            )
        else:
            logits = model.apply(applied, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss


def error_rate(logits: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Returns the share of examples whose likeliest class, by logits or other scores, is not the label."""
    return jnp.mean(jnp.argmax(logits, -1) != labels)


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


class Eigenpair(NamedTuple):
    """An eigenvalue of a Hessian H.

    Attributes:
        value: λ.
        vector: v, a tree like the parameters, of norm 1.
        residual: ‖H v - λ v‖; some eigenvalue of H is within that distance of λ.
    """

    value: float
    vector: Params
    residual: float


def hessian_vector_product(loss: ParamsLoss, params: Params, direction: Params) -> Params:
    """Returns H v, for the Hessian H of the loss at `params` and a direction v, without forming H.

    Both v and the product are trees like the parameters.
    Forward over reverse (Pearlmutter 1994): the derivative of the gradient along v, for about twice the cost
    of the gradient.

    Example:
        >>> loss = loss_function(model, variables, images, labels)
        >>> product = hessian_vector_product(loss, variables["params"], direction)
    """
    return jax.jvp(jax.grad(loss), (params,), (direction,))[1]


def top_eigenvalue(loss: ParamsLoss, params: Params, *, iterations: int = 20, seed: int = 0) -> Eigenpair:
    """Returns the largest eigenvalue of the Hessian of the loss, with its eigenvector.

    Lanczos's method from a random vector, every vector made orthogonal to all before it. It keeps
    `iterations` vectors as long as the parameters, and makes as many products with the Hessian. `residual`
    tells whether these were enough.

    Args:
        loss: Twice differentiable at `params`, for example `loss_function(…)`.
        params: A tree of arrays.
        iterations: At most; the dimension is enough for an exact result.
        seed: Seed of the first vector.

    Raises:
        ValueError: `iterations` is below 1.
    """
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; it must be 1 or more")
    flat, unravel = ravel_pytree(params)

    @jax.jit
    def product(at: Float[Array, " p"], vector: Float[Array, " p"]) -> Float[Array, " p"]:
        return ravel_pytree(hessian_vector_product(loss, unravel(at), unravel(vector)))[0]

    first = jax.random.normal(jax.random.key(seed), flat.shape, flat.dtype)
    basis = [first / jnp.linalg.norm(first)]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = product(flat, basis[-1])
        diagonal.append(float(basis[-1] @ image))
        rest = image
        for other in 2 * basis:  # Twice, since one pass leaves rounding errors.
            rest = rest - (other @ rest) * other
        beside.append(float(jnp.linalg.norm(rest)))
        # Below the rounding of a product there is no new direction: the vectors span what H maps into itself.
        spanned = beside[-1] <= float(jnp.finfo(flat.dtype).eps) * max(
            1e-30, abs(max(diagonal, key=abs))
        ) * len(basis)
        if spanned or len(basis) == min(iterations, flat.size):
            break
        basis.append(rest / beside[-1])
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
    vector = jnp.asarray(vectors[:, -1], flat.dtype) @ jnp.stack(basis)
    vector = vector / jnp.linalg.norm(vector)
    residual = float(jnp.linalg.norm(product(flat, vector) - values[-1].astype(flat.dtype) * vector))
    return Eigenpair(float(values[-1]), unravel(vector), residual)


def filter_normalized_direction(params: Params, *, seed: int) -> Params:
    """Returns a random direction whose filters have the norms of the network's (§4 of arXiv 1712.09913).

    d_j ← d_j ‖θ_j‖ / ‖d_j‖ with d drawn from a normal distribution; a filter is a kernel's part for one
    output, of convolutions and of fully connected layers. Biases, and scale and bias of normalization, do not
    move. So slices of nets whose weights are of different size, which normalization makes one function, can
    be compared.

    Args:
        params: Parameters, with every block apart (not stacked).
        seed: Seed of the draw.
    """
    arrays, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(arrays))
    return jax.tree.unflatten(
        structure, [_direction(array, key) for array, key in zip(arrays, keys, strict=True)]
    )


def _direction(array: Array, key: jax.Array) -> Array:
    if array.ndim < 2:
        return jnp.zeros_like(array)
    drawn = jax.random.normal(key, array.shape, array.dtype)
    of_array, of_drawn = (
        jnp.sqrt(jnp.sum(jnp.square(x), axis=tuple(range(x.ndim - 1)))) for x in (array, drawn)
    )
    return drawn * (of_array / of_drawn)


def loss_slice(
    loss: ParamsLoss, params: Params, directions: Sequence[Params], coordinates: Sequence[Float[Array, " n"]]
) -> Float[Array, "..."]:
    """Returns the loss at `params` + Σ aᵢ dᵢ for all combinations of coordinates, an axis for each direction.

    Args:
        loss: For example `loss_function(…)`.
        params: The middle of the slice.
        directions: One for a line, two for a plane.
        coordinates: The aᵢ of each direction.

    Example:
        >>> along = jnp.linspace(-1, 1, 21)
        >>> losses = loss_slice(loss, params, [first, second], [along, along])  # float32[21, 21]
    """
    grid = jnp.stack(jnp.meshgrid(*map(jnp.asarray, coordinates), indexing="ij"), axis=-1)

    def at(point: Float[Array, " directions"]) -> Array:
        moved = params
        for coordinate, direction in zip(point, directions, strict=True):
            moved = jax.tree.map(lambda p, d, a=coordinate: p + a.astype(p.dtype) * d, moved, direction)
        return loss(moved)

    flat: Array = lax.map(at, grid.reshape(-1, len(directions)))
    return flat.reshape(grid.shape[:-1])

"""The curvature of a loss: products with its Hessian, and the largest eigenvalue by Lanczos's method."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from resnet_jax.analysis.losses import Params, ParamsLoss


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
    `iterations` vectors as long as the parameters, and makes as many products with the Hessian. Whether these
    were enough, `residual` says.

    Args:
        loss: Twice differentiable at `params`, for example `loss_function(…)`.
        params: A tree of arrays.
        iterations: At most; the dimension is enough for an exact result.
        seed: Of the first vector.

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
        rest = _orthogonal(image, basis)
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


def _orthogonal(vector: Float[Array, " p"], basis: list[Float[Array, " p"]]) -> Float[Array, " p"]:
    """Returns the vector without its parts along the basis; twice, since one pass leaves rounding errors."""
    for _ in range(2):
        for other in basis:
            vector = vector - (other @ vector) * other
    return vector

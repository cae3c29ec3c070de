"""Tools of research on trained nets, as pure functions of a model and its variables: see docs/functional."""

from resnet_jax.functional.curvature import Eigenpair, hessian_vector_product, top_eigenvalue
from resnet_jax.functional.ensembles import ensemble_probabilities, member_logits, stack_variables
from resnet_jax.functional.examples import read_examples
from resnet_jax.functional.gradients import per_example_gradients
from resnet_jax.functional.interpolation import interpolate, recompute_statistics
from resnet_jax.functional.landscape import filter_normalised_direction, loss_slice
from resnet_jax.functional.losses import cross_entropy, error

__all__ = [
    "Eigenpair",
    "cross_entropy",
    "ensemble_probabilities",
    "error",
    "filter_normalised_direction",
    "hessian_vector_product",
    "interpolate",
    "loss_slice",
    "member_logits",
    "per_example_gradients",
    "read_examples",
    "recompute_statistics",
    "stack_variables",
    "top_eigenvalue",
]

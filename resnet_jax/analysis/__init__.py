"""Analyses of trained networks, as pure functions of a model and its variables.

See docs/analysis and, for the responses of layers, docs/paper.md.
"""

from resnet_jax.analysis.checkpoint_responses import Analysis, analyze_checkpoint, analyze_run
from resnet_jax.analysis.curvature import Eigenpair, hessian_vector_product, top_eigenvalue
from resnet_jax.analysis.ensembles import ensemble_probabilities, member_logits, stack_variables
from resnet_jax.analysis.examples import read_examples
from resnet_jax.analysis.gradients import gradient_norms, per_example_gradients
from resnet_jax.analysis.interpolation import estimate_statistics, interpolate
from resnet_jax.analysis.landscape import filter_normalized_direction, loss_slice
from resnet_jax.analysis.layer_responses import Responses, measure_responses
from resnet_jax.analysis.losses import error_rate, loss_function

__all__ = [
    "Analysis",
    "Eigenpair",
    "Responses",
    "analyze_checkpoint",
    "analyze_run",
    "ensemble_probabilities",
    "error_rate",
    "estimate_statistics",
    "filter_normalized_direction",
    "gradient_norms",
    "hessian_vector_product",
    "interpolate",
    "loss_function",
    "loss_slice",
    "measure_responses",
    "member_logits",
    "per_example_gradients",
    "read_examples",
    "stack_variables",
    "top_eigenvalue",
]

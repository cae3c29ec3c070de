"""Analyses of trained networks, as pure functions of a model and its variables.

See docs/analysis and, for the responses of layers, docs/paper.md.
"""

from resnet_jax.analysis.ensembles import (
    ensemble_probabilities,
    estimate_statistics,
    interpolate,
    member_logits,
    stack_variables,
)
from resnet_jax.analysis.layer_responses import Responses, gradient_norms, measure_responses
from resnet_jax.analysis.losses import (
    Eigenpair,
    error_rate,
    filter_normalized_direction,
    hessian_vector_product,
    loss_function,
    loss_slice,
    per_example_gradients,
    top_eigenvalue,
)
from resnet_jax.analysis.run_analysis import Analysis, analyze_checkpoint, analyze_run, read_examples

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

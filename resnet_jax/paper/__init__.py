"""The paper's tables and figures: what they report, what they need to be trained, and how they are drawn."""

from resnet_jax.errors import UsageError


class PaperError(UsageError, ValueError):
    """A table, a figure or an option of one that does not exist, or that the data does not have."""

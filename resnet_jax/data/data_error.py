"""What is raised when data is at fault."""

from resnet_jax.errors import UsageError


class DataError(UsageError):
    """Data that cannot be found, prepared or read; the message says what to do."""


class CorruptImageError(DataError):
    """Bytes that are no whole image; the message says what is wrong with them, not where they are."""

"""Where batches come from: (seed, step) → this process's part of the global batch."""

from resnet_jax.data.sources import DataError, Source, open_source

__all__ = ["DataError", "Source", "open_source"]

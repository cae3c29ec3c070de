"""Where batches come from: (seed, step) → this process's part of the global batch."""

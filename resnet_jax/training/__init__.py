"""How it learns: optimizer, state, step, checkpoints, and the run that ties them together."""

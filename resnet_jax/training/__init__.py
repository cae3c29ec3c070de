"""How it learns: optimiser, state, step, checkpoints, and the run that ties them together."""

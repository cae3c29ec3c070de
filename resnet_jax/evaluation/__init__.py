"""How good it is: evaluation of a run's checkpoints."""

"""Evaluation of a run's checkpoints: how good the network is."""

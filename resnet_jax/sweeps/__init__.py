"""Many runs: scaled recipes, what of them is missing, training it, and errors over seeds."""

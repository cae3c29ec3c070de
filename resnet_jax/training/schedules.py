"""Learning rates as functions of the step."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array

Schedule = Callable[[Array], Array]


def step_decay(
    rate: float,
    *,
    boundaries: Sequence[int],
    factor: float = 0.1,
    warmup_steps: int = 0,
    warmup_rate: float = 0.0,
    warmup_form: str = "constant",
) -> Schedule:
    """Returns the rate divided by 10 at each boundary, after a constant (§4.2) or linear warm-up.

    rate(step) = warmup_rate for step < warmup_steps, else rate · factor^(number of boundaries ≤ step). Steps
    count from 0, so the boundary 32,000 means that 32,000 updates are made at the first rate. In the form
    "linear" (arXiv 1706.02677, §2.2) the warm-up is warmup_rate + (rate - warmup_rate) · (step + 1) /
    warmup_steps, whose last step has the rate itself.

    Raises:
        ValueError: The boundaries do not rise.

    Example:
        >>> schedule = step_decay(0.1, boundaries=(32_000, 48_000))
        >>> float(schedule(40_000))
        0.01
    """
    if list(boundaries) != sorted(set(boundaries)):
        raise ValueError(f"boundaries {tuple(boundaries)} must rise")

    def schedule(step: Array) -> Array:
        passed = sum(
            (jnp.asarray(step >= boundary, jnp.int32) for boundary in boundaries),
            start=jnp.zeros((), jnp.int32),
        )
        # A table, not a power: factor**2 must be the same number on every platform.
        decayed = jnp.asarray([rate * factor**count for count in range(len(boundaries) + 1)])[passed]
        share = jnp.minimum(1, (step + 1) / warmup_steps) if warmup_form == "linear" and warmup_steps else 0.0
        return jnp.where(step < warmup_steps, warmup_rate + (rate - warmup_rate) * share, decayed)

    return schedule

"""Scaled recipes: the same schedule in more or fewer steps."""

from resnet_jax.training.config import Config, with_fields
from resnet_jax.training.config_fields import ConfigError


def scale_steps(config: Config, factor: float) -> Config:
    """Returns a config whose steps, and all that is counted in steps, are multiplied by the factor.

    Raises:
        ConfigError: The factor is not above 0.
    """
    if not factor > 0:
        raise ConfigError(f"--budget is {factor}; it must be above 0, and 1 is the whole number of steps")

    def times(steps: int) -> int:
        return max(1, round(factor * steps)) if steps else steps

    run, optimizer = config.run, config.optimizer
    return with_fields(
        config,
        {
            "run.steps": times(run.steps),
            "run.evaluate_every": times(run.evaluate_every),
            "run.checkpoint_every": times(run.checkpoint_every),
            "run.log_every": times(run.log_every),
            "optimizer.warmup_steps": times(optimizer.warmup_steps),
            "optimizer.plateau_window": times(optimizer.plateau_window),
            "optimizer.boundaries": tuple(sorted({times(step) for step in optimizer.boundaries})),
        },
    )

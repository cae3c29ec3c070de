"""Evaluation of a task other than classification, by the task's own metrics."""

from etils import epath

from resnet_jax.training.checkpoints import from_arrays, read_checkpoint
from resnet_jax.training.config import from_json, with_fields
from resnet_jax.training.network import prepare_jax
from resnet_jax.training.task import build_experiment


def evaluate_by_task(
    workdir: epath.PathLike, *, step: int | None = None, data_dir: str | None = None
) -> dict[str, float]:
    """Returns the metrics of the test split that the run's task computes, and `step`.

    Args:
        workdir: Directory of the run.
        step: Checkpoint to evaluate. Defaults to the newest.
        data_dir: Directory of the dataset. Defaults to the run's.
    """
    checkpoint = read_checkpoint(workdir, step)
    config = from_json(checkpoint.config)
    config = with_fields(config, {"run.devices": None, "run.data_dir": data_dir or config.run.data_dir})
    prepare_jax(config)
    experiment = build_experiment(config, begun=workdir)
    state = experiment.mapping.replicate(from_arrays(experiment.initial_state(), checkpoint.arrays))
    return {**experiment.test(state), "step": checkpoint.step}

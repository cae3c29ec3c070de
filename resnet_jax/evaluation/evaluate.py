"""Evaluation of a run's checkpoint on a whole split, every example once."""

from typing import Any

import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from resnet_jax.data.augment import normalise
from resnet_jax.data.batches import EvaluationBatches, reading_threads
from resnet_jax.data.errors import DataError
from resnet_jax.models import create_model
from resnet_jax.models.stacking import stack_arrays
from resnet_jax.parallel import AXIS_NAME, choose_devices, create_mapping, process_share
from resnet_jax.training.checkpoints import read_checkpoint
from resnet_jax.training.config import resolve
from resnet_jax.training.experiment import looped, open_split, prepare_jax
from resnet_jax.training.state import TrainState, split_variables
from resnet_jax.training.step import evaluate, make_evaluation_step


def evaluate_checkpoint(
    workdir: epath.PathLike, *, step: int | None = None, split: str | None = None, data_dir: str | None = None
) -> dict[str, Any]:
    """Returns `loss`, `top1`, `top5` (fractions; top5 with more than 5 classes), `examples`, `step` and `split`.

    Args:
        workdir: Of the run.
        step: Of the checkpoint; None is the newest.
        split: Of the run's data set; None is the config's test split.
        data_dir: Where the data set is; None is where the run found it.

    Raises:
        WorkdirError, CheckpointError, DataError: What was asked for is not there.
    """
    checkpoint = read_checkpoint(workdir, step)
    config = resolve(ConfigDict(checkpoint.config))
    if data_dir is not None:
        config.run.data_dir = data_dir
    if not config.data.source:
        raise DataError(f"the data of this net is not known: {workdir} is an import; it can be fine-tuned and used, not evaluated")
    config.run.devices = 0  # Those of this machine, which need not be the run's.
    config.run.accumulation = 1
    prepare_jax(config)
    config.run.remat = 0  # There is no backward pass.
    model = looped(create_model(**checkpoint.model), config)
    devices = choose_devices(config.batch_size, None)
    mapping = create_mapping(config.run.mapping, devices)
    split = split or config.data.test_split
    source = open_split(config, split, test=split == config.data.test_split)
    if len(source.class_names) != checkpoint.model["num_classes"]:
        raise DataError(
            f"split {split} of {config.data.source} has {len(source.class_names)} classes, and the net of {workdir} "
            f"{checkpoint.model['num_classes']}; evaluate it on a set with the classes that it was trained on"
        )
    share, workers = process_share(config.batch_size, devices), reading_threads(config.run.workers)
    batches = EvaluationBatches(source, config.batch_size, share, workers, config.run.read_ahead)
    scanned = getattr(model, "scan", False)
    variables, image_mean = split_variables(stack_arrays(checkpoint.arrays) if scanned else checkpoint.arrays)
    state = TrainState(
        step=jnp.asarray(checkpoint.step),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=(),
        image_mean=image_mean,
    )
    evaluation_step = mapping.map(make_evaluation_step(model, normalise, axis_name=AXIS_NAME), donate=False)
    results = evaluate(evaluation_step, mapping.replicate(state), batches, mapping)
    return {**results, "step": checkpoint.step, "split": split}

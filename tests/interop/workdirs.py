"""Workdirs of small nets that nobody trained.

Weights from a seed, with statistics far from their initial values.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.models import create_model
from resnet_jax.training.checkpoint_writer import CheckpointWriter
from resnet_jax.training.config import base_config, to_json
from resnet_jax.training.state import TrainState
from resnet_jax.training.workdir import store_config
from tests.models.numpy_reference import randomised

RGB_MEAN = np.array([120.0, 110.0, 100.0], np.float32)


def pixel_mean(side: int) -> np.ndarray:
    """Returns a mean float32[side, side, 3] that differs from pixel to pixel."""
    return np.random.default_rng(3).uniform(80, 160, (side, side, 3)).astype(np.float32)


def write(
    workdir: Path,
    model: dict[str, Any],
    *,
    side: int,
    mean: np.ndarray = RGB_MEAN,
    steps: tuple[int, ...] = (4,),
    class_names: tuple[str, ...] | None = None,
    preprocessing: dict[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """Writes the workdir of a net, with other weights at every step, and returns it.

    Args:
        workdir: To be made.
        model: Arguments of create_model.
        side: Of its images, in pixels.
        mean: Subtracted from them.
        steps: Of its checkpoints.
        class_names: Stored in them; None as in checkpoints of format 1.
        preprocessing: As `class_names`.
        **fields: Of the config, with __ for the dot: `data__source="digits"`.
    """
    model = {**model, "dtype": model.get("dtype", "float32")}
    config = base_config()
    changes = {
        "model.name": model["name"],
        "data.source": "synthetic",
        "data.synthetic_classes": model["num_classes"],
    }
    changes |= {"data.synthetic_image_size": side} | {
        name.replace("__", "."): value for name, value in fields.items()
    }
    config.update_from_flattened_dict(changes)
    shapes = jax.eval_shape(create_model(**model).init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    writer = CheckpointWriter(
        workdir,
        keep=len(steps),
        config=to_json(config),
        model=model,
        class_names=class_names,
        preprocessing=preprocessing,
    )
    for step in steps:
        variables = jax.tree.map(np.float32, randomised(shapes, seed=step))
        params, statistics = variables["params"], variables.get("batch_stats", {})
        writer.save(step, TrainState(jnp.asarray(step), params, statistics, (), jnp.asarray(mean)))
    writer.wait()
    writer.close()
    store_config(workdir, config)
    return workdir

"""A task from outside the package.

The label of an image is a quantity to be estimated, judged by its error.
"""

import jax.numpy as jnp
import numpy as np

from resnet_jax.training.image_task import ImageTask
from resnet_jax.training.task import Curve


def squared_error(outputs: jnp.ndarray, labels: jnp.ndarray) -> jnp.ndarray:
    return jnp.square(outputs[:, 0] - labels)


class CountingTask(ImageTask):
    """One output estimates the number of the class; the score is the negative root mean square error."""

    def __init__(self, floor: float = 0.0) -> None:
        def measures(outputs, labels):  # type: ignore[no-untyped-def]
            return {"within_a_half": jnp.mean(jnp.abs(outputs[:, 0] - labels) < 0.5, dtype=outputs.dtype)}

        def sums(outputs, labels, mask):  # type: ignore[no-untyped-def]
            error = jnp.where(mask, squared_error(outputs, labels), 0)
            return {"examples": mask.sum(), "score": -error.sum(), "squared_error": error.sum()}

        super().__init__(
            measures=measures,
            sums=sums,
            score="score",
            line=lambda record: f"loss {record['loss']:.3f}",
            curve=Curve("loss", "test_squared_error", "squared error", lambda value: value, floor),
            summary=lambda tested: f"RMSE {np.sqrt(tested[-1]['test_squared_error']):.3f}",
            loss=squared_error,
            outputs=1,
        )

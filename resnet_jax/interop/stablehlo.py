"""Exports a network as one StableHLO program with its weights, which JAX runs without this package."""

from functools import partial

import jax
import numpy as np

from resnet_jax.inference.trained import Trained

PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(trained: Trained) -> bytes:
    """Returns a serialized `jax.export` program from uint8[batch, crop, crop, 3] to logits, float32."""
    side = trained.preprocessing.crop
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, side, side, 3), np.uint8)
    program = jax.jit(partial(trained.forward, trained.variables))
    return bytes(jax.export.export(program, platforms=PLATFORMS)(images).serialize())

"""Inference by pieces gives what the net gives, and only a CPU's program has pieces."""

import jax
import numpy as np
import pytest

from resnet_jax import create_model
from resnet_jax.models.sliced_apply import apply_in_slices

MODEL = create_model("cifar_resnet8", stage_depths=(1, 1, 1), num_classes=7)


@pytest.fixture(scope="module")
def variables():  # type: ignore[no-untyped-def]
    return MODEL.lazy_init(jax.random.key(0), jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32), train=False)


@pytest.mark.parametrize("images", [1, 3, 12, 24, 34])
def test_pieces_give_the_same(variables, images: int) -> None:  # type: ignore[no-untyped-def]
    x = np.random.RandomState(0).standard_normal((images, 16, 16, 3)).astype(np.float32)
    logits = jax.jit(lambda v, x: apply_in_slices(MODEL, v, x))(variables, x)
    np.testing.assert_allclose(logits, jax.jit(MODEL.apply)(variables, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("platform", "images", "pieces"),
    [("cpu", 24, True), ("cpu", 16, False), ("cpu", 34, False), ("tpu", 24, False)],
)
def test_only_a_cpu_takes_pieces(variables, platform: str, images: int, pieces: bool) -> None:
    lowered = jax.jit(lambda v, x: apply_in_slices(MODEL, v, x)).trace(
        variables, np.zeros((images, 16, 16, 3), np.float32)
    )
    assert ("stablehlo.while" in lowered.lower(lowering_platforms=(platform,)).as_text()) == pieces

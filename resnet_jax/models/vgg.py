"""The paper's comparison nets VGG-16 and VGG-19 (arXiv 1409.1556, Table 1, columns D and E)."""

from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from resnet_jax.models.kernels.pooling import max_pool
from resnet_jax.models.layers import ModelError, he_normal, parameter_dtype, scale_input


class VGG(nn.Module):
    """Five stages of 3×3 convolutions with bias and a 2×2 maximum, and three fully connected layers.

    Takes normalized images [N, H, W, 3] with H and W multiples of 32 and gives logits [N, num_classes]. The
    size of the images fixes that of the first fully connected layer. With `train=True` and a rate of dropout,
    apply needs an rng "dropout".

    Attributes:
        stage_depths: Convolutions in each of the five stages.
        num_classes: Length of the logits.
        dtype: Dtype of the computation; parameters and logits are float32 (float64 for float64).
        width: Filters of the first stage, doubled up to eight times as many.
        hidden: Units of the first two fully connected layers.
        dropout: Share of their outputs that is dropped in training.
        input_scale: Factors of the channels of the images, for nets that were trained on images divided by a
            deviation.
    """

    stage_depths: tuple[int, ...]
    num_classes: int
    dtype: DTypeLike = jnp.float32
    width: int = 64
    hidden: int = 4096
    dropout: float = 0.5
    input_scale: tuple[float, ...] | None = None

    normalized: ClassVar[bool] = False
    scannable: ClassVar[bool] = False
    has_endpoints: ClassVar[bool] = False
    takes_any_size: ClassVar[bool] = False
    scanned: ClassVar[bool] = False

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"], train: bool = False) -> Float[Array, "n classes"]:
        if min(images.shape[1:3]) < 2 ** len(self.stage_depths):
            raise ModelError(
                f"images of {images.shape[1:3]} pixels are halved away; "
                f"VGG needs at least {2 ** len(self.stage_depths)}"
            )
        stored = parameter_dtype(self.dtype)
        conv = partial(nn.Conv, kernel_size=(3, 3), padding=1, kernel_init=he_normal, param_dtype=stored)
        dense = partial(nn.Dense, kernel_init=he_normal, param_dtype=stored)
        x = scale_input(images.astype(self.dtype), self.input_scale)
        for stage, depth in enumerate(self.stage_depths):
            filters = self.width * min(2**stage, 8)
            for index in range(depth):
                x = nn.relu(conv(filters, dtype=self.dtype, name=f"stage{stage + 1}_conv{index + 1}")(x))
            x = max_pool(x, size=2, stride=2, padding=0)
        x = x.reshape(x.shape[0], -1)
        for name in ("hidden1", "hidden2"):
            x = nn.relu(dense(self.hidden, dtype=self.dtype, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return dense(self.num_classes, dtype=stored, name="head")(x)

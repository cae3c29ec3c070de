"""The feature maps of a network, which are the outputs of its stem and stages."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from resnet_jax.models.layers import ModelError

# Side in pixels of the image whose maps are measured; every stride divides it.
PROBE = 256


class FeatureShape(NamedTuple):
    """Stride of a feature map in pixels of the image, and its number of channels. `pooled` has stride 0."""

    stride: int
    channels: int


def features(model: nn.Module, variables: PyTree, images: Float[Array, "n h w 3"]) -> dict[str, Array]:
    """Returns the outputs of stem and stages, and the pooled vector [N, channels], by name.

    Maps are [N, ⌈H/stride⌉, ⌈W/stride⌉, channels].

    | | ImageNet family: stride | channels, basic blocks | bottlenecks | CIFAR family: stride | channels |
    |---|---|---|---|---|---|
    | `stem` | 4 | 64 | 64 | 1 | 16 |
    | `stage1` | 4 | 64 | 256 | 1 | 16 |
    | `stage2` | 8 | 128 | 512 | 2 | 32 |
    | `stage3` | 16 | 256 | 1024 | 4 | 64 |
    | `stage4` | 32 | 512 | 2048 | | |
    | `pooled` | | 512 | 2048 | | 64 |

    `feature_shapes` gives them for any net. Maps are in the model's dtype, `pooled`, the mean over the last
    of them and what the head takes, in float32 at least. Normalization is with the running statistics. A pure
    function, to be put under `jax.jit` with the model fixed, and differentiable.

    Args:
        model: A residual or plain net.
        variables: Its `params` and `batch_stats`.
        images: Normalized as for `model.apply`.

    Raises:
        ModelError: The model is another net, such as VGG.

    Example:
        >>> model, variables = load_checkpoint("runs/digits_resnet20")
        >>> features(model, variables, images)["stage3"].shape
        (4, 4, 4, 64)
    """
    if not getattr(model, "has_endpoints", False):
        raise ModelError(
            f"features are those of a residual or plain net, and the model is a {type(model).__name__}"
        )
    outputs: PyTree = model.apply(variables, images, method="endpoints")
    return {name: output for name, output in outputs.items() if name != "logits"}


def feature_shapes(model: nn.Module) -> dict[str, FeatureShape]:
    """Returns stride and channels of everything that `features` gives, by name; nothing is computed.

    Raises:
        ModelError: The model is another net, such as VGG.

    Example:
        >>> feature_shapes(create_model("resnet50"))["stage4"].channels
        2048
    """
    images = jax.ShapeDtypeStruct((1, PROBE, PROBE, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    found = jax.eval_shape(lambda v, x: features(model, v, x), variables, images)
    return {
        name: FeatureShape(PROBE // x.shape[1] if x.ndim == 4 else 0, x.shape[-1])
        for name, x in found.items()
    }

"""Faster R-CNN on the maps of a residual net's last stage but one ("C4"; appendix A).

Stem and stages are those of the classifier and have its variables' paths, so that its weights load by name:
all stages but the last see the whole image, the last one sees regions. Normalizations use their running
statistics, in training too, as appendix A does.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import VariableDict
from jaxtyping import Array, Float

from resnet_jax.detection.padding import Sizes, clear_padding, without_padding
from resnet_jax.detection.profiles import PROFILES, Profile
from resnet_jax.models import create_model
from resnet_jax.models.layers import ModelError, global_average_pool, parameter_dtype
from resnet_jax.models.resnet import ResNet, Stage


class Trunk(nn.Module):
    """Stem and all stages but the last of a net, on whole images."""

    net: ResNet

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], sizes: Sizes | None = None
    ) -> Float[Array, "n h2 w2 c"]:
        """Returns the map; zeros outside of the images where `sizes` are given."""
        shape, factories = images.shape[1:3], self.net.layer_factories(train=False)
        if sizes is not None:
            factories = without_padding(factories, sizes, shape)
        x = self.net.make_stem(factories)(self.net.as_input(images))
        for index in range(len(self.net.stage_depths) - 1):
            x = self.net.make_stage(index, factories, train=False)(x)
        return x if sizes is None else clear_padding(x, sizes=sizes, image=shape)


class Proposer(nn.Module):
    """The region proposal network's layers (arXiv 1506.01497, §3.1): 3×3, and two siblings of 1×1."""

    channels: int | None
    anchors: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> tuple[Float[Array, "n k"], Float[Array, "n k 4"]]:
        """Returns a logit and four deltas for every anchor: rows, then columns, then the place's anchors."""
        dtype = parameter_dtype(self.dtype)
        make = partial(nn.Conv, kernel_init=nn.initializers.normal(0.01), param_dtype=dtype)
        conv = make(self.channels or x.shape[-1], (3, 3), dtype=self.dtype, name="rpn_conv")
        x = nn.relu(conv(x)).astype(dtype)
        logits = make(self.anchors, (1, 1), name="rpn_object")(x)
        deltas = make(4 * self.anchors, (1, 1), name="rpn_deltas")(x)
        return logits.reshape(len(x), -1), deltas.reshape(len(x), -1, 4)


class RegionHead(nn.Module):
    """The last stage of a net on regions, its mean, and two sibling layers: classes, and boxes by class."""

    net: ResNet
    classes: int

    @nn.compact
    def __call__(
        self,
        regions: Float[Array, "r h w c"],
        context: Float[Array, "r k"] | None,
        again: Float[Array, "r h w c"] | None = None,
        *,
        pooled: bool = False,
    ) -> Any:
        """Returns scores, the background's last, and deltas; or with `pooled` the mean of the last stage."""
        net, dtype = self.net, parameter_dtype(self.net.dtype)
        factories = net.layer_factories(train=False)
        x = regions if again is None else jnp.concatenate([regions, again])
        x = net.make_stage(len(net.stage_depths) - 1, factories, train=False)(x)
        if again is not None:
            x = jnp.maximum(x[: len(regions)], x[len(regions) :])
        features = global_average_pool(net.end(x, norm=factories["norm"], activation=factories["activation"]))
        features = features.astype(dtype)
        if pooled:
            return features
        if context is not None:
            features = jnp.concatenate([features, context], -1)
        normal, dense = nn.initializers.normal, partial(nn.Dense, dtype=dtype, param_dtype=dtype)
        scores = dense(self.classes + 1, kernel_init=normal(0.01), name="score")(features)
        deltas = dense(4 * self.classes, kernel_init=normal(0.001), name="deltas")(features)
        return scores, deltas.reshape(len(features), self.classes, 4)


class Detector(nn.Module):
    """The detector as functions of its variables: `trunk`, `rpn`, `pooled` and `head`.

    Attributes:
        net: The classifier whose stem and stages it is made from.
        profile: Constants; see Profile.
        classes: Number of classes, without the background.
        context: Whether the head also sees the whole image (global context, appendix B).
    """

    net: ResNet
    profile: Profile
    classes: int
    context: bool = False

    normalized: ClassVar[bool] = True
    scannable: ClassVar[bool] = False

    def setup(self) -> None:
        self._trunk = Trunk(self.net)
        self._proposer = Proposer(self.profile.rpn_channels, len(self.profile.cell), self.net.dtype)
        self._head = RegionHead(self.net, self.classes)
        for part in (self._trunk, self._proposer, self._head):
            nn.share_scope(self, part)

    def trunk(self, images: Float[Array, "n h w 3"], sizes: Sizes | None = None) -> Float[Array, "n h2 w2 c"]:
        """Returns the map of normalized images; with `sizes`, that of each image alone."""
        return self._trunk(images, sizes)

    def rpn(self, x: Float[Array, "n h w c"]) -> tuple[Float[Array, "n k"], Float[Array, "n k 4"]]:
        """Returns a logit and four deltas of every anchor of a map."""
        return self._proposer(x)

    def pooled(
        self, regions: Float[Array, "r h w c"], again: Float[Array, "r h w c"] | None = None
    ) -> Float[Array, "r k"]:
        """Returns the feature of every region; see `head` for `again`."""
        return self._head(regions, None, again, pooled=True)

    def head(
        self,
        regions: Float[Array, "r h w c"],
        context: Float[Array, "r k"] | None = None,
        again: Float[Array, "r h w c"] | None = None,
    ) -> tuple[Float[Array, "r classes+1"], Float[Array, "r classes 4"]]:
        """Returns scores of classes, the background's last, and deltas by class, of regions.

        Args:
            regions: Pooled from the map.
            context: Features of the regions' whole images, where `context` is set.
            again: The same regions at another scale; the larger of each two values of the last stage counts
                (maxout, appendix B).
        """
        return self._head(regions, context, again)

    def __call__(self, images: Float[Array, "n h w 3"]) -> tuple[Array, Array, Array, Array]:
        """Calls every layer once, for initialization."""
        x = self.trunk(images)
        logits, deltas = self.rpn(x)
        bins = self.profile.bins
        regions = jnp.zeros((1, bins, bins, x.shape[-1]), x.dtype)
        return logits, deltas, *self.head(regions, self.pooled(regions) if self.context else None)


def create_detector(
    *, profile: str, num_classes: int, context: bool = False, task: str = "detection", **network: Any
) -> Detector:
    """Returns the detector that arguments describe, as a checkpoint stores them.

    Args:
        profile: Name of the constants, see PROFILES.
        num_classes: Number of classes, without the background.
        context: See Detector.
        task: "detection"; a checkpoint has it, so that whoever reads it knows what it is.
        **network: Arguments of create_model.

    Raises:
        ModelError: There is no such profile or network, or the network is not made of stages.
    """
    del task
    if profile not in PROFILES:
        raise ModelError(f"unknown profile {profile!r}; allowed are {', '.join(PROFILES)}")
    net = create_model(num_classes=num_classes, **network)
    if not isinstance(net, ResNet):
        raise ModelError(
            f"{network['name']} has no stages for a detector; use a residual net, such as resnet50"
        )
    return Detector(net.clone(stage=Stage), PROFILES[profile], num_classes, context)


def call(method: Callable[..., Any], variables: VariableDict, *arguments: Any) -> Any:
    """Returns what a method of a detector gives with variables: `call(detector.rpn, variables, x)`."""
    return method.__self__.apply(variables, *arguments, method=method)  # type: ignore[attr-defined]

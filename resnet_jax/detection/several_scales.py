"""Regions judged at two of several scales of their image (multi-scale testing, appendix B).

The paper has the maps of images with shorter sides of 200 to 1000 pixels, pools a region from two adjacent
ones, and takes the larger value of each two after the last stage. Which two, it does not say: here they are
those between which the region has the side of `Profile.canonical_side`, 224 pixels, as networks for regions
before it chose their scale. Proposals are those of the one scale of `Profile.test_shorter_side`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from flax.typing import VariableDict
from jaxtyping import Array, Bool, Float, Int

from resnet_jax.detection.detector import Detector, call
from resnet_jax.detection.padding import Sizes
from resnet_jax.detection.profiles import Profile
from resnet_jax.detection.regions import pool_regions, whole_images


class ScaledMaps(NamedTuple):
    """Maps of the images of a batch at one scale.

    Attributes:
        maps: The maps.
        size: True sizes of the scaled images, in pixels.
        factor: Pixels of the scaled images per pixel of the network's images, vertically and horizontally.
        image: Height and width of the padded images.
    """

    maps: Float[Array, "n h w c"]
    size: Sizes
    factor: Float[Array, "n 2"]
    image: tuple[int, ...]


def maps_at_scales(
    batch: dict[str, Array], profile: Profile, trunk: Callable[[dict[str, Array]], Array]
) -> tuple[ScaledMaps, ...]:
    """Returns the maps at every scale of a profile, the smallest first.

    Args:
        batch: `scale` of the images, and `image_SIDE`, `size_SIDE` and `scale_SIDE` of every scale.
        profile: Its `scales`.
        trunk: Returns the maps of `image` and `size`.
    """
    found = []
    for side in sorted(profile.scales):
        image, size, scale = (batch[f"{name}_{side}"] for name in ("image", "size", "scale"))
        maps = trunk({"image": image, "size": size})
        found.append(ScaledMaps(maps, size, scale / batch["scale"], image.shape[1:3]))
    return tuple(found)


def first_scale(
    boxes: Float[Array, "n r 4"], scales: tuple[ScaledMaps, ...], canonical: float
) -> Int[Array, "n r"]:
    """Returns the number of the smaller of the two adjacent scales from which every region is pooled.

    It is the largest scale at which the area of the region is at most `canonical`². Regions that are larger
    at every scale use the two smallest scales; regions that are smaller at every scale use the two largest.
    """
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    area = sides[..., 0] * sides[..., 1]
    fitting = sum(area * one.factor.prod(-1)[:, None] <= canonical**2 for one in scales)
    return jnp.clip(jnp.asarray(fitting) - 1, 0, len(scales) - 2).astype(jnp.int32)


def pool_twice(
    boxes: Float[Array, "n r 4"], valid: Bool[Array, "n r"], scales: tuple[ScaledMaps, ...], profile: Profile
) -> tuple[Float[Array, "m b b c"], Float[Array, "m b b c"]]:
    """Returns the regions of all images from the smaller and from the larger of their two scales.

    Args:
        boxes: Regions in pixels of the network's images.
        valid: Which regions there are; the others are zeros.
        scales: Maps, the smallest first.
        profile: How regions are pooled.
    """
    first = first_scale(boxes, scales, profile.canonical_side)
    smaller = larger = jnp.zeros(())
    for number, one in enumerate(scales):
        chosen = [valid & (first == number - place) for place in (0, 1)]
        moved = boxes * one.factor[:, None, jnp.array([1, 0, 1, 0])]
        regions = pool_regions(one.maps, moved, chosen[0] | chosen[1], one.size, profile, image=one.image)
        these = [jnp.where(place.reshape(-1, 1, 1, 1), regions, 0) for place in chosen]
        smaller, larger = smaller + these[0], larger + these[1]
    return smaller, larger


def outputs_at_scales(
    model: Detector,
    variables: VariableDict,
    scales: tuple[ScaledMaps, ...],
    boxes: Float[Array, "n r 4"],
    valid: Bool[Array, "n r"],
    sizes: Sizes,
) -> tuple[Float[Array, "n r classes+1"], Float[Array, "n r classes 4"]]:
    """Returns what the head says of regions: as `head_outputs`, at two scales of each.

    Args:
        model: The detector.
        variables: Its variables.
        scales: Maps, the smallest first.
        boxes: Regions in pixels of the network's images.
        valid: Which regions there are.
        sizes: True sizes of the network's images.
    """
    context = None
    if model.context:
        whole = pool_twice(whole_images(sizes), jnp.ones((len(sizes), 1), bool), scales, model.profile)
        context = jnp.repeat(call(model.pooled, variables, *whole), boxes.shape[1], 0)
    regions, again = pool_twice(boxes, valid, scales, model.profile)
    scores, deltas = call(model.head, variables, regions, context, again)
    return scores.reshape(*boxes.shape[:2], -1), deltas.reshape(*boxes.shape[:2], *deltas.shape[1:])

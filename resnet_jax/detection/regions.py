"""Regions of the maps of a batch, pooled as a profile says."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from resnet_jax.detection.detector import Detector, call
from resnet_jax.detection.padding import Sizes, map_sizes
from resnet_jax.detection.profiles import Profile
from resnet_jax.detection.roi import roi_align, roi_pool


def pool_regions(
    maps: Float[Array, "n h w c"],
    boxes: Float[Array, "n r 4"],
    valid: Bool[Array, "n r"],
    sizes: Sizes,
    profile: Profile,
    *,
    image: tuple[int, ...],
) -> Float[Array, "m b b c"]:
    """Returns the regions of all images, image by image: n · r of them; zeros for those that are not valid.

    Args:
        maps: Maps of the images.
        boxes: Regions in pixels of the network's image.
        valid: Which regions there are.
        sizes: True sizes of the images, in pixels.
        profile: How regions are pooled.
        image: Height and width of the padded images.
    """
    of_maps = map_sizes(sizes, image, maps.shape[1:3])
    stride = image[0] // maps.shape[1]
    if profile.pooling == "pool":
        pool = partial(roi_pool, stride=stride, bins=profile.bins)
    else:
        pool = partial(roi_align, stride=stride, bins=profile.bins, samples=profile.samples)
    regions = jax.vmap(lambda x, box, ok, size: pool(x, box, ok, size=size))(maps, boxes, valid, of_maps)
    return regions.reshape(-1, *regions.shape[2:])


def whole_images(sizes: Sizes) -> Float[Array, "n 1 4"]:
    """Returns the whole of every image as a box: the region of the global context (appendix B)."""
    height, width = sizes[:, 0].astype(jnp.float32), sizes[:, 1].astype(jnp.float32)
    zero = jnp.zeros_like(height)
    return jnp.stack([zero, zero, width, height], -1)[:, None]


def head_outputs(
    model: Detector,
    variables: PyTree,
    x: Float[Array, "n h w c"],
    boxes: Float[Array, "n r 4"],
    valid: Bool[Array, "n r"],
    batch: dict[str, Array],
) -> tuple[Float[Array, "n r classes+1"], Float[Array, "n r classes 4"]]:
    """Returns what the head says of regions: scores, the background's last, and deltas by class.

    Args:
        model: The detector.
        variables: Its variables.
        x: Maps of the images.
        boxes: Regions in pixels of the network's image.
        valid: Which regions there are.
        batch: `image` and `size` of the images.
    """
    sizes = batch["size"]
    pool = partial(pool_regions, x, sizes=sizes, profile=model.profile, image=batch["image"].shape[1:3])
    context = None
    if model.context:
        pooled = call(model.pooled, variables, pool(whole_images(sizes), jnp.ones((len(sizes), 1), bool)))
        context = jnp.repeat(pooled, boxes.shape[1], 0)
    scores, deltas = call(model.head, variables, pool(boxes, valid), context)
    return scores.reshape(*boxes.shape[:2], -1), deltas.reshape(*boxes.shape[:2], *deltas.shape[1:])

"""A region of a map as a small map: RoIAlign (arXiv 1703.06870, §3) and RoIPool (arXiv 1504.08083, §2.1).

RoIAlign is two matrix products, since its bilinear samples are separable: rows, then columns.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

CHUNK = 64
"""Regions whose intermediate maps are held at once, on maps of more than SMALL numbers."""

SMALL = 1 << 18


def roi_align(
    x: Float[Array, "h w c"],
    boxes: Float[Array, "r 4"],
    valid: Bool[Array, " r"],
    *,
    stride: int,
    bins: int,
    samples: int | None = 2,
    size: Float[Array, "2"] | None = None,
    aligned: bool = True,
) -> Float[Array, "r bins bins c"]:
    """Returns regions of a map, averaged over bilinear samples in every bin; zeros for those not valid.

    As `torchvision.ops.roi_align`: a sample more than a pixel outside of the map is 0, one within a pixel
    takes the border's value.

    Args:
        x: The map.
        boxes: Regions in pixels of the image; no gradient flows to them.
        valid: Which regions there are.
        stride: Pixels of the image for a pixel of the map.
        bins: Rows and columns of a region.
        samples: Samples of a bin in each direction. None is one for each pixel of the map that it is long,
            rounded up, of each region for itself (`sampling_ratio=0`); no region is then longer than the map.
        size: True height and width of the map, beyond which there is nothing. Defaults to all of it.
        aligned: Pixels have their centers at halves. False is the older form, shifted by half a pixel, with
            regions of one pixel at least.
    """
    boxes = lax.stop_gradient(boxes) / stride - (0.5 if aligned else 0.0)
    size = jnp.asarray(x.shape[:2] if size is None else size)
    of_axis = partial(_weights, bins=bins, samples=samples, aligned=aligned)
    weights = tuple(
        jax.vmap(partial(of_axis, length=x.shape[axis], true=size[axis]))(
            boxes[:, 1 - axis], boxes[:, 3 - axis]
        )
        for axis in (0, 1)
    )
    weights = tuple(jnp.where(valid[:, None, None], part, 0).astype(x.dtype) for part in weights)

    def contract(rows: Array, columns: Array) -> Array:
        # The second weights are repeated for every place of the first, so that both products, and those of
        # the gradient, leave the large maps in their order: without that, XLA transposes them on CPUs.
        if x.shape[0] > x.shape[1]:
            columns = jnp.broadcast_to(columns[:, None], (*rows.shape[:2], *columns.shape[1:]))
            return jnp.einsum("rpqw,rpwc->rpqc", columns, jnp.einsum("rph,hwc->rpwc", rows, x))
        rows = jnp.broadcast_to(rows[:, None], (*columns.shape[:2], *rows.shape[1:]))
        turned = jnp.einsum("rqph,rqhc->rqpc", rows, jnp.einsum("rqw,hwc->rqhc", columns, x))
        return jnp.swapaxes(turned, 1, 2)

    regions = len(boxes)
    if regions <= CHUNK or x.size <= SMALL:
        return contract(*weights)
    missing = -regions % CHUNK
    chunks = tuple(
        jnp.pad(part, ((0, missing), (0, 0), (0, 0))).reshape(-1, CHUNK, *part.shape[1:]) for part in weights
    )
    pooled = lax.map(jax.checkpoint(lambda part: contract(*part)), chunks)
    return pooled.reshape(-1, *pooled.shape[2:])[:regions]


def _weights(
    start: Array, end: Array, *, length: int, true: Array, bins: int, samples: int | None, aligned: bool
) -> Float[Array, "bins length"]:
    """Returns the weight of every row (or column) of a map in every bin of one region."""
    extent = end - start if aligned else jnp.maximum(end - start, 1)
    bin_size = extent / bins
    most = samples or max(1, -(-length // bins) + 1)
    count = jnp.asarray(samples) if samples else jnp.ceil(bin_size)
    number = jnp.arange(most)
    used = number < count
    offsets = (number + 0.5) / jnp.maximum(count, 1)
    places = start + (jnp.arange(bins)[:, None] + offsets) * bin_size
    inside = (places >= -1) & (places <= true) & used
    places = jnp.clip(places, 0, true - 1)
    # A sample between two pixels is weighted by its distance from each.
    distance = jnp.abs(places[..., None] - jnp.arange(length))
    share = jnp.where(inside[..., None], jnp.maximum(1 - distance, 0), 0)
    return share.sum(1) / jnp.maximum(count, 1)


def roi_pool(
    x: Float[Array, "h w c"],
    boxes: Float[Array, "r 4"],
    valid: Bool[Array, " r"],
    *,
    stride: int,
    bins: int,
    size: Float[Array, "2"] | None = None,
    inclusive: bool = False,
) -> Float[Array, "r bins bins c"]:
    """Returns regions of a map, the maximum in every bin; zeros in empty bins and for those not valid.

    As `torchvision.ops.roi_pool`: edges are rounded to pixels, halves away from zero, the last one belongs to
    the region, and bins overlap where they do not divide it.

    Args:
        x: The map.
        boxes: Regions in pixels of the image; no gradient flows to them.
        valid: Which regions there are.
        stride: Pixels of the image for a pixel of the map.
        bins: Rows and columns of a region.
        size: True height and width of the map. Defaults to all of it.
        inclusive: The right and bottom edges given are those of the last pixel, as in py-faster-rcnn's and
            torchvision's arguments. By default they are continuous, and a pixel is taken off.
    """
    ends = jnp.array([0, 0, 1, 1]) * (0 if inclusive else 1)
    scaled = (lax.stop_gradient(boxes) - ends) / stride
    rounded = (jnp.sign(scaled) * jnp.floor(jnp.abs(scaled) + 0.5)).astype(jnp.int32)
    size = jnp.asarray(x.shape[:2] if size is None else size).astype(jnp.int32)

    def pool(box: Array, ok: Array) -> Array:
        columns = _windows(box[0], box[2], size[1], bins)
        rows = _windows(box[1], box[3], size[0], bins)
        across = _maximum(x, columns, axis=1)
        both = _maximum(across, rows, axis=0)
        filled = (rows[1] > rows[0])[:, None] & (columns[1] > columns[0])
        return jnp.where((filled & ok)[..., None], both, 0)

    if len(boxes) <= CHUNK:
        return jax.vmap(pool)(rounded, valid)
    return lax.map(lambda pair: jax.checkpoint(pool)(*pair), (rounded, valid), batch_size=CHUNK)


def _windows(start: Array, end: Array, true: Array, bins: int) -> tuple[Array, Array]:
    """Returns the first pixel of every bin and the one after its last, clipped to the map."""
    # In integers: a quotient in floating point is rounded differently by every compiler, and a bin whose end
    # is whole then has a pixel more.
    extent = jnp.maximum(end - start + 1, 1)
    number = jnp.arange(bins, dtype=jnp.int32)
    first = start + number * extent // bins
    last = start - (-(number + 1) * extent) // bins
    return jnp.clip(first, 0, true), jnp.clip(last, 0, true)


def _maximum(x: Array, windows: tuple[Array, Array], *, axis: int) -> Array:
    """Returns the maximum over each window of an axis, which becomes one of bins; first pixels win ties."""
    first, last = windows
    length = x.shape[axis]
    widest = -(-length // len(first)) + 2
    lowest = jnp.finfo(x.dtype).min
    shape = [1] * x.ndim
    shape[axis] = len(first)
    result = None
    for shift in range(widest):
        place = first + shift
        taken = jnp.take(x, jnp.minimum(place, length - 1), axis=axis)
        taken = jnp.where((place < last).reshape(shape), taken, lowest)
        result = taken if result is None else jnp.where(taken > result, taken, result)
    return jnp.asarray(result)

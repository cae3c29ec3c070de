"""Published figures of TPU chips, and the slices that exist of each.

Capacity, peak and bandwidth are those of the TPU system architecture pages of Google Cloud
(docs.cloud.google.com/tpu/docs) for v4 to v6e, and of Norrie et al., "The Design Process for Google's
Training Chips", IEEE Micro 2021, for v2 and v3. Clocks are from there, from arXiv 2304.01433 (v4), and from
"How to Scale Your Model", jax-ml.github.io/scaling-book (v5e, v5p): a chip's peak is 2 · 128² · clock times
its matrix units. The clock of v6e is not published.
"""

import dataclasses
import math
import re

from resnet_jax.parallel.distributed import DeviceError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A generation of TPU, by chip.

    Attributes:
        devices: Number of devices that JAX lists for a chip: one per TensorCore up to v4, one per chip later.
        hbm_bytes: Bytes of memory.
        peak_flops: bfloat16 operations in a second.
        bandwidth: Bytes of memory moved in a second.
        clock: Cycles in a second; None where it is not published.
        shapes: The slices that exist, in chips. Empty for those of three dimensions, see `_slice_exists`.
        most_chips: Largest number of chips in a slice.
    """

    devices: int
    hbm_bytes: int
    peak_flops: float
    bandwidth: float
    clock: float | None
    shapes: tuple[str, ...]
    most_chips: int


LITE = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")

CHIPS = {
    "v2": Chip(2, 16 * GIB, 46e12, 700e9, 0.70e9, ("2x2", "4x4", "8x8", "8x16", "16x16"), 256),
    "v3": Chip(
        2, 32 * GIB, 123e12, 900e9, 0.94e9, ("2x2", "4x4", "8x8", "8x16", "16x16", "16x32", "32x32"), 1024
    ),
    "v4": Chip(2, 32 * GIB, 275e12, 1200e9, 1.05e9, (), 4096),
    "v5e": Chip(1, 16 * GIB, 197e12, 819e9, 1.50e9, LITE, 256),
    "v5p": Chip(1, 95 * GIB, 459e12, 2765e9, 1.75e9, (), 6144),
    "v6e": Chip(1, 32 * GIB, 918e12, 1640e9, None, LITE, 256),
}
"""Chips by the name that the TPU compiler uses."""

SMALL_CUBES = ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4")


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice: chips of one kind in a grid.

    Attributes:
        name: Name as it was given, such as "v5e:2x2".
        chip: Kind of its chips.
        shape: Chips in each direction.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        """The number of chips."""
        return math.prod(self.shape)


def parse_topology(name: str) -> Topology:
    """Returns the slice of that name, "v5e:16x16" or "v4:4x4x4".

    Raises:
        DeviceError: There is no such chip, or no such slice of it; the message names those that there are.
    """
    match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*)+)", name)
    if not match or match[1] not in CHIPS:
        raise DeviceError(
            f"there is no topology {name!r}; it is a chip and a grid of chips, such as v5e:2x2 or v4:4x4x4, "
            "and chips are " + ", ".join(CHIPS)
        )
    chip, shape = CHIPS[match[1]], tuple(map(int, match[2].split("x")))
    if not _slice_exists(chip, shape):
        allowed = ", ".join(chip.shapes) or (
            f"{', '.join(SMALL_CUBES)} and, up to {chip.most_chips} chips, "
            "three rising multiples of 4 such as 4x4x8"
        )
        raise DeviceError(f"there is no topology {name!r}; slices of {match[1]} are {allowed}")
    return Topology(name, chip, shape)


def _slice_exists(chip: Chip, shape: tuple[int, ...]) -> bool:
    text = "x".join(map(str, shape))
    if chip.shapes:
        return text in chip.shapes
    # A cuboid of 4 × 4 × 4 cubes.
    return text in SMALL_CUBES or (
        len(shape) == 3
        and all(side % 4 == 0 for side in shape)
        and tuple(sorted(shape)) == shape
        and math.prod(shape) <= chip.most_chips
    )

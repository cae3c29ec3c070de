"""What a detector found in a picture."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Detected:
    """The objects that were found in a picture, the likeliest first.

    Attributes:
        boxes: Left, top, right and bottom edges in pixels of the picture: [n, 4].
        scores: Probabilities of the classes: [n].
        labels: Classes, from 0: [n].
        names: Names of the classes.
    """

    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

"""A trained network with all that its use needs: weights, preprocessing, names of its classes."""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict
from jaxtyping import Array, Float, UInt8

from resnet_jax.data.augment import normalize
from resnet_jax.inference.image_input import Pictures, list_pictures
from resnet_jax.inference.preprocessing import Preprocessing
from resnet_jax.models import features
from resnet_jax.models.registry import ModelArguments
from resnet_jax.training.config import Config

BATCH = 32
"""Pictures that the network sees at once; fewer if fewer are asked for."""


@dataclasses.dataclass(frozen=True)
class Guess:
    """A class that a picture may be of: its label, its name, and its probability by the network's softmax."""

    label: int
    name: str
    probability: float


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A network with its weights, which computes in float32 whatever it was trained in.

    `images` in its methods are paths or URLs, PIL images, or uint8 arrays [H, W, 3], [N, H, W, 3] or, gray,
    [H, W] and [N, H, W], RGB from 0 to 255, and lists of these; one alone is a batch of one. They are resized
    and cropped as in evaluation.

    Attributes:
        model: The network.
        variables: `params` and `batch_stats`, float32.
        config: Config of the run.
        class_names: By label; None if they are not known.
        preprocessing: From a picture to the input of the network.
        model_arguments: Arguments of create_model that give the network.
        step: Step of the checkpoint.
        notes: What a user should know.

    Example:
        >>> trained = load_trained("runs/digits_resnet20")
        >>> trained.predict("seven.png", top=1)
        [(Guess(label=7, name='7', probability=0.98),)]
    """

    model: nn.Module
    variables: VariableDict
    config: Config
    class_names: tuple[str, ...] | None
    preprocessing: Preprocessing
    model_arguments: ModelArguments
    step: int = 0
    notes: tuple[str, ...] = ()

    def preprocess(self, images: Pictures) -> Float[Array, "n h w 3"]:
        """Returns the input of `model.apply`, float32: resized and cropped pixels less the image mean.

        Raises:
            InferenceError: An array is not uint8, or its shape is not that of images.
            CorruptImageError: A file is no image, or not a whole one.
            OSError: A file cannot be read.
        """
        pictures = list_pictures(images)
        pixels = np.empty((len(pictures), self.preprocessing.crop, self.preprocessing.crop, 3), np.uint8)
        for picture, out in zip(pictures, pixels, strict=True):
            self.preprocessing.fit(picture, out)
        return normalize(jnp.asarray(pixels), jnp.asarray(self.preprocessing.image_mean))

    def logits(self, images: Pictures) -> Float[np.ndarray, "n classes"]:
        """Returns the logits of images; raises as `preprocess`."""
        return self._in_batches(lambda pixels: {"logits": self.program(pixels)}, images)["logits"]

    def predict(self, images: Pictures, top: int = 5) -> list[tuple[Guess, ...]]:
        """Returns the `top` likeliest classes of every image, the likeliest first; raises as `preprocess`."""
        return [self.likeliest(logits, top) for logits in self.logits(images)]

    def features(self, images: Pictures) -> dict[str, Float[np.ndarray, "n ..."]]:
        """Returns the outputs of stem and stages, and the pooled vector, by name; see `resnet_jax.features`.

        Raises:
            ModelError: The network has none, as VGG.
        """
        return self._in_batches(self._features_program, images)

    def forward(self, variables: VariableDict, pixels: UInt8[Array, "n h w 3"]) -> Float[Array, "n classes"]:
        """Returns the logits of images of the network's size; a pure function, to be jitted or exported.

        Args:
            variables: Those of this network.
            pixels: uint8[n, crop, crop, 3], RGB.
        """
        return self.model.apply(variables, self._normalized(pixels))  # type: ignore[return-value]

    @functools.cached_property
    def program(self) -> Callable[[UInt8[np.ndarray, "n h w 3"]], Float[Array, "n classes"]]:
        """The compiled `forward` of these variables; compiled once for every number of images."""
        return functools.partial(jax.jit(self.forward), self._placed)

    def likeliest(self, logits: Float[np.ndarray, " classes"], top: int) -> tuple[Guess, ...]:
        """Returns the `top` likeliest classes of an image, at most all, from its logits."""
        exponentials = np.exp(logits - logits.max())
        probabilities = exponentials / exponentials.sum()
        labels = np.argsort(-logits, kind="stable")[:top].tolist()
        names = self.class_names or range(len(logits))
        return tuple(Guess(label, str(names[label]), float(probabilities[label])) for label in labels)

    @functools.cached_property
    def _features_program(self) -> Callable[[UInt8[np.ndarray, "n h w 3"]], dict[str, Array]]:
        program = jax.jit(lambda variables, pixels: features(self.model, variables, self._normalized(pixels)))
        return functools.partial(program, self._placed)

    @functools.cached_property
    def _placed(self) -> VariableDict:
        return jax.device_put(self.variables)

    def _normalized(self, pixels: UInt8[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
        return normalize(pixels, jnp.asarray(self.preprocessing.image_mean))

    def _in_batches(
        self, program: Callable[[UInt8[np.ndarray, "n h w 3"]], dict[str, Array]], images: Pictures
    ) -> dict[str, np.ndarray]:
        """Runs a program on images in batches of one size, so that it is compiled once."""
        pictures = list_pictures(images)
        size, side = max(1, min(BATCH, len(pictures))), self.preprocessing.crop
        batch = np.zeros((size, side, side, 3), np.uint8)
        parts = []
        for start in range(0, max(1, len(pictures)), size):
            part = pictures[start : start + size]
            for picture, out in zip(part, batch, strict=False):
                self.preprocessing.fit(picture, out)
            parts.append({name: np.asarray(array)[: len(part)] for name, array in program(batch).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

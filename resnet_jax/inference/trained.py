"""A trained network with all that its use needs: weights, preprocessing, names of its classes."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.typing import VariableDict
from jaxtyping import Array, Float, UInt8

from resnet_jax.data.augment import normalize
from resnet_jax.data.choices import DIGITS, SYNTHETIC
from resnet_jax.files import JsonObject
from resnet_jax.inference.detected import Detected
from resnet_jax.inference.known_classes import known_class_names
from resnet_jax.inference.preprocessing import InferenceError, Pictures, Preprocessing, list_pictures
from resnet_jax.inference.stored_model import USES, stored_model
from resnet_jax.models import create_model, default_image_size, features
from resnet_jax.models.import_by_name import import_by_name
from resnet_jax.models.registry import ModelArguments
from resnet_jax.models.trusted_code import trusting_code
from resnet_jax.models.vgg import VGG
from resnet_jax.training.checkpoints import Checkpoint
from resnet_jax.training.config import Config, from_json
from resnet_jax.training.state import split_variables
from resnet_jax.training.stored_code import read_trusted_checkpoint
from resnet_jax.training.stored_preprocessing import CROP, INTERPOLATION, RESIZE, evaluation_preprocessing
from resnet_jax.training.stored_statistics import MOVING, with_statistics

BATCH = 32  # Pictures that the network sees at once; fewer if fewer are asked for.
FLATTENED = "hidden1"  # VGG's first fully connected layer.


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
        >>> trained = load("runs/digits_resnet20")
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

    def __repr__(self) -> str:
        """Returns what a person wants to see of it, and not its millions of weights."""
        weights = sum(math.prod(array.shape) for array in jax.tree.leaves(self.variables["params"]))
        classes = f"{len(self.class_names)} classes" if self.class_names else "classes without names"
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.model_arguments.items())
        size = self.preprocessing.crop
        return f"Trained({arguments}: step {self.step}, {weights:,} weights, {classes}, {size}×{size} pixels)"

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

    def detect(self, images: Pictures, *, threshold: float = 0.5) -> list[Detected]:
        """Returns the objects of every image, if this is a detector; see `TrainedDetector.detect`.

        Raises:
            InferenceError: It is a classifier.
        """
        del images, threshold
        raise InferenceError(
            "this is a classifier, which finds no boxes: use predict(images), or `resnet-jax predict`, in "
            "place of detect"
        )

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

    def exported_program(self) -> tuple[bytes, JsonObject]:
        """Returns the serialized program of a detector; raises InferenceError for a classifier."""
        raise InferenceError("a classifier is exported by `resnet-jax export`")

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
        return functools.partial(
            jax.jit(lambda variables, pixels: features(self.model, variables, self._normalized(pixels))),
            self._placed,
        )

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


def load_trained(workdir: epath.PathLike, step: int | None = None, statistics: str = MOVING) -> Trained:
    """Returns the network of a run or an import.

    Args:
        workdir: A path, or an object-storage URL.
        step: Step of the checkpoint. Defaults to the newest.
        statistics: Statistics of batch normalization: "moving", those of training, or "precise", those that
            `resnet-jax evaluate --precise-bn` recomputed.

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged, or its statistics were not recomputed.
        InferenceError: The images of the network are not square.
    """
    return trained_from(with_statistics(workdir, read_trusted_checkpoint(workdir, step), statistics)[0])


def trained_from(checkpoint: Checkpoint) -> Trained:
    """Returns the network of a checkpoint.

    Raises:
        InferenceError: The images of the network are not square.
    """
    if task := checkpoint.model.get("task"):
        trained: Trained = import_by_name(USES[task], field="task")(checkpoint)
        return trained
    config = from_json(checkpoint.config)
    arguments = {**checkpoint.model, "dtype": "float32"}
    variables, mean = split_variables(checkpoint.arrays)
    model = create_model(**arguments)
    names, notes = known_class_names(config, checkpoint.class_names, arguments["num_classes"])
    return Trained(
        model=model,
        variables=jax.tree.map(lambda array: np.asarray(array, np.float32), variables),
        config=config,
        class_names=names,
        preprocessing=_preprocessing(checkpoint, config, model, np.asarray(mean, np.float32)),
        model_arguments=arguments,
        step=checkpoint.step,
        notes=notes,
    )


def load_checkpoint(
    workdir: epath.PathLike,
    step: int | None = None,
    *,
    statistics: str = MOVING,
    trust_code: bool = False,
) -> tuple[nn.Module, VariableDict]:
    """Returns a run's model and variables; `model.apply` takes pixels from 0 to 255 minus the stored mean.

    `resnet_jax.load(workdir)` does that for you: `trained.logits(images)`, and `trained.preprocess(images)`
    is the input of `model.apply`. The variables are `params` and `batch_stats`. Only the workdir is needed.

    The blocks are unrolled; for a deep net, `model.clone(stage=resnet_jax.models.ScannedStage)` takes
    `stack_blocks(variables)` and compiles faster.

    Args:
        workdir: A path, or an object-storage URL.
        step: Checkpoint to load. Defaults to the newest.
        statistics: Statistics of batch normalization: "moving", those of training, or "precise", those that
            `resnet-jax evaluate --precise-bn` recomputed.

        trust_code: Whether functions that the checkpoint names may be imported, which runs their modules.

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged, or its statistics were not recomputed.
        UntrustedCodeError: It names code that is not trusted.

    Example:
        >>> model, variables = load_checkpoint("runs/digits_resnet20")
        >>> logits = model.apply(variables, resnet_jax.load("runs/digits_resnet20").preprocess(images))
    """
    with trusting_code(trust_code):
        checkpoint, _ = with_statistics(workdir, read_trusted_checkpoint(workdir, step), statistics)
    return stored_model(checkpoint.model), split_variables(checkpoint.arrays)[0]


def _preprocessing(
    checkpoint: Checkpoint, config: Config, model: nn.Module, mean: np.ndarray
) -> Preprocessing:
    """Returns the stored preprocessing, or for format 1 what follows from the config and the arrays."""
    if mean.ndim > 1 and mean.shape[0] != mean.shape[1]:
        raise InferenceError(
            f"the net was trained on images of {mean.shape[1]}×{mean.shape[0]} pixels; it must be square ones"
        )
    side = mean.shape[0] if mean.ndim > 1 else None
    stored = checkpoint.preprocessing or evaluation_preprocessing(
        config, side or _side(checkpoint, config, model)
    )
    crop = side or cast(int, stored[CROP])
    scale = checkpoint.model.get("input_scale")
    return Preprocessing(
        image_mean=mean,
        input_scale=None if scale is None else tuple(scale),
        resize=max(crop, cast(int, stored[RESIZE])),
        crop=crop,
        interpolation=cast(str, stored[INTERPOLATION]),
    )


def _side(checkpoint: Checkpoint, config: Config, model: nn.Module) -> int:
    """Returns the side of the training images, if the checkpoint does not state it."""
    if isinstance(model, VGG):  # It takes one size only, which its first fully connected layer tells.
        stages = len(model.stage_depths)
        channels = model.width * 2 ** min(stages - 1, 3)
        kernel = checkpoint.arrays[f"params/{FLATTENED}/kernel"]
        return math.isqrt(len(kernel) // channels) * 2**stages
    data = config.data
    sizes = {DIGITS: 16, SYNTHETIC: data.synthetic_image_size}
    return data.image_size or sizes.get(data.source or "") or default_image_size(checkpoint.model["name"])

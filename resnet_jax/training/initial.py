"""Fine-tuning: a run that starts from the weights of another run or an import, and may freeze modules."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from etils import epath

from resnet_jax.console import print_note
from resnet_jax.models.layers import path_matches
from resnet_jax.models.registry import ModelArguments
from resnet_jax.training.checkpoints import Arrays, from_arrays, to_arrays
from resnet_jax.training.config import from_json
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.config_sections import FACTOR
from resnet_jax.training.state import TrainState
from resnet_jax.training.stored_classes import check_same_classes
from resnet_jax.training.stored_code import read_trusted_checkpoint
from resnet_jax.training.stored_statistics import MOVING, with_statistics

HEAD = "params/head/"


@dataclasses.dataclass(frozen=True)
class Initial:
    """The weights that a run begins with.

    Attributes:
        workdir: Directory that they are from.
        arrays: Arrays of its newest checkpoint.
        model: Arguments of create_model that it was made with.
        class_names: Names of its classes by label; None if they are not known.
    """

    workdir: str
    arrays: Arrays
    model: ModelArguments
    class_names: Sequence[str] | None = None

    def check_classes(self, found: Sequence[str]) -> None:
        """Checks that data has the classes of a last layer that is kept, in the same order.

        Raises:
            DataError: They differ; the differences are listed.
        """
        if self.class_names is None:
            print_note(f"the class names of {self.workdir} are not known: its labels are taken in order")
            return
        check_same_classes(
            self.class_names,
            found,
            where=self.workdir,
            advice="Set --config.initial.head=fresh, or rename the classes of the data",
        )

    def model_arguments(self, wanted: ModelArguments, *, head: str) -> ModelArguments:
        """Returns the arguments of the same net with another last layer.

        Args:
            wanted: What the config asks for. Classes, dtype, group size and kind of variance are its own; the
                name and what it says of shortcut and stride have to be those of the net.
            head: "fresh" or "kept".

        Raises:
            ConfigError: It asks for another net, or for a last layer that does not fit the classes.
        """
        for field in ("name", "shortcut", "stride_on", "block", "norm", "activation", "variants"):
            both = [
                list(value) if isinstance(value, tuple) else value
                for value in (wanted.get(field), self.model.get(field))
            ]
            if None not in both and both[0] != both[1]:
                raise ConfigError(
                    f"config.model.{field} is {wanted[field]!r}, and the net of {self.workdir} has "
                    f"{self.model[field]!r}; begin with --config=finetune:{self.workdir}, or set it so"
                )
        if head == "kept" and wanted["num_classes"] != self.model["num_classes"]:
            raise ConfigError(
                f"config.initial.head is 'kept', and {self.workdir} has {self.model['num_classes']} classes "
                f"where the data has {wanted['num_classes']}; set --config.initial.head=fresh"
            )
        return {**self.model, **wanted}

    def describe(self, *, head: str, classes: int) -> str:
        """Returns how a run with this number of classes begins, for the user."""
        before = self.model["num_classes"]
        if head == "kept":
            last = f"the last layer is kept: the same {before} classes"
        else:
            last = f"the last layer is fresh, for {classes} classes"
            last += f" instead of {before}" if classes != before else ""
        return f"begins with the weights of {self.workdir}; {last}"

    def begin(self, state: TrainState, *, head: str, image_shape: tuple[int, int, int]) -> TrainState:
        """Returns the state with these weights, and the mean that they were trained with.

        The optimizer's part stays.

        Args:
            state: State of the same network before its first step; a fresh head keeps its random values.
            head: "fresh" or "kept".
            image_shape: Shape of the images of this run. A mean per pixel of another shape is averaged to
                one per channel.

        Raises:
            CheckpointError: The weights are of another net; what differs is listed.
        """
        own, mean = to_arrays(state), self.arrays["image_mean"]
        if mean.ndim > 1 and mean.shape != image_shape:
            mean = mean.mean((0, 1))

        def is_taken(name: str) -> bool:
            kept = head == "kept" or not name.startswith(HEAD)
            return name.startswith(("params/", "batch_stats/")) and kept

        taken = {
            name: np.asarray(array, own[name].dtype) if name in own else array
            for name, array in self.arrays.items()
            if is_taken(name)
        }
        taken["image_mean"] = np.asarray(mean, np.float32)
        state = state.replace(image_mean=taken["image_mean"])
        return from_arrays(state, {name: array for name, array in own.items() if not is_taken(name)} | taken)


def read_initial(workdir: epath.PathLike, statistics: str = MOVING) -> Initial:
    """Returns the weights of the newest checkpoint of a run or an import.

    Args:
        workdir: Directory of the run or the import.
        statistics: Its statistics of batch normalization: "moving" or "precise".

    Raises:
        CheckpointError: There is none, or it is damaged.
        UntrustedCodeError: It names code that neither the user's recipe names nor `--trust-code` trusts.
    """
    checkpoint, _ = with_statistics(workdir, read_trusted_checkpoint(workdir), statistics)
    names = from_json(checkpoint.config).inference.class_names or checkpoint.class_names
    return Initial(str(workdir), checkpoint.arrays, checkpoint.model, names)


def check_patterns(params: Sequence[str], *, frozen: Sequence[str], rate_factors: Sequence[str]) -> None:
    """Raises ConfigError if a pattern means no parameter of `params`, or if nothing is left to train."""
    patterns = [*frozen, *(match["pattern"] for text in rate_factors if (match := FACTOR.fullmatch(text)))]
    for pattern in patterns:
        if not any(path_matches(path, [pattern]) for path in params):
            modules = dict.fromkeys(path.split("/")[0] for path in params)
            raise ConfigError(
                f"config.optimizer has the pattern {pattern!r}, which means no module of the net; they are "
                f"{', '.join(modules)}, and inside them block1, conv1, norm1 and so on: stage1, stage[12], "
                "stage4/block1/conv*"
            )
    if all(path_matches(path, frozen) for path in params):
        raise ConfigError(
            "config.optimizer.frozen means every module of the net; leave one to train, for example head"
        )

"""How a run is laid over its devices: their number, and the micro-batches that a batch is computed in.

A run that resumes on another number of devices keeps its global batch. Unless `run.accumulation` is set, the
number of micro-batches is chosen, so that a device holds at most as many images at once as it did before.
`devices.json` in the workdir records what was chosen.
"""

import dataclasses
from collections.abc import Iterable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epath

from resnet_jax.files import as_path, read_json, write_json
from resnet_jax.models.rng_streams import RNG_STREAMS
from resnet_jax.parallel import DeviceError
from resnet_jax.parallel.distributed import fits
from resnet_jax.training.config import Config
from resnet_jax.training.network import legal_accumulations
from resnet_jax.training.task import Experiment
from resnet_jax.training.workdir import WorkdirError

LAYOUT_RECORD = "devices.json"
LAYOUT_FORMAT = 1

_UNRECORDED = (
    "this run is of an earlier version and does not record its number of devices, so accumulation is 1; on "
    "fewer devices --config.run.accumulation=K saves memory"
)


@dataclasses.dataclass(frozen=True)
class DeviceLayout:
    """Devices and gradient accumulation of a run.

    Attributes:
        available: Number of devices that all processes had.
        devices: Number of devices that were used.
        accumulation: Micro-batches that a batch was computed in.
        most_images: Most images that a device may hold at once. They are those of the run's first layout, or
            of the last one whose accumulation the user set; a layout that is chosen leaves them as they are.
    """

    available: int
    devices: int
    accumulation: int
    most_images: int


@dataclasses.dataclass(frozen=True)
class LayoutChoice:
    """The layout that a run starts with.

    Attributes:
        accumulation: Micro-batches that a batch is computed in.
        by_user: The user set the accumulation, or there is nothing to choose by.
        resumed: The run is resumed.
        before: Layout of the newest checkpoint, if it is recorded.
    """

    accumulation: int
    by_user: bool = True
    resumed: bool = False
    before: DeviceLayout | None = None

    def layout(self, config: Config, devices: int) -> DeviceLayout:
        """Returns the layout to record for a run on this number of devices."""
        images = config.batch_size // (devices * self.accumulation)
        if self.before and not self.by_user:
            images = self.before.most_images
        return DeviceLayout(jax.device_count(), devices, self.accumulation, images)


def choose_layout(config: Config, begun: epath.PathLike | None) -> LayoutChoice:
    """Returns the accumulation of a run; JAX's devices are there already.

    Args:
        config: The resolved config.
        begun: Directory of a run that is resumed.

    Raises:
        DeviceError: Several processes have a number of devices over which the batch cannot be cut in any
            number of micro-batches; the numbers that work are named.
        WorkdirError: The record of the layout is damaged.
    """
    before = read_layout(begun) if begun else None
    chosen = partial(LayoutChoice, resumed=begun is not None, before=before)
    if config.run.accumulation or before is None:
        return chosen(config.run.accumulation or 1)
    available, requested = jax.device_count(), config.run.devices
    processes = jax.process_count()
    if requested or processes > 1:
        allowed: Iterable[int] = (requested or available,)
    else:
        allowed = range(available, 0, -1)
    # On the same devices the layout is the same, so that the run is the same bit for bit.
    if available == before.available and before.devices == _usual_devices(
        config, before.accumulation, allowed
    ):
        return chosen(before.accumulation, by_user=False)
    found = choose_accumulation(config, allowed, most_images=before.most_images)
    if found is None and not requested:
        raise _none_fits(config, available, processes)
    # Whatever is wrong with a number of devices that the user gave is reported where devices are chosen.
    return chosen(found[1] if found else 1, by_user=False)


def choose_accumulation(
    config: Config, allowed: Iterable[int], *, most_images: int
) -> tuple[int, int] | None:
    """Returns the number of devices, and the micro-batches of a batch; None if the batch cannot be cut.

    Of the numbers of devices that hold at most `most_images` each at once it is the first, with the fewest
    micro-batches. If there is none, a device holds as few images as possible.

    Args:
        config: The resolved config.
        allowed: Numbers of devices, the preferred ones first.
        most_images: Most images that a device should hold at once.
    """
    legal, fewest = legal_accumulations(config), None
    for devices in allowed:
        for parts in legal:
            size = config.batch_size // parts
            if not fits(size, config.model.group_size, devices):
                continue
            if size // devices <= most_images:
                return devices, parts
            if fewest is None or size // devices < fewest[0]:
                fewest = size // devices, devices, parts
    return fewest and fewest[1:]


def describe_choice(
    choice: LayoutChoice, layout: DeviceLayout, config: Config, experiment: Experiment
) -> str | None:
    """Returns a line about a layout that differs from the one before, and why; None if it does not.

    Args:
        choice: How the run starts.
        layout: The layout that was made of it.
        config: The resolved config.
        experiment: What is trained.
    """
    before, devices, parts = choice.before, layout.devices, layout.accumulation
    if before is None:
        return _UNRECORDED if choice.resumed and not config.run.accumulation else None
    if (before.devices, before.accumulation) == (devices, parts):
        return None
    images = config.batch_size // (devices * parts)
    more = images > before.most_images
    words = [f"{'warning: ' if more else ''}devices: {devices} (before: {before.devices})"]
    if devices < layout.available and not config.run.devices:
        words.append(
            f"{layout.available - devices} of {layout.available} stay unused, since a batch of "
            f"{config.batch_size} in groups of {config.model.group_size or config.batch_size} cannot be cut "
            "over more"
        )
    words.append(
        f"accumulation: {parts} (before: {before.accumulation}), so a device holds {images} images at once"
        + (f", more than {before.most_images}" if more else "")
    )
    if more and choice.by_user:
        words.append("leave out --config.run.accumulation to have it chosen")
    elif more:
        words.append("the groups of batch normalization allow no smaller micro-batches")
    words.append("the global batch, its groups and the order of examples stay the same")
    if draws_random_numbers(experiment.model, (config.batch_size, *experiment.image_shape)):
        words.append("stochastic depth and dropout drop other examples and units than on the devices before")
    return "; ".join(words)


def draws_random_numbers(model: nn.Module, shape: tuple[int, int, int, int]) -> bool:
    """Returns whether a network draws random numbers in training, as stochastic depth and dropout do.

    Args:
        model: The network, on no mapped axis.
        shape: Shape of a batch of images, of whole groups of batch normalization.
    """
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    keys = {name: jax.random.key(0) for name in ("params", *RNG_STREAMS)}
    try:
        variables = jax.eval_shape(lambda x: model.init(keys, x, train=False), images)
        jax.eval_shape(lambda v, x: model.apply(v, x, train=True, mutable=list(v)), variables, images)
    except Exception:  # A network of the user may raise anything where it misses its random numbers.
        return True
    return False


def read_layout(workdir: epath.PathLike) -> DeviceLayout | None:
    """Returns the recorded layout of a run; None if it has none, as runs of earlier versions.

    Raises:
        WorkdirError: The record is damaged, or of a later version.
    """
    path = as_path(workdir) / LAYOUT_RECORD
    if not path.exists():
        return None
    try:
        stored = read_json(path)
        found, names = stored["format_version"], [field.name for field in dataclasses.fields(DeviceLayout)]
        values = {} if found > LAYOUT_FORMAT else {name: int(stored[name]) for name in names}
        if any(value < 1 for value in values.values()):
            raise ValueError("a number below 1")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkdirError(
            f"{path} is damaged; delete it, and set --config.run.accumulation if the devices are other ones"
        ) from error
    if found > LAYOUT_FORMAT:
        raise WorkdirError(
            f"{path} has format {found}; this version reads up to {LAYOUT_FORMAT}: upgrade resnet-jax"
        )
    return DeviceLayout(**values)


def store_layout(workdir: epath.PathLike, layout: DeviceLayout) -> None:
    """Writes the record of a run's layout."""
    write_json(
        as_path(workdir) / LAYOUT_RECORD, {"format_version": LAYOUT_FORMAT, **dataclasses.asdict(layout)}
    )


def _usual_devices(config: Config, accumulation: int, allowed: Iterable[int]) -> int | None:
    """Returns the number of devices that a run with this accumulation takes; None if none fits."""
    size, group_size = config.batch_size // accumulation, config.model.group_size
    return next((devices for devices in allowed if fits(size, group_size, devices)), None)


def _none_fits(config: Config, available: int, processes: int) -> DeviceError:
    def possible(numbers: Iterable[int]) -> list[int]:
        batch_size = config.batch_size
        return [n for n in numbers if choose_accumulation(config, (n,), most_images=batch_size)]

    each = available // processes
    devices = possible(range(processes, available, processes))
    counts = [n // each for n in possible(range(each, available, each))]
    ways = [f"--config.run.devices=N, N of {', '.join(map(str, devices))}"] if devices else []
    ways += [f"N processes of {each} devices each, N of {', '.join(map(str, counts))}"] if counts else []
    batch = f"a batch of {config.batch_size} in groups of {config.model.group_size or config.batch_size}"
    return DeviceError(
        f"{batch} cannot be cut over the {available} devices of {processes} processes, in any number of "
        f"micro-batches; resume with {', or with '.join(ways) or 'one process'}"
    )

"""The class names of a network: those that its checkpoint holds, or that its data has."""

from resnet_jax.data.choices import DIGITS, SYNTHETIC
from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import is_path, open_encoded
from resnet_jax.training.config import Config


def known_class_names(
    config: Config, stored: tuple[str, ...] | None, classes: int
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Returns the names of the classes, None if they are not known, and notes that say so.

    Checkpoints of format 1, and imports, store none: then they come from the data, if that is there.
    """
    try:
        names = config.inference.class_names or stored or _names_in_data(config)
    except DataError as error:
        return None, (f"the names of the classes are not known, and their numbers stand for them: {error}",)
    if len(names) == classes:
        return names, ()
    return None, (
        f"{config.data.source} has {len(names)} classes and the net {classes}, so numbers stand for their "
        "names",
    )


def _names_in_data(config: Config) -> tuple[str, ...]:
    """Returns the class names of the data of a run, without reading an image or preparing a set.

    Raises:
        DataError: The data is not there any more, or not known.
    """
    data = config.data
    if not data.source:
        raise DataError("nor is the data that the net was trained on")
    if data.source == DIGITS:
        names = tuple(map(str, range(10)))
    elif data.source == SYNTHETIC:
        names = tuple(f"class {label}" for label in range(data.synthetic_classes))
    elif is_path(data.source):
        names = tuple(open_encoded(data.source, data.test_split).class_names)
    else:
        from resnet_jax.data.tfds_sets import tfds_class_names  # Here: others need not wait for TFDS.

        names = tuple(tfds_class_names(data.source, config.run.data_dir))
    return tuple(names[label] for label in data.labels if label < len(names)) if data.labels else names

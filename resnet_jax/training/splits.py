"""The splits of a config's dataset."""

from collections.abc import Sequence

from resnet_jax.data.choices import SYNTHETIC
from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import open_source
from resnet_jax.data.encoded import DecodeOptions
from resnet_jax.data.relabeled import with_labels
from resnet_jax.data.source import Source, SyntheticSource
from resnet_jax.training.config import Config


def open_split(
    config: Config, split: str, *, test: bool = False, class_names: Sequence[str] | None = None
) -> Source:
    """Opens a split of the config's data, with its labels that the config names.

    Args:
        config: The config.
        split: Name of the split.
        test: Whether it is the test split.
        class_names: Names by label that a run was trained with; see `open_folder`.
    """
    data, examples = config.data, config.data.synthetic_examples
    if data.source is None:
        raise DataError("the data of this net is not known; name it with --config.data.source, or --data")
    if data.source == SYNTHETIC and split not in (data.train_split, data.test_split):
        raise DataError(
            f"synthetic data has no split {split!r}; it has {data.train_split} and {data.test_split}"
        )
    decoding = None
    if data.image_size:
        size, scales, areas = data.image_size, data.scales, data.areas
        decoding = DecodeOptions(
            data.crop, size=size, scales=scales, areas=areas, test_scale=data.test_scale, corrupt=data.corrupt
        )
    synthetic = SyntheticSource(
        examples=max(1, examples // 8) if test else examples,
        image_size=config.data.synthetic_image_size,
        classes=config.data.synthetic_classes,
        seed=int(test),
    )
    source = open_source(
        data.source,
        split,
        data_dir=config.run.data_dir,
        synthetic=synthetic,
        decoding=decoding,
        class_names=class_names,
    )
    return with_labels(source, config.data.labels) if config.data.labels else source

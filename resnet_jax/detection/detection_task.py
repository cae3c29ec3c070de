"""The task of detecting objects: Faster R-CNN, judged by the mean average precision on the test split."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from flax.traverse_util import flatten_dict

from resnet_jax.data.batches import reading_threads
from resnet_jax.data.class_names import are_same
from resnet_jax.data.data_error import DataError
from resnet_jax.detection.detecting import sees_scales
from resnet_jax.detection.detection_step import make_detection_step
from resnet_jax.detection.detector import Detector, create_detector
from resnet_jax.detection.object_batches import (
    ObjectEvaluationBatches,
    ObjectTrainBatches,
    check_objects,
)
from resnet_jax.detection.object_source import ObjectSource
from resnet_jax.detection.open_objects import open_objects
from resnet_jax.detection.profiles import PROFILES
from resnet_jax.detection.proposal_file import Proposals, read_proposals
from resnet_jax.detection.proposal_recall import proposal_recall, proposal_rows_step
from resnet_jax.detection.rows import truth_of
from resnet_jax.detection.split_scores import detection_rows_step, find_all, scores_of
from resnet_jax.detection.transfer import begin_with
from resnet_jax.models.registry import ModelArguments
from resnet_jax.parallel import AXIS_NAME, Mapping, choose_devices, create_mapping, process_share
from resnet_jax.training.config import Config
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.data_record import record_of, trained_class_names
from resnet_jax.training.factories import build_optimizer, check_ignored_fields
from resnet_jax.training.initial import check_patterns, read_initial
from resnet_jax.training.logging import Record
from resnet_jax.training.network import micro_batch_size, model_arguments
from resnet_jax.training.state import TrainState, create_state
from resnet_jax.training.step import TrainStep
from resnet_jax.training.task import AbstractTraining, Curve, Display, Experiment, Task

TASK = "detection"
"""Its name in configs and in checkpoints."""


RECALL_CURVE = Curve(
    "rpn_correct", "test_recall50", "1 - recall (anchors: 1 - right)", lambda value: 1 - value, 0.2
)
CURVE = Curve("head_correct", "test_mAP50", "1 - mAP (regions: 1 - right)", lambda value: 1 - value, 0.2)


class DetectionTask(Task):
    """Boxes and classes of the objects of an image are learned."""

    def experiment(self, config: Config, *, begun: epath.PathLike | None = None) -> Experiment:
        """Returns the functions, data and devices that a config describes; see Task."""
        _check(config, begun)
        options, detection = config.run, config.detection
        part = micro_batch_size(config)
        devices = choose_devices(part, config.model.group_size, options.devices)
        mapping = create_mapping(options.mapping, devices)
        train, test = _open_data(config, begun)
        arguments = detector_arguments(config, len(train.class_names))
        model = create_detector(**arguments)
        profile = model.profile
        shape = (*profile.bucket, 3)
        optimizer, make_step = training_of(config, model)
        share = process_share(config.batch_size, devices, parts=options.accumulation or 1)
        mean = np.zeros(3, np.float32)
        create = partial(create_state, model, optimizer, seed=config.seed, image_shape=shape, image_mean=mean)
        return Experiment(
            model=model,
            model_arguments=arguments,
            mapping=mapping,
            initial_state=lambda: _initial_state(config, jax.device_get(create()), begun),
            train_step=mapping.map(make_step(config.seed), donate=True),
            train_batches=ObjectTrainBatches(
                train,
                config.batch_size,
                config.seed,
                share,
                profile,
                mirror=config.data.mirror,
                objects=detection.objects,
                proposals=_proposals(config, train),
            ),
            test=_test(config, model, mapping, test),
            display=_display(config, train, test, () if begun else _notes(config, train, test)),
            described={
                "training examples": len(train),
                "test examples": len(test),
                "classes": len(train.class_names),
            },
            data_record=record_of(train, test),
            image_shape=shape,
            class_names=config.inference.class_names or tuple(train.class_names),
        )

    def abstract(self, config: Config, *, classes: int | None = None) -> AbstractTraining:
        """Returns the training step without data and devices; see Task."""
        stand_in = classes is None
        known = classes
        if known is None:
            try:
                known, stand_in = len(_open_data(config, None)[0].class_names), False
            except DataError:
                known = config.data.synthetic_classes
        model = create_detector(**detector_arguments(config, known))
        shape = (*model.profile.bucket, 3)
        optimizer, make_step = training_of(config, model)
        mean = np.zeros(3, np.float32)
        create = partial(create_state, model, optimizer, seed=config.seed, image_shape=shape, image_mean=mean)
        return AbstractTraining(
            make_step(config.seed),
            jax.eval_shape(create),
            partial(abstract_objects, shape=shape, objects=config.detection.objects),
            stand_in,
        )


def _initial_state(config: Config, state: TrainState, begun: epath.PathLike | None) -> TrainState:
    """Returns the state before the first step, with the weights that the config names."""
    if begun or not config.initial.source:
        return state
    return begin_with(state, read_initial(config.initial.source, config.initial.statistics))


def _test(
    config: Config, model: Detector, mapping: Mapping, source: ObjectSource
) -> Callable[[TrainState], dict[str, float]]:
    """Returns what gives the metrics of the test split for a state on the devices."""
    options, part = config.run, micro_batch_size(config)
    batches = ObjectEvaluationBatches(
        source,
        part,
        process_share(part, mapping.devices),
        model.profile,
        scaled=sees_scales(config.detection.protocol) and config.detection.part != "rpn",
        workers=reading_threads(options.workers),
        buffer=options.read_ahead,
    )
    truth = truth_of(source)
    if config.detection.part == "rpn":
        proposing = mapping.map(proposal_rows_step(model), donate=False)
        return lambda state: proposal_recall(proposing, state, batches, mapping, truth)
    step = mapping.map(detection_rows_step(model, config.detection.protocol), donate=False)
    return lambda state: scores_of(find_all(step, state, batches, mapping), truth, model.classes)


def detector_arguments(config: Config, classes: int) -> ModelArguments:
    """Returns the arguments of `create_detector` that a config describes."""
    detection = config.detection
    return {
        "task": TASK,
        "profile": detection.profile,
        "context": detection.context,
        **model_arguments(config, classes),
    }


def training_of(
    config: Config, model: Detector
) -> tuple[optax.GradientTransformationExtraArgs, Callable[[int], TrainStep]]:
    """Returns the optimizer, and what makes the training step of a seed; needs no data and no devices."""
    schedule, optimizer = build_optimizer(config.optimizer, config.run.code_dir)
    options = config.optimizer
    if options.frozen or options.rate_factors:
        images = jax.ShapeDtypeStruct((1, *model.profile.bucket, 3), jnp.float32)
        params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
        paths = list(flatten_dict(params, sep="/"))
        check_patterns(paths, frozen=options.frozen, rate_factors=options.rate_factors)

    def make_step(seed: int) -> TrainStep:
        return make_detection_step(
            model,
            optimizer,
            schedule=schedule,
            seed=seed,
            part=config.detection.part,
            axis_name=AXIS_NAME,
            accumulation=config.run.accumulation or 1,
            frozen=options.frozen,
        )

    return optimizer, make_step


def abstract_objects(size: int, *, shape: tuple[int, ...], objects: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and dtypes of a global batch of this many images."""
    struct = jax.ShapeDtypeStruct
    return {
        "image": struct((size, *shape), jnp.uint8),
        "size": struct((size, 2), jnp.int32),
        "scale": struct((size, 2), jnp.float32),
        "box": struct((size, objects, 4), jnp.float32),
        "label": struct((size, objects), jnp.int32),
        "valid": struct((size, objects), jnp.bool_),
        "ignored": struct((size, objects), jnp.bool_),
        "index": struct((size,), jnp.int32),
        "mask": struct((size,), jnp.bool_),
    }


def _check(config: Config, begun: epath.PathLike | None) -> None:
    if begun is None:
        check_ignored_fields(config.optimizer)
        if not config.initial.source:
            raise ConfigError(
                "a detector keeps the statistics of batch normalization, and so begins with a trained "
                "network: set --config.initial.source to a run or an import, for example of resnet50"
            )
    if config.detection.part == "fast_rcnn" and not config.detection.proposals:
        raise ConfigError(
            "config.detection.part is 'fast_rcnn', which takes its regions from a file: set "
            "--config.detection.proposals to what `resnet-jax proposals` wrote"
        )


def _proposals(config: Config, train: ObjectSource) -> Proposals | None:
    file = config.detection.proposals
    return read_proposals(file, images=len(train)) if file else None


def _open_data(config: Config, begun: epath.PathLike | None) -> tuple[ObjectSource, ObjectSource]:
    data = config.data
    if data.source is None:
        raise DataError("the data of this detector is not known; name it with --config.data.source")
    trained = trained_class_names(begun) if begun else None
    train, test = (
        open_objects(data.source, split, data_dir=config.run.data_dir)
        for split in (data.train_split, data.test_split)
    )
    for source in (train, test):
        if not are_same(list(trained or train.class_names), list(source.class_names)):
            raise DataError(
                f"the classes of {data.source} are not those that the detector is trained on: "
                f"{', '.join(source.class_names)}; before they were {', '.join(trained or train.class_names)}"
            )
    check_objects(
        train, PROFILES[config.detection.profile], config.detection.objects, field="config.detection.objects"
    )
    return train, test


def _notes(config: Config, train: ObjectSource, test: ObjectSource) -> tuple[str, ...]:
    notes = [f"begins with the weights of {config.initial.source}; proposals and the head's layers are fresh"]
    for name, source in (("training", train), ("test", test)):
        labels = np.concatenate([source.annotation(index).label for index in range(len(source))])
        notes.append(f"{name} split: {len(labels)} objects in {len(source)} images")
        notes += [
            f"warning: {count} annotated objects were left out: {why}"
            for why, count in source.dropped.items()
        ]
    return tuple(notes)


def _display(config: Config, train: ObjectSource, test: ObjectSource, notes: tuple[str, ...]) -> Display:
    del test
    proposing = config.detection.part == "rpn"
    return Display(
        title=f"{config.model.name} ({config.detection.profile}) on {config.data.source}",
        data=f"{len(train)} images",
        score="recall50" if proposing else "mAP50",
        line=_line,
        curve=RECALL_CURVE if proposing else CURVE,
        summary=_recall_summary if proposing else _summary,
        notes=notes,
    )


def _line(record: Record) -> str:
    terms = [name for name in ("rpn_object", "rpn_box", "head_class", "head_box") if name in record]
    text = f"loss {record['loss']:.3f} ({' + '.join(f'{record[name]:.3f}' for name in terms)})"
    for name, said in (("mAP50", "mAP"), ("recall50", "recall")):
        text += f", {said} {record[f'test_{name}']:.1%}" if f"test_{name}" in record else ""
    return text


def _recall_summary(tested: Sequence[Record]) -> str:
    last = tested[-1]
    return (
        f"proposals cover {last['test_recall50']:.2%} of the objects at IoU .5, "
        f"{last['test_recall70']:.2%} at "
        f".7, at step {last['step']:.0f} on {last['test_images']:.0f} images"
    )


def _summary(tested: Sequence[Record]) -> str:
    last, best = tested[-1], max(tested, key=lambda record: record["test_mAP50"])
    return (
        f"mAP@.5 {last['test_mAP50']:.2%} at step {last['step']:.0f} on {last['test_images']:.0f} images "
        f"(best saved: {best['test_mAP50']:.2%} at step {best['step']:.0f})"
    )

"""The detector and its training step: padding, weights, devices, samples, gradients, resuming."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from jaxtyping import PyTree

from resnet_jax.detection.average_precision import voc
from resnet_jax.detection.detecting import make_detect
from resnet_jax.detection.detection_step import make_detection_step, make_loss
from resnet_jax.detection.detector import Detector, create_detector
from resnet_jax.detection.object_batches import ObjectEvaluationBatches, ObjectTrainBatches
from resnet_jax.detection.object_source import SceneSource, open_scenes
from resnet_jax.detection.objects import Objects
from resnet_jax.detection.profiles import PROFILES
from resnet_jax.detection.rows import truth_of
from resnet_jax.detection.several_scales import first_scale, maps_at_scales
from resnet_jax.detection.split_scores import detection_rows_step, find_all
from resnet_jax.detection.targets import anchor_targets, roi_targets
from resnet_jax.models import create_model
from resnet_jax.parallel import AXIS_NAME, create_mapping
from resnet_jax.training.state import TrainState, create_state

NETWORK = {
    "name": "resnet10",
    "stage_depths": (1, 1, 1, 1),
    "variants": ("width:4", "small_stem"),
    "num_classes": 10,
    "dtype": "float64",
}
KEY = jax.random.key(0)
PROFILE = PROFILES["scenes"]
of_anchors = jax.jit(anchor_targets, static_argnames="profile")
of_regions = jax.jit(roi_targets, static_argnames=("profile", "classes"))


@pytest.fixture(scope="module", autouse=True)
def _float64() -> object:
    with jax.enable_x64(True):
        yield


def made_up(model: Detector) -> PyTree:
    """Returns variables as a network has them that has learned something."""
    random = np.random.RandomState(0)

    def fill(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if leaf.ndim == 1:
            return random.uniform(0.2, 1, leaf.shape)
        return random.normal(size=leaf.shape) * (1 / np.prod(leaf.shape[:-1])) ** 0.5

    variables = jax.tree.map(fill, jax.eval_shape(model.init, KEY, jnp.zeros((1, 128, 128, 3))))
    for name in ("score", "deltas"):
        variables["params"][name] = jax.tree.map(lambda leaf: leaf / 100, variables["params"][name])
    return variables


@pytest.fixture(scope="module")
def detector() -> tuple[Detector, PyTree]:
    model = create_detector(profile="scenes", context=True, **NETWORK)
    return model, made_up(model)


def test_stem_and_stages_have_the_classifiers_variables(detector: tuple[Detector, PyTree]) -> None:
    classifier = jax.eval_shape(create_model(**NETWORK).init, KEY, jnp.zeros((1, 64, 64, 3)))
    ours, its = flatten_dict(detector[1], sep="/"), flatten_dict(classifier, sep="/")
    assert {name for name in its if name not in ours} == {"params/head/kernel", "params/head/bias"}
    assert all(ours[name].shape == its[name].shape for name in its if name in ours)
    fresh = {name.split("/")[1] for name in ours if name not in its}
    assert fresh == {"rpn_conv", "rpn_object", "rpn_deltas", "score", "deltas"}


@pytest.mark.slow
def test_frozen_normalization_is_that_of_inference(detector: tuple[Detector, PyTree]) -> None:
    """The maps are the classifier's own in evaluation, to the bit."""
    model, variables = detector
    images = jax.random.normal(KEY, (2, 64, 96, 3))
    classifier = create_model(**NETWORK)
    of_classifier = {
        kind: {name: tree for name, tree in variables[kind].items() if name.startswith("st")}
        for kind in variables
    }
    of_classifier["params"]["head"] = {"kernel": jnp.zeros((32, 10)), "bias": jnp.zeros(10)}
    wanted = classifier.apply(of_classifier, images, method=classifier.endpoints)["stage3"]
    np.testing.assert_array_equal(model.apply(variables, images, method=model.trunk), wanted)


@pytest.fixture(scope="module")
def padded() -> dict[str, np.ndarray]:
    """Returns eight images of several sizes in one shape, and garbage where nothing should look."""
    random = np.random.RandomState(0)
    sizes = np.array([[100, 70], [128, 96], [64, 96], [33, 50], [128, 40], [90, 90], [17, 96], [77, 31]])
    image = random.randint(0, 256, (8, 128, 96, 3)).astype(np.uint8)
    return {"image": image, "size": sizes.astype(np.int32), "scale": np.ones((8, 2), np.float32)}


@pytest.mark.slow
def test_a_padded_image_has_the_detections_of_the_image_alone_in_any_batch(
    detector: tuple[Detector, PyTree], padded: dict[str, np.ndarray]
) -> None:
    model, variables = detector
    profile = dataclasses.replace(model.profile, whole_images=False, score_threshold=0.02)
    model = model.clone(profile=profile)
    detect = jax.jit(make_detect(model))
    mean = jnp.array([120.0, 110, 100])
    together = detect(variables, mean, padded)
    assert int(together.valid.sum()) > 50
    for place in (0, 3):
        height, width = padded["size"][place]
        one = {name: array[place : place + 1] for name, array in padded.items()}
        single = detect(variables, mean, one)
        alone = detect(
            variables, mean, one | {"image": one["image"][:, : height + -height % 8, : width + -width % 8]}
        )
        for found in (single, alone):
            np.testing.assert_array_equal(found.valid[0], together.valid[place])
            np.testing.assert_allclose(found.box[0], together.box[place], atol=1e-9)
            np.testing.assert_allclose(found.score[0], together.score[place], atol=1e-9)


@pytest.fixture(scope="module")
def batches() -> ObjectTrainBatches:
    return ObjectTrainBatches(
        open_scenes("train"), 8, 0, slice(None), PROFILES["scenes"], mirror=False, objects=8
    )


def test_garbage_in_invalid_slots_and_the_order_of_a_batch_change_no_bit(
    detector: tuple[Detector, PyTree], batches: ObjectTrainBatches
) -> None:
    model, variables = detector
    batch = batches[0]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, batch["index"])
    loss = jax.jit(make_loss(model, "joint"))
    mean = jnp.zeros(3)
    before = loss(variables, mean, keys, batch)
    garbage = dict(batch)
    empty = ~batch["valid"]
    garbage["box"] = np.where(empty[..., None], np.array([3.0, 9, 70, 44], np.float32), batch["box"])
    garbage["label"] = np.where(empty, 7, batch["label"])
    garbage["ignored"] = batch["ignored"] | empty
    after = loss(variables, mean, keys, garbage)
    for name, value in before.items():
        assert value == after[name], name
    turned = {name: array[::-1] for name, array in batch.items()}
    for name, value in loss(variables, mean, keys[::-1], turned).items():
        np.testing.assert_allclose(value, before[name], rtol=1e-12)


@pytest.mark.slow
def test_the_head_moves_neither_proposals_nor_other_classes(
    detector: tuple[Detector, PyTree], batches: ObjectTrainBatches
) -> None:
    model, variables = detector
    batch = batches[1]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, batch["index"])

    def head_terms(params: PyTree) -> jax.Array:
        terms = make_loss(model, "joint")({**variables, "params": params}, jnp.zeros(3), keys, batch)
        return terms["head_class"] + terms["head_box"]

    gradients = jax.jit(jax.grad(head_terms))(variables["params"])
    for name in ("rpn_conv", "rpn_object", "rpn_deltas"):
        assert all(not leaf.any() for leaf in jax.tree.leaves(gradients[name])), name
    assert gradients["stem"]["conv"]["kernel"].any()


def objects(*boxes: tuple[float, ...], ignored: tuple[int, ...] = (), room: int = 6) -> Objects:
    box = np.zeros((room, 4))
    box[: len(boxes)] = boxes or np.zeros((0, 4))
    number = np.arange(room)
    return Objects(box, number.astype(np.int32), number < len(boxes), np.isin(number, ignored))


GRID = np.array([[x, y, x + 16, y + 16] for y in range(0, 64, 8) for x in range(0, 64, 8)], float)


def test_an_objects_best_anchor_is_positive_and_ties_all_count() -> None:
    one = objects((12.0, 8, 20, 24))
    positive, _, deltas = of_anchors(KEY, GRID, one, np.array([64, 64]), PROFILE)
    chosen = GRID[np.asarray(positive)]
    assert sorted(map(tuple, chosen)) == [(8.0, 8, 24, 24)] or len(chosen) > 1
    np.testing.assert_allclose(np.asarray(deltas)[~np.asarray(positive)], 0)


def state_of(model: Detector, variables: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    state = create_state(model, optimizer, seed=0, image_shape=(128, 128, 3), image_mean=np.zeros(3))
    return state.replace(params=variables["params"], batch_stats=variables["batch_stats"])


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_devices_mappings_and_parts_make_the_same_twenty_steps(
    detector: tuple[Detector, PyTree], batches: ObjectTrainBatches, accumulation: int
) -> None:
    model, variables = detector
    optimizer = optax.sgd(1e-3, 0.9)
    step = make_detection_step(
        model, optimizer, schedule=lambda _: 1e-3, seed=0, axis_name=AXIS_NAME, accumulation=accumulation
    )
    curves = []
    for kind, count in (("pmap", 1), ("pmap", 2), ("shard_map", 1), ("shard_map", 8 // accumulation)):
        mapping = create_mapping(kind, jax.devices()[:count])
        state = mapping.replicate(jax.device_get(state_of(model, variables, optimizer)))
        train, losses = mapping.map(step, donate=True), []
        for number in range(20):
            order = np.arange(8).reshape(accumulation, count, -1).swapaxes(0, 1).reshape(-1)
            batch = {name: array[order] for name, array in batches[number].items()}
            state, metrics = train(state, mapping.shard(batch))
            losses.append({name: float(value) for name, value in metrics.items()})
        curves.append(losses)
    assert curves[0][-1]["loss"] < curves[0][0]["loss"]
    for other in curves[1:]:
        for ours, wanted in zip(other, curves[0], strict=True):
            np.testing.assert_allclose(list(ours.values()), list(wanted.values()), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_four_scenes_are_learned_by_heart() -> None:
    """The whole pipeline can reach mAP 1 on what it has seen."""
    source = SceneSource("train", 4)
    model = create_detector(
        profile="scenes", **NETWORK | {"variants": ("width:16", "small_stem"), "dtype": "float32"}
    )
    optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.sgd(0.02, 0.9))
    variables = jax.jit(model.init)(KEY, jnp.zeros((1, 128, 128, 3)))
    mapping = create_mapping("pmap", jax.devices()[:1])
    state = mapping.replicate(jax.device_get(state_of(model, variables, optimizer)))
    state = state.replace(image_mean=jnp.full(3, 110.0))
    train = mapping.map(
        make_detection_step(model, optimizer, schedule=lambda _: 0.02, seed=0, axis_name=AXIS_NAME),
        donate=True,
    )
    learned = ObjectTrainBatches(source, 4, 0, slice(None), PROFILE, mirror=False, objects=8)
    for number in range(400):
        state, _ = train(state, mapping.shard(learned[number]))
    seen = ObjectEvaluationBatches(source, 4, slice(None), PROFILE)
    found = find_all(mapping.map(detection_rows_step(model, "single"), donate=False), state, seen, mapping)
    assert voc(found, truth_of(source), 10).mean == 1


def scaled_batch(source: SceneSource, count: int) -> dict[str, np.ndarray]:
    """Returns the first images at every scale of the profile."""
    batches = ObjectEvaluationBatches(source, count, slice(0, count), PROFILE, scaled=True)
    return {name: array for name, array in batches[0].items() if name not in ("example", "index", "mask")}


def test_regions_are_seen_at_the_two_scales_around_the_canonical_side() -> None:
    batch = scaled_batch(open_scenes("test"), 2)
    assert {name for name in batch if name.startswith("image_")} == {f"image_{s}" for s in PROFILE.scales}
    assert batch["image_192"].shape == (2, 192, 192, 3)
    np.testing.assert_array_equal(batch["image_128"], batch["image"])
    scales = maps_at_scales(batch, PROFILE, lambda part: part["image"][:, ::8, ::8].astype(jnp.float64))
    # At 128 pixels 30 wide: 15, 22.5, 30, 37.5 and 45 wide at the scales; 40 lies between the last two.
    sides = np.array([30.0, 41.0, 39.0, 81.0, 500.0, 1.0])
    boxes = np.zeros((2, len(sides), 4))
    boxes[..., 2:] = sides[:, None]
    np.testing.assert_array_equal(first_scale(boxes, scales, 40.0)[0], [3, 1, 2, 0, 0, 3])


@pytest.mark.parametrize("protocol", ["multi-scale", "refine+multi-scale"])
@pytest.mark.slow
def test_several_scales_of_one_kind_judge_as_that_one(
    detector: tuple[Detector, PyTree], protocol: str
) -> None:
    """Where all scales are the network's own, the larger of two equal values is that value."""
    model, variables = detector
    batch = scaled_batch(open_scenes("test"), 2)
    own = {name: batch[name] for name in ("image", "size", "scale")}
    same = own | {f"{name}_{side}": own[name] for name in own for side in PROFILE.scales}
    model = model.clone(profile=dataclasses.replace(model.profile, score_threshold=0.02))
    mean = jnp.array([120.0, 110, 100])
    wanted = jax.jit(make_detect(model, protocol="refine" if "refine" in protocol else "single"))(
        variables, mean, own
    )
    detect = jax.jit(make_detect(model, protocol=protocol))
    assert int(wanted.valid.sum()) > 5
    for name, array in detect(variables, mean, same)._asdict().items():
        np.testing.assert_allclose(array, getattr(wanted, name), atol=1e-9)
    different = detect(variables, mean, batch)
    assert np.abs(np.asarray(different.score) - np.asarray(wanted.score)).max() > 1e-3


@pytest.mark.slow
def test_the_larger_value_of_two_scales_counts_before_the_mean(detector: tuple[Detector, PyTree]) -> None:
    model, variables = detector
    one, other = jax.random.normal(KEY, (2, 5, 6, 6, 16))
    pooled = jax.jit(lambda *regions: model.apply(variables, *regions, method=model.pooled))
    both = np.asarray(pooled(one, other))
    np.testing.assert_array_equal(both, pooled(other, one))
    highest = np.maximum(pooled(one), pooled(other))
    assert (both >= highest - 1e-12).all()
    assert (both > highest + 1e-6).any()

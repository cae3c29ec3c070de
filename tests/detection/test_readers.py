"""Folders of VOC and COCO, TFDS and the scenes: boxes as annotated, batches by (seed, step), errors."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from resnet_jax.data.data_error import DataError
from resnet_jax.data.scenes import scene, single_digit
from resnet_jax.detection.annotated_images import VOC_CLASSES
from resnet_jax.detection.object_batches import (
    ObjectEvaluationBatches,
    ObjectTrainBatches,
    check_objects,
    fit,
    read_example,
)
from resnet_jax.detection.object_source import ObjectSource
from resnet_jax.detection.open_objects import open_objects
from resnet_jax.detection.profiles import PROFILES
from resnet_jax.detection.proposal_file import Proposals, read_proposals, write_proposals
from tests.detection.folders import coco_folder, save_image, voc_folder, voc_image

PAPER = PROFILES["paper"]


def test_scenes_and_digits_are_the_same_bytes_everywhere() -> None:
    digest = hashlib.sha256()
    for split, number in (("train", 0), ("train", 17), ("test", 0), ("test", 4)):
        one = scene(split, number)
        digest.update(one.image.tobytes() + one.boxes.astype("<f8").tobytes() + one.labels.tobytes())
        pixels, label = single_digit(split, number)
        digest.update(pixels.tobytes() + bytes([label]))
    assert digest.hexdigest() == "dc179ea0a55dd2f78a5a71eba67712f605be5826f52cc19a797f74ce5dcbaeb3"


def test_scenes_have_what_a_data_set_has() -> None:
    scenes = [scene("train", number) for number in range(150)]
    counts = [len(one.labels) for one in scenes]
    assert min(counts) == 0 < counts.count(0) < 20
    assert max(counts) == 4
    assert 0 < sum(one.difficult.sum() for one in scenes) < 40
    boxes = np.concatenate([one.boxes for one in scenes])
    assert ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, :2] >= 0) & (boxes[:, 2:] <= 128)).all()
    assert ((boxes == 0) | (boxes == 128)).any(1).mean() > 0.05  # Cut by the border.


def test_voc_boxes_count_from_one_and_bad_ones_are_dropped_and_counted(tmp_path: Path) -> None:
    source = open_objects(str(voc_folder(tmp_path / "voc")), "train")
    assert list(source.class_names) == list(VOC_CLASSES)
    first, gray, empty, bad = (source.annotation(index) for index in range(4))
    np.testing.assert_array_equal(first.box, [[0, 0, 60, 40], [10, 10, 20, 30]])
    assert [VOC_CLASSES[label] for label in first.label] == ["dog", "cat"]
    assert first.difficult.tolist() == [False, True]
    assert source.size(1) == (60, 40)
    assert source.image(1).shape == (60, 40, 3)
    assert len(gray.label) == 1
    assert len(empty.label) == 0
    np.testing.assert_array_equal(bad.box, [[49, 29, 60, 40]])
    assert source.dropped == {
        "outside of the image": 1,
        "no width or no height": 1,
        "(kept, cut at the border of the image)": 1,
    }
    several = tmp_path / "devkit"
    (tmp_path / "voc").rename(several / "VOC2007") if several.mkdir() is None else None
    assert len(open_objects(str(several), "2007:train+2007:val")) == 5


def test_coco_has_labels_by_the_order_of_its_categories_and_its_own_areas(tmp_path: Path) -> None:
    source = open_objects(str(coco_folder(tmp_path)), "train2017")
    assert list(source.class_names) == ["person", "stop sign", "toothbrush"]
    first, second = source.annotation(0), source.annotation(1)
    assert (first.label.tolist(), first.area.tolist(), second.crowd.tolist()) == ([2], [321.5], [True])
    np.testing.assert_array_equal(first.box, [[10, 5, 30, 35]])
    assert source.image(1).shape == (80, 50, 3)


class TinyVoc(tfds.core.GeneratorBasedBuilder):
    """Two images with VOC's features."""

    name = "voc_tiny"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        one = {
            "label": tfds.features.ClassLabel(names=VOC_CLASSES),
            "bbox": tfds.features.BBoxFeature(),
            "is_difficult": np.bool_,
        }
        features = {"image": tfds.features.Image(), "objects": tfds.features.Sequence(one)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, download: object) -> dict[str, object]:
        del download
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> object:
        box = tfds.features.BBox(ymin=11 / 40, xmin=21 / 60, ymax=30 / 40, xmax=60 / 60)
        objects = [{"label": "cat", "bbox": box, "is_difficult": True}]
        yield "a", {"image": png(60, 40), "objects": objects}
        yield "b", {"image": png(30, 50), "objects": []}


def png(width: int, height: int) -> io.BytesIO:
    stream = io.BytesIO()
    PIL.Image.new("RGB", (width, height)).save(stream, "PNG")
    stream.seek(0)
    return stream


def test_tfds_boxes_of_voc_are_pixels_counted_from_one(tmp_path: Path) -> None:
    TinyVoc(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    source = open_objects("voc_tiny", "train", data_dir=str(tmp_path))
    index = [source.size(number) for number in range(2)].index((40, 60))
    annotation = source.annotation(index)
    np.testing.assert_array_equal(annotation.box, [[20, 10, 60, 30]])
    assert annotation.difficult.tolist() == [True]
    assert len(source.annotation(1 - index).label) == 0
    assert source.image(index).shape == (40, 60, 3)
    with pytest.raises(DataError, match="reads sets with an image and objects"):
        open_objects("digits", "train", data_dir=str(tmp_path / "digits"))


def test_sides_are_scaled_apart_and_boxes_go_there_and_back(tmp_path: Path) -> None:
    assert fit((375, 500), PAPER, 600) == (600, 800)
    assert fit((333, 500), PAPER, 600) == (600, 901)
    assert fit((100, 1000), PAPER, 600) == (100, 1000)
    voc_image(tmp_path, "a", [("dog", (11, 6, 40, 30), 0)], size=(333, 250))
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    source = open_objects(str(tmp_path), "train")
    plain, mirrored = (read_example(source, 0, PAPER, shorter=600, mirrored=turn) for turn in (False, True))
    height, width = plain.size
    assert plain.image.shape == (608, 1008, 3)
    assert not plain.image[height:].any()
    assert not plain.image[:, width:].any()
    back = plain.annotation.box / np.array([plain.scale[1], plain.scale[0]] * 2)
    np.testing.assert_allclose(back, source.annotation(0).box, atol=1e-3)
    np.testing.assert_array_equal(mirrored.image[:height, :width], plain.image[:height, :width][:, ::-1])
    np.testing.assert_allclose(mirrored.annotation.box[0, [0, 2]], width - plain.annotation.box[0, [2, 0]])


def mixed(root: Path) -> ObjectSource:
    """Returns a split of five lying and three standing images."""
    for number in range(8):
        size = (48, 32) if number % 3 else (32, 48)
        voc_image(root, f"{number}", [("dog", (1, 1, 5 + number, 20), 0)], size=size)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n".join(map(str, range(8))))
    return open_objects(str(root), "train")


def test_batches_hold_one_bucket_need_no_batch_before_them_and_visit_all_equally(tmp_path: Path) -> None:
    batches = ObjectTrainBatches(mixed(tmp_path), 2, 0, slice(None), PAPER, mirror=True, objects=4)
    drawn = [batches.examples_at(step) for step in range(40)]
    assert {bucket for bucket, _ in drawn} == {0, 1}
    assert np.bincount(np.concatenate([numbers for _, numbers in drawn])).tolist() == [10] * 8
    first, again = batches[3], ObjectTrainBatches(**vars_of(batches))[3]
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    part = ObjectTrainBatches(**{**vars_of(batches), "share": slice(1, 2)})[3]
    for name, array in part.items():
        np.testing.assert_array_equal(array, first[name][1:])


def vars_of(batches: ObjectTrainBatches) -> dict[str, object]:
    return {name: getattr(batches, name) for name in ObjectTrainBatches.__dataclass_fields__}


def test_evaluation_shows_every_image_once(tmp_path: Path) -> None:
    batches = ObjectEvaluationBatches(mixed(tmp_path), 4, slice(None), PAPER)
    seen = [batch["example"][batch["mask"]] for batch in batches]
    assert len(seen) == 3
    assert sorted(np.concatenate(seen)) == list(range(8))


def test_proposals_are_kept_by_image_and_checked(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    boxes = random.uniform(0, 30, (8, 3, 4)).astype(np.float32)
    write_proposals(tmp_path / "p.npz", Proposals(boxes, random.uniform(size=(8, 3)) < 0.7))
    proposals = read_proposals(tmp_path / "p.npz", images=8)
    source = mixed(tmp_path)
    batches = ObjectTrainBatches(
        source, 2, 0, slice(None), PAPER, mirror=False, objects=4, proposals=proposals
    )
    batch = batches[0]
    _, numbers = batches.examples_at(0)
    scale = batch["scale"][:, None, [1, 0, 1, 0]]
    np.testing.assert_allclose(batch["proposals"] / scale, boxes[numbers], atol=1e-4)
    np.testing.assert_array_equal(batch["proposals_valid"], proposals.valid[numbers])
    with pytest.raises(DataError, match="has proposals of 8 images, and the split has 9"):
        read_proposals(tmp_path / "p.npz", images=9)
    (tmp_path / "p.npz").write_bytes((tmp_path / "p.npz").read_bytes()[:-40])
    with pytest.raises(DataError, match="or damaged; write it again"):
        read_proposals(tmp_path / "p.npz", images=8)


def _edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def _content(root: Path, **changes: object) -> None:
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _missing(*parts: str) -> Callable[[Path], object]:
    return lambda root: root.joinpath(*parts).unlink()


def _written(text: str, *parts: str) -> Callable[[Path], object]:
    return lambda root: root.joinpath(*parts).write_text(text)


def _with(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: _edit(root / "Annotations" / "a.xml", old, new)


XML, JSON = ("Annotations", "a.xml"), ("annotations", "instances_train2017.json")
OTHER = [{"id": 1, "name": "x"}]
BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a missing image": ("voc", _missing("JPEGImages", "a.jpg"), "there is no image for"),
    "a missing image of COCO": ("coco", _missing("train2017", "2.jpg"), "names the image 2.jpg"),
    "an empty annotation": ("voc", _written("", *XML), "is no XML"),
    "no annotation": ("voc", _missing(*XML), "cannot be read"),
    "an unknown class": ("voc", _with("dog", "wug"), "has an object of class 'wug'.*classes.txt"),
    "a box that is not a number": ("voc", _with("<xmin>11<", "<xmin>nan<"), "edges are finite numbers"),
    "words for numbers": ("voc", _with("<xmin>11<", "<xmin>left<"), "is no annotation of VOC"),
    "JSON that is not COCO's": (
        "coco",
        lambda root: _content(root, categories=[{"name": "x"}]),
        "is not COCO's",
    ),
    "another JSON": ("coco", _written("[]", *JSON), "needs the keys images, annotations and categories"),
    "no JSON": ("coco", _written("{", *JSON), "is no JSON"),
    "a category that is none": ("coco", lambda root: _content(root, categories=OTHER), "category 90"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_is_one_line(tmp_path: Path, name: str) -> None:
    kind, spoil, message = BAD[name]
    root = tmp_path / "data"
    voc_folder(root) if kind == "voc" else coco_folder(root)
    spoil(root)
    with pytest.raises(DataError, match=message) as caught:
        open_objects(str(root), "train" if kind == "voc" else "train2017")
    assert "\n" not in str(caught.value)


def test_a_damaged_image_and_one_of_another_size_are_named(tmp_path: Path) -> None:
    root = voc_folder(tmp_path / "voc")
    source = open_objects(str(root), "train")
    save_image(root / "JPEGImages" / "a.jpg", 61, 40)
    with pytest.raises(DataError, match=r"a\.jpg has 61×40 pixels, and its annotation says 60×40"):
        source.image(0)
    (root / "JPEGImages" / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match=r"a\.jpg: .*restore the file"):
        source.image(0)


def test_sets_that_cannot_be_learned_are_refused(tmp_path: Path) -> None:
    crowded = open_objects(str(coco_folder(tmp_path / "crowded", boxes=10_000)), "train2017")
    with pytest.raises(
        DataError, match=r"has 9999 objects, and a batch has room for 64; raise --config\.det"
    ):
        check_objects(crowded, PAPER, 64, field="config.detection.objects")
    root = tmp_path / "empty"
    voc_image(root, "c", [])
    voc_image(root, "thin", [("dog", (1, 1, 5, 3), 0)], size=(900, 3))
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split, stem in (("none", "c"), ("thin", "thin")):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(stem)
    with pytest.raises(DataError, match="none of the 1 images has an object"):
        check_objects(open_objects(str(root), "none"), PAPER, 64, field="f")
    with pytest.raises(DataError, match="narrower than a cell of the map of 16 pixels"):
        check_objects(open_objects(str(root), "thin"), PAPER, 64, field="f")
    for split, message in (
        ("x", "has no split 'x' in ImageSets/Main; it has none, thin"),
        ("2008:x", "write YEAR:"),
    ):
        with pytest.raises(DataError, match=message):
            open_objects(str(root), split)
    with pytest.raises(DataError, match="there is no folder"):
        open_objects(str(tmp_path / "nowhere"), "train")
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="has neither Annotations"):
        open_objects(str(tmp_path / "photos"), "train")

import base64
import io

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data.source import ArraySource
from resnet_jax.report.mistake_figures import draw_mistakes, picture_uri
from resnet_jax.report.mistakes import SUREST, Mistakes, spread, surest_mistakes
from tests.report.reading import Node, read

NAMES = ("<b>egg</b>", "toad", "owl")


def decode(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def drawn(found: Mistakes) -> Node:
    return read(f"<html>{draw_mistakes(found, 'a run')}</html>")


@pytest.fixture
def found() -> Mistakes:
    labels, predicted = np.array([0, 0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 2, 2, 2])
    images = np.random.RandomState(0).randint(0, 256, (14, 6, 5, 3), np.uint8)
    source = ArraySource(images, np.repeat(labels, 2).astype(np.int32), NAMES)
    confidences = np.array([0.5, 0.6, 0.9, 0.7, 0.8, 0.99, 0.4], np.float32)
    surest = surest_mistakes(source, np.arange(0, 14, 2), labels, predicted, confidences)
    return Mistakes(NAMES, "test", 14, 30, np.array([[1, 2, 0], [0, 1, 1], [0, 0, 2]]), surest)


def test_the_surest_mistakes_come_first_with_their_pixels(found: Mistakes) -> None:
    assert [(one.number, one.label, one.predicted) for one in found.surest] == [
        (4, 0, 1),
        (8, 1, 2),
        (2, 0, 1),
    ]
    pictures = drawn(found).all("img")
    for picture, number in zip(pictures, (4, 8, 2), strict=True):
        pixels = decode(picture.attributes["src"] or "")
        np.testing.assert_array_equal(
            pixels, np.random.RandomState(0).randint(0, 256, (14, 6, 5, 3), np.uint8)[number]
        )
    assert pictures[0].attributes["alt"] == "Example 4: <b>egg</b>, taken for toad"
    assert pictures[0].attributes["class"] == "small"
    assert drawn(found).all("li")[0].text == "toad 90.0\u00a0%true: <b>egg</b>"


def test_the_matrix_and_the_pairs_are_the_counts(found: Mistakes) -> None:
    matrix, pairs = drawn(found).all("table")
    assert matrix.rows() == [
        ["", *NAMES],
        [NAMES[0], "1", "2", ""],
        [NAMES[1], "", "1", "1"],
        [NAMES[2], "", "", "2"],
    ]
    assert [cell.attributes.get("class") for cell in matrix.all("td")][1:5] == ["right", "wrong", None, None]
    assert pairs.rows()[1:] == [[NAMES[0], "toad", "2 of 3"], ["toad", "owl", "1 of 2"]]
    assert drawn(found).all("p")[0].text == (
        "3 of 7 of the 14 images, spread evenly, of the split test are mistaken (42.86 %), by the "
        "checkpoint of step 30."
    )


def test_of_many_classes_only_the_pairs_are_shown() -> None:
    names = [f"class {number}" for number in range(1000)]
    confusion = np.diag(np.full(1000, 5))
    confusion[3, 7] = 2
    page = drawn(Mistakes(names, "test", 5002, 1, confusion, ()))
    assert [table.rows()[1:] for table in page.all("table")] == [[["class 3", "class 7", "2 of 7"]]]


def test_without_a_mistake_there_are_no_pictures() -> None:
    page = drawn(Mistakes(("a", "b"), "test", 4, 1, np.diag([2, 2]), ()))
    assert page.all("img") == page.all("ul") == []
    assert len(page.all("table")) == 1


def test_no_more_mistakes_than_are_shown() -> None:
    count = SUREST + 5
    source = ArraySource(np.zeros((count, 2, 2, 3), np.uint8), np.zeros(count, np.int32), ("a", "b"))
    numbers, labels = np.arange(count), np.zeros(count, int)
    found = surest_mistakes(source, numbers, labels, labels + 1, np.full(count, 0.5))
    assert [one.number for one in found] == list(range(SUREST))
    assert surest_mistakes(source, numbers, labels, labels, np.full(count, 0.5)) == ()


def test_large_pictures_are_made_smaller() -> None:
    assert decode(picture_uri(np.zeros((224, 448, 3), np.uint8))).shape == (64, 128, 3)


def test_examples_are_spread_over_the_split() -> None:
    assert spread(10, 0).tolist() == spread(10, 10).tolist() == spread(10, 99).tolist() == list(range(10))
    assert spread(10, 4).tolist() == [0, 2, 5, 7]

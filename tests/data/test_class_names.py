"""Which names mean the same class, and in which order labels are counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_jax.data.class_names import are_same, describe_difference, in_order, match_labels


@given(st.permutations([str(number) for number in range(25)]))
def test_numbers_are_counted_as_numbers(names: list[str]) -> None:
    assert in_order(names) == [str(number) for number in range(25)]


def test_one_name_that_is_no_number_makes_all_of_them_text() -> None:
    assert in_order(["10", "9", "b"]) == ["10", "9", "b"]


def test_the_forms_of_unicode_and_what_follows_a_wordnet_id_do_not_matter() -> None:
    assert are_same(["caf\u00e9", "n01440764"], ["cafe\u0301", "n01440764_tench"])
    assert not are_same(["a", "b"], ["b", "a"])


def test_a_difference_names_what_is_missing_new_and_moved() -> None:
    text = describe_difference(["ant", "bee", "cat"], ["bee", "cat", "zant"])
    assert text == (
        "'ant' is missing; 'zant' is new; 'bee' has label 0 instead of 1; 'cat' has label 1 instead of 2"
    )
    assert describe_difference(list("abcdefgh"), list("ijklmnop")).endswith("; and 10 more")


@pytest.mark.parametrize(
    ("found", "expected", "labels"),
    [
        (["b", "a"], ["a", "b"], [1, 0]),
        (["n02", "n01"], ["n01", "n02", "n03"], [1, 0]),
        (["n01443537_goldfish"], ["n01440764", "n01443537"], [1]),
        (["0", "1", "2"], ["x", "y", "z"], [0, 1, 2]),
        (["2"], ["x", "y", "z"], [2]),
        (["0", "7"], ["x", "y", "z"], [0, None]),
        (["1", "0"], ["0", "1"], [1, 0]),
        (["tench"], ["goldfish", "tench, Tinca tinca"], [1]),
        (["a", "q"], ["a", "b"], [0, None]),
        (["crane", "tench"], ["crane", "tench", "crane"], [None, 1]),
        (["crane", "tench"], ["crane, bird", "tench", "crane, machine"], [None, 1]),
        (["crane, machine"], ["crane, bird", "tench", "crane, machine"], [2]),
        (["tench, Tinca tinca"], ["goldfish", "tench"], [1]),
    ],
)
def test_classes_are_matched_by_name(found: list[str], expected: list[str], labels: list[int]) -> None:
    assert match_labels(found, expected) == labels


def test_a_map_says_which_class_is_which() -> None:
    names = ["goldfish", "tench, Tinca tinca"]
    mapping = {"n01440764": "tench, Tinca tinca", "n01443537": "0"}
    assert match_labels(["n01440764", "n01443537", "other"], names, mapping) == [1, 0, None]


def test_a_map_leaves_numbers_that_it_does_not_name_unmatched() -> None:
    """Folder "1" is not label 1 merely because another folder is mapped."""
    assert match_labels(["x", "1"], ["a", "b", "c"], {"x": "2"}) == [2, None]
    assert match_labels(["x", "b"], ["a", "b", "c"], {"x": "2"}) == [2, 1]

"""Counts, classes, confusion and the file of predictions, against plain loops and against each other."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from resnet_jax.cli import main
from resnet_jax.evaluation.counts import Counts, predicted, top_classes
from resnet_jax.evaluation.evaluate import predictions
from resnet_jax.evaluation.protocols import Protocol
from resnet_jax.evaluation.scoring import Scores
from tests.interop import workdirs

CIFAR_NET = {"name": "cifar_resnet8", "width": 4, "num_classes": 7}


@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 9), st.booleans())
def test_counts_are_those_of_a_plain_loop(seed: int, examples: int, classes: int, ties: bool) -> None:
    rng = np.random.RandomState(seed)
    logits = rng.randint(0, 3, (examples, classes)) if ties else rng.randn(examples, classes)
    labels = rng.randint(0, classes, examples)
    logp = scipy.special.log_softmax(logits.astype(float), axis=1)
    counts = Counts(classes)
    for start in range(0, examples, 7):
        part = slice(start, start + 7)
        counts.add(Scores(np.arange(examples)[part], labels[part], logp[part]))
    first = fifth = 0
    right = [0] * classes
    for row, label in zip(logits, labels, strict=True):
        better = sum(1 for other, value in enumerate(row) if other != label and value >= row[label])
        first, fifth = first + (better < 1), fifth + (better < 5)
        right[label] += better < 1
    results = counts.results()
    assert results["examples"] == examples
    assert results["top1"] == first / examples
    assert results.get("top5") == (fifth / examples if classes > 5 else None)
    assert results["loss"] == pytest.approx(
        -np.mean([row[label] for row, label in zip(logp, labels, strict=True)])
    )
    assert counts.confusion.sum() == examples
    np.testing.assert_array_equal(counts.confusion.sum(1), np.bincount(labels, minlength=classes))
    np.testing.assert_array_equal(np.diag(counts.confusion), right)
    for row in counts.per_class():
        number = int((labels == row["label"]).sum())
        assert row["examples"] == number
        assert row["top1"] == (right[row["label"]] / number if number else None)


def test_undefined_scores_are_mistakes() -> None:
    scores = Scores(np.arange(3), np.array([0, 1, 2]), np.full((3, 8), np.nan))
    counts = Counts(8)
    counts.add(scores)
    assert counts.results()["top1"] == counts.results()["top5"] == 0
    assert not (predicted(scores) == scores.labels).any()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fields = {"batch_size": 16, "data__synthetic_examples": 37 * 8}
    return workdirs.write(
        tmp_path_factory.mktemp("runs") / "run", CIFAR_NET, side=8, mean=workdirs.pixel_mean(8), **fields
    )


@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_the_file_of_predictions_holds_every_example_in_order(
    suffix: str, workdir: Path, tmp_path: Path, capsys
) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / f"predictions.{suffix}"
    arguments = [
        "evaluate",
        "--workdir",
        str(workdir),
        "--protocol",
        "multi-scale",
        "--scales",
        "8,12",
        "--predictions",
        str(file),
    ]
    assert main([*arguments, "--json", "--per-class", "--confusion"]) == 0
    results = json.loads(capsys.readouterr().out)
    if suffix == "csv":
        rows = list(csv.DictReader(file.read_text().splitlines()))
        assert list(rows[0])[:5] == ["index", "label", "prediction", "class1", "probability1"]
        index, label, prediction = (
            [int(row[name]) for row in rows] for name in ("index", "label", "prediction")
        )
        classes = [[int(row[f"class{rank}"]) for rank in range(1, 6)] for row in rows]
        probabilities = [[float(row[f"probability{rank}"]) for rank in range(1, 6)] for row in rows]
    else:
        stored = np.load(file)
        index, label, prediction, classes, probabilities = (
            stored[name].tolist() for name in ("index", "label", "prediction", "classes", "probabilities")
        )
        assert list(stored["class_names"]) == [f"class {number}" for number in range(7)]
    assert index == list(range(37))
    assert label == [number % 7 for number in range(37)]
    assert np.mean(np.equal(label, prediction)) == results["top1"] == np.trace(results["confusion"]) / 37
    assert np.mean([its in top for its, top in zip(label, classes, strict=True)]) == results["top5"]
    assert [row["examples"] for row in results["per_class"]] == np.sum(results["confusion"], axis=1).tolist()
    found = predictions(workdir, protocol=Protocol("multi-scale", scales=(8, 12)))
    np.testing.assert_array_equal(classes, top_classes(found.log_probabilities))
    np.testing.assert_allclose(
        probabilities, np.take_along_axis(found.probabilities, np.array(classes), 1), rtol=1e-5
    )


def test_the_text_names_what_was_evaluated(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "evaluate",
        "--workdir",
        str(workdir),
        "--workdir",
        str(workdir),
        "--per-class",
        "--confusion",
        "--mirror",
    ]
    assert main([*arguments, "--precise-bn", "20"]) == 0
    shown = capsys.readouterr()
    assert "2 nets at steps 4, 4, 37 images of test: accuracy " in shown.out
    assert "label by prediction:" in shown.out
    assert shown.out.count("class 6") == 3
    assert "statistics of 20 training images are in" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "five-crop"], "unknown protocol 'five-crop'"),
        (["--predictions", "p.txt"], "its name must end in .csv or .npz"),
        (["--predictions", "no/where.csv"], "there is no folder no for the file of predictions"),
        (["--batch-size", "0"], "argument --batch-size: '0' is not a whole number of 1 or more"),
        (["--statistics", "best"], "unknown statistics 'best'"),
        (["--precise-bn", "9999"], "statistics of 9999 images are asked for"),
        (["--workdir", "nowhere"], "nowhere holds no checkpoint"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--workdir", str(workdir), *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error


def test_an_ensemble_is_of_nets_with_the_same_classes(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = workdirs.write(
        tmp_path / "other", CIFAR_NET | {"num_classes": 6}, side=8, data__synthetic_examples=37 * 8
    )
    assert main(["evaluate", "--workdir", str(workdir), "--workdir", str(other)]) == 2
    assert "an ensemble is of nets with the same classes, on the same examples" in capsys.readouterr().err

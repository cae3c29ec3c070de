"""`resnet-jax config` prints what the declarations of the fields say, and so does docs/config.md."""

import json
from pathlib import Path

import pytest

from resnet_jax.cli import main
from resnet_jax.training.config import all_fields

PAGE = Path(__file__).parents[1] / "docs" / "config.md"


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["config", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(not PAGE.exists(), reason="the tests run outside the checkout")
def test_the_page_of_the_fields_is_generated(capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "--markdown") == PAGE.read_text()


def test_every_field_is_explained_in_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    text, document = output(capsys), json.loads(output(capsys, "--json"))
    assert document.keys() == all_fields().keys()
    for path, field in all_fields().items():
        assert f"{path} = {field.default!r}" in text
        assert document[path]["meaning"] == field.meaning


def test_the_values_of_a_recipe_and_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(output(capsys, "cifar10", "--json"))["optimizer"]["boundaries"] == [32_000, 48_000]
    assert "model.group_size = 64   (default: None)" in output(capsys, "cifar10")
    changed = ["cifar10", "--set", "run.steps=5", "seed=3", "--diff", "cifar10"]
    assert output(capsys, *changed) == "seed: 3 -> 0\nrun.steps: 5 -> 64000\n"
    assert json.loads(output(capsys, *changed, "--json")) == {"seed": [3, 0], "run.steps": [5, 64_000]}
    assert output(capsys, "cifar10", "--diff", "cifar10:resnet20") == "no difference\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--diff", "cifar10"], "--diff and --set need the NAME of a recipe"),
        (["cifar1"], "did you mean cifar10?"),
        (["cifar10", "--set", "optimizer.rate=3"], "config.optimizer.rate does not exist"),
        (["cifar10", "--set", "seed"], "write FIELD=VALUE"),
    ],
)
def test_a_mistake_is_answered(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", *arguments]) == 2
    assert message in capsys.readouterr().err

"""What a person writes to name a config with its changes."""

import shlex
from pathlib import Path

import pytest

from resnet_jax.comparison.entries import check_comparable, parse_entry
from resnet_jax.training.config_fields import ConfigError
from tests.test_docs import ROOT, blocks
from tests.training import tiny


def test_a_config_is_a_name_a_recipe_and_changes() -> None:
    entry = parse_entry("B=cifar10:resnet32,cifar100,model.shortcut=B,optimizer.boundaries=(10,20)")
    assert (entry.name, entry.text) == (
        "B",
        "cifar10:resnet32,cifar100,model.shortcut=B,optimizer.boundaries=(10,20)",
    )
    assert entry.config.model.name == "cifar_resnet32"
    assert entry.config.data.source == "cifar100"
    assert entry.config.model.shortcut == "B"
    assert entry.config.optimizer.boundaries == (10, 20)


def test_without_a_name_the_text_is_the_name_and_its_directory_has_none_of_its_slashes() -> None:
    entry = parse_entry(f"{tiny.PATH},seed=5", common=[("seed", "1"), ("batch_size", "8")])
    assert entry.name == f"{tiny.PATH},seed=5"
    assert "/" not in entry.directory
    assert "," not in entry.directory
    assert (entry.config.seed, entry.config.batch_size) == (5, 8)
    assert [entry.with_seed(number).seed for number in range(2)] == [5, 6]
    assert parse_entry("digits_resnet20").name == "digits_resnet20"


def test_a_file_with_an_equals_sign_is_no_name(tmp_path: Path) -> None:
    path = tmp_path / "rate=0.1.py"
    path.write_text(tiny.PATH.read_text())
    assert parse_entry(f"{path},seed=2").config.seed == 2


def test_the_budget_scales_all_that_is_counted_in_steps() -> None:
    config = parse_entry("digits_resnet20", budget=0.1).config
    assert (config.run.steps, config.run.evaluate_every, config.run.checkpoint_every) == (30, 1, 5)
    assert config.optimizer.boundaries == (15, 22)
    assert parse_entry("digits_resnet20", budget=2).config.run.steps == 600


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["digits_resnet20,seed"], "there is no config|seed"),
        (
            ["digits_resnet20,seed=1,2"],
            "'2' is not a change of a config; write FIELD=VALUE, and lists in brackets",
        ),
        (["digits_resnet20", "digits_resnet20"], "two configs are called 'digits_resnet20'; give them names"),
        (["a b=digits_resnet20", "a_b=digits_resnet20"], "two configs are called"),
        (
            ["digits_resnet20", "cifar10:resnet20"],
            "different data: data.source 'digits' and 'cifar10'.*--any-data",
        ),
        (["digits_resnet20", "b=digits_resnet20,model.dtype=float64"], "compare them in two commands"),
        (
            ["digits_resnet20,task=depth:Depth"],
            "has the task depth:Depth; only classification can be compared",
        ),
        ([], "nothing to compare"),
    ],
)
def test_what_cannot_be_compared_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_comparable([parse_entry(text) for text in texts])


def test_the_command_of_the_page_means_three_nets() -> None:
    program, command, *words = shlex.split(blocks(ROOT / "docs" / "compare.md", "sh").replace("\\\n", ""))
    assert (program, command, words[3:]) == (
        "resnet-jax",
        "compare",
        ["--seeds", "3", "--to", "runs/compare"],
    )
    entries = [parse_entry(text) for text in words[:3]]
    check_comparable(entries)
    assert [entry.config.model.name for entry in entries] == [
        "cifar_plain20",
        "cifar_resnet20",
        "cifar_resnet20",
    ]
    assert entries[2].config.model.variants == ("preactivation",)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="--budget is 0"):
        parse_entry("digits_resnet20", budget=0)


def test_different_data_can_be_asked_for() -> None:
    check_comparable([parse_entry(text) for text in ("digits_resnet20", "cifar10:resnet20")], any_data=True)

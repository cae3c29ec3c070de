"""The Python in the README and the docs runs, the commands of the tutorial too, and links between files lead
somewhere."""

import argparse
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from resnet_jax import cli
from resnet_jax.training.recipes import load_recipe
from resnet_jax.training.run import run
from tests.data.photographs import write_folder
from tests.interop import nets, workdirs
from tests.training import tiny
from tests.training.runs import train

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if path.exists()
]


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def parsed(command: list[str]) -> argparse.Namespace:
    """Returns the arguments of a command, parsed."""
    _, parser = cli.load_command(command[0])
    return cli.parse(parser, command[1:])


def blocks(page: Path, language: str) -> str:
    """Returns the text of a page's blocks in a language."""
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(tiny.get_config(**{"run.steps": 7}), tmp_path / "runs" / "digits_resnet20")
    code = blocks(ROOT / "README.md", "python")
    assert "rj.load(" in code
    exec(compile(code, "README.md", "exec"), {})
    exec(compile(blocks(ROOT / "docs" / "paper.md", "python"), "paper.md", "exec"), {})


def test_the_page_on_evaluation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "evaluation.md"
    for line in blocks(page, "sh").splitlines():
        if line.startswith("resnet-jax "):
            parsed(shlex.split(line)[1:])
    monkeypatch.chdir(tmp_path)
    net = {"name": "cifar_resnet8", "width": 4, "num_classes": 7}
    workdirs.write(tmp_path / "runs" / "digits_resnet20", net, side=8, data__synthetic_examples=200)
    names: dict[str, Any] = {}
    exec(compile(blocks(page, "python"), page.name, "exec"), names)
    assert names["images"].shape == (10, 8, 8, 3)
    assert (names["labels"] != names["found"].predicted[names["surest"]]).all()


def test_the_commands_of_the_page_on_the_paper_exist() -> None:
    lines = re.findall(r"^    (resnet-jax .*)$", (ROOT / "docs" / "paper.md").read_text(), re.MULTILINE)
    commands = [shlex.split(line)[1:] for line in lines if "NAME" not in line]
    assert len(commands) == 2
    for arguments in commands:
        parsed(arguments)


def tutorial() -> list[tuple[str, list[str]]]:
    """Returns the commands of docs/finetune.md: "train" or "resnet-jax", and the arguments."""
    found = []
    for line in filter(None, blocks(ROOT / "docs" / "finetune.md", "sh").replace("\\\n", "").splitlines()):
        program, *arguments = shlex.split(line.removeprefix("python "))
        assert program in ("train.py", "resnet-jax"), line
        found.append((program, arguments))
    return found


def test_the_fields_of_the_tutorial_exist() -> None:
    assert len(tutorial()) == 9
    for program, arguments in tutorial():
        if program == "train.py":
            given = parsed(["train", *arguments])
            assert given.workdir.startswith("runs/")
            load_recipe(given.config.partition(":")[0], given.overrides)


@pytest.mark.slow
def test_the_tutorial_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "photos", train=6, val=2)
    save_file(nets.weights(18, classes=1000), tmp_path / "resnet18.safetensors")
    for program, arguments in tutorial():
        shorter = [
            re.sub(r"(run\.steps)=\d+", r"\1=2", re.sub(r"(batch_size)=\d+", r"\1=6", argument))
            for argument in arguments
        ]
        small = [
            "--config.run.devices=1",
            *(["--config.data.image_size=64"] if "photos" in " ".join(arguments) else []),
        ]
        assert (train([*shorter, *small]) if program == "train.py" else cli.main(shorter)) == 0, (
            capsys.readouterr().err
        )
    said = capsys.readouterr().out
    assert "begins with the weights of runs/low; the last layer is fresh, for 5 classes" in said
    assert (
        "begins with the weights of imported/resnet18; the last layer is fresh, for 3 classes instead of 1000"
        in said
    )
    assert "step 2, 6 images of val" in said
    names: dict[str, object] = {}
    exec(compile(blocks(ROOT / "docs" / "finetune.md", "python"), "finetune.md", "exec"), names)
    assert names["variables"]["params"]["head"]["kernel"].shape == (512, 3)  # type: ignore[index]

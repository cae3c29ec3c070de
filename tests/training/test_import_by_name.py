"""Functions and classes from files outside the package.

Trained with, gone on with, evaluated and restored by name.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import cli, create_model, load_checkpoint
from resnet_jax.models import ModelError
from resnet_jax.models.import_by_name import import_by_name
from resnet_jax.training.checkpoints import read_checkpoint
from resnet_jax.training.config import resolve
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.factories import build_optimizer
from resnet_jax.training.logging import read_metrics
from resnet_jax.training.workdir import read_config
from tests.test_docs import ROOT, blocks
from tests.training.runs import train
from tests.training.tiny import PATH, get_config

PAGE = ROOT / "docs" / "variants.md"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the module of docs/variants.md, which afterwards is as if it had not been imported."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "my_parts.py").write_text(blocks(PAGE, "python"))
    (tmp_path / "parts" / "my_recipe.py").write_text(PATH.read_text())
    yield tmp_path
    sys.modules.pop("my_parts", None)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this process as fresh as one can: the module is not imported, and not on the path."""
    sys.modules.pop("my_parts", None)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if "parts" not in place])


@pytest.mark.slow
def test_the_page_of_variants_runs(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(elsewhere / "parts")
    for line in filter(None, blocks(PAGE, "sh").replace("\\\n", "").splitlines()):
        program, *arguments = shlex.split(line.removeprefix("python "))
        assert program in ("train.py", "resnet-jax")
        if program == "resnet-jax":
            assert cli.main(arguments) == 0, capsys.readouterr().err
            continue
        steps = "4" if "run.steps=120" in line else "2"
        small = [
            "model.name=cifar_resnet8",
            "batch_size=16",
            "data.train_split=train[:64]",
            "data.test_split=test[:32]",
        ]
        small += ["run.devices=1", "run.tensorboard=False", f"run.steps={steps}"]
        changed = [*arguments, *(f"--config.{field}" for field in small)]
        assert train(changed) == 0, capsys.readouterr().err
    assert [record["step"] for record in read_metrics(elsewhere / "parts/runs/separable")] == [1, 2, 3, 4]

    forget(monkeypatch)
    monkeypatch.chdir(elsewhere)
    model, variables = load_checkpoint(str(elsewhere / "parts/runs/separable"))
    assert variables["params"]["stage1"]["block1"]["conv2"]["kernel"].shape == (3, 3, 1, 32)
    assert model.apply(variables, jnp.zeros((2, 16, 16, 3))).shape == (2, 10)
    _, variables = load_checkpoint(str(elsewhere / "parts/runs/cosine"))
    assert "batch_stats" not in variables


@pytest.mark.slow
def test_a_run_with_a_block_of_ones_own_is_restored_by_name(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["--config.model.block=my_parts:Separable(ratio=1)", "--config.model.variants=['preactivation']"]
    recipe = [
        f"--config={elsewhere}/parts/my_recipe.py",
        f"--workdir={elsewhere}/run",
        "--config.run.steps=1",
    ]
    assert train([*recipe, *own]) == 2  # Which variant changes whose block?
    assert train([*recipe, own[0]]) == 0
    assert read_config(elsewhere / "run").run.code_dir == str(elsewhere / "parts")
    forget(monkeypatch)
    model, variables = load_checkpoint(str(elsewhere / "run"))
    assert variables["params"]["stage2"]["block1"]["conv2"]["kernel"].shape == (3, 3, 1, 32)
    assert jax.eval_shape(model.apply, variables, jnp.zeros((2, 8, 8, 3))).shape == (2, 7)


def test_parts_by_name_are_the_parts(elsewhere: Path) -> None:
    directory = str(elsewhere / "parts")
    by_name = create_model(
        "cifar_resnet8", block="my_parts:Separable(ratio=3)", shortcut="my_parts:averaged", code_dir=directory
    )
    import my_parts

    model = create_model("cifar_resnet8", block=my_parts.Separable, shortcut=my_parts.averaged)
    shapes = [
        jax.eval_shape(each.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
        for each in (by_name, model)
    ]
    assert shapes[0]["stage1"]["block1"]["conv1"]["kernel"].shape[-1] == 48
    assert shapes[1]["stage1"]["block1"]["conv1"]["kernel"].shape[-1] == 32
    assert by_name.shortcut is my_parts.averaged


def test_the_rate_and_the_optimiser_are_those_named(elsewhere: Path) -> None:
    fields = {
        "optimizer.schedule": "my_parts:cosine(steps=10)",
        "optimizer.boundaries": (),
        "optimizer.name": "optax:sgd",
    }
    schedule, optimizer = build_optimizer(resolve(get_config(**fields)).optimizer, str(elsewhere / "parts"))
    rates = [float(schedule(jnp.asarray(step))) for step in (0, 5, 10, 20)]
    np.testing.assert_allclose(rates, [0.1, 0.05, 0, 0], atol=1e-8)
    params = {"kernel": jnp.ones(1)}
    updates, _ = optimizer.update(
        {"kernel": jnp.ones(1)}, optimizer.init(params), params, value=jnp.float32(1)
    )
    assert float(updates["kernel"][0]) == pytest.approx(
        -0.1
    )  # Without the decay and the momentum of the section.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no_parts:Block",
            r"block is 'no_parts:Block', and there is no module 'no_parts': looked in /.*no_parts.py into",
        ),
        ("my_parts:Seperable", r"my_parts.py has no 'Seperable'; did you mean Separable\?"),
        ("my_parts:jnp.pi", "which is a float; it must be a function or a class"),
        ("my_parts:focal(gamma=x)", "arguments must be names with literals"),
        ("my_parts:focal(2)", "arguments must be names with literals"),
        ("my_parts:focal(gamma=2))(", "the form is package.module:name"),
        ("my_parts:", "the form is package.module:name"),
        ("broken:Block", "importing broken raised ZeroDivisionError"),
        ("needy:Block", "needy needs the module 'not_installed', which is not installed"),
    ],
)
def test_what_cannot_be_imported_is_one_clear_line(elsewhere: Path, name: str, message: str) -> None:
    (elsewhere / "parts" / "broken.py").write_text("1 / 0\n")
    (elsewhere / "parts" / "needy.py").write_text("import not_installed\n")
    with pytest.raises(ModelError, match=message) as caught:
        import_by_name(name, field="block", directory=str(elsewhere / "parts"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"optimizer.name": "adam"},
            "optimizer.name is 'adam'; it must be one of sgd, lars, or package.module:function",
        ),
        ({"optimizer.schedule": "my_parts:cosine"}, "a schedule, and boundaries or warmup_steps"),
        ({"optimizer.loss": "my_parts:focal", "optimizer.label_smoothing": 0.1}, "leave one out"),
    ],
)
def test_fields_that_contradict_each_other_are_named(fields, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        resolve(get_config(**fields))


def test_a_name_that_is_gone_ends_a_command_with_exit_code_2(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        f"--config={elsewhere}/parts/my_recipe.py",
        f"--workdir={elsewhere}/run",
        "--config.model.block=my_part:Separable",
    ]
    assert train(arguments) == 2
    said = capsys.readouterr().err
    assert f"there is no module 'my_part': looked in {elsewhere}/parts, " in said
    assert said.count("\n") == 1


LOAD = """
import sys, jax.numpy as jnp, resnet_jax
model, variables = resnet_jax.load_checkpoint(sys.argv[1], trust_code=True)
shape = model.apply(variables, jnp.ones((1, 8, 8, 3))).shape
print(type(model.block.func).__name__, model.block.func.__module__, shape)
"""


@pytest.mark.slow
def test_a_run_of_ones_own_block_in_processes_of_its_own(elsewhere: Path) -> None:
    """Trained by train.py from another directory, gone on with, evaluated, restored where the module is
    not."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    workdir, named_here = str(elsewhere / "run"), "--config.model.block=my_parts:Separable(ratio=1)"

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    recipe = [
        str(ROOT / "train.py"),
        f"--config={elsewhere}/parts/my_recipe.py",
        f"--workdir={workdir}",
        named_here,
    ]
    for steps in (2, 4):
        ended = python(*recipe, f"--config.run.steps={steps}")
        assert ended.returncode == 0, ended.stderr
    assert "resumes from step 2 of 4" in ended.stdout
    assert read_checkpoint(workdir).model["block"] == "my_parts:Separable(ratio=1)"
    assert read_config(workdir).run.code_dir == str(elsewhere / "parts")
    evaluated = python("-m", "resnet_jax", "evaluate", "--workdir", workdir, "--json", "--trust-code")
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["step"] == 4
    loaded = python("-c", LOAD, workdir)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split(maxsplit=2)[1:] == ["my_parts", "(1, 7)\n"]
    (elsewhere / "parts" / "my_parts.py").rename(elsewhere / "parts" / "moved.py")
    gone = python("-m", "resnet_jax", "evaluate", "--workdir", workdir, "--trust-code")
    assert gone.returncode == 2
    assert "there is no module 'my_parts'" in gone.stderr

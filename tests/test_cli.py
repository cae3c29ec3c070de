"""The command line: what it imports, its help, and the three ways to call it."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_jax.cli import COMMANDS, guard, load_command, main, parse
from resnet_jax.errors import FAILED, INTERRUPTED, RESUMABLE, USAGE, ResNetError, UsageError, exit_status
from resnet_jax.parallel import Processes
from tests.training.runs import COMPILE_FASTER, TINY

ROOT = Path(__file__).parents[1]
HEAVY = {
    "jax",
    "numpy",
    "flax",
    "orbax",
    "cv2",
    "grain",
    "tensorboardX",
    "rich",
    "matplotlib",
    "absl",
    "etils",
}


def modules_after(code: str) -> set[str]:
    """Returns the top-level modules that are loaded in a process after some code."""
    code = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize(
    "code", ["import resnet_jax", "from resnet_jax.cli import main; assert main(['--help']) == 0"]
)
def test_help_imports_no_library(code: str) -> None:
    assert not modules_after(code) & HEAVY


@pytest.mark.parametrize("command", [["train", "--help"], ["config", "cifar10"]])
def test_the_config_is_printed_without_jax(command: list[str]) -> None:
    code = f"from resnet_jax.cli import main\ntry: main({command})\nexcept SystemExit: pass"
    assert not modules_after(code) & {"jax", "numpy", "flax", "orbax", "tensorboardX"}


def test_list_imports_only_what_it_needs() -> None:
    loaded = modules_after("from resnet_jax.cli import main; assert main(['list']) == 0")
    assert not loaded & {"orbax", "cv2", "grain", "tensorboardX", "matplotlib", "tensorflow_datasets"}


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == main([]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out and text in out for name, (_, text) in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help_with_examples_that_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    module, _ = load_command(name)
    assert len(module.EXAMPLES) >= 2
    for example in module.EXAMPLES:
        assert example in out
    for option in load_command(name)[1]._actions:
        assert option.help, f"{option.option_strings} of {name} has no help"
    assert "--json" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_parse(name: str) -> None:
    module, _ = load_command(name)
    for example in module.EXAMPLES:
        words = shlex.split(example.rpartition("| ")[2])
        assert words[:2] == ["resnet-jax", name]
        assert parse(load_command(name)[1], words[2:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evalute"], "unknown command 'evalute'; did you mean evaluate? commands are train, "),
        (["evaluate"], "no run is named; give its directory: resnet-jax evaluate"),
        (["summary", "resnet50", "--width=4"], "unrecognized arguments: --width=4"),
        (["list", "--config.seed=1"], "unrecognized arguments: --config.seed=1"),
        (["prepare", "a", "b", "--workers=x"], "argument --workers: 'x' is not a whole number of 0 or more"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == USAGE
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("resnet-jax: ")
    assert error.count("\n") == 1


def test_fields_are_taken_in_the_order_given() -> None:
    _, parser = load_command("train")
    given = parse(parser, ["--config.seed=1", "--config=a", "--config.a.b", "(40,)", "--config.seed=2"])
    assert given.overrides == [("seed", "1"), ("a.b", "(40,)"), ("seed", "2")]
    assert given.config == "a"


class PausedError(ResNetError):
    exit_code = RESUMABLE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ResNetError("no"), FAILED),
        (UsageError("no"), USAGE),
        (PausedError("no"), RESUMABLE),
        (KeyboardInterrupt(), INTERRUPTED),
        (OSError(28, "No space left on device", "file"), FAILED),
    ],
)
def test_an_error_carries_its_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        with Processes():
            raise error

    assert guard(fail) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_bug_has_no_exit_status() -> None:
    assert exit_status(ZeroDivisionError()) is None
    assert exit_status(OSError(2, "No such file")) is None


@pytest.mark.parametrize(
    "program",
    [
        [str(ROOT / "train.py")],
        ["-m", "resnet_jax", "train"],
        ["-c", "import sys; from resnet_jax.cli import main; sys.exit(main(sys.argv[1:]))", "train"],
    ],
    ids=["train.py", "module", "script"],
)
def test_training_is_one_function(program: list[str], tmp_path: Path) -> None:
    """All report the same mistake, and one of them trains, with its result as JSON."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment["XLA_FLAGS"] = COMPILE_FASTER
    arguments = [f"--config={TINY}", f"--workdir={tmp_path / 'run'}", "--json", "--config.run.steps=2"]

    def call(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *program, *arguments, *more]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    wrong = call("--config.batch_size=many")
    assert wrong.returncode == USAGE
    assert "config.batch_size is 'many'" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
    if program[0] == "-m":
        done = call()
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["step"] == 2
        assert (tmp_path / "run" / "config.json").is_file()

"""Code that a checkpoint names runs only where the user trusts it."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import resnet_jax as rj
from resnet_jax.cli import main
from resnet_jax.evaluation import trial
from resnet_jax.models import trusted_code
from resnet_jax.models.trusted_code import UntrustedCodeError, is_safe
from resnet_jax.training.checkpoint_files import write_checksums
from resnet_jax.training.config import from_json, with_fields
from resnet_jax.training.stored_code import read_trusted_checkpoint
from resnet_jax.training.task import build_experiment
from resnet_jax.training.workdir import read_config
from tests.interop import nets, workdirs

MODEL = {"name": "cifar_resnet8", "num_classes": 3}

SAFE = ["flax.linen:gelu", "jax.nn:silu", "flax.linen:GroupNorm(num_groups=4)", "optax:adamw(b1=0.8)"]
SAFE += ["optax:cosine_decay_schedule(init_value=1,decay_steps=3)", "resnet_jax.models.blocks:BasicBlock"]
UNSAFE = [
    "os:system",
    "evil:Block",
    "builtins:exec",
    "optax:chex.os.system",
    "flax.linen:linear.np",
    "jax.nn:functions",
    "resnet_jax.files:write_text",
    "resnet_jax.models.blocks:nn.jit",
    "flax.linen:_absolute_dims",
    "jax.numpy:save",
    "optax:jax",
    "flax:linen",
    "not a name: at all",
]


@pytest.fixture(autouse=True)
def _nothing_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusted_code._Trust, "names", set())


@pytest.mark.parametrize("name", SAFE)
def test_names_of_the_short_list_load_freely(name: str) -> None:
    assert is_safe(name)


@pytest.mark.parametrize("name", UNSAFE)
def test_other_names_do_not(name: str) -> None:
    assert not is_safe(name)


def downloaded(folder: Path, **changes: object) -> Path:
    """Returns a run whose checkpoint names a function of a module that it brings along."""
    workdir = workdirs.write(folder / "run", MODEL, side=8, inference__class_names=("a", "b", "c"))
    (workdir / "evil.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('proof').write_text('')\n"
        "from flax.linen import relu as activation\n"
    )
    (checkpoint,) = (path for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    file = checkpoint / "description" / "metadata"
    description = json.loads(file.read_text())
    description["model"] |= {"activation": "evil:activation", "code_dir": str(workdir), **changes}
    description["config"]["run"]["code_dir"] = str(workdir)
    file.write_text(json.dumps(description))
    write_checksums(checkpoint, apart=(), only_apart=False)
    return workdir


COMMANDS = [
    ["predict", "{picture}", "--workdir={run}"],
    ["evaluate", "--workdir={run}"],
    ["export", "--workdir={run}", "--to={to}"],
    ["responses", "--workdir={run}"],
    ["train", "--config.initial.source={run}", "--config.model.name=cifar_resnet8", "--workdir={to}"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=[command[0] for command in COMMANDS])
def test_no_command_imports_what_a_download_names(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = downloaded(tmp_path)
    workdirs_png = nets.pixels(8, 1)[0]
    import PIL.Image

    PIL.Image.fromarray(workdirs_png).save(tmp_path / "picture.png")
    places = {"run": run, "picture": tmp_path / "picture.png", "to": tmp_path / "out.safetensors"}
    assert main([word.format(**places) for word in command]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "names code that loading it would run: activation='evil:activation'" in error
    assert "--trust-code" in error
    assert not (run / "proof").exists()
    assert str(run) not in sys.path


def test_a_resumed_download_is_asked_for_too(tmp_path: Path) -> None:
    """The user's recipe names no code; the downloaded run that is to go on does."""
    run = downloaded(tmp_path)
    config = with_fields(read_config(run), {"initial.source": "somewhere", "run.devices": 1})
    with pytest.raises(UntrustedCodeError, match="activation='evil:activation'"):
        build_experiment(config, begun=run)
    assert not (run / "proof").exists()


def test_the_record_beside_weights_names_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = workdirs.write(tmp_path / "run", MODEL, side=8, inference__class_names=("a", "b", "c"))
    file = tmp_path / "net.safetensors"
    assert main(["export", f"--workdir={run}", f"--to={file}"]) == 0
    record = tmp_path / "net.safetensors.json"
    content = json.loads(record.read_text())
    content["model"]["shortcut"] = "evil:shortcut"
    record.write_text(json.dumps(content))
    (tmp_path / "evil.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('proof').write_text('')\n"
        "from resnet_jax.models.shortcuts import projection as shortcut\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UntrustedCodeError, match=r"net.safetensors.json names code .* shortcut='evil:shortcut'"
    ):
        rj.load(file)
    assert not (tmp_path / "proof").exists()


def test_a_module_of_a_download_never_takes_a_librarys_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of the short list puts no directory on Python's path, where a later import would find it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    run = downloaded(tmp_path, activation="flax.linen:gelu", code_dir=str(tmp_path))
    rj.load(run)
    assert str(tmp_path) not in sys.path


CODE_DIRS = {"run": None, "run/parts": None, "{here}/run": None, "parts": "parts", "run2": "run2"}


@pytest.mark.parametrize(("stored", "kept"), CODE_DIRS.items(), ids=CODE_DIRS)
def test_a_code_dir_in_the_download_is_dropped_and_the_users_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str, kept: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    run = downloaded(tmp_path, activation="flax.linen:gelu", code_dir=stored.format(here=tmp_path))
    assert read_trusted_checkpoint(run).model.get("code_dir") == kept


def test_evaluation_by_a_task_of_its_own_looks_nowhere_in_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = downloaded(tmp_path, activation="flax.linen:gelu")
    monkeypatch.setattr(
        trial, "from_json", lambda stored: with_fields(from_json(stored), {"task": "evil:task"})
    )
    with trusted_code.trusting_code(), pytest.raises(rj.models.ModelError, match="no module 'evil'"):
        trial.evaluate_by_task(run)
    assert not (run / "proof").exists()


def test_the_api_refuses_and_says_how_to_trust(tmp_path: Path) -> None:
    run = downloaded(tmp_path)
    for load in (rj.load, rj.load_checkpoint):
        with pytest.raises(UntrustedCodeError, match="activation='evil:activation'"):
            load(run)
    assert not (run / "proof").exists()


def test_what_is_trusted_is_imported_from_the_users_own_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = downloaded(tmp_path)
    with pytest.raises(rj.models.ModelError, match="no module 'evil'"):
        rj.load(run, trust_code=True)
    assert not (run / "proof").exists()
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(run / "evil.py", own)
    monkeypatch.syspath_prepend(str(own))
    try:
        logits = rj.load(run, trust_code=True).logits(nets.pixels(8, 2))
    finally:
        sys.modules.pop("evil", None)
    assert logits.shape == (2, 3)
    assert (own / "proof").exists()


def test_names_of_the_short_list_need_no_trust(tmp_path: Path) -> None:
    run = downloaded(tmp_path, activation="flax.linen:gelu")
    assert np.isfinite(rj.load(run).logits(nets.pixels(8, 2))).all()

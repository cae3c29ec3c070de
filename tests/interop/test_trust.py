"""Code that a checkpoint names runs only where the user trusts it."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import resnet_jax as rj
from resnet_jax.cli import main
from resnet_jax.models import trusted_code
from resnet_jax.models.trusted_code import UntrustedCodeError, is_safe
from resnet_jax.training.checkpoint_files import write_checksums
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

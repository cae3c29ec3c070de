"""The files that start runs are well-formed, name recipes that exist, and agree with themselves."""

import re
import subprocess
from pathlib import Path

import pytest

from resnet_jax.training.recipes import load_recipe

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.name for script in SCRIPTS])
def test_a_script_parses_and_stops_without_its_names(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    done = subprocess.run(
        ["bash", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert re.search(r"(PROJECT|DATA): ", done.stderr)


def test_their_recipes_exist() -> None:
    texts = "".join(path.read_text() for path in LAUNCH.iterdir())
    specs = set(re.findall(r"imagenet\w*:\d+", texts))
    assert specs
    assert all(load_recipe(spec).batch_size >= 1024 for spec in specs)

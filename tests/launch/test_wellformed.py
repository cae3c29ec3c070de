"""The files that start runs are well-formed, name recipes that exist, and agree with themselves."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from resnet_jax.training.recipes import load_recipe
from tests.object_storage.server import serving
from tests.test_docs import blocks, parsed

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


def test_the_page_prepares_what_the_files_read() -> None:
    page = LAUNCH.parent / "docs" / "pods.md"
    commands = [
        shlex.split(line)[1:] for line in blocks(page, "sh").splitlines() if line[:10] == "resnet-jax"
    ]
    given = [parsed(command) for command in commands]
    assert "gs://BUCKET/imagenet" in [vars(one)["dest"] for one in given]
    assert "--config.data.source=gs://BUCKET/imagenet" in (LAUNCH / "gke_jobset.yaml").read_text()


def test_the_extras_that_are_installed_exist() -> None:
    extras = tomllib.loads((LAUNCH.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    texts = {path.name: path.read_text() for path in LAUNCH.iterdir()}
    named = {name: re.findall(r"(?:\.|resnet_jax)\[([a-z0-9,]+)\]'", text) for name, text in texts.items()}
    assert named["Dockerfile"] == named["tpu_vm.sh"] == ["tpu,gcs"]
    assert {extra for lists in named.values() for one in lists for extra in one.split(",")} <= set(extras)
    # The layer that is built before the code is copied has what these extras name.
    assert all(f"'{package}'" in texts["Dockerfile"] for package in extras["tpu"] + extras["gcs"])


def dockerfile() -> list[tuple[str, str]]:
    """Returns the instructions of the Dockerfile."""
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    return [(line.split()[0], line.partition(" ")[2]) for line in lines if line and line[0] != "#"]


OPENS = """
import fsspec, jax, sys
import resnet_jax
with fsspec.open("gs://bucket/hello.txt", "w") as file:
    file.write("hello")
print(fsspec.open("gs://bucket/hello.txt", "r").open().read(), resnet_jax.__file__)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_image_opens_a_bucket_and_does_not_train_on_a_cpu_unasked(tmp_path: Path) -> None:
    """Runs the Dockerfile's instructions in a fresh environment in place of an image."""
    root = LAUNCH.parent
    copied, environment = tmp_path / "resnet_jax", dict(os.environ)
    for name in ("PYTHONPATH", "JAX_PLATFORMS"):
        environment.pop(name, None)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    environment["PATH"] = f"{tmp_path / 'venv' / 'bin'}:/usr/bin:/bin"
    for instruction, rest in dockerfile():
        if instruction == "COPY":
            source, target = rest.split()
            if source == ".":
                ignore = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", ".*_cache")
                shutil.copytree(root, copied, ignore=ignore)
            else:
                shutil.copy(root / source, tmp_path / Path(target).name)
        elif instruction == "RUN":
            command = rest.replace("/tmp/requirements.txt", str(tmp_path / "requirements.txt"))
            where = copied if copied.exists() else tmp_path
            subprocess.run(["bash", "-c", command], cwd=where, env=environment, check=True)
        elif instruction == "ENV":
            environment.update([rest.split("=")])
    with serving(tmp_path / "server"):
        names = ("STORAGE_EMULATOR_HOST", "NO_GCE_CHECK", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT")
        python = ["python", "-c", OPENS]
        there = environment | {name: os.environ[name] for name in names}
        found = subprocess.check_output(python, cwd=copied, env=there, text=True)
    assert found.split() == ["hello", str(copied / "resnet_jax" / "__init__.py")]
    alone = environment | {"TPU_SKIP_MDS_QUERY": "1"}
    done = subprocess.run(
        ["python", "-c", "import jax; print(jax.devices())"], env=alone, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "CpuDevice" not in done.stdout

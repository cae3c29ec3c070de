"""The files that start runs are well-formed, name recipes that exist, and agree with themselves."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from resnet_jax.parallel.chips import parse_topology
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


def test_the_jobset_has_a_pod_for_every_host() -> None:
    job = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())["spec"]["replicatedJobs"][0]["template"][
        "spec"
    ]
    pod = job["template"]["spec"]
    chips = parse_topology("v5e:" + pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]).chips
    assert (
        job["parallelism"]
        == job["completions"]
        == chips / pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    )


def test_their_recipes_exist() -> None:
    texts = "".join(path.read_text() for path in LAUNCH.iterdir())
    specs = set(re.findall(r"imagenet\w*:\d+", texts))
    assert specs
    assert all(load_recipe(spec).batch_size >= 1024 for spec in specs)

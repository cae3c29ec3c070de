"""launch/gke_xpk.sh queues one workload that restarts when it should, and says what stands in its way."""

import shlex
from pathlib import Path

import pytest

from tests.launch.worlds import World

XPK = """echo "$*" >> $STAND_IN/calls.txt
case $2 in list) cat $STAND_IN/workloads;; esac
exit $(cat $STAND_IN/code.$2)"""
NAMES = {"PROJECT": "p", "ZONE": "z", "CLUSTER": "c", "BUCKET": "gs://b", "IMAGE": "r/i:1"}
TABLE = "[XPK] Starting xpk\nJobset Name   Created Time   Status\n{}   2026-01-01   Running\n[XPK] Exiting\n"


def world(folder: Path, workload: str = "another", *, listing: int = 0, creating: int = 0) -> World:
    """Makes a cluster with one workload."""
    made = World(folder / "world", {"xpk": XPK})
    (made.folder / "workloads").write_text(TABLE.format(workload))
    (made.folder / "code.list").write_text(str(listing))
    (made.folder / "code.create").write_text(str(creating))
    return made


def options(call: str) -> dict[str, str]:
    """Returns the options of a recorded call; --command comes last."""
    before, _, command = call.partition(" --command=")
    return dict(word.partition("=")[::2] for word in before.split()) | {"--command": command}


@pytest.mark.parametrize("workload", ["another", "resnet-jax-2", "old-resnet-jax"])
def test_a_workload_is_queued(workload: str, tmp_path: Path) -> None:
    made = world(tmp_path, workload)
    code, output = made.run("gke_xpk.sh", **NAMES)
    assert code == 0, output
    given = options(made.calls[1])
    assert given["--restart-on-exit-codes"] == "1,75"
    assert given["--termination-grace-period-seconds"] == "300"
    assert given["--max-restarts"] == "100"
    assert given["--docker-image"] == "r/i:1"
    assert shlex.split(given["--command"]) == [
        *("python", "train.py", "--config=imagenet_pod:8192", "--config.data.source=gs://b/imagenet"),
        "--workdir=gs://b/runs/resnet-jax",
    ]
    delete = "xpk workload delete --project=p --zone=z --cluster=c --workload=resnet-jax"
    assert f"delete it: {delete}" in output
    assert "jobset-name=resnet-jax," in output


def test_what_a_shell_would_split_stays_together(tmp_path: Path) -> None:
    made = world(tmp_path)
    assert made.run("gke_xpk.sh", **NAMES | {"CONFIG": "finetune:a b;c"})[0] == 0
    assert "--config=finetune:a b;c" in shlex.split(options(made.calls[1])["--command"])


@pytest.mark.parametrize(
    ("faults", "names", "code", "says", "calls"),
    [
        ({"workload": "resnet-jax"}, {}, 2, "a workload resnet-jax exists, running or finished", 1),
        ({"workload": "mine"}, {"NAME": "mine"}, 2, "--cluster=c --workload=mine", 1),
        ({"listing": 7}, {}, 7, "xpk cannot list the workloads of c", 1),
        ({"creating": 3}, {}, 3, "delete it: xpk workload delete", 2),
        ({}, {"BUCKET": "b"}, 2, "BUCKET is b; it must be gs://NAME", 0),
        ({}, {"IMAGE": ""}, 1, "IMAGE: set it to the image of launch/Dockerfile", 0),
    ],
)
def test_faults(
    faults: dict[str, object], names: dict[str, str], code: int, says: str, calls: int, tmp_path: Path
) -> None:
    made = world(tmp_path, **faults)  # type: ignore[arg-type]
    got, output = made.run("gke_xpk.sh", **NAMES | names)
    assert (got, len(made.calls)) == (code, calls), output
    assert says in output


def test_without_xpk(tmp_path: Path) -> None:
    code, output = World(tmp_path / "world", {}).run("gke_xpk.sh", **NAMES)
    assert code == 2
    assert "pip install xpk" in output

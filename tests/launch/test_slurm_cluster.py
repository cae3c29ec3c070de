"""launch/slurm_gpus.sh in a real SLURM cluster of two nodes on this machine; the training is a stand-in."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.launch.worlds import LAUNCH
from tests.training.processes import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, PROGRAMS)) or os.geteuid() != 0,
        reason="needs root, munge and SLURM (Debian: slurm-wlm)",
    ),
]

TRAINING = """#!/bin/bash
# A stand-in for the training: every process writes that it starts and saves, and ends by the file `done`.
cd "$(dirname "$0")/../.."
trap 'sleep 1; echo "$SLURM_PROCID saves" >> log; exit 75' TERM
echo "$SLURM_PROCID starts" >> log
until [ -e done ]; do sleep 0.1; done
exit $(cat done)
"""
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1
PartitionName=high Nodes=ALL PriorityTier=10
"""


class Cluster:
    """A checkout from which jobs are submitted."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self._environment = folder, environment

    def ask(self, *command: str) -> str:
        return subprocess.check_output(command, cwd=self.folder, env=self._environment, text=True)

    def submit(self, *options: str) -> str:
        """Submits the launcher; returns the number of the job."""
        size = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1", *options)
        given = ("sbatch", "--parsable", "--output=out", *size, str(LAUNCH / "slurm_gpus.sh"))
        return self.ask(*given).strip()

    def state(self, job: str) -> str:
        fields = dict(word.partition("=")[::2] for word in self.ask("scontrol", "show", "job", job).split())
        return fields["JobState"]

    def log(self, word: str) -> int:
        """Returns how often processes of the training wrote a word."""
        path = self.folder / "log"
        return path.read_text().count(word) if path.exists() else 0

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            output = self.folder / "out"
            assert time.monotonic() < deadline, output.read_text() if output.exists() else "no output"
            time.sleep(0.2)

    def finish(self, job: str, state: str, code: int = 0) -> str:
        """Lets the training end; returns what the job printed."""
        (self.folder / "done").write_text(str(code))
        self.wait(lambda: self.state(job) == state)
        return (self.folder / "out").read_text()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "slurm"
    for name in ("state", "checkout/.venv/bin"):
        (folder / name).mkdir(parents=True)
    python = folder / "checkout" / ".venv" / "bin" / "python"
    python.write_text(TRAINING)
    python.chmod(0o755)
    ports = {"controller": free_port(), "first": free_port(), "second": free_port()}
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(folder=folder, host=socket.gethostname().partition(".")[0], **ports))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    environment = os.environ | {"SLURM_CONF": str(config), "DATA": "data", "RUNS": "runs"}
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files],
        ["slurmctld", "-D", "-f", str(config)],
        *(["slurmd", "-D", "-N", node, "-f", str(config)] for node in ("node1", "node2")),
    ]
    made = Cluster(folder / "checkout", environment)
    with contextlib.ExitStack() as stack:
        for command in commands:
            log = stack.enter_context((folder / f"{command[0]}.log").open("a"))
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            if command[0] == "munged":
                made.wait((folder / "munge.socket").exists)
        made.wait(lambda: "PARTITION" in made.ask("sh", "-c", "sinfo 2>&1 || true"))
        made.wait(lambda: made.ask("sinfo", "--Node", "--noheader", "--format=%t").split() == ["idle"] * 4)
        yield made
        made.ask("sh", "-c", "scancel --user=root --signal=KILL --full; scancel --user=root; sleep 1")


def test_the_time_limit_requeues_and_the_job_resumes(cluster: Cluster) -> None:
    job = cluster.submit("--time=1", "--signal=TERM@50")
    cluster.wait(lambda: cluster.log("saves") == 2)
    cluster.wait(lambda: cluster.log("starts") == 4)
    output = cluster.finish(job, "COMPLETED")
    assert "stopped and saved; requeued" in output
    assert "trained" in output.splitlines()[-1]


def test_a_preempted_job_resumes(cluster: Cluster) -> None:
    job = cluster.submit("--partition=low")
    cluster.wait(lambda: cluster.log("starts") == 2)
    cluster.ask("sbatch", "--partition=high", "--nodes=2", "--ntasks-per-node=2", "--wrap=sleep 3")
    cluster.wait(lambda: cluster.log("saves") == 2)
    cluster.wait(lambda: cluster.log("starts") == 4)
    cluster.finish(job, "COMPLETED")


def test_scancel_ends_the_job(cluster: Cluster) -> None:
    job = cluster.submit()
    cluster.wait(lambda: cluster.log("starts") == 2)
    cluster.ask("scancel", job)
    cluster.wait(lambda: cluster.state(job) == "CANCELLED")
    time.sleep(6)
    assert cluster.state(job) == "CANCELLED"
    assert (cluster.log("starts"), cluster.log("saves")) == (2, 2)


def test_a_failure_is_not_repeated(cluster: Cluster) -> None:
    job = cluster.submit()
    cluster.wait(lambda: cluster.log("starts") == 2)
    output = cluster.finish(job, "FAILED", 1)
    assert "failed with exit code 1" in output
    assert cluster.log("starts") == 2

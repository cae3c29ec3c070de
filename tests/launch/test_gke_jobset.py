"""launch/gke_jobset.yaml: its Job is one that Kubernetes takes, and failures end as JobSet documents it."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from resnet_jax.data.record_cache import DIRECTORY, GIGABYTES
from resnet_jax.errors import FAILED, RESUMABLE, USAGE
from resnet_jax.parallel.chips import parse_topology
from tests.launch.worlds import LAUNCH

JOBSET: Any = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
JOB = JOBSET["spec"]["replicatedJobs"][0]["template"]["spec"]
POD = JOB["template"]["spec"]
REASONS = {
    *("BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded"),
    "PodFailurePolicy",
}
"""Reasons of a failed Job that JobSet's failurePolicy knows."""


def test_kubernetes_takes_the_job() -> None:
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "resnet-jax"}, "spec": JOB}
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)


def test_there_is_a_pod_for_every_host() -> None:
    chips = parse_topology("v5e:" + POD["nodeSelector"]["cloud.google.com/gke-tpu-topology"]).chips
    limits = POD["containers"][0]["resources"]["limits"]
    assert JOB["parallelism"] == JOB["completions"] == chips / limits["google.com/tpu"]


def test_the_rules_name_what_is_there() -> None:
    names = {job["name"] for job in JOBSET["spec"]["replicatedJobs"]}
    for rule in JOBSET["spec"]["failurePolicy"]["rules"]:
        assert rule["action"] in {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}
        assert set(rule["onJobFailureReasons"]) <= REASONS
        assert set(rule["targetReplicatedJobs"]) <= names
    containers = {container["name"] for container in POD["containers"]}
    assert {rule["onExitCodes"]["containerName"] for rule in JOB["podFailurePolicy"]["rules"]} <= containers
    assert POD["restartPolicy"] == "Never"  # podFailurePolicy is refused with any other.


def outcome(code: int) -> str:
    """Returns what happens after a pod's exit code: of the rules of Job and JobSet the first that fits."""
    reason = "BackoffLimitExceeded" if JOB["backoffLimit"] == 0 else ""
    for rule in JOB["podFailurePolicy"]["rules"]:
        exits = rule["onExitCodes"]
        if (code in exits["values"]) == (exits["operator"] == "In"):
            reason = {"FailJob": "PodFailurePolicy"}[rule["action"]]
            break
    for rule in JOBSET["spec"]["failurePolicy"]["rules"]:
        if reason in rule["onJobFailureReasons"]:
            return rule["action"]
    return "RestartJobSet"


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (USAGE, "FailJobSet"),
        (FAILED, "RestartJobSet"),
        (RESUMABLE, "RestartJobSet"),
        (134, "RestartJobSet"),  # abort()
        (137, "RestartJobSet"),  # Killed: out of memory, or the grace period is over.
        (143, "RestartJobSet"),  # Ended before Python had a handler.
    ],
)
def test_a_mistake_is_not_repeated_and_everything_else_is(code: int, action: str) -> None:
    assert outcome(code) == action


def test_there_is_time_to_save_and_a_cache_that_fits() -> None:
    assert POD["terminationGracePeriodSeconds"] >= 300
    environment = {entry["name"]: entry["value"] for entry in POD["containers"][0]["env"]}
    mount = POD["containers"][0]["volumeMounts"][0]
    assert environment[DIRECTORY] == mount["mountPath"]
    volume = next(volume for volume in POD["volumes"] if volume["name"] == mount["name"])
    assert (
        float(environment[GIGABYTES]) * 1e9 < int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30
    )

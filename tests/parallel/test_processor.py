"""On CPU freed memory is kept for the next step, and each device's thread has a core."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from resnet_jax.parallel import distributed

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="glibc and /proc")

PROGRAM = """
import os, resource, sys
import jax, jax.numpy as jnp
from resnet_jax.parallel import choose_devices, distributed, prepare_backend
if sys.argv[2] == "anew":
    distributed.keep_freed_memory = lambda: None
prepare_backend(4, None, int(sys.argv[1]))
choose_devices(4, None)
run = jax.jit(lambda x: x @ x.T)
x = jnp.ones((3072, 8))
run(jnp.ones((8192, 8))).block_until_ready()
run(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(16):
    run(x).block_until_ready()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
tasks = "/proc/self/task"
named = {int(task): open(f"{tasks}/{task}/comm").read().strip() for task in os.listdir(tasks)}
threads = [task for task, name in named.items() if name == "tf_XLAEigen"]
print(faults, len(os.sched_getaffinity(0)), *(len(os.sched_getaffinity(thread)) for thread in threads))
"""


def run(devices: int, memory: str = "kept", platforms: str = "cpu") -> list[int]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    }
    command = [sys.executable, "-c", PROGRAM, str(devices), memory]
    ran = subprocess.run(
        command, env=environment | {"JAX_PLATFORMS": platforms}, capture_output=True, text=True, check=True
    )
    return [int(word) for word in ran.stdout.split()]


@LINUX
def test_the_pages_of_one_run_serve_the_next() -> None:
    """Some runs get fresh pages anyway.

    Glibc does not find a freed block of exactly the size that it aligns.
    """
    kept, *_ = run(1)
    anew, *_ = run(1, "anew")
    pages = 16 * 3072**2 * 4 // resource.getpagesize()
    assert kept < pages / 4
    assert anew > pages / 2


def test_accelerators_are_looked_for_without_starting_them(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"cpu": True, "tpu,cpu": False, "cuda": False}
    for platforms, alone in told.items():
        with monkeypatch.context() as patch:
            patch.setattr(
                distributed,
                "jax",
                SimpleNamespace(config=SimpleNamespace(values={"jax_platforms": platforms})),
            )
            assert distributed._cpu_alone() is alone
    for plugin in ("libtpu", "jax_plugins"):
        with monkeypatch.context() as patch:
            patch.setattr(
                distributed, "jax", SimpleNamespace(config=SimpleNamespace(values={"jax_platforms": None}))
            )
            patch.setattr(
                distributed.importlib.util, "find_spec", lambda name, plugin=plugin: name == plugin or None
            )
            assert not distributed._cpu_alone()


@LINUX
def test_a_device_for_every_core_has_the_core() -> None:
    cores = len(os.sched_getaffinity(0))
    if cores not in (2, 4):
        pytest.skip("the batch of the test divides by 2 and 4")
    _, all_cores, *threads = run(cores)
    assert all_cores == cores
    assert threads == [1] * len(threads)
    assert len(threads) >= cores


def test_a_thread_that_ended_has_no_name(tmp_path: Path) -> None:
    assert not distributed._runs_programs(tmp_path / "1")


@LINUX
def test_one_device_may_take_all_cores() -> None:
    _, cores, *threads = run(1)
    assert set(threads) == {cores}

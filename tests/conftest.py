"""Eight virtual CPU devices for all tests, and float64 for those that ask."""

import atexit
import gc
import os
import random
import shutil
import tempfile
from collections.abc import Iterator

# Before JAX is imported, and inherited by pytest's workers and by the processes that tests start: what one of
# them has compiled, the others load.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="resnet_jax_compiled_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import pytest
from hypothesis import settings

settings.register_profile("without deadline", deadline=None, max_examples=30)
settings.load_profile("without deadline")
jax.config.update("jax_num_cpu_devices", 8)
assert len(jax.devices()) == 8  # From here on a run that a test makes cannot choose another number.


WORKERS = 2
"""Processes that run the whole suite; each needs up to 5 GB of memory."""

LONGEST = ("training", "parallel", "analysis", "paper")
"""Folders whose files take longest; they come first, so that the workers end at the same time."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Runs what the command line names in one process, and the whole suite in several."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(WORKERS, cores) if whole and cores > 1 else 0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--part", type=int, default=0, help="run only so many of the chosen tests, drawn by --seed"
    )
    parser.addoption("--seed", default="", help="of --part: any text")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # What is loaded by now stays; looking through it for garbage again and again takes 7 % of the time.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    items.sort(key=lambda item: item.path.parent.name not in LONGEST)
    part = config.getoption("--part")
    if part and part < len(items):
        drawn = set(random.Random(config.getoption("--seed")).sample(range(len(items)), part))
        config.hook.pytest_deselected(
            items=[item for number, item in enumerate(items) if number not in drawn]
        )
        items[:] = [item for number, item in enumerate(items) if number in drawn]


@pytest.fixture
def x64() -> Iterator[None]:
    """Enables float64 for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)

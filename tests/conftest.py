"""Eight virtual CPU devices for all tests, and float64 for those that ask."""

import atexit
import os
import random
import shutil
import tempfile
from collections.abc import Iterator

# Before JAX is imported, and inherited by the processes that tests start: what one has compiled, the next need not.
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="resnet_jax_compiled_")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("without deadline", deadline=None, max_examples=30)
settings.load_profile("without deadline")
jax.config.update("jax_num_cpu_devices", 8)
assert len(jax.devices()) == 8  # From here on a run that a test makes cannot choose another number.


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--part", type=int, default=0, help="run only so many of the chosen tests, drawn by --seed"
    )
    parser.addoption("--seed", default="", help="of --part: any text")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
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

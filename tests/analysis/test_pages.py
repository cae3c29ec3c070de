"""The pages of docs/analysis run as they stand, on a small net instead of the one they name.

And `read_examples`.
"""

from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax import create_model
from resnet_jax.analysis import read_examples
from resnet_jax.data.data_error import DataError
from resnet_jax.data.source import SyntheticSource
from resnet_jax.training.checkpoint_writer import CheckpointWriter
from resnet_jax.training.config import resolve, to_json
from resnet_jax.training.optimizer import sgd
from resnet_jax.training.state import create_state
from tests.test_docs import ROOT, blocks
from tests.training import tiny

PAGES = sorted((ROOT / "docs" / "analysis").glob("*.md"))
MEAN = np.float32([100, 110, 120])


def write_net(workdir: Path, seed: int) -> None:
    """Writes what a run of a net of six layers leaves, at its first step."""
    config = resolve(tiny.get_config(**{"data.synthetic_examples": 400}))
    arguments = {
        "name": "cifar_resnet6",
        "stage_depths": [1, 1],
        "width": 2,
        "num_classes": 7,
        "group_size": 4,
    }
    optimizer = sgd(lambda step: 0.1 + 0 * step, momentum=0.9, weight_decay=1e-4)
    state = create_state(
        create_model(**arguments), optimizer, seed=seed, image_shape=(8, 8, 3), image_mean=MEAN
    )
    writer = CheckpointWriter(workdir, keep=1, config=to_json(config), model=arguments)
    writer.save(0, jax.device_get(state))
    writer.wait()
    writer.close()


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nets")
    write_net(folder / "runs" / "digits_resnet20", 0)
    write_net(folder / "runs" / "seed1", 1)
    return folder


def test_there_is_a_page_for_every_tool() -> None:
    names = ["curvature", "ensembles", "interpolation", "landscape", "per_example_gradients"]
    assert [page.stem for page in PAGES] == names


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_the_page_runs(page: Path, nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(nets)
    code = blocks(page, "python")
    assert "load_checkpoint" in code
    exec(compile(code, page.name, "exec"), {})


def test_examples_are_those_of_the_split_less_the_mean(nets: Path) -> None:
    images, labels = read_examples(nets / "runs" / "seed1", 3, first=47)
    source = SyntheticSource(examples=50, image_size=8, classes=7, seed=1)
    wanted, classes, _ = source.read(np.arange(47, 50))
    np.testing.assert_array_equal(images, wanted.astype(np.float32) - MEAN)
    np.testing.assert_array_equal(labels, classes)
    with pytest.raises(DataError, match="split test has 50 examples, and 4 from number 47 on were asked for"):
        read_examples(nets / "runs" / "seed1", 4, first=47)

"""launch/tpu_vm.sh leaves no slice that is billed, whatever gcloud fails at, and deletes nobody else's."""

import json
import signal
from pathlib import Path

import pytest

from tests.launch.worlds import World

UV = """if [ $1 = venv ]; then mkdir -p venv/bin; ln -s $STAND_IN/bin/training venv/bin/python; exit; fi
for package; do :; done; echo "host $HOST installs $package" >> $STAND_IN/calls.txt
test ! -s $STAND_IN/broken.$HOST || { sed -i 1d $STAND_IN/broken.$HOST; exit 1; }"""
PROGRAMS = {
    "gcloud": "",
    "training": "",
    "git": '[ $1 != clone ] || { mkdir $3; echo "host $HOST clones $2" >> $STAND_IN/calls.txt; }',
    "python3": "mkdir -p ~/.local/bin; ln -sf $STAND_IN/bin/uv ~/.local/bin/uv",
    "uv": UV,
}
NAMES = {"PROJECT": "p", "ZONE": "z", "BUCKET": "gs://b", "REPOSITORY": "https://h/it's", "CREATE_TRIES": "4"}
DELETE = "gcloud compute tpus tpu-vm delete resnet-jax --project=p --zone=z"


class Slice(World):
    """Stand-ins for gcloud and the hosts of a slice."""

    def __init__(self, folder: Path, plan: dict[str, list[object]]) -> None:
        super().__init__(folder / "world", PROGRAMS, plan)
        self.file = self.folder / "slice.json"
        for host in (0, 1):  # A line for every time that installing fails.
            (self.folder / f"broken.{host}").write_text("\n" * len(plan.get(f"install {host}", [])))

    @property
    def billed(self) -> bool:
        return self.file.exists()

    def launch(self, **names: str) -> tuple[int, str]:
        return self.run("tpu_vm.sh", **NAMES | names)


def test_a_run_creates_installs_trains_and_deletes(tmp_path: Path) -> None:
    world = Slice(tmp_path, {"repeat": ["repeat"] * 3, "train 0": ["short"], "train 1": ["short"]})
    code, output = world.launch()
    assert code == 0, output
    assert not world.billed
    assert DELETE in output.splitlines()[0]
    # gcloud sent the first commands twice.
    assert output.count("log of host 0\n") == 1
    assert world.count("create") == world.count("delete") == 1
    for host in (0, 1):
        assert world.count(f"host {host} clones https://h/it's") == 1
        assert world.count(f"host {host} installs resnet_jax[tpu,gcs]") == 1
        assert world.count(f"host {host} trains") == 1
    assert (
        "host 1 trains train.py --config=imagenet_pod:8192 --config.data.source=gs://b/imagenet "
        "--workdir=gs://b/runs/resnet-jax JAX_PLATFORMS=tpu,cpu RESNET_JAX_DATA_CACHE=/tmp/resnet_jax_data"
    ) in world.calls


@pytest.mark.parametrize(
    ("plan", "code", "says", "counts"),
    [
        pytest.param(
            {"create": ["RESOURCE_EXHAUSTED: There is no more capacity in the zone", "Quota exceeded"]},
            0,
            "no slice (try 2 of 4)",
            {"create": 3, "delete": 1, "host 0 trains": 1},
            id="capacity that comes",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"create": ["RESOURCE_EXHAUSTED"] * 9},
            1,
            "no slice after 4 tries; try another ZONE, or raise CREATE_TRIES",
            {"create": 4, "delete": 0},
            id="capacity that does not come",
        ),
        pytest.param(
            {"create": ["PERMISSION_DENIED: tpu.nodes.create"]},
            2,
            "check PROJECT, ZONE, ACCELERATOR and RUNTIME",
            {"create": 1, "delete": 0},
            id="no permission",
        ),
        pytest.param(
            {"create": ["partial"]},
            0,
            "INTERNAL",
            {"create": 2, "delete": 2},
            id="half a slice is left",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"install 1": ["fails"]},
            0,
            "installing failed on a host",
            {"create": 1, "host 0 installs": 1, "host 1 installs": 2, "host 1 trains": 1, "delete": 1},
            id="installing fails on one host",
        ),
        pytest.param(
            {"install 0": ["fails"] * 9},
            1,
            "failed three times",
            {"create": 1, "host 0 installs": 3, "host 0 trains": 0, "delete": 1},
            id="installing fails always",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"train 0": ["preempted", 0]},
            0,
            "log of host 0",
            {"create": 2, "host 0 installs": 2, "host 1 trains": 2, "delete": 2},
            id="preempted",
        ),
        pytest.param(
            {"train 0": [75] * 4, "train 1": [75] * 4},
            0,
            "stopped and saved; resuming",
            {"create": 1, "host 0 installs": 1, "host 0 trains": 5, "delete": 1},
            marks=pytest.mark.slow,
            id="stopped and saved",
        ),
        pytest.param(
            {"train 0": [1] * 9, "train 1": [1] * 9},
            1,
            "failed three times",
            {"create": 1, "host 0 trains": 3, "delete": 1},
            id="fails always",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"train 0": [2], "train 1": [2]},
            2,
            "",
            {"create": 1, "host 0 trains": 1, "delete": 1},
            id="mistake",
        ),
        pytest.param(
            {"train 0": [1], "train 1": ["runs"]},
            0,
            "",
            {"host 1 trains": 2, "chips of host 1 are in use": 0, "delete": 1},
            id="a host that hangs is freed",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"ssh": ["ok"] * 6 + ["lost"] * 3, "train 0": ["short"], "train 1": ["short"]},
            0,
            "",
            {"host 0 trains": 1, "delete": 1},
            id="a lost connection ends nothing",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"delete": ["INTERNAL"], "describe": ["ok", "UNAVAILABLE"]},
            0,
            "",
            {"delete": 2},
            id="delete fails once",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_faults(
    plan: dict[str, list[object]], code: int, says: str, counts: dict[str, int], tmp_path: Path
) -> None:
    world = Slice(tmp_path, plan)
    got, output = world.launch()
    assert got == code, output
    assert says in output
    assert not world.billed
    assert {call: world.count(call) for call in counts} == counts, world.calls


def test_a_slice_that_cannot_be_deleted_is_reported(tmp_path: Path) -> None:
    world = Slice(tmp_path, {"delete": ["INTERNAL"] * 99})
    code, output = world.launch()
    assert code == 1
    assert output.splitlines()[-1].endswith(f"billed until it is gone; delete it: {DELETE}")


def test_a_slice_of_someone_else_stays(tmp_path: Path) -> None:
    world = Slice(tmp_path, {})
    world.file.write_text(json.dumps({"state": "READY", "label": "another"}))
    code, output = world.launch()
    assert code == 2
    assert "which this launch did not create; set another NAME" in output
    assert world.calls == ["describe resnet-jax"]


def test_a_slice_that_someone_else_creates_at_the_same_time_stays(tmp_path: Path) -> None:
    world = Slice(tmp_path, {"create": ["taken"]})
    code, output = world.launch()
    assert code == 2, output
    assert "which this launch did not create" in output
    assert world.billed
    assert world.count("delete") == 0


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGTERM, signal.SIGHUP))],
)
def test_a_signal_saves_and_deletes(number: signal.Signals, tmp_path: Path) -> None:
    world = Slice(tmp_path, {"train 0": ["runs"], "train 1": ["runs"]})
    process = world.start("tpu_vm.sh", **NAMES)
    both = lambda: world.count("host 0 trains") == world.count("host 1 trains") == 1  # noqa: E731
    code, output = world.interrupt(process, both, number)
    assert code == 128 + number
    assert "stopping the training, which saves" in output
    assert world.calls.index("host 0 saves") < world.calls.index("delete resnet-jax")
    assert not world.billed


def test_a_signal_while_a_slice_is_created(tmp_path: Path) -> None:
    world = Slice(tmp_path, {"create": ["hangs"]})
    process = world.start("tpu_vm.sh", **NAMES)
    code, _ = world.interrupt(process, (world.folder / "creating").exists)
    assert code == 130
    assert not world.billed

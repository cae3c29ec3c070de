"""One run holds a workdir in object storage; a killed one is followed, and one that was passed over ends."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnet_jax import lease
from resnet_jax.lease import Lease, LeaseHeldError, LeaseLostError, confirm_ownership
from resnet_jax.object_storage import delete_versioned, read_object, read_versioned, write_versioned
from resnet_jax.training.workdir import WorkdirError, occupy
from tests.object_storage.server import BUCKET, Server, serving


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewal, trust and expiry of a fiftieth of the real ones."""
    monkeypatch.setattr(lease, "RENEWAL", 0.15)
    monkeypatch.setattr(lease, "TRUST", 0.8)
    monkeypatch.setattr(lease, "EXPIRY", 1.2)
    monkeypatch.setattr(lease, "_POLL", 0.03)


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    return f"{BUCKET}/{request.node.name}/.lock"


def quiet(line: str) -> None:
    del line


def elsewhere(url: str, monkeypatch: pytest.MonkeyPatch, said: list[str] | None = None) -> Lease:
    """Returns a lease of a process on another machine."""
    with monkeypatch.context() as patch:
        patch.setattr(lease, "_identify", lambda pid: f"boot namespace {pid}")
        patch.setattr(lease.socket, "gethostname", lambda: "far-away")
        return Lease(url, quiet if said is None else said.append)


def leave(lease: Lease) -> None:
    """Stops renewing, as a killed process does."""
    lease._over.set()
    lease._thread.join()


def test_two_live_runs_never_both_hold_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with elsewhere(url, monkeypatch) as first:
        with pytest.raises(LeaseHeldError, match=f"process {os.getpid()} on far-away"), Lease(url, quiet):
            pass
        first.confirm()
    assert read_versioned(url) is None
    with Lease(url, quiet):
        pass


def test_one_of_a_live_process_on_this_machine_is_refused_at_once(url: str) -> None:
    said: list[str] = []
    with (
        Lease(url, quiet),
        pytest.raises(LeaseHeldError, match=f"process {os.getpid()}"),
        Lease(url, said.append),
    ):
        pass
    assert said == []


def test_one_of_a_killed_process_here_is_taken_over_at_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRY", 1000.0)
    killed = Lease(url, quiet).__enter__()
    leave(killed)
    held = json.loads(read_object(url))
    held["process"] = held["process"].rpartition(" ")[0] + " 1"  # It began at another time.
    found = read_versioned(url)
    assert found is not None
    write_versioned(url, json.dumps(held).encode(), found[1])
    with Lease(url, quiet) as next_one:
        next_one.confirm()


def test_one_that_was_left_elsewhere_expires(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    leave(elsewhere(url, monkeypatch).__enter__())
    with Lease(url, said.append) as next_one:
        next_one.confirm()
    assert len(said) == 1
    assert "far-away: it is taken over if it is not renewed" in said[0]


def test_a_holder_that_was_passed_over_writes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = elsewhere(url, monkeypatch).__enter__()
    leave(frozen)
    with Lease(url, quiet):
        frozen._over.clear()  # It goes on after a pause, without having noticed.
        with pytest.raises(LeaseLostError, match="taken over by a run on"):
            frozen.confirm()
        frozen.__exit__(None, None, None)
        assert read_versioned(url) is not None, "it deleted the lease of the other"


def test_a_lease_that_was_deleted_is_lost(url: str) -> None:
    with Lease(url, quiet) as held:
        leave(held)
        held._over.clear()
        found = read_versioned(url)
        assert found is not None
        delete_versioned(url, found[1])
        held._renewed -= 2
        with pytest.raises(LeaseLostError, match="another machine"):
            held.confirm()


def test_an_earlier_write_whose_reply_was_lost_is_ones_own(url: str) -> None:
    with Lease(url, quiet) as held:
        leave(held)
        held._over.clear()
        found = read_versioned(url)
        assert found is not None
        write_versioned(url, json.dumps({**json.loads(found[0]), "count": 1000}).encode(), found[1])
        held._renewed -= 2
        held.confirm()
        assert json.loads(read_object(url))["name"] == held._me["name"]


def test_a_lease_nobody_can_read_expires_too(url: str) -> None:
    write_versioned(url, b"not a lease", None)
    with Lease(url, quiet) as held:
        held.confirm()


def test_the_workdir_is_kept_by_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir = url.removesuffix("/.lock")
    with elsewhere(url, monkeypatch):
        wanted = f"{workdir} is in use: a run is live there .*stop that run"
        with pytest.raises(WorkdirError, match=wanted), occupy(workdir):
            pass
    with occupy(workdir) as path:
        confirm_ownership(path)
        assert read_versioned(url) is not None
    assert read_versioned(url) is None
    with (
        pytest.raises(WorkdirError, match=r"s3://a/b cannot be used: checkpoints go to a disk or"),
        occupy("s3://a/b"),
    ):
        pass
    with pytest.raises(WorkdirError, match="gs://no-bucket/run cannot be used"), occupy("gs://no-bucket/run"):
        pass


def test_it_is_known_who_this_process_is(tmp_path: Path) -> None:
    del tmp_path
    mine = lease._identify(os.getpid())
    if Path("/proc/self/stat").exists():
        assert mine is not None
        assert mine == lease._identify(os.getpid())
        assert mine != lease._identify(1)
    assert lease._identify(2**22 + 1) is None

"""Data and finished runs are read from S3, against moto's server; a workdir of a live run is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import resnet_jax as rj
from resnet_jax.cli import main
from resnet_jax.data.datasets import open_encoded
from resnet_jax.data.prepare import prepare
from resnet_jax.object_storage import list_objects, upload_directory
from resnet_jax.training.run import run
from tests.data.photographs import write_folder
from tests.training import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def bucket() -> Iterator[None]:
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    s3fs = pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "for-tests")
        for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
            patch.setenv(name, "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_images_are_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", train=3, val=1)
    prepare(str(folder), str(tmp_path / "set"), shard_examples=4)
    for name in ("folder", "set"):
        upload_directory(tmp_path / name, f"s3://bucket/{name}")
        here, there = (open_encoded(f"{root}/{name}", "train") for root in (tmp_path, "s3://bucket"))
        assert here.fingerprint == there.fingerprint
        there.expect(range(len(there)))
        assert [here.read(index) for index in range(9)] == [there.read(index) for index in range(9)]


def test_a_finished_run_is_read(tmp_path: Path) -> None:
    run(tiny.get_config(**{"run.steps": 2}), tmp_path / "run")
    upload_directory(tmp_path / "run", "s3://bucket/run")
    assert rj.load("s3://bucket/run").step == 2
    assert main(["evaluate", "--workdir", "s3://bucket/run"]) == 0
    assert main(["report", "s3://bucket/run", "--to", "s3://bucket/report.html"]) == 0
    assert "report.html" in list_objects("s3://bucket")


def test_training_into_it_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"--config={tiny.PATH}", "--workdir=s3://bucket/new"]) == 2
    assert "checkpoints go to a disk or to Google Cloud Storage (gs://)" in capsys.readouterr().err

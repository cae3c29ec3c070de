"""Objects are whole or not there, whatever happens to the requests."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnet_jax import object_storage
from resnet_jax.errors import FAILED, USAGE, exit_status
from resnet_jax.files import (
    absolute_path,
    open_for_replacing,
    read_bytes,
    read_json,
    write_json,
    write_text,
)
from resnet_jax.object_storage import (
    ConflictError,
    StorageError,
    copy_objects,
    delete_objects,
    delete_versioned,
    list_objects,
    local_copy,
    read_object,
    read_versioned,
    upload_directory,
    write_versioned,
)
from tests.object_storage.server import BUCKET, Server, serving


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


def test_files_are_written_whole_and_read(server: Server) -> None:
    url = f"{BUCKET}/files/value.json"
    write_json(url, {"a": [1, 2]})
    assert read_json(url) == {"a": [1, 2]}
    assert (server.files / "files" / "value.json").read_bytes() == read_bytes(url)
    assert read_object(url, 1, 4) == b'"a"'
    with pytest.raises(TypeError), open_for_replacing(url) as file:
        file.write(b"half" + None)  # type: ignore[operator]
    assert read_json(url) == {"a": [1, 2]}
    assert list_objects(f"{BUCKET}/files") == {"value.json": 14}
    with pytest.raises(FileNotFoundError):
        read_bytes(f"{BUCKET}/files/none")
    with pytest.raises(FileNotFoundError):
        read_bytes("gs://another/none")


def test_directories_go_to_and_fro(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"1")
    (tmp_path / "d").write_bytes(b"22")
    upload_directory(tmp_path, f"{BUCKET}/tree")
    write_text(f"{BUCKET}/trees", "of another directory")
    assert list_objects(f"{BUCKET}/tree") == {"a/b/c": 1, "d": 2}
    copy_objects(f"{BUCKET}/tree", f"{BUCKET}/copy")
    delete_objects(f"{BUCKET}/tree", first="d")
    assert list_objects(f"{BUCKET}/tree") == {}
    with local_copy(f"{BUCKET}/copy") as copy:
        assert (copy / "a" / "b" / "c").read_bytes() == b"1"
        assert (copy / "d").read_bytes() == b"22"
    assert not copy.exists()
    with local_copy(tmp_path) as same:
        assert same == tmp_path


def test_a_write_depends_on_what_it_replaces() -> None:
    url = f"{BUCKET}/versioned"
    assert read_versioned(url) is None
    first = write_versioned(url, b"1", None)
    with pytest.raises(ConflictError):
        write_versioned(url, b"other", None)
    assert write_versioned(url, b"1", None) == first  # As when the reply was lost and the request repeated.
    second = write_versioned(url, b"2", first)
    with pytest.raises(ConflictError):
        write_versioned(url, b"3", first)
    assert read_versioned(url) == (b"2", second)
    delete_versioned(url, second)
    delete_versioned(url, second)
    assert read_versioned(url) is None


def test_a_listing_sees_what_others_wrote(server: Server) -> None:
    assert list_objects(f"{BUCKET}/others") == {}
    (server.files / "others").mkdir()
    write_text(f"{BUCKET}/others/one", "1")
    assert list_objects(f"{BUCKET}/others") == {"one": 1}


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gcsfs" else find(name))
    with pytest.raises(StorageError, match=r"needs gcsfs, .*pip install 'resnet-jax\[gcs\]'") as raised:
        absolute_path("gs://bucket/run")
    assert exit_status(raised.value) == (USAGE, str(raised.value))
    with pytest.raises(StorageError, match=r"ftp://a begins with ftp://; use a local path, or one of gs://"):
        object_storage.read_object("ftp://a")


@pytest.mark.slow
def test_nothing_is_lost_when_one_request_in_five_fails(tmp_path: Path) -> None:
    generation = None
    with serving(tmp_path, share=0.2, seed=3) as server:
        for number in range(20):
            generation = write_versioned(f"{BUCKET}/a/counter", str(number).encode(), generation)
        assert read_versioned(f"{BUCKET}/a/counter") == (b"19", generation)
        contents = {f"{number}": bytes(range(256)) * 1000 * number for number in range(10)}
        for name, content in contents.items():
            write_text(f"{BUCKET}/b/{name}", content.decode("latin1"))
        assert list(list_objects(f"{BUCKET}/b")) == list(contents)
        with local_copy(f"{BUCKET}/b") as copy:
            for name, content in contents.items():
                assert (copy / name).read_bytes() == content.decode("latin1").encode()
        delete_objects(f"{BUCKET}/b")
        assert list_objects(f"{BUCKET}/b") == {}
        assert {fault for fault, *_ in server.requests()} > {"unanswered", "cut", "throttled"}


def test_an_error_of_the_client_is_one_line() -> None:
    from gcsfs.retry import HttpError

    status = exit_status(HttpError({"code": 401, "message": "Anonymous caller\nof the bucket"}))
    assert status is not None
    assert status[0] == FAILED
    assert "Anonymous caller" in status[1]
    assert "\n" not in status[1]

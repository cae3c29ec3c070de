"""Images in object storage give the batches that they give on a disk."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax import files
from resnet_jax.cli import main
from resnet_jax.data import record_cache, stored_examples, stored_folders
from resnet_jax.data.batches import TrainBatches, read_ahead
from resnet_jax.data.choices import SCALE
from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import open_encoded
from resnet_jax.data.encoded import DecodeOptions
from resnet_jax.data.prepare import prepare
from resnet_jax.data.prepared import MANIFEST
from resnet_jax.data.record_cache import RecordCache
from resnet_jax.data.record_layout import LayoutError, read_offsets, record_in
from resnet_jax.files import read_json, write_json
from resnet_jax.object_storage import upload_directory
from tests.data.photographs import jpeg
from tests.object_storage.server import BUCKET, Server, serving

DECODING = DecodeOptions(SCALE, 32, (32, 48), (0.08, 1.0), 36)
EPOCH = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), proxied=True) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Path:
    """A folder of images that is in the bucket too."""
    del server
    root, dice = tmp_path_factory.mktemp("images") / "flowers", np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 3)):
        for name in ("daisy", "rose", "tulip"):
            (root / split / name / "deeper").mkdir(parents=True)
            for image in range(count):
                below = "deeper/" if image % 3 == 0 else ""
                pixels = dice.integers(0, 256, (6, 5, 3), np.uint8).repeat(9, 0).repeat(9, 1)
                (root / split / name / f"{below}{image}.jpg").write_bytes(jpeg(pixels))
    (root / "train" / "rose" / "notes.txt").write_text("no image")
    upload_directory(root, f"{BUCKET}/flowers")
    return root


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """The same as a prepared set."""
    dest = tmp_path_factory.mktemp("prepared") / "set"
    prepare(str(folder), str(dest), raw_share=0.4, shard_examples=8)
    upload_directory(dest, f"{BUCKET}/set")
    return dest


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No cache, and nothing known of the bucket, unless the test says so."""
    monkeypatch.delenv(record_cache.DIRECTORY, raising=False)
    forget()
    yield
    forget()


def forget() -> None:
    record_cache.open_cache.cache_clear()
    stored_examples._layouts.clear()
    stored_folders._trees.clear()


def batches(root: str, split: str = "train") -> list[dict[str, np.ndarray]]:
    """Returns the batches of an epoch and more."""
    source = DECODING.source(open_encoded(root, split))
    made = TrainBatches(source, batch_size=8, seed=3, share=slice(None))
    return list(read_ahead(made, 0, EPOCH, workers=1, buffer=2))


def assert_same_batches(one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]]) -> None:
    assert len(one) == len(other) == EPOCH
    for first, second in zip(one, other, strict=True):
        for name, array in first.items():
            np.testing.assert_array_equal(array, second[name], err_msg=name)


def test_a_folder_gives_the_batches_that_it_gives_on_a_disk(folder: Path, server: Server) -> None:
    here, there = (open_encoded(root, "val") for root in (str(folder), f"{BUCKET}/flowers"))
    assert here.fingerprint == there.fingerprint
    assert list(here.class_names) == list(there.class_names)
    server.requests()
    assert_same_batches(batches(str(folder)), batches(f"{BUCKET}/flowers"))
    listings = [
        path for _, method, path, _ in server.requests() if method == "GET" and "alt=media" not in path
    ]
    assert len(listings) < 40, "an image was asked for before it was read"


def test_a_prepared_set_gives_the_batches_that_it_gives_on_a_disk(prepared: Path) -> None:
    here, there = (open_encoded(root, "train") for root in (str(prepared), f"{BUCKET}/set"))
    assert here.fingerprint == there.fingerprint
    assert [here.label(index) for index in range(30)] == [there.label(index) for index in range(30)]
    assert_same_batches(batches(str(prepared)), batches(f"{BUCKET}/set"))


def test_labels_of_a_set_from_before_are_read_from_its_records(prepared: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(prepared, old)
    manifest = read_json(old / MANIFEST)
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            del shard["labels"]
    write_json(old / MANIFEST, manifest)
    upload_directory(old, f"{BUCKET}/old")
    wanted = DECODING.source(open_encoded(str(prepared), "train")).labels
    for root in (str(old), f"{BUCKET}/old"):
        np.testing.assert_array_equal(DECODING.source(open_encoded(root, "train")).labels, wanted)


def test_a_second_epoch_is_read_from_the_cache(
    prepared: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(record_cache.DIRECTORY, str(tmp_path / "cache"))
    monkeypatch.setattr(record_cache, "_SPARE", 0)
    here = batches(str(prepared))
    assert_same_batches(here, batches(f"{BUCKET}/set"))
    forget()  # As another process, or the next run.
    asked = len(records_asked_for(server))
    assert_same_batches(here, batches(f"{BUCKET}/set"))
    assert len(records_asked_for(server)) == asked
    for file in (tmp_path / "cache").glob(f"*{record_cache.KEPT}"):
        file.write_bytes(bytes(file.stat().st_size))  # As after a crash of the machine.
    forget()
    assert_same_batches(here, batches(f"{BUCKET}/set"))
    assert len(records_asked_for(server)) >= asked + 30
    shutil.rmtree(tmp_path / "cache")
    assert_same_batches(here, batches(f"{BUCKET}/set"))


def records_asked_for(server: Server) -> list[str]:
    return [path for _, _, path, _ in server.requests() if "array_record" in path and "alt=media" in path]


def test_the_cache_is_no_larger_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_cache, "_SPARE", 0)
    monkeypatch.setattr(record_cache, "_RECOUNT", 1 << 16)
    cache = RecordCache(str(tmp_path), 1 << 20)
    record, offsets = random.Random(0).randbytes(10_000), np.arange(1001) * 12_000
    for number in range(1000):
        cache.keep("shard", number, offsets, record)
    assert (1 << 19) < cache._used() <= 1 << 20
    assert cache.read("shard", 0, offsets) == record
    assert cache.read("shard", 999, offsets) is None
    another = RecordCache(str(tmp_path), 1 << 20)
    another.keep("other", 0, offsets, record)
    assert another.read("other", 0, offsets) is None
    assert another.read("shard", 0, offsets) == record


def test_a_cache_that_cannot_be_used_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(record_cache.DIRECTORY, str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"RESNET_JAX_DATA_CACHE is .*file, which cannot be used"):
        record_cache.open_cache()
    monkeypatch.setenv(record_cache.GIGABYTES, "many")
    with pytest.raises(DataError, match=r"RESNET_JAX_DATA_CACHE_GB is 'many'; it must be a number"):
        record_cache.open_cache()


def test_what_is_missing_or_damaged_is_named(prepared: Path, server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder gs://bucket/none"):
        open_encoded(f"{BUCKET}/none", "train")
    shutil.copytree(prepared, tmp_path / "set")
    victim = sorted((tmp_path / "set").glob("train*"))[1]
    victim.write_bytes(bytes(victim.stat().st_size))
    upload_directory(tmp_path / "set", f"{BUCKET}/damaged")
    with pytest.raises(DataError, match=f"{BUCKET}/damaged/{victim.name} cannot be read"):
        batches(f"{BUCKET}/damaged")
    (server.files / "damaged" / victim.name).unlink()
    with pytest.raises(DataError, match=f"{BUCKET}/damaged/{victim.name} has 0 of its"):
        batches(f"{BUCKET}/damaged")


@pytest.mark.slow
def test_nothing_changes_when_one_request_in_ten_fails(prepared: Path, folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, share=0.1, seed=1):
        upload_directory(prepared, f"{BUCKET}/faulty_set")
        upload_directory(folder, f"{BUCKET}/faulty_flowers")
        assert_same_batches(batches(str(prepared)), batches(f"{BUCKET}/faulty_set"))
        assert_same_batches(batches(str(folder)), batches(f"{BUCKET}/faulty_flowers"))


@given(st.lists(st.integers(0, 200_000) | st.integers(0, 300), min_size=1, max_size=12), st.integers(0, 99))
@settings(max_examples=25)
def test_records_are_found_where_the_library_finds_them(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int
) -> None:
    path = tmp_path_factory.mktemp("layout") / "file.array_record"
    dice = random.Random(seed)
    records = [dice.randbytes(size) for size in sizes]
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for record in records:
        writer.write(record)
    writer.close()
    data = path.read_bytes()
    offsets = read_offsets(lambda begin, end: data[begin:end], len(data), len(records))
    found = [record_in(data[offsets[n] : offsets[n + 1]], int(offsets[n])) for n in range(len(records))]
    assert found == records == ArrayRecordReader(str(path)).read(list(range(len(records))))
    with pytest.raises(LayoutError):
        read_offsets(lambda begin, end: data[begin:end], len(data), len(records) + 1)
    with pytest.raises(LayoutError):
        record_in(data[offsets[0] : offsets[1]][:-1], int(offsets[0]))


@pytest.mark.parametrize("options", ["group_size:1,brotli", "group_size:2,uncompressed"])
def test_a_file_of_another_layout_is_refused(tmp_path: Path, options: str) -> None:
    path = tmp_path / "file.array_record"
    writer = ArrayRecordWriter(str(path), options)
    for _ in range(6):
        writer.write(b"1234" * 100)
    writer.close()
    data = path.read_bytes()

    def read() -> None:
        offsets = read_offsets(lambda begin, end: data[begin:end], len(data), 6)
        record_in(data[offsets[0] : offsets[1]], int(offsets[0]))

    with pytest.raises(LayoutError):
        read()


def test_a_set_is_prepared_into_the_bucket_as_onto_a_disk(
    folder: Path, prepared: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"raw_share": 0.4, "shard_examples": 8}
    uploaded: list[str] = []
    upload = files.upload

    def upload_three(source: str, url: str) -> None:
        if len(uploaded) == 3:
            raise KeyboardInterrupt
        uploaded.append(str(url))
        upload(source, url)

    with monkeypatch.context() as patch:
        patch.setattr(files, "upload", upload_three)
        with pytest.raises(KeyboardInterrupt):
            prepare(str(folder), f"{BUCKET}/direct", **options)
    stored_folders._trees.clear()
    with pytest.raises(DataError, match=r"not a whole set: it holds no manifest.json; run the same"):
        open_encoded(f"{BUCKET}/direct", "train")
    first = server.files / "direct" / "train-00000-of-00004.array_record"
    written = first.stat().st_mtime_ns
    prepare(str(folder), f"{BUCKET}/direct", **options)
    assert first.stat().st_mtime_ns == written, "it was written again"
    names = {path.name for path in prepared.iterdir()} - {".lock"}
    assert {path.name for path in (server.files / "direct").iterdir()} == names
    for name in names:
        assert (server.files / "direct" / name).read_bytes() == (prepared / name).read_bytes(), name
    assert prepare(str(folder), f"{BUCKET}/direct", **options) == read_json(prepared / MANIFEST)
    with pytest.raises(DataError, match=r"s3://a/set cannot be written"):
        prepare(str(folder), "s3://a/set")
    with pytest.raises(DataError, match=r"gs://bucket/flowers is not empty"):
        prepare(str(folder), f"{BUCKET}/flowers")


def test_flat_labels_and_the_command_take_urls(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = tmp_path / "flat"
    shutil.copytree(folder / "train", flat / "train")
    (flat / "val").mkdir()
    rows = ["ImageId,PredictionString"]
    for number, path in enumerate(sorted((folder / "val").rglob("*.jpg"))):
        shutil.copy(path, flat / "val" / f"{number}.jpg")
        rows.append(f"{number},{path.relative_to(folder / 'val').parts[0]} 1 2 3 4")
    (flat / "LOC_val_solution.csv").write_text("\n".join(rows) + "\n")
    upload_directory(flat, f"{BUCKET}/flat")
    here, there = (open_encoded(root, "val") for root in (str(flat), f"{BUCKET}/flat"))
    assert [here.read(index) for index in range(9)] == [there.read(index) for index in range(9)]
    assert main(["prepare", f"{BUCKET}/flat", f"{BUCKET}/from_bucket"]) == 0
    assert f"--config.data.source={BUCKET}/from_bucket" in capsys.readouterr().out
    assert main(["check", f"{BUCKET}/flat"]) == 0

"""A label means the same class in training, resuming, evaluation and fine-tuning, wherever the data lies."""

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from resnet_jax.cli import main
from resnet_jax.data.folder import open_folder
from resnet_jax.data.prepare import prepare
from resnet_jax.data.prepared import open_prepared
from resnet_jax.training.data_record import DATA_RECORD
from tests.data.colors import write_colors
from tests.training.runs import TINY, train

NAMES = ("alder", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "yew")


def options(source: Path, workdir: Path, *, steps: int = 30) -> list[str]:
    fields = {
        "data.source": source,
        "data.image_size": 16,
        "data.test_scale": 16,
        "data.scales": "(16,16)",
        "data.test_split": "val",
        "data.mean": "channel",
        "data.mirror": False,
        "data.pad": 0,
        "batch_size": 48,
        "model.group_size": 48,
        "optimizer.learning_rate": 0.05,
        "optimizer.boundaries": "(25,)",
        "run.devices": 1,
        "run.steps": steps,
        "run.evaluate_every": 10,
        "run.checkpoint_every": 10,
    }
    return [
        f"--config={TINY}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
        f"--workdir={workdir}",
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `colors`, twelve classes, and `run`, which tells them apart."""
    root = tmp_path_factory.mktemp("identity")
    write_colors(root / "colors", NAMES, splits={"train": 8, "val": 2})
    assert train(options(root / "colors", root / "run")) == 0
    return root


def top1(trained: Path, data: Path | None, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    """Returns what `evaluate --json` says of the run, on other data."""
    other = [f"--data={data}", "--split=val"] if data else []
    capsys.readouterr()
    assert main(["evaluate", f"--workdir={trained / 'run'}", *other, "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_run_tells_its_classes_apart(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert top1(trained, None, capsys)["top1"] > 0.9


@pytest.mark.parametrize(
    "rename",
    [
        lambda number, _: str(number),
        lambda _, name: unicodedata.normalize("NFD", name),
        lambda _, name: name,
    ],
    ids=["numbers as in ImageNetV2", "decomposed", "the same"],
)
def test_the_same_pictures_score_the_same(
    trained: Path, tmp_path: Path, rename: Callable[[int, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    names = [rename(number, name) for number, name in enumerate(NAMES)]
    data = write_colors(tmp_path / "data", names, splits={"val": 2})
    assert top1(trained, data, capsys)["top1"] == top1(trained, None, capsys)["top1"]


def test_other_names_are_refused_and_a_map_says_which_is_which(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"z{len(NAMES) - number:02}" for number in range(len(NAMES))]
    data = write_colors(tmp_path / "data", names, splits={"val": 2})
    command = ["evaluate", f"--workdir={trained / 'run'}", f"--data={data}", "--split=val"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "the network does not know 12 of its 12 classes: 'z01', 'z02'" in said
    assert "--class-map" in said
    pairs = dict(zip(names, NAMES, strict=True))
    text = tmp_path / "map.csv"
    text.write_text("\ufeff" + "".join(f"{name},{target}\n" for name, target in pairs.items()))
    by_label = tmp_path / "map.json"
    by_label.write_text(json.dumps({name: number for number, name in enumerate(names)}))
    expected = top1(trained, None, capsys)["top1"]
    assert top1(trained, data, capsys, f"--class-map={text}")["top1"] == expected
    assert top1(trained, data, capsys, f"--class-map={by_label}")["top1"] == expected
    assert top1(trained, data, capsys, "--class-map=order")["top1"] < 0.4
    text.write_text("only one column\n".replace(" ", ""))
    assert main([*command, f"--class-map={text}"]) == 2
    assert "needs two columns" in capsys.readouterr().err
    assert main([*command, "--class-map=nowhere.csv"]) == 2
    assert "class map nowhere.csv cannot be read: No such file" in capsys.readouterr().err


def test_a_subset_is_matched_by_name(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = [7, 2, 5]
    data = tmp_path / "data"
    for number in some:
        shutil.copytree(trained / "colors" / "val" / NAMES[number], data / "val" / NAMES[number])
    found = top1(trained, data, capsys, "--per-class")
    assert found["classes"] == 3
    assert found["restricted"] is False
    assert found["examples"] == 6
    whole = {row["name"]: row for row in top1(trained, None, capsys, "--per-class")["per_class"]}
    for row in found["per_class"]:
        expected = whole[row["name"]]["top1"] if row["name"] in [NAMES[n] for n in some] else None
        assert row["top1"] == expected
    restricted = top1(trained, data, capsys, "--restrict")
    assert restricted["restricted"] is True
    assert restricted["top1"] >= found["top1"]
    assert restricted["loss"] < found["loss"]
    assert main(["evaluate", f"--workdir={trained / 'run'}", f"--data={data}", "--split=val"]) == 0
    said = capsys.readouterr()
    assert "6 images of val in 3 classes (choosing among all; see --restrict)" in said.out
    assert "3 of the network's 12 classes, matched by name" in said.err


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "copy")


def renamed(root: Path, old: str, new: str) -> None:
    for split in ("train", "val"):
        (root / "colors" / split / old).rename(root / "colors" / split / new)


def test_a_class_renamed_after_training_is_noticed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    renamed(copy, "alder", "zz_alder")
    data = [f"--data={copy / 'colors'}", "--split=val"]
    assert main(["evaluate", f"--workdir={copy / 'run'}", *data]) == 2
    assert "the network does not know 1 of its 12 classes: 'zz_alder'" in capsys.readouterr().err
    assert train(options(copy / "colors", copy / "run", steps=40)) == 2
    said = capsys.readouterr().err
    assert "'alder' is missing; 'zz_alder' is new" in said
    assert "choose another --workdir" in said
    picture = str(copy / "colors" / "val" / "zz_alder" / "000.png")
    assert main(["predict", f"--workdir={copy / 'run'}", picture, "--json", "--top=1"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"][0]["top"][0]["name"] == "alder"


def test_moved_data_is_the_same_data(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scratch = copy / "scratch" / "elsewhere"
    scratch.parent.mkdir()
    (copy / "colors").rename(scratch)
    assert train(options(scratch, copy / "run", steps=40)) == 0
    shutil.rmtree(scratch / "train" / "oak")
    shutil.rmtree(scratch / "val" / "oak")
    assert train(options(scratch, copy / "run", steps=50)) == 2
    assert "'oak' is missing" in capsys.readouterr().err


def test_other_content_is_another_recipe(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = copy / "colors" / "train" / "oak" / "000.png"
    picture.rename(picture.with_name("other.png"))
    assert train(options(copy / "colors", copy / "run", steps=40)) == 2
    assert "train split: as many images, and other file names" in capsys.readouterr().err
    picture.with_name("other.png").unlink()
    assert train(options(copy / "colors", copy / "run", steps=40)) == 2
    assert "train split: 96 -> 95 images" in capsys.readouterr().err


def test_a_run_without_a_record_is_accepted_once(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "run" / DATA_RECORD).unlink()
    (copy / "colors").rename(copy / "moved")
    assert train(options(copy / "moved", copy / "run", steps=40)) == 0
    assert "does not record what its data was" in capsys.readouterr().err
    assert json.loads((copy / "run" / DATA_RECORD).read_text())["class_names"] == list(NAMES)
    (copy / "run" / DATA_RECORD).unlink()
    (copy / "moved").rename(copy / "colors")
    renamed(copy, "alder", "zz_alder")
    assert train(options(copy / "colors", copy / "run", steps=50)) == 2
    assert "'alder' is missing; 'zz_alder' is new" in capsys.readouterr().err


def test_a_kept_head_asks_for_the_same_names(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_colors(
        tmp_path / "data", [str(number) for number in range(12)], splits={"train": 1, "val": 1}
    )
    kept = [f"--config.initial.source={trained / 'run'}", "--config.initial.head=kept"]
    assert train([*options(data, tmp_path / "tuned", steps=1), *kept]) == 2
    assert "'alder' is missing" in capsys.readouterr().err


def test_a_prepared_set_is_the_same_data_wherever_it_lies(tmp_path: Path) -> None:
    photos = write_colors(tmp_path / "photos", ["a", "b"], splits={"train": 2, "val": 1})
    prepare(str(photos), str(tmp_path / "set"))
    moved = shutil.copytree(tmp_path / "set", tmp_path / "elsewhere" / "copy")
    here, there = (open_prepared(str(root), "train").fingerprint for root in (tmp_path / "set", moved))
    assert here == there
    other = write_colors(tmp_path / "others", ["a", "c"], splits={"train": 2, "val": 1})
    prepare(str(other), str(tmp_path / "other"))
    assert open_prepared(str(tmp_path / "other"), "train").fingerprint != here
    folders = [open_folder(str(root), "train").fingerprint for root in (photos, other)]
    assert folders[0] != folders[1]

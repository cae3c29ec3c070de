"""Mistakes at the command line end in one line that says what is wrong, and the exit code of their kind."""

import shlex
from pathlib import Path

import pytest

from resnet_jax.cli import main
from resnet_jax.errors import FAILED, USAGE
from resnet_jax.training.run import run
from tests.data.colors import write_colors
from tests.training import tiny
from tests.training.runs import TINY

NO_RUN = "nowhere holds no checkpoint; train into it with `resnet-jax train --workdir=nowhere`"
PHOTOS = "train --config=imagenet:cifar_resnet8 --config.batch_size=8 --config.model.group_size=8 "
PHOTOS += "--config.data.source={photos} --config.run.steps=1"

ROWS: list[tuple[str, int, str]] = [
    # The command itself.
    ("nope", USAGE, "unknown command 'nope'; commands are train, evaluate"),
    ("trian", USAGE, "unknown command 'trian'; did you mean train?"),
    ("list --nope", USAGE, "unrecognized arguments: --nope (see resnet-jax list --help)"),
    ("evaluate", USAGE, "no run is named; give its directory"),
    ("evaluate --wrkdir x --workdir {run}", USAGE, "did you mean --workdir?"),
    ("predict", USAGE, "the following arguments are required: IMAGE, --workdir"),
    (
        "detect {file} --workdir {run}",
        USAGE,
        "is a classifier, which finds no boxes; use",
    ),
    (
        "detect {file} --workdir {run} --threshold 7",
        USAGE,
        "--threshold is 7.0; it is a probability",
    ),
    ("proposals --workdir {run} --to p.npz", USAGE, "is of no detector, and has no proposals"),
    (
        "train --config=faster_rcnn:voc08",
        USAGE,
        "unknown recipe faster_rcnn:voc08; allowed are scenes",
    ),
    ("train --config=faster_rcnn:voc07", USAGE, "begins with a trained network: set --config.initial.source"),
    (
        "train --config.detection.profile=papers",
        USAGE,
        "config.detection.profile is 'papers'; it must be",
    ),
    ("prepare", USAGE, "the following arguments are required: SOURCE, DEST"),
    ("report", USAGE, "the following arguments are required: WORKDIR"),
    # Evaluation.
    ("evaluate --workdir nowhere", USAGE, NO_RUN),
    ("evaluate --workdir {empty}", USAGE, "holds no checkpoint"),
    ("evaluate --workdir {file}", USAGE, "it is neither a zip file nor a pickle"),
    ("evaluate --workdir {run} --step 3", USAGE, "has no checkpoint of step 3; it has 2"),
    ("evaluate --workdir {run} --step x", USAGE, "argument --step: invalid int value: 'x'"),
    ("evaluate --workdir {run} --split nope", USAGE, "has no split 'nope'; it has train and test"),
    ("evaluate --workdir {run} --data nothing_at_all", USAGE, "unknown data set 'nothing_at_all'"),
    ("evaluate --workdir {run} --data ./nowhere", USAGE, "there is no folder ./nowhere"),
    ("evaluate --workdir {run} --protocol eleven-crop", USAGE, "unknown protocol 'eleven-crop'; allowed are"),
    ("evaluate --workdir {run} --statistics best", USAGE, "unknown statistics 'best'; allowed are moving"),
    ("evaluate --workdir {run} --statistics precise", USAGE, "there are no precise statistics of step 2"),
    ("evaluate --workdir {run} --precise-bn 999999", USAGE, "allowed are 1 to 200"),
    ("evaluate --workdir {run} --precise-bn -3", USAGE, "statistics of -3 images are asked for"),
    ("evaluate --workdir {run} --predictions found.txt", USAGE, "its name must end in .csv or .npz"),
    ("evaluate --workdir {run} --predictions nowhere/found.csv", USAGE, "there is no folder nowhere"),
    ("evaluate --workdir {run} --scales 224,x", USAGE, "'224,x' is no list of whole numbers"),
    ("evaluate --workdir {run} --average mean", USAGE, "allowed are softmax, logits"),
    ("evaluate --workdir {run} --batch-size 0", USAGE, "'0' is not a whole number of 1 or more"),
    ("evaluate --workdir {run} --class-map nowhere.csv", USAGE, "class map nowhere.csv cannot be read"),
    # Prediction.
    ("predict x.png", USAGE, "the following arguments are required: --workdir"),
    ("predict nowhere.png --workdir {run}", FAILED, "1 of 1 pictures could not be read"),
    ("predict {file} --workdir {run}", FAILED, "it is not an image (it begins with b'text')"),
    ("predict {empty} --workdir {run}", USAGE, "has no images"),
    ("predict {file} --workdir {run} --top 0", USAGE, "'0' is not a whole number of 1 or more"),
    ("predict {file} --workdir {run} --json --csv", USAGE, "--json and --csv are given; choose one"),
    ("predict {file} --workdir nowhere", USAGE, NO_RUN),
    ("predict {file} --workdir hf:timm/resnet50", USAGE, "download its folder and give the path"),
    # Recipes and networks.
    ("config nope", USAGE, "there is no config 'nope'; allowed are cifar10"),
    ("config digits_resnet20 --diff nope", USAGE, "there is no config 'nope'"),
    ("config digits_resnet20 --set nope=3", USAGE, "config.nope does not exist; allowed are seed"),
    ("config digits_resnet20 --set batch_size", USAGE, "'batch_size' is not a change of a config"),
    ("config digits_resnet20 --set batch_size=many", USAGE, "config.batch_size is 'many'; it must be"),
    (
        "config digits_resnet20 --set data.colour=imagenet",
        USAGE,
        "config.data.colour is now",
    ),
    ("summary resnet51", USAGE, "depths of this family are 18, 34, 50, 101, 152"),
    ("summary resnet20", USAGE, "unknown model 'resnet20'; did you mean cifar_resnet20?"),
    ("summary ResNet50", USAGE, "unknown model 'ResNet50'; did you mean resnet50?"),
    ("summary resnet-18", USAGE, "unknown model 'resnet-18'; did you mean resnet18?"),
    ("summary cifar_resnet21", USAGE, "the nearest are 20 and 26"),
    ("plan --topology v9:2x2 --config imagenet", USAGE, "there is no topology 'v9:2x2'"),
    ("plan --topology v5e --config imagenet", USAGE, "such as v5e:2x2 or v4:4x4x4"),
    ("plan --config imagenet", USAGE, "the following arguments are required: --topology"),
    ("paper table12", USAGE, "invalid choice: 'table12'"),
    ("compare nope --to out", USAGE, "there is no config 'nope'"),
    ("compare --to out", USAGE, "the following arguments are required: CONFIG"),
    # Data.
    ("prepare nowhere out", USAGE, "there is no folder nowhere"),
    ("prepare {empty} out", USAGE, "is empty of splits"),
    ("prepare {file} out", USAGE, "there is no folder"),
    ("prepare {photos} {file}", USAGE, "a file is in its place; choose another DEST"),
    ("prepare {photos} {photos}/out", USAGE, "where it would be taken for a split"),
    ("prepare {photos} {full}", USAGE, "is not empty, and holds no set that was begun (it has thesis.tex)"),
    ("prepare {photos} out --shrink -1", USAGE, "--shrink is -1; it must be 0 or more pixels"),
    ("prepare {photos} out --raw-share 2", USAGE, "--raw-share is 2.0; it must be from 0 to 1"),
    ("prepare {photos} out --shard-examples 0", USAGE, "--shard-examples is 0; it must be 1 or more"),
    ("prepare {photos} out --workers -1", USAGE, "'-1' is not a whole number of 0 or more"),
    ("statistics nowhere out.npz", USAGE, "unknown data set 'nowhere'"),
    ("statistics {photos} out.txt", USAGE, "out.txt cannot be written: it must be FILE.npz"),
    ("statistics {photos} nowhere/out.npz", USAGE, "in a folder that is there"),
    # Reports and weights.
    ("responses --workdir nowhere", USAGE, NO_RUN),
    ("report nowhere", USAGE, "nowhere is not the workdir of a run"),
    ("report {run} --to {empty}", USAGE, "--to is the folder"),
    ("report {run} --to nowhere/report.html", USAGE, "--to is in nowhere, which is no folder"),
    ("import nowhere.pth --to out", USAGE, "there is no nowhere.pth; give a file"),
    ("import {file} --to out", USAGE, "allowed are what torch.save writes and .safetensors"),
    ("import {empty} --to out", USAGE, "is a folder without config.json"),
    ("import {file} --to out --stride-on 2x2", USAGE, "invalid choice: '2x2'"),
    ("import {file} --to out --mean 1,2,3", USAGE, "--mean is for a .caffemodel"),
    ("import {file} --to out --class-names nowhere.txt", USAGE, "nowhere.txt cannot be read"),
    ("export --workdir nowhere --to x.onnx", USAGE, NO_RUN),
    ("export --workdir {run} --to x.xyz", USAGE, "allowed are .safetensors, .stablehlo, .onnx"),
    ("export --workdir {run} --to x.onnx --format stablehlo", USAGE, "name it x.stablehlo"),
    # Training.
    ("train digits:3", USAGE, "did you mean --config=digits_resnet20:3?"),
    ("evaluate {run}s", USAGE, "did you mean {run}? Otherwise train into it"),
    ("train digits_resnet20", USAGE, "did you mean --config=digits_resnet20?"),
    ("train --lr 0.1", USAGE, "did you mean --config.optimizer.learning_rate=0.1?"),
    ("train --batch-size=64", USAGE, "did you mean --config.batch_size=64?"),
    ("train --config nope", USAGE, "there is no config 'nope'"),
    ("train {tiny} --config.lr=0.1", USAGE, "did you mean config.optimizer.learning_rate?"),
    ("train {tiny} --config.optimizer.lr=0.1", USAGE, "did you mean config.optimizer.learning_rate?"),
    ("train {tiny} --workdir={file}", USAGE, "cannot be used: File exists"),
    ("train {tiny} --workdir={full}", USAGE, "is not empty and holds no config.json"),
    ("train {tiny} --config.data.source=./nowhere", USAGE, "there is no folder ./nowhere"),
    ("train {tiny} --config.data.source=digits --config.data.test_split=x", USAGE, "has no split 'x'"),
    ("train {tiny} --config.model.variants=nope", USAGE, "nope"),
    ("train {tiny} --config.data.color=nowhere.npz", USAGE, "nowhere.npz is not a file of statistics"),
    ("train {tiny} --config.initial.source=nowhere", USAGE, "nowhere holds no checkpoint"),
    ("train {tiny} --config.optimizer.boundaries=(5,3)", USAGE, "it must be rising steps above 0"),
    ("train {tiny} --config.run.profile=5-3", USAGE, "it must be the first and the last step"),
    ("train {tiny} --config.run.accumulation=7", USAGE, "config.run.accumulation is 7"),
    ("train {tiny} --config.run.remat=2 --config.run.scan=no", USAGE, "leave one out"),
    ("train {tiny} --config.optimizer.schedule=nope", USAGE, "choose one"),
    ("train {tiny} --config.optimizer.loss=nope:loss", USAGE, "there is no module 'nope'"),
    ("train {tiny} --config.optimizer.frozen=nope", USAGE, "means no module of the net"),
    ("train {tiny} --config.data.labels=(1,1)", USAGE, "it must be different labels"),
    ("train {tiny} --config.task=nope", USAGE, "one of classification, detection, or package.module"),
    ("train {tiny} --process=3", USAGE, "--coordinator, --processes and --process belong together"),
    ("train --config=finetune:nowhere", USAGE, "nowhere is not the workdir of a run"),
    (PHOTOS + " --config.data.scales=(300,200)", USAGE, "it must be two rising sizes"),
    (PHOTOS + " --config.data.test_scale=10", USAGE, "it must be image_size 224 or more"),
    (PHOTOS + " --config.data.train_split=holdout", USAGE, "has no split 'holdout'"),
    (PHOTOS + " --config.data.crop=middle", USAGE, "it must be one of scale, resized, center"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("bad")
    run(tiny.get_config(**{"run.steps": 2, "run.devices": 1}), root / "run")
    write_colors(root / "photos", ["a", "b"], splits={"train": 2, "val": 1})
    (root / "empty").mkdir()
    (root / "full").mkdir()
    (root / "full" / "thesis.tex").write_text("years of work")
    (root / "file").write_text("text")
    paths = {name: str(root / name) for name in ("run", "photos", "empty", "full", "file")}
    return paths | {"tiny": f"--config={TINY} --config.run.steps=1 --config.run.devices=1"}


@pytest.mark.parametrize(("command", "code", "message"), ROWS, ids=[command for command, *_ in ROWS])
def test_a_mistake_ends_in_one_line_and_its_exit_code(
    command: str,
    code: int,
    message: str,
    places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    quoted = command.replace("(", "'(").replace(")", ")'")
    assert main(shlex.split(quoted.format(**places).replace("''", ""))) == code
    captured = capsys.readouterr()
    assert message.replace("{run}", places["run"]) in captured.err
    assert "Traceback" not in captured.err
    assert (
        len([line for line in captured.err.splitlines() if not line.startswith("resnet-jax: left out")]) == 1
    )
    assert not list(tmp_path.glob("*/checkpoints"))
    assert not list(tmp_path.glob("out"))


def test_the_table_has_at_least_eighty_rows() -> None:
    assert len({command for command, *_ in ROWS}) >= 80

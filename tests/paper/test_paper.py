"""Tables and figures: the paper's numbers, the runs that are made for them, and what is said of them."""

import csv
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.cli import main
from resnet_jax.evaluation.evaluate import evaluate_checkpoint
from resnet_jax.paper import PaperError
from resnet_jax.paper.artifacts import plan
from resnet_jax.paper.error_rows import table_rows
from resnet_jax.paper.reported import TABLES, Row, Table, reported_error
from resnet_jax.paper.request import Request
from resnet_jax.sweeps.sweep import SweepRun
from resnet_jax.training.checkpoints import read_checkpoint
from resnet_jax.training.logging import read_metrics
from resnet_jax.training.recipes import load_recipe, recipes
from resnet_jax.training.run import run
from tests.data.stand_in import TEST, TRAIN, prepare
from tests.training import tiny
from tests.training.runs import assert_same_outcome

TINY = ["--data=digits", "--budget=0.005", "--nets=plain8,resnet8"]
"""Two iterations of two nets of eight layers."""


def paper(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    """Runs `resnet-jax paper` and returns what it prints."""
    capsys.readouterr()
    assert main(["paper", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_table_1_is_the_papers(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(paper(capsys, "table1", "--json")[0])
    expected = {
        "resnet18": (11_515_688, 1.8e9),
        "resnet34": (21_623_848, 3.6e9),
        "resnet50": (25_557_032, 3.8e9),
        "resnet101": (44_549_160, 7.6e9),
        "resnet152": (60_192_808, 11.3e9),
    }
    assert {row["name"]: (row["params"], row["paper_macs"]) for row in rows} == expected
    assert [round(row["macs"] / 1e9, 3) for row in rows] == [1.795, 3.644, 3.858, 7.57, 11.282]
    assert all(list(row["output_sizes"].values()) == [112, 56, 28, 14, 7] for row in rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of Fig. 6 in miniature."""
    workdir = tmp_path_factory.mktemp("paper")
    assert main(["paper", "fig6", *TINY, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.mark.slow
def test_fig_6_in_miniature_trains_and_draws(made: Path) -> None:
    runs = {path.name: read_metrics(path) for path in (made / "digits").iterdir()}
    assert set(runs) == {"plain8_2_seed0", "resnet8_2_seed0"}
    rows = list(csv.DictReader((made / "fig6_digits.csv").open()))
    assert len(rows) == 4
    for row in rows:
        record = runs[f"{row['net']}_2_seed0"][int(row["step"]) - 1]
        assert float(row["test_error"]) == pytest.approx(100 * (1 - record["test_top1"]))
        assert float(row["train_error"]) == pytest.approx(100 * (1 - record["top1"]))
    assert (made / "fig6_digits.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_what_is_trained_is_not_trained_again_and_the_caption_says_what_was_done(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in made.glob("digits/*/metrics.jsonl")}
    out, err = paper(capsys, "fig6", *TINY, f"--workdir={made}")
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert "2 of 2 runs are finished already" in err
    caption = next(line for line in out.splitlines() if line.startswith("Fig. 6"))
    for part in (
        "scikit-learn's digits (1,437 training and 360 test images)",
        "miniature of the paper's CIFAR-10",
    ):
        assert part in caption
    assert "Budget 0.005: 2 of 400 iterations, seed 0" in caption
    rows = json.loads(paper(capsys, "table6", *TINY, f"--workdir={made}", "--json")[0])
    last = read_metrics(made / "digits" / "resnet8_2_seed0")[-1]
    assert [row["name"] for row in rows] == ["plain8", "resnet8"]
    assert rows[1]["top1"] == pytest.approx(100 * (1 - last["test_top1"]))
    assert (made / "table6_digits.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_fig_7_in_miniature_gives_the_responses_of_every_layer(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = paper(capsys, "fig7", *TINY, f"--workdir={made}")
    assert "the first 360 test images, of seed 0" in out
    rows = list(csv.DictReader((made / "fig7_digits.csv").open()))
    assert main(["responses", f"--workdir={made / 'digits' / 'resnet8_2_seed0'}", "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    deviations = {row["path"]: float(row["deviation"]) for row in rows if row["net"] == "resnet8"}
    assert deviations == pytest.approx(found["responses"]["deviations"])
    assert [row["layer"] for row in rows] == [str(layer) for layer in range(1, 8)] * 2
    assert (made / "fig7_digits.png").read_bytes().startswith(b"\x89PNG")


def finished_run(workdir: Path, *, seed: int, top1: Sequence[float]) -> SweepRun:
    """Writes what a run leaves that was evaluated with these accuracies."""
    one = Request("table6", "digits", workdir, budget=0.01).run("resnet20", seed)
    (one.workdir / "checkpoints" / "4").mkdir(parents=True)
    records = [
        {"step": step, "top1": 0.5, "test_top1": value}
        for step, value in enumerate(top1, start=5 - len(top1))
    ]
    (one.workdir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return one


def test_a_row_is_the_mean_and_deviation_over_seeds_of_the_last_evaluation_not_the_best(
    tmp_path: Path,
) -> None:
    runs = {
        ("resnet20", seed): finished_run(tmp_path, seed=seed, top1=(0.99, top1))
        for seed, top1 in enumerate((0.91, 0.92, 0.95))
    }
    row = TABLES["table6"].rows[0]
    [line] = table_rows(Request("table6", "digits", tmp_path, seeds=3), TABLES["table6"], [row], runs)
    assert (line["top1"], line["top1_std"]) == (
        pytest.approx(22 / 3),
        pytest.approx(np.std([9, 8, 5], ddof=1)),
    )
    assert line["paper_top1"] == 8.75
    [line] = table_rows(Request("table6", "digits", tmp_path, seeds=4), TABLES["table6"], [row], runs)
    assert line["top1"] is None


@pytest.mark.slow
def test_protocols_and_ensembles_are_those_of_evaluation_and_are_kept(tmp_path: Path) -> None:
    workdirs = [tmp_path / name for name in ("one", "two")]
    runs = {}
    for seed, workdir in enumerate(workdirs):
        config = tiny.get_config(**{"data.source": "digits", "run.steps": 2, "seed": seed})
        run(config, workdir)
        runs[("net", seed * 1000)] = SweepRun("net", config, workdir)
    table = Table("", "imagenet", "ten-crop", ("top5",), (Row("one", ("net",)), Row("both", ("net", "net"))))
    request = Request("table3", "digits", tmp_path)
    lines = table_rows(request, table, table.rows, runs)
    for line, members in zip(lines, (workdirs[:1], workdirs), strict=True):
        expected = evaluate_checkpoint(members, protocol="ten-crop")
        assert line["top5"] == pytest.approx(100 * (1 - expected["top5"]))
    kept = workdirs[0] / "evaluated_ten-crop.json"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "top5": 0.25}))
    assert table_rows(request, table, table.rows, runs)[0]["top5"] == 75


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fig6", "--data=imagenet"], "fig6 cannot be made on imagenet; its data are cifar10 or digits"),
        (["table2", "--data=cifar10"], "table2 cannot be made on cifar10; its data are imagenet or digits"),
        (["fig1", "--data=digits", "--seeds=0"], "--seeds is 0; it must be a number above 0"),
        (["fig1", "--data=digits", "--budget=0"], "--budget is 0.0; it must be above 0"),
        (["fig1", "--data=digits", "--nets=wide8"], "unknown 'wide8'"),
        (["table6", "--data=digits", "--nets=resnet9", "--budget=0.01"], "unknown model 'cifar_resnet9'"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = paper(capsys, *arguments, f"--workdir={tmp_path}", code=2)
    assert message in err
    assert out == ""
    with pytest.raises(PaperError):
        _ = Request("fig6", "imagenet", tmp_path).chosen_data


def test_without_the_data_the_papers_numbers_are_printed_and_what_to_prepare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)  # TensorFlow, which would prepare it.
    for name, number in (("table6", "6.43"), ("table3", "21.43")):
        out, err = paper(capsys, name, f"--data-dir={tmp_path}", f"--workdir={tmp_path / 'runs'}", code=2)
        assert number in out
        assert "not at hand" in out
        assert "is not prepared in" in err
        assert "--data-dir" in err
        assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def in_docstring(data: str) -> dict[str, tuple[str, str]]:
    """Returns the errors and costs that a recipe's docstring lists, by net."""
    found = re.findall(r"\| (\S+) +\| +([\d.]+) \| +(\S+) \|", recipes()[data].read_text())
    return {net: (error, cost) for net, error, cost in found}


def test_every_row_of_tables_2_3_and_6_has_a_recipe_whose_docstring_has_its_error() -> None:
    for name in ("table2", "table3", "table6"):
        table = TABLES[name]
        for row in table.rows:
            for net in row.nets:
                config = load_recipe(f"{table.data}:{net}")
                assert (config.run.steps, config.batch_size) == (
                    (64_000, 128) if table.data == "cifar10" else (600_000, 256)
                )
                assert config.model.shortcut == (net.partition(",")[2] or None)
                assert in_docstring(table.data)[net][0] == f"{row.top1:.2f}"
                assert reported_error(net) == row.top1
    assert load_recipe("cifar10:resnet1202").run.remat == 14


@pytest.mark.slow
def test_the_costs_in_the_docstrings_are_those_of_the_plan(tmp_path: Path) -> None:
    for name in ("table2", "table3", "table6"):
        for row in plan(Request(name, "", tmp_path)):
            data, _, net = row["recipe"].partition(":")
            assert in_docstring(data)[net] == (f"{row['paper_top1']:.2f}", f"{row['training_macs']:.1e}")


def test_a_budget_scales_the_schedule_with_the_iterations(tmp_path: Path) -> None:
    config = Request("table6", "cifar10", tmp_path, budget=0.1).run("resnet110", 3).config
    assert (config.run.steps, tuple(config.optimizer.boundaries)) == (6400, (3200, 4800))
    assert (config.seed, config.optimizer.warmup_until_error) == (3, 0.8)
    small = Request("table6", "digits", tmp_path, budget=0.5).run("resnet110").config
    assert (small.run.steps, tuple(small.optimizer.boundaries), small.optimizer.warmup_until_error) == (
        200,
        (100, 150),
        0.8,
    )
    imagenet = (
        Request("table3", "imagenet", tmp_path, budget=0.01, source="prepared").run("resnet34,C").config
    )
    assert (imagenet.run.steps, imagenet.optimizer.plateau_window, imagenet.model.shortcut) == (6000, 50, "C")
    assert imagenet.data.source == "prepared"


def test_the_digits_leave_out_1202_layers_unless_asked(tmp_path: Path) -> None:
    for name, others in (("table6", 5), ("fig6", 6)):
        nets = [net for net, _ in Request(name, "digits", tmp_path).runs()]
        assert len(nets) == others
        deepest = [net for net, _ in Request(name, "digits", tmp_path, deepest=True).runs()]
        assert deepest == [*nets, "resnet1202"]


def cifar(tmp_path: Path, nets: str, steps: int) -> list[str]:
    prepare(str(tmp_path / "tfds"))
    budget = repr(steps / 64_000)
    return [
        "table6",
        f"--nets={nets}",
        f"--budget={budget}",
        f"--data-dir={tmp_path / 'tfds'}",
        f"--workdir={tmp_path / 'runs'}",
    ]


def check_cifar(
    capsys: pytest.CaptureFixture[str], arguments: list[str], tmp_path: Path, nets: Sequence[str], steps: int
) -> None:
    out, _ = paper(capsys, *arguments)
    assert f"CIFAR-10 ({TRAIN} training and {TEST} test images)" in out
    assert f"{steps} of 64,000 iterations" in out
    for net in nets:
        workdir = tmp_path / "runs" / "cifar10" / f"{net}_{steps}_seed0"
        assert read_checkpoint(workdir).step == steps
        assert read_checkpoint(workdir).config["model"]["group_size"] == 64
        assert f"{100 * (1 - read_metrics(workdir)[-1]['test_top1']):.2f}" in out


@pytest.mark.slow
def test_table_6_begins_on_a_stand_in_for_cifar_10(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_cifar(capsys, cifar(tmp_path, "resnet8", 3), tmp_path, ["resnet8"], 3)


@pytest.mark.slow
def test_the_first_fifty_iterations_of_table_6_on_a_stand_in_for_cifar_10(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nets = ["resnet20", "resnet32"]
    check_cifar(capsys, cifar(tmp_path, ",".join(nets), 50), tmp_path, nets, 50)
    losses = [record["loss"] for record in read_metrics(tmp_path / "runs" / "cifar10" / "resnet20_50_seed0")]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


@pytest.mark.slow
def test_a_killed_figure_goes_on_and_ends_as_the_undisturbed_one(tmp_path: Path) -> None:
    def start(workdir: Path) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "resnet_jax",
            "paper",
            "fig6",
            "--data=digits",
            "--budget=0.15",
            "--nets=plain8,resnet8",
        ]
        return subprocess.Popen(
            [*command, f"--workdir={workdir}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert start(undisturbed).wait(timeout=600) == 0
    for net in ("plain8", "resnet8"):
        process, workdir = start(killed), killed / "digits" / f"{net}_60_seed0"
        while len(read_metrics(workdir)) < 25:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.kill()
        process.communicate()
    assert start(killed).wait(timeout=600) == 0
    for net in ("plain8", "resnet8"):
        assert_same_outcome(undisturbed / "digits" / f"{net}_60_seed0", killed / "digits" / f"{net}_60_seed0")
    assert (undisturbed / "fig6_digits.csv").read_text() == (killed / "fig6_digits.csv").read_text()
    assert (undisturbed / "fig6_digits.png").read_bytes() == (killed / "fig6_digits.png").read_bytes()


@pytest.mark.slow
def test_table_3_in_miniature_is_ten_crop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["table3", "--data=digits", "--budget=0.01", "--nets=resnet34:A", f"--workdir={tmp_path}"]
    rows = json.loads(paper(capsys, *arguments, "--json")[0])
    expected = evaluate_checkpoint(tmp_path / "digits" / "resnet34_A_4_seed0", protocol="ten-crop")
    assert [row["name"] for row in rows] == ["ResNet-34 A"]
    assert rows[0]["top5"] == pytest.approx(100 * (1 - expected["top5"]))
    assert rows[0]["paper_top5"] == 7.76

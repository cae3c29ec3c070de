import json
from pathlib import Path

import pytest

from resnet_jax.report.run_records import distinct_names, each_step_once, read_runs
from resnet_jax.training.workdir import WorkdirError
from tests.report import workdirs


def test_a_run_that_was_resumed_has_every_step_once() -> None:
    first, again = (
        [workdirs.record(step, loss=1.0) for step in range(1, 8)],
        [workdirs.record(s, loss=2.0) for s in range(5, 10)],
    )
    kept = each_step_once([*first, *again])
    assert [record["step"] for record in kept] == list(range(1, 10))
    assert [record["loss"] for record in kept] == [1.0] * 4 + [2.0] * 5


def test_what_is_no_record_is_left_out() -> None:
    assert each_step_once([7, None, {"loss": 1.0}, {"step": "3"}, {"step": float("nan")}, {"step": 4}]) == [
        {"step": 4}
    ]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a"], ["a"]),
        (["runs/a/", "runs/b"], ["a", "b"]),
        (["runs/a/x", "runs/b/x"], ["a/x", "b/x"]),
        (["old/runs/x", "new/runs/x", "y"], ["old/runs/x", "new/runs/x", "y"]),
        (["runs/x", "runs/x"], ["runs/x (1)", "runs/x (2)"]),
        (["gs://bucket/x", "gs://other/x"], ["bucket/x", "other/x"]),
        ([".", "x"], [".", "x"]),
    ],
)
def test_runs_are_told_apart_by_the_ends_of_their_paths(paths: list[str], names: list[str]) -> None:
    assert distinct_names(paths) == names


def test_a_run_that_goes_on_is_read_to_its_last_whole_record(tmp_path: Path) -> None:
    workdir = workdirs.write(
        tmp_path / "run", [workdirs.record(step) for step in range(1, 6)], **{"run.steps": 60}
    )
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(workdirs.record(6))[:20])
    (run,) = read_runs([str(workdir)])
    assert run.status == "at step 5 of 60"
    assert (run.checkpoint, run.parameters, run.note) == (None, None, "there is no checkpoint")


def test_fields_that_are_not_finite_or_not_there_are_no_points(tmp_path: Path) -> None:
    records = [workdirs.record(1), workdirs.record(2, loss=float("nan")), {"step": 3}, workdirs.tested(4)]
    (run,) = read_runs([str(workdirs.write(tmp_path / "run", records))])
    assert run.series("loss").steps.tolist() == [1, 4]
    assert run.series("test_top1", error=True).values.tolist() == [pytest.approx(0.625 / 4)]
    assert len(run.series("no_such_field")) == 0


def test_a_folder_that_is_no_workdir_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkdirError, match="is not the workdir of a run"):
        read_runs([str(tmp_path)])

"""Tables 7 to 9, of detection: the paper's mean average precisions, and those of runs beside them."""

import dataclasses

from etils import epath

from resnet_jax.files import JsonObject, as_path
from resnet_jax.training.logging import read_metrics


@dataclasses.dataclass(frozen=True)
class ScoreRow:
    """A line of a table of detection.

    Attributes:
        name: As printed.
        data: What is trained on, and the split that is judged.
        at_50: The paper's mean average precision at IoU .5, in percent.
        mean: The paper's mean over IoU .5 to .95, in percent; None where it has none.
        run: Directory of the run of the packaged recipe that makes it; None if there is no recipe.
    """

    name: str
    data: str
    at_50: float
    mean: float | None = None
    run: str | None = None


_COCO = "COCO train, val"
_TEST_DEV = "COCO trainval, test-dev"

SCORE_TABLES: dict[str, tuple[str, tuple[ScoreRow, ...]]] = {
    "table7": (
        "Table 7: mAP on PASCAL VOC",
        (
            ScoreRow("VGG-16", "07+12, VOC 07 test", 73.2),
            ScoreRow("ResNet-101", "07+12, VOC 07 test", 76.4, run="faster_rcnn_voc0712"),
            ScoreRow("VGG-16", "07++12, VOC 12 test", 70.4),
            ScoreRow("ResNet-101", "07++12, VOC 12 test", 73.8),
        ),
    ),
    "table8": (
        "Table 8: mAP on COCO",
        (
            ScoreRow("VGG-16", _COCO, 41.5, 21.2),
            ScoreRow("ResNet-101", _COCO, 48.4, 27.2, run="faster_rcnn_coco"),
        ),
    ),
    "table9": (
        "Table 9: what improves it on COCO",
        (
            ScoreRow("baseline VGG-16", _COCO, 41.5, 21.2),
            ScoreRow("baseline ResNet-101", _COCO, 48.4, 27.2, run="faster_rcnn_coco"),
            ScoreRow("+ box refinement", _COCO, 49.9, 29.9),
            ScoreRow("+ context", _COCO, 51.1, 30.0),
            ScoreRow("+ multi-scale testing", _COCO, 53.8, 32.5),
            ScoreRow("+ context", _TEST_DEV, 53.3, 32.2),
            ScoreRow("+ multi-scale testing", _TEST_DEV, 55.7, 34.9),
            ScoreRow("ensemble of three", _TEST_DEV, 59.0, 37.4),
        ),
    ),
}
"""Title and rows by name; higher is better."""


def score_rows(name: str, workdir: epath.PathLike) -> list[JsonObject]:
    """Returns the rows of a table; ours are the last evaluations of runs, in percent, or null.

    Args:
        name: Name of SCORE_TABLES.
        workdir: Directory with the runs, named as the recipes.
    """
    rows: list[JsonObject] = []
    for row in SCORE_TABLES[name][1]:
        ours = _last(as_path(workdir) / row.run) if row.run else {}
        rows.append(
            {
                "name": row.name,
                "data": row.data,
                "paper_mAP50": row.at_50,
                "paper_mAP": row.mean,
                "mAP50": ours.get("mAP50"),
                "mAP": ours.get("mAP"),
                "recipe": row.run and row.run.replace("faster_rcnn_", "faster_rcnn:"),
            }
        )
    return rows


def _last(workdir: epath.Path) -> dict[str, float]:
    """Returns the metrics of a run's last evaluation, in percent; none if there is no such run."""
    if not (workdir / "metrics.jsonl").exists():
        return {}
    tested = [record for record in read_metrics(workdir) if "test_mAP50" in record]
    return {name: 100 * tested[-1][f"test_{name}"] for name in ("mAP50", "mAP")} if tested else {}

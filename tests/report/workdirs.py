"""Workdirs whose records are written by hand: a run need not be made to be reported on."""

import json
from pathlib import Path
from typing import Any

from resnet_jax.training.config import to_json
from tests.training import tiny


def write(workdir: Path, records: list[Any], **changes: Any) -> Path:
    """Writes the config of the tiny recipe, and records."""
    workdir.mkdir(parents=True)
    config = {"format_version": 2, **to_json(tiny.get_config(**changes))}
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return workdir


def record(step: int, **changes: float) -> dict[str, float]:
    """Returns a record whose values tell its step."""
    values = {
        "loss": 2 / step,
        "top1": 1 - 0.5 / step,
        "learning_rate": 0.1,
        "gradient_norm": 1.5,
        "images_per_second": 100.0,
    }
    return {"step": step, **values, "input_share": 0.01, "time": 1.7e9 + step, **changes}


def tested(step: int, **changes: float) -> dict[str, float]:
    """Returns a record of a step at which the run was evaluated."""
    return record(
        step, test_loss=3 / step, test_top1=1 - 0.625 / step, test_top5=1.0, test_examples=25, **changes
    )

"""The training curve of curves.png is smoothed."""

import json
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from etils import epath

from resnet_jax.training.plots import draw_run_curves, smoothed_values
from resnet_jax.training.task import Curve, Display


def test_each_value_is_the_mean_of_those_around_it_and_of_fewer_at_the_ends() -> None:
    assert smoothed_values([3.0, 0.0, 6.0, 3.0]) == pytest.approx([1.5, 3.0, 3.0, 4.5])
    assert smoothed_values([2.0]) == [2.0]
    assert smoothed_values([]) == []


def test_a_long_curve_is_averaged_over_a_fiftieth() -> None:
    comb = [float(place % 2) for place in range(1000)]
    smoothed = np.array(smoothed_values(comb))  # 21 values around each one: 10 or 11 ones.
    assert smoothed[10:-10].tolist() == pytest.approx([10 / 21, 11 / 21] * 490)
    assert smoothed[0] == pytest.approx(5 / 11)


def test_the_records_lie_faintly_behind_their_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{"step": step, "top1": 0.5 + 0.25 * (step % 2)} for step in range(1, 5)]
    records[-1]["test_top1"] = 0.75
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    drawn: list[matplotlib.figure.Figure] = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))
    )
    curve = Curve("top1", "test_top1", "error (%)", lambda share: 100 * (1 - share), 10)
    display = Display("a run", "images", "top1", lambda _: "", curve, lambda _: "")
    draw_run_curves(epath.Path(tmp_path), display)
    raw, mean, test = drawn[0].axes[0].lines
    assert list(raw.get_ydata()) == pytest.approx([25.0, 50.0, 25.0, 50.0])
    assert list(mean.get_ydata()) == pytest.approx([37.5, 100 / 3, 125 / 3, 37.5])
    assert list(test.get_ydata()) == pytest.approx([25.0])
    assert raw.get_alpha() < 0.5 < mean.get_alpha()
    assert [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()] == ["train (mean)", "test"]

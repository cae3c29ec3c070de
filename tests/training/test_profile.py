"""A profile holds the steps that were asked for, and changes nothing."""

from pathlib import Path

import pytest

from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.profile import FOLDER
from resnet_jax.training.run import run
from tests.training import tiny

SHORT = {"run.steps": 4, "data.synthetic_examples": 32}


def test_a_profile_begins_and_ends_with_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda folder: calls.append(f"start {Path(folder).name}"))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: calls.append("stop"))
    monkeypatch.setattr(
        "resnet_jax.training.run.RunTrainer.report", lambda _, step, *__: calls.append(str(step))
    )
    monkeypatch.setattr("resnet_jax.training.run.draw_run_curves", lambda *_, **__: None)
    monkeypatch.setattr("resnet_jax.training.run._say_summary", lambda *_: None)
    monkeypatch.setattr("resnet_jax.training.run.read_metrics", lambda _: [{}])
    run(tiny.get_config(**SHORT, **{"run.profile": "2-3"}), tmp_path)
    # A step is reported after the next one was begun.
    assert calls == [f"start {FOLDER}", "1", "2", "stop", "3", "4"]


def test_a_range_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the first and the last step, such as 10-15"):
        run(tiny.get_config(**{"run.profile": "10"}), tmp_path)

"""The examples run as they stand, and do what they say."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
def test_the_own_loop_learns_the_digits(capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = runpy.run_path(str(EXAMPLES / "own_loop.py"))["accuracy"]
    assert accuracy >= 0.97
    assert "of 360 digits are right" in capsys.readouterr().out

"""Runs that are killed again and again; three kills of one process are in tests/training/test_resume.py."""

import json

import pytest

from tests.faults.__main__ import main


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "kills"), [(1, 8), (2, 4)])
def test_kills_change_nothing(processes: int, kills: int, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--processes", processes, "--kills", kills, "--steps", 200, "--seed", 1, "--json"]
    assert main([str(argument) for argument in arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["kills"], report["restarts"], report["corrupt_loads"]) == (kills, kills, 0)
    assert report["identical"]
    assert report["steps_lost"] > 0

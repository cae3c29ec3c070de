import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from resnet_jax.console import ProgressBar, format_duration, format_table, print_json


def test_a_table_aligns_text_left_and_numbers_right():
    text = format_table(
        ["net", "error"],
        [["ResNet-20", "8.75"], ["a", "10.1"]],
        title="Errors",
        footer=["sum", "1"],
        caption="in %",
    )
    assert text.splitlines() == [
        "Errors",
        "net        error",
        "ResNet-20   8.75",
        "a           10.1",
        "sum            1",
        "in %",
    ]
    assert format_table(["a", "b"], [["long", "x"]], text_columns=2).splitlines() == ["a     b", "long  x"]
    assert format_table(["a", "b"], []) == "a  b"


def test_json_is_one_line(capsys):
    print_json({"a": [1, 2]})
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": [1, 2]}
    assert out.count("\n") == 1


def test_a_bar_is_drawn_on_terminals_only():
    for terminal in (False, True):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, width=80)
        with ProgressBar("runs", total=2, console=console) as bar:
            inner = bar.inner_console(lambda: "seed 1: ")
            inner.print("step 1\nstep 2")
            bar.advance()
            bar.say("1 of 2 [done]")
            bar.update(2, total=2)
        written = file.getvalue()
        assert "1 of 2 [done]" in written
        assert ("seed 1: step 2" in written) == terminal
        assert ("2/2" in written) == terminal


def test_the_ground_floor_imports_no_library():
    code = "import sys, resnet_jax.console, resnet_jax.errors; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"jax", "numpy", "flax", "rich", "etils", "absl"} & set(loaded.split())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (3725, "1 h 02 min"),
        (47 * 3600 + 3599, "47 h 59 min"),
        (51 * 3600, "2 d 03 h"),
    ],
)
def test_a_duration_has_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text

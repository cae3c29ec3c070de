"""The prose of docstrings, help, errors and docs keeps to the rules of plain English."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnet_jax.cli import COMMANDS, load_command

ROOT = Path(__file__).parents[1]
ROOMS = ("resnet_jax", "configs", "benchmarks", "examples")
PYTHON = [
    *sorted(
        path
        for room in ("resnet_jax", "configs", "benchmarks", "examples")
        for path in (ROOT / room).rglob("*.py")
    ),
    ROOT / "train.py",
]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

REFRAINS = {
    r"goes? on\b(?! the)": "resumes, continues",
    r"going on from": "resuming from",
    r"\banew\b": "again, from scratch",
    r"\bso many\b": "n, the number of",
    r"\b(is|are|be|was) told\b": "reports, is passed",
    r"\bmend(s|ed)?\b": "fix",
    r"\bsee to\b": "check, fix",
    r"\bwhat becomes of\b": "what happens to",
    r"\bof its own kind\b": "of that kind",
}
BRITISH = (
    r"\b(colou?r(?<!color)|centre|behaviour|neighbour|favour|grey|licence|labelled|modell)\w*"
    r"|\b(normali|optimi|initiali|recogni|generali|quanti|standardi|synchroni|organi)s(e|ed|es|ing|ation)\b"
    r"|\banalys(ed|ing)\b"
)
KEYS = re.compile(r"centre_crop|data\.colour(_deviation)?|\"centre\"|'centre'|`centre`")
"""Names of files and fields that keep their spelling, since files hold them."""
ENTRY = re.compile(r"^ {4,12}(\w+): (Of|Whose|Where|How many|Into which)\b", re.MULTILINE)
SECTIONS = re.compile(r"^ *(Args|Attributes|Returns|Yields):\n((?: +.*\n?|\n)*)", re.MULTILINE)


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the strings of a Python file that people read: docstrings, help and messages."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yields paragraphs of prose of a file, with their lines."""
    if path.suffix == ".py":
        yield from strings(path)
        return
    text = re.sub(
        r"```.*?```|`[^`\n]*`", lambda found: "\n" * found[0].count("\n"), path.read_text(), flags=re.DOTALL
    )
    yield from enumerate(text.splitlines(), start=1)


def found(pattern: str, paths: list[Path]) -> list[str]:
    """Returns where a pattern occurs: `file:line: text`."""
    places = []
    for path in paths:
        for line, text in prose(path):
            for match in re.finditer(pattern, KEYS.sub("", text), re.IGNORECASE):
                around = text[max(0, match.start() - 30) : match.end() + 20].replace("\n", " ")
                places.append(f"{path.relative_to(ROOT)}:{line}: {around}")
    return places


@pytest.mark.parametrize("pattern", REFRAINS)
def test_plain_verbs_stand_in_place_of_refrains(pattern: str) -> None:
    assert found(pattern, [*PYTHON, *PAGES]) == [], f"write: {REFRAINS[pattern]}"


def test_spelling_is_american() -> None:
    assert found(BRITISH, [*PYTHON, *PAGES]) == []


def test_no_entry_of_a_docstring_begins_with_a_fragment() -> None:
    places = []
    for path in PYTHON:
        for line, text in strings(path):
            for section in SECTIONS.finditer(text):
                places += [
                    f"{path.relative_to(ROOT)}:{line}: {entry[0].strip()}"
                    for entry in ENTRY.finditer(section[2])
                ]
    assert places == []


IMPERATIVES = re.compile(
    r"(Train|Evaluate|Predict|List|Print|Estimate|Convert|Measure|Reproduce|Compare|Write|Import|Export|Check|Detect)\b"
)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_an_imperative_and_says_defaults_and_examples(name: str) -> None:
    module, parser = load_command(name)
    assert IMPERATIVES.match(COMMANDS[name][1])
    assert COMMANDS[name][1].endswith(".")
    assert len(module.EXAMPLES) >= 2
    for action in parser._actions:
        optional = action.option_strings and not action.required and action.dest not in ("help", "json")
        if optional and action.help != "==SUPPRESS==":
            assert "(default:" in (action.help or ""), action.option_strings
        assert not re.match(r"(of|that|whose|to be)\b", action.help or ""), action.option_strings

"""What the text of a compiled TPU program tells: estimated cycles, and the collectives with their bytes."""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from math import prod

COLLECTIVE = re.compile(
    r" = (?P<shape>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?P<start>-start)?\("
)
LOOP = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
CALLED = re.compile(r"(?:true_computation|false_computation)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}")
_TWO_SIDED = ("all-gather", "collective-permute")  # Their start has the operand beside the result.


@dataclasses.dataclass(frozen=True)
class Collective:
    """The collectives of a kind in a program: their number, and the bytes of their results on a device."""

    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was read of a program.

    Attributes:
        cycles: The sum of the compiler's estimates over everything that runs, loops as often as they do; no
            communication.
        cycles_once: The same with the body of every loop counted once, as XLA's cost analysis counts it.
        collectives: By kind.
    """

    cycles: int
    cycles_once: int
    collectives: Mapping[str, Collective]


def read_program(text: str) -> Reading:
    """Returns what the text of a compiled program tells.

    A loop runs as often as the compiler says, or as the constant that its condition compares with, as loops
    of `lax.scan` do; where neither is there, once.
    Of branches all count.
    """
    computations, entry = _computations(text)
    cycles, once, counts, sizes = 0, 0, Counter[str](), Counter[str]()
    pending = [(entry, 1)]
    while pending:
        name, times = pending.pop()
        for line in computations.get(name, ()):
            estimate = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', line)))
            cycles += times * estimate
            once += estimate
            if match := COLLECTIVE.search(line):
                kind = match["kind"]
                counts[kind] += times
                sizes[kind] += times * _bytes(
                    match["shape"], half=bool(match["start"]) and kind in _TWO_SIDED
                )
            if match := LOOP.search(line):
                pending.append((match[2], times * _trips(line, computations.get(match[1], []))))
            for one, several in CALLED.findall(line):
                pending += [(branch.strip(" %"), times) for branch in (one or several).split(",")]
    return Reading(cycles, once, {kind: Collective(counts[kind], sizes[kind]) for kind in sorted(counts)})


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    computations: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if match := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            lines = computations[match[2]] = []
            entry = match[2] if match[1] else entry
        else:
            lines.append(line)
    return computations, entry


def _trips(loop: str, condition: list[str]) -> int:
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop):
        return int(known[1])
    text = "\n".join(condition)
    bounds = re.findall(r" = s(?:32|64)\[\]\S* constant\((\d+)\)", text)
    return int(bounds[0]) if len(bounds) == 1 and re.search(r" compare\(.*direction=LT", text) else 1


def _bytes(shape: str, *, half: bool) -> int:
    arrays = re.findall(r"\b(?:pred|(?:s|u|f|bf|c)(\d+)(?:e\w+)?)\[([\d,]*)\]", shape)
    return sum(
        max(1, int(bits or 8) // 8) * prod(map(int, filter(None, sides.split(","))))
        for bits, sides in arrays[len(arrays) // 2 if half else 0 :]
    )

"""Lifts the upper bounds of a requirements file, or sets them above what is installed.

`bounds.py --lift|--set FILE`.
"""

import re
import sys
from importlib.metadata import version
from pathlib import Path


def above(installed: str) -> str:
    """Returns the first version that is not to be trusted unseen.

    The next minor one of 0.x, the next major one otherwise.
    """
    major, minor = (int(part) for part in installed.split(".")[:2])
    return f"0.{minor + 1}" if major == 0 else str(major + 1)


action, path = sys.argv[1], Path(sys.argv[2])
lines = []
for line in path.read_text().splitlines():
    requirement, semicolon, marker = line.partition(";")
    requirement = re.sub(r",<[^,\s]+", "", requirement).rstrip()
    if action == "--set":
        name = re.split(r"[\[<>=]", requirement)[0]
        requirement += f",<{above(version(name))}"
    lines.append(requirement + (f"; {marker.strip()}" if semicolon else ""))
path.write_text("\n".join(lines) + "\n")

"""Prints the commands of a README that a reader can type here: the lines of its ```sh blocks, one each."""

import re
import sys
from pathlib import Path

text = Path(sys.argv[1]).read_text()
commands = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
for needed in ("pip install -e . && python train.py", "pip install -e '.[test]' && pytest"):
    if needed not in commands:
        sys.exit(f"{sys.argv[1]} lacks the command: {needed}")
print("\n".join(line for line in commands if line and not line.startswith("#")))

"""Whether this tree computes what another revision of it computes.

Curves, steps, forward passes and resumed runs, bit for bit.

    python benchmarks/compare_trees.py --old v0.1.0
    python benchmarks/compare_trees.py --old ../before --checks step --json

Each tree trains in processes of its own, through its own `train.py`, with the same environment. What is
compared: the losses and the final state of the default run, and the logits of ResNet-50, in float32; one
float64 step of every recipe, reduced to a batch of 4 and images of 64 pixels; and runs that the old tree
began and this one resumes. Exits with 1 if anything differs.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

from resnet_jax.training.logging import TIME_FIELDS

NEW = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-12
"""Of the norm of an array, for steps that have a reason."""

REASONS: dict[str, str] = {}
"""Why the step of a recipe is not bit-identical, by recipe; those that are not here must be."""

CHECKS = ("default", "forward", "step", "resume")
SMALL = {
    "batch_size": "4",
    "model.group_size": "2",
    "model.dtype": "float64",
    "data.source": "synthetic",
    "data.train_split": "train",
    "data.test_split": "test",
    "data.synthetic_examples": "32",
    "data.synthetic_classes": "10",
}
RECIPES: dict[str, dict[str, str]] = {
    "digits_resnet20": SMALL | {"data.source": "digits"},
    "cifar10": SMALL,
    "cifar10:resnet110": SMALL,
    "cifar10:plain20,cifar100,validation": SMALL,
    "imagenet:resnet50": SMALL | {"data.synthetic_image_size": "64"},
    "imagenet:plain18": SMALL | {"data.synthetic_image_size": "64"},
    "imagenet_pod": SMALL | {"data.synthetic_image_size": "64"},
    "finetune:{begun}": SMALL | {"data.source": "digits"},
}
RESUMED = {
    "a checkpoint of the digits": {
        "model.name": "cifar_resnet8",
        "batch_size": "16",
        "model.group_size": "8",
    },
    "a checkpoint with data.colour": {
        "model.name": "cifar_resnet8",
        "batch_size": "16",
        "model.group_size": "8",
        "data.source": "synthetic",
        "data.synthetic_examples": "256",
        "data.synthetic_image_size": "16",
        "data.crop": "centre",
        "data.colour": "imagenet",
        "data.colour_deviation": "0.2",
        "data.mirror": "True",
    },
}
RENAMED = {"data.colour": "data.color", "data.colour_deviation": "data.color_deviation"}
RENAMED_VALUES = {"data.crop": {"centre": "center"}}

FORWARD = """
import sys, jax, numpy as np
from resnet_jax import create_model
model = create_model("resnet50", num_classes=1000)
images = np.random.RandomState(0).standard_normal((2, 224, 224, 3)).astype(np.float32)
variables = model.init(jax.random.key(0), images)
logits = jax.jit(lambda variables, images: model.apply(variables, images, train=False))(variables, images)
leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables)}
np.savez(sys.argv[1], logits=logits, **leaves)
"""
CHECKPOINT = """
import sys, numpy as np
from resnet_jax.training.checkpoints import read_checkpoint
np.savez(sys.argv[2], **read_checkpoint(sys.argv[1]).arrays)
"""
SPELLING = "from resnet_jax.training.config import base_config; print(hasattr(base_config().data, 'color'))"

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Tree:
    """A checkout, and the directory in which its processes run."""

    root: Path
    scratch: Path
    american: bool = True

    def python(self, *arguments: str) -> str:
        """Returns what a Python program of this tree prints."""
        environment = os.environ | {
            "PYTHONPATH": str(self.root),
            "JAX_COMPILATION_CACHE_DIR": str(self.scratch / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        command = [sys.executable, *arguments]
        ran = subprocess.run(
            command, cwd=self.scratch, env=environment, capture_output=True, text=True, check=False
        )
        if ran.returncode:
            sys.exit(f"{self.root}: {' '.join(arguments)} failed:\n{ran.stderr[-4000:]}")
        return ran.stdout

    def train(self, spec: str, workdir: Path, fields: dict[str, str], **operation: int) -> None:
        """Trains a recipe with some of its fields set, given by their old names."""
        fields = (
            fields
            | {"run.tensorboard": "False"}
            | {f"run.{name}": str(value) for name, value in operation.items()}
        )
        if self.american:
            fields = {
                RENAMED.get(name, name): RENAMED_VALUES.get(name, {}).get(value, value)
                for name, value in fields.items()
            }
        settings = [f"--config.{name}={value}" for name, value in fields.items()]
        self.python(str(self.root / "train.py"), f"--config={spec}", f"--workdir={workdir}", *settings)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How far two sets of arrays differ.

    Attributes:
        name: What was compared.
        arrays: Their number, records of metrics.jsonl included.
        identical: Number of them that are equal bit for bit.
        worst: Largest difference of an array by its norm, relative.
        where: The array of that.
        reason: Why they may differ by rounding.
    """

    name: str
    arrays: int
    identical: int
    worst: float
    where: str
    reason: str = ""

    @property
    def same(self) -> bool:
        """Whether nothing differs, or what differs has a reason and is rounding."""
        return self.identical == self.arrays or (bool(self.reason) and self.worst <= TOLERANCE)


def compare(name: str, old: Arrays, new: Arrays, reason: str = "") -> Outcome:
    """Compares arrays of the same name; one that only one side has counts as a difference without end."""
    identical, worst, where = 0, 0.0, ""
    for key in sorted(old.keys() | new.keys()):
        distance = float("inf")
        if (
            key in old
            and key in new
            and old[key].shape == new[key].shape
            and old[key].dtype == new[key].dtype
        ):
            if old[key].tobytes() == new[key].tobytes():
                identical += 1
                continue
            one, other = np.asarray(old[key], np.float64), np.asarray(new[key], np.float64)
            distance = float(np.linalg.norm(one - other) / max(np.linalg.norm(one), 1e-300))
        if not distance <= worst:
            worst, where = distance, key
    return Outcome(name, len(old.keys() | new.keys()), identical, worst, where, reason)


def state(reader: Tree, workdir: Path, *, since: int = 0) -> Arrays:
    """Returns the newest checkpoint of a run and its records after a step, without those of the clock."""
    path = workdir.with_suffix(".npz")
    reader.python("-c", CHECKPOINT, str(workdir), str(path))
    with np.load(path) as file:
        arrays = dict(file)
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        values = {
            f"step {record['step']} {key}": np.float64(v)
            for key, v in record.items()
            if key not in TIME_FIELDS
        }
        arrays |= values if record["step"] > since else {}
    return arrays


def check_default(old: Tree, new: Tree) -> Iterator[Outcome]:
    """The default run, whole."""
    for tree, side in ((old, "old"), (new, "new")):
        tree.train("digits_resnet20", tree.scratch / f"default-{side}", {})
    states = [state(new, new.scratch / f"default-{side}") for side in ("old", "new")]
    yield compare("the default run", *states)


def check_forward(old: Tree, new: Tree) -> Iterator[Outcome]:
    """ResNet-50's initial weights and logits."""
    results = []
    for tree, side in ((old, "old"), (new, "new")):
        path = tree.scratch / f"forward-{side}.npz"
        tree.python("-c", FORWARD, str(path))
        with np.load(path) as file:
            results.append(dict(file))
    yield compare("ResNet-50 forward, float32", *results)


def check_step(old: Tree, new: Tree) -> Iterator[Outcome]:
    """One float64 step of every recipe."""
    begun = old.scratch / "begun"
    old.train("digits_resnet20", begun, RESUMED["a checkpoint of the digits"], steps=3)
    for spec, fields in RECIPES.items():
        name, states = spec.partition(":{")[0], []
        for tree, side in ((old, "old"), (new, "new")):
            workdir = tree.scratch / f"step-{re.sub('[^a-z0-9]', '_', name)}-{side}"
            tree.train(spec.format(begun=begun), workdir, fields, steps=1)
            states.append(state(new, workdir))
        yield compare(f"one step of {name}", *states, reason=REASONS.get(name, ""))


def check_resume(old: Tree, new: Tree) -> Iterator[Outcome]:
    """Runs that the old tree begins, resumed by either."""
    for number, (name, fields) in enumerate(RESUMED.items()):
        states = []
        begun = old.scratch / f"resume-{number}"
        every = {"checkpoint_every": 5, "evaluate_every": 5}
        old.train("digits_resnet20", begun, fields, steps=10, **every)
        for tree, side in ((old, "old"), (new, "new")):
            workdir = tree.scratch / f"resume-{number}-{side}"
            shutil.copytree(begun, workdir)
            tree.train("digits_resnet20", workdir, fields, steps=20, **every)
            states.append(state(new, workdir))
        yield compare(f"{name}, resumed", *states)


@contextlib.contextmanager
def checkout(revision: str, scratch: Path) -> Iterator[Path]:
    """Yields the directory of a revision; one that is a directory already is taken as it is."""
    if Path(revision).is_dir():
        yield Path(revision).resolve()
        return
    git = ["git", "-C", str(NEW), "worktree"]
    path = scratch / "old"
    subprocess.run([*git, "add", "--quiet", "--detach", str(path), revision], check=True)
    try:
        yield path
    finally:
        subprocess.run([*git, "remove", "--force", str(path)], check=True)


def show(outcome: Outcome) -> None:
    """Prints a line of the table."""
    result = (
        "identical"
        if outcome.identical == outcome.arrays
        else f"worst {outcome.worst:.1e} in {outcome.where}"
    )
    if outcome.identical < outcome.arrays and outcome.same:
        result += f" ({outcome.reason})"
    print(f"{outcome.name:55} {outcome.identical:5} of {outcome.arrays:5}  {result}", flush=True)


def main() -> int:
    """Compares, prints, and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--old", required=True, metavar="REVISION_OR_DIR", help="what this tree is compared with"
    )
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=CHECKS, help="default: all")
    parser.add_argument("--json", action="store_true", help="print one JSON object (default: a table)")
    arguments = parser.parse_args()
    kinds: dict[str, Callable[[Tree, Tree], Iterator[Outcome]]] = {
        "default": check_default,
        "forward": check_forward,
        "step": check_step,
        "resume": check_resume,
    }
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="compare_trees_") as temporary:
        scratch = Path(temporary)
        with checkout(arguments.old, scratch) as root:
            old, new = (
                dataclasses.replace(tree, american=tree.python("-c", SPELLING).strip() == "True")
                for tree in (Tree(root, scratch), Tree(NEW, scratch))
            )
            for kind in arguments.checks:
                for outcome in kinds[kind](old, new):
                    outcomes.append(outcome)
                    if not arguments.json:
                        show(outcome)
    same = all(outcome.same for outcome in outcomes)
    if arguments.json:
        versions = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
        checks = [dataclasses.asdict(outcome) | {"same": outcome.same} for outcome in outcomes]
        machine = {"platform": platform.platform(), "cores": os.cpu_count()}
        print(
            json.dumps(
                {"same": same, "checks": checks, "versions": versions, "machine": machine}, default=str
            )
        )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

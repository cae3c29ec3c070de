"""How fast this tree is, over another revision of it: steps, compilation, host time, in turns on one machine.

    python benchmarks/compare_tree_times.py --old v0.1.0
    python benchmarks/compare_tree_times.py --old ../before --benchmarks steps --nets cifar_resnet20 --json

Each tree runs its own benchmarks in processes of its own. `steps` takes turns of four training steps and
inferences of `cpu_step.py`'s nets (needs PyTorch, as that script does), the first of which does not count;
`compile` and `host` alternate whole runs of `compile_time.py` and `host_time.py`. Printed are medians, and
the ratios of this tree to the other.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median

NEW = Path(__file__).resolve().parent.parent
STEPS = """
import json, sys, time
sys.path.insert(0, "benchmarks")
import jax
jax.config.update("jax_enable_compilation_cache", False)
import cpu_step
batch, size = cpu_step.NETS[sys.argv[1]]
cpu_step.prepare_backend(batch, None, 0)
functions = cpu_step.ours(sys.argv[1], batch, size)
for line in sys.stdin:
    taken = []
    for _ in range(4):
        start = time.perf_counter()
        functions[int(line)]()
        taken.append(time.perf_counter() - start)
    print(json.dumps(taken[1:]), flush=True)
"""


def environment(tree: Path) -> dict[str, str]:
    """Returns the environment of a tree's processes."""
    return {**os.environ, "PYTHONPATH": str(tree)}


def measure_steps(trees: dict[str, Path], net: str, repetitions: int) -> dict[str, dict[str, float]]:
    """Returns the median seconds of a training step and an inference of a net, by tree."""
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-c", STEPS, net],
            cwd=tree,
            env=environment(tree),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, tree in trees.items()
    }
    results = {}
    for which, what in enumerate(("train", "infer")):
        taken: dict[str, list[float]] = {name: [] for name in trees}
        for number in range(repetitions + 1):
            for name, process in processes.items():
                assert process.stdin
                assert process.stdout
                print(which, file=process.stdin, flush=True)
                times = json.loads(process.stdout.readline())
                taken[name] += times if number else []
        results[what] = {name: median(times) for name, times in taken.items()}
    for process in processes.values():
        process.communicate()
    return results


def run_script(tree: Path, *command: str) -> dict[str, float]:
    """Returns the numbers that a benchmark of a tree prints as JSON."""
    arguments = [sys.executable, *command, "--json"]
    done = subprocess.run(
        arguments, cwd=tree, env=environment(tree), check=True, text=True, stdout=subprocess.PIPE
    )
    report = json.loads(done.stdout.splitlines()[-1])
    numbers = {name: value for name, value in report.items() if isinstance(value, float)}
    for name, row in report.get("seconds", {}).items():
        numbers |= {f"{name} {part}": value for part, value in row.items()}
    numbers |= {f"{name} ms": value for name, value in report.get("wall_ms", {}).items()}
    return numbers


def measure_script(trees: dict[str, Path], repetitions: int, *command: str) -> dict[str, dict[str, float]]:
    """Returns the medians of what a benchmark prints, by its name and by tree; the trees take turns."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for _ in range(repetitions):
        for name, tree in trees.items():
            runs[name].append(run_script(tree, *command))
    return {
        what: {name: median(one[what] for one in several) for name, several in runs.items()}
        for what in runs["new"][0]
    }


@contextlib.contextmanager
def checked_out(old: str) -> Iterator[Path]:
    """Yields the directory of the other tree: the one that is named, or a worktree of the revision."""
    if Path(old).is_dir():
        yield Path(old).resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "old"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, old], cwd=NEW, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=NEW, check=True)


def main() -> None:
    """Prints a line for every measurement, or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", required=True, metavar="TREE", help="directory or revision to compare with")
    parser.add_argument("--benchmarks", nargs="+", default=["steps", "compile", "host"], metavar="NAME")
    parser.add_argument("--nets", nargs="+", default=["cifar_resnet20", "resnet50"], metavar="NET")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with checked_out(arguments.old) as old:
        trees, results = {"old": old, "new": NEW}, {}
        if "steps" in arguments.benchmarks:
            for net in arguments.nets:
                found = measure_steps(trees, net, arguments.repetitions)
                results |= {f"{net} {what}": seconds for what, seconds in found.items()}
        if "compile" in arguments.benchmarks:
            script = ("benchmarks/compile_time.py", "--depths", "20", "--steps", "0", "--repetitions", "1")
            results |= measure_script(trees, arguments.repetitions, *script)
        if "host" in arguments.benchmarks:
            results |= measure_script(
                trees, arguments.repetitions, "benchmarks/host_time.py", "--rounds", "5"
            )
    ratios = {what: both["new"] / both["old"] for what, both in results.items()}
    if arguments.json:
        machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
        print(
            json.dumps(
                {"values": results, "ratio_new_to_old": ratios, "jax": version("jax"), "machine": machine}
            )
        )
        return
    for what, both in results.items():
        print(f"{what:40} old {both['old']:9.4f}  new {both['new']:9.4f}  new/old {ratios[what]:.3f}")


if __name__ == "__main__":
    main()

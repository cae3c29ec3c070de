"""Kills a tiny run again and again, and reports what it cost.

    python -m tests.faults --kills 30 --seed 0
    python -m tests.faults --processes 2 --kills 30 --json

A run of an eight-layer net goes through undisturbed, keeping every checkpoint. The same run is then killed
(SIGKILL) while it starts, at random steps and while it saves, and started again with the same command until
it is done. Exit code 0 means: every restart went on from a whole checkpoint, equal to the undisturbed run's
and no older than promised, and the end is the same, bit for bit. With two processes one of them, drawn, is
killed, and the other has to be gone within a minute; while they start, both are killed. 30 kills take some
minutes.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.faults.harness import Group, disturb
from tests.training import processes


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report, and returns 0 if all that is promised held."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2, 4), help="that train together")
    parser.add_argument("--steps", type=int, default=400, help="of the run")
    parser.add_argument("--interval", type=int, default=7, help="steps from one checkpoint to the next")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    flags = [f"--config.run.steps={arguments.steps}", f"--config.run.checkpoint_every={arguments.interval}"]
    with tempfile.TemporaryDirectory(prefix="resnet_jax_faults_") as directory, ExitStack() as stack:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{directory}/compiled")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
        undisturbed, workdir = Path(directory, "undisturbed"), Path(directory, "disturbed")

        def launch(workdir: Path, *more: str) -> Group:
            return stack.enter_context(processes.started(workdir, arguments.processes, *flags, *more))

        for code, _, err in processes.finish(launch(undisturbed, "--config.run.keep=1000000")):
            if code:
                sys.exit(f"the undisturbed run failed: {err}")
        report = disturb(
            lambda: launch(workdir),
            workdir,
            undisturbed,
            kills=arguments.kills,
            seed=arguments.seed,
            interval=arguments.interval,
        )
    given = {"processes": arguments.processes, "seed": arguments.seed, "steps": arguments.steps}
    found = {**dataclasses.asdict(report), "kept": report.kept, **given}
    print(
        json.dumps(found)
        if arguments.json
        else "\n".join(f"{name}: {value}" for name, value in found.items())
    )
    return 0 if report.kept else 1


if __name__ == "__main__":
    sys.exit(main())

"""Seeds trained together, by `vmap` of the step over their states, against one after the other.

    python benchmarks/vmapped_seeds.py
    python benchmarks/vmapped_seeds.py --seeds 8 --steps 20 --json

A step is that of every seed once; the two ways take turns, and medians are printed. `ratio` is vmapped over
separate: below 1 `vmap` is the faster. `resnet-jax compare --vmap auto` rests on it: on CPU seeds are trained
one by one, elsewhere the same is measured before training. Compilation is left out; together the seeds
compile once, one by one each of them does.
"""

import argparse
import json
import os
from typing import Any

import jax

from resnet_jax.training.network import prepare_jax
from resnet_jax.training.recipes import load_recipe
from resnet_jax.training.vmapped_seeds import seconds_per_step

CONFIGS: dict[str, list[tuple[str, str]]] = {
    "cifar_resnet20_batch128": [],
    "cifar_resnet8_batch128": [("model.name", "cifar_resnet8")],
    "cifar_resnet8_batch16": [
        ("model.name", "cifar_resnet8"),
        ("batch_size", "16"),
        ("model.group_size", "8"),
    ],
}
"""Changes of digits_resnet20."""


def main() -> None:
    """Prints a line a config, or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report: dict[str, Any] = {
        "seeds": arguments.seeds,
        "cores": len(os.sched_getaffinity(0)),
        "jax": jax.__version__,
    }
    for name in arguments.configs:
        config = load_recipe("digits_resnet20", CONFIGS[name])
        prepare_jax(config)
        taken = seconds_per_step(config, range(arguments.seeds), steps=arguments.steps)
        ratio = taken["together"] / taken["separate"]
        report |= {"platform": jax.default_backend(), f"ratio_{name}": ratio, f"seconds_{name}": taken}
        if not arguments.json:
            shown = ", ".join(f"{way} {1e3 * seconds:.0f}" for way, seconds in taken.items())
            print(f"{name}, {arguments.seeds} seeds, ms: {shown}; vmapped / separate {ratio:.2f}", flush=True)
    if arguments.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()

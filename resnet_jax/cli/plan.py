"""`resnet-jax plan`: what a recipe needs on TPU slices, by the TPU compiler and without a TPU."""

import argparse
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

from resnet_jax.cli import option, positive_number
from resnet_jax.console import format_table, print_json
from resnet_jax.errors import UsageError
from resnet_jax.parallel import DeviceError

if TYPE_CHECKING:
    from resnet_jax.training.save_time import Bandwidth

EXAMPLES = (
    "resnet-jax plan --config imagenet --topology v5e:2x2 --price 1.2",
    "resnet-jax plan --config imagenet_pod:32768 --topology v5e:16x16 v4:4x4x4 v6e:8x8",
    "resnet-jax plan --config imagenet --topology v5e:4x4 --measure-save gs://bucket/file --grace 15",
    "resnet-jax plan --config imagenet --set batch_size=512 model.dtype=bfloat16 --topology v5e:2x2 --json",
)
PlanRecord: TypeAlias = dict[str, Any]
"""A plan as JSON, with the names of its recipe and its network."""


OPTIONS = (
    option("--config", required=True, metavar="NAME", help="recipe, as `resnet-jax train` takes it"),
    option(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="change fields of the recipe (default: none)",
    ),
    option(
        "--topology",
        nargs="+",
        required=True,
        metavar="CHIP:GRID",
        help="slice to plan for, such as v5e:2x2 or v4:4x4x4; several give a table",
    ),
    option(
        "--price",
        type=float,
        default=0.0,
        metavar="P",
        help="price of a chip for an hour, to estimate the cost (default: no cost)",
    ),
    option(
        "--save-bandwidth",
        type=positive_number,
        metavar="MB/S",
        help="megabytes that a checkpoint is written with in a second (default: 100, an assumption)",
    ),
    option(
        "--measure-save",
        metavar="FILE",
        help="write 128 MiB to this new file or gs:// URL, remove it, and use its bandwidth (default: no)",
    ),
    option(
        "--grace",
        type=positive_number,
        metavar="SECONDS",
        help="seconds from SIGTERM to the end of a preempted machine (default: 30, those of a spot VM; a pod "
        "of GKE has 15, and SLURM those of --signal)",
    ),
    option(
        "--classes",
        type=int,
        metavar="N",
        help="number of classes, if the dataset is not available on this machine (default: the recipe's)",
    ),
    option(
        "--no-search",
        action="store_true",
        help="do not look for a smaller batch if the recipe's does not fit (default: look)",
    ),
)


def execute(arguments: argparse.Namespace) -> None:
    """Prints the plan of a recipe on one slice, or a table of several.

    Raises:
        UsageError: There is no such slice, libtpu is missing, the recipe fits none of the slices, or the
            file of --measure-save cannot be written.
    """
    from resnet_jax.parallel.chips import parse_topology
    from resnet_jax.parallel.plan import prepare_compiler
    from resnet_jax.training.config import parse_override
    from resnet_jax.training.planning import make_plan
    from resnet_jax.training.recipes import load_recipe
    from resnet_jax.training.save_time import TPU_VM_GRACE

    topologies = [parse_topology(name) for name in arguments.topology]
    config = load_recipe(arguments.config, map(parse_override, arguments.set))
    bandwidth = _bandwidth(arguments)
    prepare_compiler()
    plans: list[PlanRecord] = []
    saves: list[list[str]] = []
    for topology in topologies:
        print(f"compiling {config.model.name} for {topology.name}, which takes minutes …", file=sys.stderr)
        plan = make_plan(
            config,
            topology,
            price=arguments.price,
            classes=arguments.classes,
            search=not arguments.no_search,
            bandwidth=bandwidth,
            grace_seconds=arguments.grace or TPU_VM_GRACE,
        )
        saves.append(plan.save.describe())
        plans.append({"config": arguments.config, "model": config.model.name} | plan.to_json())
    if arguments.json:
        print_json(plans[0] if len(plans) == 1 else {"plans": plans})
    else:
        print(_page(plans[0], saves[0]) if len(plans) == 1 else _table(plans, saves))
    if not any(plan["fits"] for plan in plans):
        raise DeviceError("; ".join(map(_why_not, plans)))


def _bandwidth(arguments: argparse.Namespace) -> "Bandwidth":
    from resnet_jax.training.save_time import ASSUMED, MEGABYTE, Bandwidth, measure_bandwidth

    if arguments.save_bandwidth and arguments.measure_save:
        raise UsageError("--save-bandwidth and --measure-save both set the bandwidth of a save; give one")
    if arguments.measure_save:
        return measure_bandwidth(arguments.measure_save)
    given = arguments.save_bandwidth
    return Bandwidth(given * MEGABYTE, "given") if given else ASSUMED


def _page(plan: PlanRecord, save: list[str]) -> str:
    lines = [
        f"{plan['config']} ({plan['model']}), batch {plan['batch_size']}, on {plan['topology']}: "
        f"{plan['chips']} chips, {plan['devices']} devices, {plan['batch_per_chip']:g} images a chip",
        f"memory a chip   {_gib(plan['hbm_bytes'])} of {_gib(plan['hbm_capacity_bytes'])}: "
        f"{_gib(plan['hbm_argument_bytes'])} state and batch, {_gib(plan['hbm_temporary_bytes'])} during "
        "the step",
    ]
    if plan["data_is_stand_in"]:
        lines.insert(
            1,
            "the dataset is not here: image size and classes are those of the synthetic data (--classes)",
        )
    if plan["fits"]:
        lines += _estimates(plan)
    lines += _save_lines(save)
    return "\n".join([*lines, f"This is {plan['note']}."])


def _estimates(plan: PlanRecord) -> list[str]:
    cycles = "clock not published" if plan["cycles_seconds"] is None else _ms(plan["cycles_seconds"])
    collectives = ", ".join(
        f"{one['count']} {kind} of {one['bytes'] / 1e6:.1f} MB in all"
        for kind, one in plan["collectives"].items()
    )
    cost = "" if plan["cost_estimate"] is None else f", {plan['cost_estimate']:,.2f} at the price given"
    return [
        f"work a chip     {plan['flops'] / 1e12:.3f} TFLOP, {plan['bytes_accessed'] / 1e9:.2f} GB moved, "
        f"{plan['cycles'] / 1e6:.2f} million cycles",
        f"roofline        arithmetic {_ms(plan['arithmetic_seconds'])}, bandwidth "
        f"{_ms(plan['bandwidth_seconds'])}: bound by {plan['bound_by']}; the compiler's cycles {cycles}",
        f"collectives     {collectives or 'none'}",
        f"a step          {_ms(plan['step_seconds_estimate'])}: {plan['images_per_second_estimate']:,.0f} "
        "images/s on the slice",
        f"the recipe      {plan['steps']:,} steps: {plan['hours_estimate']:.2f} hours{cost}",
    ]


def _save_lines(save: list[str]) -> list[str]:
    return [f"{'a save' if number == 0 else '':<16}{line}" for number, line in enumerate(save)]


def _table(plans: list[PlanRecord], saves: list[list[str]]) -> str:
    header = ("topology", "chips", "a chip", "memory", "of", "step", "images/s", "hours", "cost", "bound by")
    rows = []
    for plan in plans:
        row = [plan["topology"], str(plan["chips"]), f"{plan['batch_per_chip']:g}"]
        row += [_gib(plan["hbm_bytes"]), _gib(plan["hbm_capacity_bytes"])]
        if plan["fits"]:
            cost = "-" if plan["cost_estimate"] is None else f"{plan['cost_estimate']:,.2f}"
            row += [_ms(plan["step_seconds_estimate"]), f"{plan['images_per_second_estimate']:,.0f}"]
            row += [f"{plan['hours_estimate']:.2f}", cost, plan["bound_by"]]
        else:
            row += [
                "does not fit",
                "-",
                "-",
                "-",
                f"largest batch {plan['largest_batch_that_fits'] or 'not found'}",
            ]
        rows.append(row)
    table = format_table(header, rows, caption=f"This is {plans[0]['note']}.", text_columns=len(header))
    lines = []
    for plan, save in zip(plans, saves, strict=True):  # What all have in common stands once.
        lines += [line if line in saves[0][:2] else f"{plan['topology']}: {line}" for line in save]
    return "\n".join([table, "", *_save_lines(list(dict.fromkeys(lines)))])


def _why_not(plan: PlanRecord) -> str:
    largest = plan["largest_batch_that_fits"]
    instead = (
        f"the largest batch found to fit is {largest} (--set batch_size={largest})"
        if largest
        else "no smaller batch was found to fit"
    )
    what = f"{plan['model']} with a batch of {plan['batch_size']}"
    return f"{what} does not fit the memory of {plan['topology']}; {instead}"


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"

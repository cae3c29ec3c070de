"""`resnet-jax export`: weights, or a program, as a file that needs nothing of this package."""

import argparse
import os

from resnet_jax.cli import TRUST_CODE, option
from resnet_jax.console import print_json
from resnet_jax.interop.exporter import FORMATS, export

EXAMPLES = (
    "resnet-jax export --workdir runs/digits_resnet20 --to digits.safetensors",
    "resnet-jax export --workdir imported/resnet50 --to resnet50.stablehlo",
    "resnet-jax export --workdir imported/resnet50 --to resnet50.onnx --json",
)


OPTIONS = (
    option("--workdir", required=True, help="directory of a run or an import"),
    option(
        "--to", required=True, metavar="FILE", help=f"file to write, with the suffix .{', .'.join(FORMATS)}"
    ),
    option("--format", metavar="FORMAT", help=f"{', '.join(FORMATS)} (default: the suffix of --to)"),
    option("--step", type=int, help="checkpoint to export (default: the newest)"),
    option("--overwrite", action="store_true", help="replace a file that exists (default: refuse)"),
    TRUST_CODE,
)


def execute(arguments: argparse.Namespace) -> None:
    """Writes the file and its record, and prints what they hold."""
    exported = export(
        arguments.workdir,
        arguments.to,
        file_format=arguments.format,
        step=arguments.step,
        overwrite=arguments.overwrite,
    )
    if arguments.json:
        found = {
            "file": os.fspath(exported.file),
            "record": os.fspath(exported.record),
            "format": exported.file_format,
            "model": exported.model,
            "step": exported.step,
            "bytes": exported.size,
            "notes": list(exported.notes),
        }
        print_json(found)
        return
    print(
        f"{exported.file}: {exported.model} of step {exported.step} as {exported.file_format}, "
        f"{exported.size / 1e6:,.1f} MB"
    )
    print(f"  {exported.record} has its preprocessing and its classes")
    print("\n".join(f"  {note}" for note in exported.notes), end="\n" if exported.notes else "")

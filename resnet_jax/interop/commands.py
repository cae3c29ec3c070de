"""`resnet-jax export`: its arguments, and what it prints."""

import argparse
import json
import os

from resnet_jax.interop.exporting import FORMATS, export


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `export`."""
    parser.add_argument("--workdir", required=True, help="of a run or an import")
    parser.add_argument(
        "--to", required=True, metavar="FILE", help=f"to be made, with the suffix .{', .'.join(FORMATS)}"
    )
    parser.add_argument(
        "--format", metavar="FORMAT", help=f"{', '.join(FORMATS)} (default: that of the suffix)"
    )
    parser.add_argument("--step", type=int, help="of the checkpoint (default: the newest)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")


def export_command(arguments: argparse.Namespace) -> None:
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
        print(json.dumps(found))
        return
    print(
        f"{exported.file}: {exported.model} of step {exported.step} as {exported.file_format}, {exported.size / 1e6:,.1f} MB"
    )
    print(f"  {exported.record} has its preprocessing and its classes")
    print("\n".join(f"  {note}" for note in exported.notes), end="\n" if exported.notes else "")

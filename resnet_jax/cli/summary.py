"""`resnet-jax summary`: output shape, parameters and multiply-adds of a network, by layer."""

import argparse

from resnet_jax.cli import option
from resnet_jax.console import print_json
from resnet_jax.models import ModelError, create_model, default_image_size, summarize

EXAMPLES = (
    "resnet-jax summary resnet50",
    "resnet-jax summary resnet34 --shortcut C",
    "resnet-jax summary resnet50 --variant resnext:32,4 --variant squeeze_excitation",
    "resnet-jax summary resnet50 --stride-on 3x3 --image-size 288 --json",
)


OPTIONS = (
    option("name", metavar="NAME", help="name of the network; `resnet-jax list` prints them"),
    option("--shortcut", help="A, B or C (default: A in the CIFAR family, B in the ImageNet family)"),
    option("--stride-on", help="stride of bottlenecks: 1x1 (the paper) or 3x3 (v1.5) (default: 1x1)"),
    option(
        "--variant",
        action="append",
        dest="variants",
        metavar="NAME",
        help="variant to apply, may be repeated; `resnet-jax list --variants` prints them (default: none)",
    ),
    option(
        "--image-size",
        type=int,
        metavar="N",
        help="side of the images in pixels (default: 32 for CIFAR, 224 for ImageNet)",
    ),
)


def execute(arguments: argparse.Namespace) -> None:
    """Prints a line for every layer, and the sums.

    Raises:
        ModelError: There is no such network, or an option does not fit it.
    """
    options = {name: getattr(arguments, name) for name in ("shortcut", "stride_on", "variants")}
    model = create_model(arguments.name, **{name: value for name, value in options.items() if value})
    size = arguments.image_size if arguments.image_size is not None else default_image_size(arguments.name)
    if size < 1:
        raise ModelError(f"--image-size is {size}; it must be a number of pixels above 0")
    summary = summarize(model, size)
    if arguments.json:
        print_json(summary.to_json(arguments.name))
    else:
        print(summary.to_table())

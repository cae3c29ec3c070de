"""`resnet-jax import`: weights of other frameworks, as a run directory."""

import argparse

from resnet_jax.cli import option
from resnet_jax.console import print_json
from resnet_jax.interop import import_weights
from resnet_jax.interop.foreign_weights import read_class_names

EXAMPLES = (
    "resnet-jax import resnet50.pth --to imported/resnet50",
    "resnet-jax import ResNet-50-model.caffemodel --mean ResNet_mean.binaryproto --to imported/authors50",
)


OPTIONS = (
    option(
        "source",
        metavar="SOURCE",
        help="file of torch.save or safetensors, .caffemodel, or a folder with config.json",
    ),
    option("--to", required=True, metavar="WORKDIR", help="directory to create"),
    option(
        "--classes",
        type=int,
        metavar="N",
        help="number of classes; another one gives a fresh last layer (default: the source's)",
    ),
    option(
        "--class-names",
        metavar="FILE",
        help="one name on every line, or a JSON or Python list or dict (default: the source's, if any)",
    ),
    option(
        "--stride-on",
        choices=("1x1", "3x3"),
        help="stride of bottlenecks, if the file does not tell (default: 3x3)",
    ),
    option(
        "--shortcut",
        choices=("A", "A_centered"),
        help="zeros of a CIFAR net's shortcuts: behind the channels, or on both sides (default: A_centered)",
    ),
    option(
        "--mean",
        help="image mean of a .caffemodel: FILE.binaryproto, or red,green,blue in pixels (default: none)",
    ),
)


def execute(arguments: argparse.Namespace) -> None:
    """Imports the weights, and prints what they are."""
    imported = import_weights(
        arguments.source,
        arguments.to,
        num_classes=arguments.classes,
        stride_on=arguments.stride_on,
        mean=arguments.mean,
        shortcut=arguments.shortcut,
        class_names=read_class_names(arguments.class_names) if arguments.class_names else (),
    )
    model = imported.model_arguments
    if arguments.json:
        print_json({"workdir": arguments.to, "model": model, "notes": list(imported.notes)})
        return
    print(f"{model['name']}, {model['num_classes']} classes, in {arguments.to}")
    for note in imported.notes:
        print(f"  {note}")

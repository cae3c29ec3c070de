"""`resnet-jax COMMAND`: everything but training. Text for people, one JSON object with `--json`."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from resnet_jax.entry import guard

Command = Callable[[argparse.Namespace], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code; see `resnet_jax.entry` for its values."""
    arguments = build_parser().parse_args(argv)
    return guard(lambda: arguments.command(arguments))


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="resnet-jax",
        description="Residual nets on JAX: what there is to do with them beside training, which is `python train.py`.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    _add_list(commands)

    summary = _add(
        commands,
        "summary",
        _summary,
        "output shape, parameters and multiply-adds of a net, by layer",
        "resnet-jax summary resnet50",
        "resnet-jax summary resnet34 --shortcut C",
        "resnet-jax summary resnet50 --variant resnext:32,4 --variant squeeze_excitation",
        "resnet-jax summary resnet50 --stride-on 3x3 --image-size 288 --json",
    )
    summary.add_argument("name", metavar="NAME", help="of the net; `resnet-jax list` prints them")
    summary.add_argument(
        "--shortcut", help="A, B or C (default: A in the CIFAR family, B in the ImageNet family)"
    )
    summary.add_argument("--stride-on", help="of bottlenecks: 1x1 (the paper, default) or 3x3 (v1.5)")
    summary.add_argument(
        "--variant", action="append", dest="variants", metavar="NAME", help="of `resnet-jax list --variants`"
    )
    summary.add_argument(
        "--image-size",
        type=int,
        metavar="N",
        help="pixels of a side (default: 32 for CIFAR, 224 for ImageNet)",
    )

    _add_evaluate(commands)

    imported = _add(
        commands,
        "import",
        _import,
        "what was imported: weights of torchvision, timm, Hugging Face or Caffe, as the workdir of a run",
        "resnet-jax import resnet50.pth --to imported/resnet50",
        "resnet-jax import ResNet-50-model.caffemodel --mean ResNet_mean.binaryproto --to imported/authors50",
    )
    imported.add_argument(
        "source", metavar="SOURCE", help=".pth, .safetensors, .caffemodel, or a folder with config.json"
    )
    imported.add_argument("--to", required=True, metavar="WORKDIR", help="to be made")
    imported.add_argument(
        "--classes", type=int, metavar="N", help="another number than the source's gives a fresh last layer"
    )
    imported.add_argument("--class-names", metavar="FILE", help="a name on every line, by label")
    imported.add_argument(
        "--stride-on",
        choices=("1x1", "3x3"),
        help="of bottlenecks, where the file does not tell (default: 3x3)",
    )
    imported.add_argument("--mean", help="of a .caffemodel: FILE.binaryproto, or red,green,blue in pixels")

    _add_export(commands)
    _add_predict(commands)
    _add_data_commands(commands)
    _add_report(commands)
    _add_paper(commands)
    _add_compare(commands)
    _add_plan(commands)
    return parser


def _add_paper(commands: Any) -> None:
    from resnet_jax.paper.commands import (
        paper_arguments,
        paper_command,
        responses_arguments,
        responses_command,
    )

    paper = _add(
        commands,
        "paper",
        paper_command,
        "a table or a figure of the paper, the paper's numbers beside ours, after training what is missing",
        "resnet-jax paper table1 --json",
        "resnet-jax paper fig6 --data digits",
        "resnet-jax paper table6 --seeds 5 --nets resnet110",
        "resnet-jax paper table3 --source prepared/imagenet --plan",
    )
    paper_arguments(paper)
    responses = _add(
        commands,
        "responses",
        responses_command,
        "the standard deviation of every 3×3 layer's output (Fig. 7), and how far each block is from the identity",
        "resnet-jax responses --workdir runs/digits_resnet20",
        "resnet-jax responses --workdir runs/digits_resnet20 --all --gradients --json",
    )
    responses_arguments(responses)


def _add_evaluate(commands: Any) -> None:
    from resnet_jax.evaluation.commands import evaluate_arguments, evaluate_command

    evaluated = _add(
        commands,
        "evaluate",
        evaluate_command,
        "loss and accuracy of a run's checkpoint on a whole split, by the paper's protocols; of several runs, as an ensemble",
        "resnet-jax evaluate --workdir runs/digits_resnet20",
        "resnet-jax evaluate --workdir runs/digits_resnet20 --step 150 --per-class --confusion",
        "resnet-jax evaluate --workdir runs/imagenet --protocol ten-crop --json",
        "resnet-jax evaluate --workdir runs/imagenet --protocol multi-scale --scales 224,256,384 --precise-bn 50000",
        "resnet-jax evaluate --workdir runs/seed0 --workdir runs/seed1 --predictions predictions.csv",
    )
    evaluate_arguments(evaluated)


def _add_list(commands: Any) -> None:
    examples = "resnet-jax list", "resnet-jax list --variants", "resnet-jax list --json"
    listed = _add(commands, "list", _list, "the nets and the recipes, by name", *examples)
    listed.add_argument(
        "--variants",
        action="store_true",
        help="what --config.model.variants may name, with arguments and papers",
    )


def _add_export(commands: Any) -> None:
    from resnet_jax.interop.commands import export_arguments, export_command

    exported = _add(
        commands,
        "export",
        export_command,
        "what was exported: a net's weights, or a program of it, as a file that needs nothing of this package",
        "resnet-jax export --workdir runs/digits_resnet20 --to digits.safetensors",
        "resnet-jax export --workdir imported/resnet50 --to resnet50.stablehlo",
        "resnet-jax export --workdir imported/resnet50 --to resnet50.onnx --json",
    )
    export_arguments(exported)


def _add_predict(commands: Any) -> None:
    from resnet_jax.evaluation.commands import predict_arguments, predict_command

    predicted = _add(
        commands,
        "predict",
        predict_command,
        "the likeliest classes of pictures, by a run or an import",
        "resnet-jax predict --workdir runs/digits_resnet20 seven.png",
        "resnet-jax predict --workdir imported/resnet50 photographs --top 3 --csv",
        "find . -name '*.jpg' | resnet-jax predict --workdir imported/resnet50 - --json",
    )
    predict_arguments(predicted)


def _add_data_commands(commands: Any) -> None:
    from resnet_jax.data import commands as data

    prepared = _add(
        commands,
        "prepare",
        data.prepare_command,
        "what was prepared: an image folder or ImageNet's tars as shards of ArrayRecord; a killed one goes on",
        "resnet-jax prepare photographs prepared/photographs",
        "resnet-jax prepare imagenet_tars prepared/imagenet --shrink 480",
        "resnet-jax prepare photographs prepared/raw --shrink 480 --raw-share 0.5 --json",
    )
    data.prepare_arguments(prepared)
    statistics = _add(
        commands,
        "statistics",
        data.statistics_command,
        "mean and principal colours of a training set, which it writes into a file for training",
        "resnet-jax statistics prepared/imagenet statistics.npz",
        "resnet-jax statistics digits digits.npz --image-size 0 --json",
    )
    data.statistics_arguments(statistics)


def _add_report(commands: Any) -> None:
    from resnet_jax.report.commands import report_arguments, report_command

    report = _add(
        commands,
        "report",
        report_command,
        "where it wrote a page about runs: curves, results, recipes, mistakes; one HTML file that needs no network",
        "resnet-jax report runs/digits_resnet20",
        "resnet-jax report runs/seed0 runs/seed1 runs/seed2 --to seeds.html",
        "resnet-jax report runs/imagenet_resnet50 --records-only --json",
    )
    report_arguments(report)


def _add_compare(commands: Any) -> None:
    from resnet_jax.comparison.commands import compare_arguments, compare_command

    compared = _add(
        commands,
        "compare",
        compare_command,
        "how several configs compare over seeds, and trains what is missing: errors, parameters, multiply-adds, times",
        "resnet-jax compare plain-20=digits_resnet20,model.name=cifar_plain20 ResNet-20=digits_resnet20 --seeds 3",
        "resnet-jax compare digits_resnet20 'pre-activation=digits_resnet20,model.variants=(\"preactivation\",)' --seeds 1",
        "resnet-jax compare A=cifar10:resnet20 B=cifar10:resnet20,model.shortcut=B --to runs/shortcuts --budget 0.1",
        "resnet-jax compare digits_resnet20 my_recipe.py --set run.steps=100 --json",
    )
    compare_arguments(compared)


def _add_plan(commands: Any) -> None:
    from resnet_jax.training.commands import plan_arguments, plan_command

    planned = _add(
        commands,
        "plan",
        plan_command,
        "what a recipe needs of a slice of TPUs, by the TPU compiler's estimate and without a TPU: memory, time and cost",
        "resnet-jax plan --config imagenet --topology v5e:2x2 --price 1.2",
        "resnet-jax plan --config imagenet_pod:32768 --topology v5e:16x16 v4:4x4x4 v6e:8x8",
        "resnet-jax plan --config imagenet:resnet152 --set batch_size=512 model.dtype=bfloat16 --topology v5e:2x2 --json",
    )
    plan_arguments(planned)


def _add(commands: Any, name: str, command: Command, text: str, *examples: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=f"Prints {text}.",
        epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=command)
    return parser


def _list(arguments: argparse.Namespace) -> None:
    from resnet_jax.models import list_models
    from resnet_jax.models.variants import VARIANTS
    from resnet_jax.training.recipes import recipes

    if arguments.variants:
        variants = {
            v.name: {"what": v.what, "paper": v.paper, "arguments": v.arguments} for v in VARIANTS.values()
        }
        print(json.dumps({"variants": variants}) if arguments.json else _variants_table(variants))
        return
    if arguments.json:
        print(json.dumps({"models": list_models(), "recipes": list(recipes())}))
        return
    print("nets (the CIFAR family takes every depth 6n + 2):")
    print("\n".join(f"  {name}" for name in list_models()))
    print("recipes (for python train.py --config=NAME):")
    print("\n".join(f"  {name}" for name in recipes()))


def _variants_table(variants: dict[str, dict[str, Any]]) -> str:
    """Returns a line for every variant: its name with the arguments that it has if none are given, what it does, and its paper."""
    specs = {
        name: ":".join([name, *filter(None, [",".join(map(str, v["arguments"].values()))])])
        for name, v in variants.items()
    }
    width = max(map(len, specs.values()))
    rows = [f"  {specs[name]:{width}}  {v['what']} ({v['paper']})" for name, v in variants.items()]
    return "\n".join(
        ["variants (for --config.model.variants='(\"NAME\",)'; arguments after the colon):", *rows]
    )


def _summary(arguments: argparse.Namespace) -> None:
    from resnet_jax.models import (
        ModelError,
        create_model,
        default_image_size,
        summarize,
    )

    options = {
        "shortcut": arguments.shortcut,
        "stride_on": arguments.stride_on,
        "variants": arguments.variants,
    }
    model = create_model(arguments.name, **{name: value for name, value in options.items() if value})
    size = arguments.image_size if arguments.image_size is not None else default_image_size(arguments.name)
    if size < 1:
        raise ModelError(f"--image-size is {size}; it must be a number of pixels above 0")
    summary = summarize(model, size)
    if arguments.json:
        print(json.dumps(summary.to_json(arguments.name)))
        return
    print(summary.to_table())


def _import(arguments: argparse.Namespace) -> None:
    from resnet_jax.interop import import_weights
    from resnet_jax.interop.foreign import read_class_names

    names = read_class_names(arguments.class_names) if arguments.class_names else ()
    imported = import_weights(
        arguments.source,
        arguments.to,
        num_classes=arguments.classes,
        stride_on=arguments.stride_on,
        mean=arguments.mean,
        class_names=names,
    )
    if arguments.json:
        print(
            json.dumps(
                {"workdir": arguments.to, "model": imported.model_arguments, "notes": list(imported.notes)}
            )
        )
        return
    print(
        "\n".join(
            [
                f"{imported.model_arguments['name']}, {imported.model_arguments['num_classes']} classes, in {arguments.to}"
            ]
        )
    )
    print("\n".join(f"  {note}" for note in imported.notes))


if __name__ == "__main__":
    sys.exit(main())

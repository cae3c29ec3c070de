"""`resnet-jax list`: the networks, the recipes and the variants, by name."""

import argparse

from resnet_jax.cli import option
from resnet_jax.console import print_json

EXAMPLES = ("resnet-jax list", "resnet-jax list --variants", "resnet-jax list --json")


OPTIONS = (
    option(
        "--variants",
        action="store_true",
        help="list what --config.model.variants may name (default: networks and recipes)",
    ),
)


def execute(arguments: argparse.Namespace) -> None:
    """Prints the names."""
    if arguments.variants:
        _print_variants(arguments.json)
        return
    from resnet_jax.models.network_names import list_models
    from resnet_jax.training.recipes import recipes

    if arguments.json:
        print_json({"models": list_models(), "recipes": list(recipes())})
        return
    print("networks (the CIFAR family takes every depth 6n + 2):")
    print("\n".join(f"  {name}" for name in list_models()))
    print("recipes (for resnet-jax train --config=NAME):")
    print("\n".join(f"  {name}" for name in recipes()))


def _print_variants(as_json: bool) -> None:
    from resnet_jax.models.variants import VARIANTS

    if as_json:
        variants = {
            v.name: {"what": v.what, "paper": v.paper, "arguments": v.arguments} for v in VARIANTS.values()
        }
        print_json({"variants": variants})
        return
    rows = []
    for variant in VARIANTS.values():
        defaults = ",".join(map(str, variant.arguments.values()))
        spec = f"  {variant.name}:{defaults}" if defaults else f"  {variant.name}"
        rows.append((spec, f"{variant.what} ({variant.paper})"))
    width = max(len(spec) for spec, _ in rows)
    print("variants (for --config.model.variants='(\"NAME\",)'; arguments after the colon):")
    print("\n".join(f"{spec:{width}}  {what}" for spec, what in rows))

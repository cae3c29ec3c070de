"""`resnet-jax completion`: shell completion of commands and options, by argcomplete."""

import argparse

from resnet_jax.cli import option
from resnet_jax.console import print_json

EXAMPLES = (
    "resnet-jax completion bash",
    "resnet-jax completion fish",
)
ABOUT = """Turn it on with a line in your shell's start-up file: eval "$(resnet-jax completion bash)".
For fish, save the lines as ~/.config/fish/completions/resnet-jax.fish."""
SHELLS = ("bash", "zsh", "fish")
OPTIONS = (
    option(
        "shell",
        nargs="?",
        choices=SHELLS,
        default="bash",
        help="shell to complete in (default: bash)",
    ),
)


def execute(arguments: argparse.Namespace) -> None:
    """Prints the lines that turn completion on."""
    from argcomplete.shell_integration import shellcode

    code = shellcode(["resnet-jax"], shell=arguments.shell)
    if arguments.json:
        print_json({"shell": arguments.shell, "code": code})
    else:
        print(code)

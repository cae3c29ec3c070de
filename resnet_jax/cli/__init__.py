"""`resnet-jax COMMAND`: one module for each command, imported only when the command runs.

A command is a module of this package with `EXAMPLES`, `OPTIONS` and `execute(arguments)`, and a
line in `COMMANDS`. ABOUT and DETAILS, if it has them, are text of its help. It prints text for people, and
one JSON object with `--json`. A failure is one line on standard error that says what is wrong and what to do.
Exit codes: 0 done, 1 failed, 2 a mistake in the command, 75 stopped and saved.
"""

import argparse
import difflib
import importlib
import importlib.metadata
import io
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

from resnet_jax.console import print_note
from resnet_jax.errors import DONE, UsageError, exit_status

COMMANDS = {
    "train": ("train", "Train a network, or resume the run in a directory."),
    "evaluate": ("evaluate", "Evaluate a checkpoint on a dataset, or several as an ensemble."),
    "predict": ("predict", "Predict the most likely classes of images."),
    "detect": ("detect", "Detect the objects in images, and draw boxes around them."),
    "proposals": ("proposals", "Write the proposals of a detector, for the 4-step alternation."),
    "list": ("list_names", "List the networks and the recipes, or the variants of networks."),
    "config": ("config", "Print the fields of a recipe, what they mean, and how two recipes differ."),
    "summary": ("summary", "Print output shape, parameters and multiply-adds of a network, by layer."),
    "plan": ("plan", "Estimate memory, step time and cost on TPU slices, without access to one."),
    "prepare": ("prepare", "Convert an image folder or ImageNet's tar files to ArrayRecord shards."),
    "statistics": ("statistics", "Measure the mean and the principal colors of a training set."),
    "paper": ("paper", "Reproduce a table or a figure of the paper, training the runs that are missing."),
    "responses": ("responses", "Measure the responses of the layers of a run (Fig. 7), and the gradients."),
    "compare": ("compare", "Compare recipes over several seeds, training the runs that are missing."),
    "report": ("report", "Write one HTML page about runs: curves, results, recipes, mistakes."),
    "import": ("import_weights", "Import weights of torchvision, timm, Hugging Face or Caffe as a run."),
    "export": ("export", "Export a network as weights, StableHLO or ONNX."),
    "check": ("check", "Check an image folder: list every file that cannot be read."),
    "doctor": ("doctor", "Print versions, devices and directories, and what is wrong with them."),
    "completion": ("completion", "Print the lines that complete commands in your shell."),
}
"""By name: the module, and what the command does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code.

    Args:
        argv: Name of the command and its arguments. Defaults to those of the process.
    """
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    for stream in (sys.stdout, sys.stderr):  # A name that the terminal cannot show is escaped.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("--help", "-h"):
        print(_overview())
        return DONE
    if name in ("--version", "-V"):
        print(f"resnet-jax {importlib.metadata.version('resnet-jax')}")
        return DONE

    def command() -> None:
        module, parser = load_command(name)
        arguments = parse(parser, rest)
        _silence_libraries()
        if not getattr(arguments, "trust_code", False):
            module.execute(arguments)
            return
        from resnet_jax.models.trusted_code import trusting_code  # Here, so that --help is quick.

        with trusting_code():
            module.execute(arguments)

    return guard(command)


def guard(command: Callable[[], None]) -> int:
    """Calls a function and returns the exit code; prints an expected error as one line, raises a bug."""
    try:
        command()
        sys.stdout.flush()  # Here: at its end Python would report a reader that is gone with exit code 120.
    except BaseException as error:
        status = exit_status(error)
        if status is None:
            raise
        code, line = status
        if line:
            print_note(line)
        else:  # The reader of the output is gone; Python would complain when it flushes the rest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code
    return DONE


def load_command(name: str) -> tuple[ModuleType, argparse.ArgumentParser]:
    """Returns the module of a command and the parser of its arguments.

    Raises:
        UsageError: There is no such command.
    """
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        guess = f"did you mean {close[0]}? " if close else ""
        raise UsageError(f"unknown command {name!r}; {guess}commands are {', '.join(COMMANDS)}")
    file, text = COMMANDS[name]
    module = importlib.import_module(f"resnet_jax.cli.{file}")
    examples = "\n".join(["examples:", *(f"  {example}" for example in module.EXAMPLES)])
    parser = _Parser(
        prog=f"resnet-jax {name}",
        description=f"{text}\n\n{getattr(module, 'ABOUT', '')}",
        epilog=f"{examples}\n\n{getattr(module, 'DETAILS', '')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for names, settings in module.OPTIONS:
        parser.add_argument(*names, **settings)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return module, parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Returns the arguments of a command; `--config.FIELD=VALUE` adds a pair to its `overrides`, if any."""
    if parser.get_default("overrides") is not None:
        for flag in sorted({argument.partition("=")[0] for argument in argv} - {"--config.FIELD"}):
            if flag.startswith("--config."):
                parser.add_argument(
                    flag, dest="overrides", action="append", type=_pair(flag), help=argparse.SUPPRESS
                )
    from resnet_jax.files import expand_home  # Here, so that --help is quick.

    arguments = parser.parse_args(argv)
    # The shell leaves ~ as it is in --workdir=~/runs and in quotes.
    for name, value in vars(arguments).items():
        if isinstance(value, str):
            setattr(arguments, name, expand_home(value))
        elif isinstance(value, list):
            setattr(arguments, name, [expand_home(one) if isinstance(one, str) else one for one in value])
    return arguments


def option(*names: str, **settings: object) -> tuple[tuple[str, ...], dict[str, object]]:
    """Returns an option of a command: the arguments of `ArgumentParser.add_argument`."""
    return names, settings


def at_least(minimum: int) -> Callable[[str], int]:
    """Returns an argparse type for a whole number that is not below `minimum`."""

    def whole_number(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {minimum} or more")
        return int(text)

    return whole_number


def positive_number(text: str) -> float:
    """Returns the number that an argument is; an argparse type for numbers above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _pair(flag: str) -> Callable[[str], tuple[str, str]]:
    return lambda text: (flag.removeprefix("--config."), text)


FIELDS = option(
    "--config.FIELD",
    metavar="VALUE",
    dest="overrides",
    action="append",
    type=_pair("--config.FIELD"),
    default=[],
    help="change a field of the recipe; VALUE is a literal or a word, a tuple is '(40,)' (default: none)",
)
"""The option of commands that take fields of a recipe."""


WORKERS = option(
    "--workers",
    type=at_least(0),
    default=0,
    metavar="N",
    help="number of threads (default: 0, one per core)",
)
"""The option of commands that decode images."""

TRUST_CODE = option(
    "--trust-code",
    action="store_true",
    help="import the functions that a checkpoint names, which runs their modules (default: refuse)",
)
"""The option of commands that load a checkpoint."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        guess = _guess_of_words(self, message.partition("unrecognized arguments: ")[2].split())
        raise UsageError(f"{message}{guess} (see {self.prog} --help)")


def _guess_of_words(parser: argparse.ArgumentParser, words: Sequence[str]) -> str:
    """Returns a question that names what was meant by words that a command does not know."""
    if not words:
        return ""
    flag, _, value = words[0].partition("=")
    takes_fields = parser.get_default("overrides") is not None
    if not flag.startswith("-"):
        return f"; did you mean --config={_closest_recipe(words[0])}?" if takes_fields else ""
    if takes_fields:
        from resnet_jax.training.config import all_fields
        from resnet_jax.training.field_names import USUAL_NAMES

        name = flag.lstrip("-").replace("-", "_")
        by_name = {path.rpartition(".")[2]: path for path in all_fields()}
        if path := USUAL_NAMES.get(name) or by_name.get(name):
            value = value or next(iter(words[1:]), "VALUE")
            return f"; did you mean --config.{path}={value}?"
    known = [known for action in parser._actions for known in action.option_strings]
    close = difflib.get_close_matches(flag, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _closest_recipe(word: str) -> str:
    """Returns the recipe that a word means: itself if it is a path or a name, else the most similar name."""
    from resnet_jax.training.recipes import recipes

    name, colon, argument = word.partition(":")
    if name in recipes() or os.path.exists(word):
        return word
    close = difflib.get_close_matches(name, recipes(), 1, 0.5)
    return f"{close[0]}{colon}{argument}" if close else word


def _complete() -> None:
    """Answers the shell's question for the words that may follow, and ends the process."""
    import argcomplete

    parser = argparse.ArgumentParser(prog="resnet-jax", allow_abbrev=False)
    commands = parser.add_subparsers()
    asked = os.environ.get("COMP_LINE", "").split()
    for name in COMMANDS:
        command = commands.add_parser(name, allow_abbrev=False)
        if name in asked[1:2]:
            for names, settings in load_command(name)[0].OPTIONS:
                command.add_argument(*names, **settings)
    argcomplete.autocomplete(parser, always_complete_options="long")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: resnet-jax COMMAND [OPTIONS]",
            "",
            "Train, evaluate and use deep residual networks (arXiv 1512.03385) on JAX.",
            "",
            "commands:",
            *(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()),
            "",
            "`resnet-jax COMMAND --help` explains the options of a command and shows examples.",
        ]
    )


def _silence_libraries() -> None:
    """Hides what Orbax logs in its threads until the process ends; its errors are raised as well."""
    import absl.logging

    absl.logging.set_verbosity(absl.logging.FATAL)
    # "Task exception was never retrieved", when several arrays cannot be written.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    threading.excepthook = lambda _: None
    sys.unraisablehook = lambda _: None

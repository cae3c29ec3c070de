"""The base of every error that the package raises on purpose, and the exit codes that the command line gives them."""

from typing import ClassVar

DONE, FAILED, USAGE, RESUMABLE = 0, 1, 2, 75
"""Exit codes: done; the run failed; a mistake in what was asked for; stopped and saved, run the same command again."""


class ResNetError(Exception):
    """Base of all errors of this package. The message says what is wrong, what is allowed and what to do, in one line.

    Attributes:
        exit_code: Exit code of a command that ends with this error.
    """

    exit_code: ClassVar[int] = FAILED


class UsageError(ResNetError):
    """A mistake in what was asked for: an option, a file, a directory or a value that does not exist or does not fit."""

    exit_code: ClassVar[int] = USAGE

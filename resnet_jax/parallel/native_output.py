"""Standard output for Python alone: what native libraries print there is dropped."""

import contextlib
import io
import os
import sys


def silence_native_output() -> None:
    """Leaves standard output to Python: what C++ prints into it, such as Gloo's greetings, goes nowhere.

    Errors and logs of native libraries are not touched, since these go to standard error.
    """
    stream = sys.stdout
    with contextlib.suppress(OSError, ValueError, AttributeError, io.UnsupportedOperation):
        if stream.fileno() != 1 or not isinstance(stream, io.TextIOWrapper):
            return  # Somebody has put another stream in its place.
        stream.flush()
        sys.stdout = os.fdopen(os.dup(1), "w", encoding=stream.encoding, errors=stream.errors, newline="\n")
        sys.stdout.reconfigure(line_buffering=stream.line_buffering, write_through=stream.write_through)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)

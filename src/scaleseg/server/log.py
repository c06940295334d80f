"""Lines for whoever runs the server: on stderr, from any thread and from a signal's handler."""

import os
import sys
from contextlib import suppress

__all__ = ["log"]


def log(text: str) -> None:
    """Say it. A stderr that is closed, or a pipe that nobody reads any more, stops no thread of a server."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # not print: a handler may come in the middle of one
            os.write(sys.stderr.fileno(), f"scaleseg: {text.rstrip()}\n".encode(errors="backslashreplace"))

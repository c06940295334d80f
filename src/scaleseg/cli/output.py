"""What verbs say, and a progress bar where there is a terminal."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["bar", "one_line", "say"]


def say(line: str, *, error: bool = False) -> None:
    """A line on stdout, or on stderr, at once."""
    stream = sys.stderr if error else sys.stdout
    if stream is not None:  # closed from the start: print would take the other one
        print(one_line(line), file=stream, flush=True)


def one_line(text: str) -> str:
    """Text with its control characters spelled out: a file's name may hold line breaks, or orders to the terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""C0 and C1, line and paragraph separators, and the marks that turn the order of letters."""


@contextmanager
def bar(title: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A function that counts one more as done, on stderr; without `total` the bar only counts."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)

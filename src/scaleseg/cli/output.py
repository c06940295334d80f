"""What verbs say, and a progress bar where there is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["bar", "say"]


def say(line: str, *, error: bool = False) -> None:
    """A line on stdout, or on stderr, at once."""
    print(line, file=sys.stderr if error else sys.stdout, flush=True)


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

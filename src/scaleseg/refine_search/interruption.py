"""Ctrl-C and SIGTERM: a search ends between two pieces of work, and what is done is saved already."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "interrupts", "stop_if"]


class Interrupted(Exception):
    """The user stopped the search; the message says how to go on."""


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """A list that holds the signal once SIGINT or SIGTERM came; a second one acts at once."""
    caught: list[int] = []
    previous: dict[int, Any] = {}

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, previous[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, catch)
    except ValueError:  # not in the main thread: the caller's signals are the caller's business
        previous = {}
    try:
        yield caught
    finally:
        for was_caught, handler in previous.items():
            signal.signal(was_caught, handler)


def stop_if(interrupted: Sequence[int], out: Path) -> None:
    """Raises Interrupted once there is anything in `interrupted`."""
    if interrupted:
        raise Interrupted(f"stopped; what was done is saved in {out}, and the same command goes on")

"""Ctrl-C and SIGTERM: a run finishes its step, saves, and says how to go on."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "ended_workers", "interrupts"]


class Interrupted(Exception):
    """The user stopped the run; the message says how to go on."""


@contextmanager
def ended_workers(interrupted: list[int]) -> Iterator[None]:
    """A SIGTERM to the whole group ends data workers in the middle of a step, which is then no state to save."""
    try:
        yield
    except RuntimeError as error:
        if interrupted and "DataLoader worker" in str(error):
            raise Interrupted("stopped; --resume goes on from the last checkpoint") from None
        raise


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """A list that holds the signal once SIGINT or SIGTERM came; a second one acts at once."""
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        os.write(2, b"stopping after this step; once more stops at once, unsaved\n")
        signal.signal(number, previous[number])

    previous: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, catch)
    except ValueError:  # not in the main thread: the caller's signals are the caller's business
        previous = {}
    try:
        yield caught
    finally:
        for caught_number, handler in previous.items():
            signal.signal(caught_number, handler)

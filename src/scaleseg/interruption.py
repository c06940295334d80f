"""Ctrl-C and SIGTERM: what takes long ends between two pieces of work, keeps what is done, and says how to go on."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "interrupts"]


class Interrupted(Exception):
    """The user stopped it; the message says how to go on."""


@contextmanager
def interrupts(said: Callable[[], None] = lambda: None, *, again_at_once: bool = True) -> Iterator[list[int]]:
    """A list that holds the signal once SIGINT or SIGTERM came, after which `said` was called.

    A second one acts as if nobody had listened; with `again_at_once` False it is one more in the list.
    """
    caught: list[int] = []
    previous: dict[int, Any] = {}

    def catch(number: int, frame: FrameType | None) -> None:
        if not caught:
            said()
        caught.append(number)
        if again_at_once:
            signal.signal(number, previous[number])

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

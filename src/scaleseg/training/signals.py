"""Ctrl-C and SIGTERM: a run finishes its step, saves, and says how to go on."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from scaleseg.training.processes import speaks

__all__ = ["GO_ON", "Interrupted", "ended_workers", "interrupts"]

GO_ON = "the same command with --resume goes on"


class Interrupted(Exception):
    """The user stopped the run; the message says how to go on."""


@contextmanager
def ended_workers(interrupted: list[int]) -> Iterator[None]:
    """A SIGTERM to the whole group ends data workers in the middle of a step, which is then no state to save."""
    try:
        yield
    except RuntimeError as error:
        if interrupted and "DataLoader worker" in str(error):
            raise Interrupted(f"stopped in the middle of a step; {GO_ON} from the last checkpoint") from None
        raise


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """A list that holds the signal once SIGINT or SIGTERM came; a second one acts at once.

    Under torchrun a second one does nothing: torchrun itself sends one to all, and ends who takes longer than it waits.
    """
    caught: list[int] = []
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ

    def catch(number: int, frame: FrameType | None) -> None:
        if not caught and speaks():
            os.write(
                2, b"stopping after this step" + (b"\n" if under_torchrun else b"; once more stops at once, unsaved\n")
            )
        caught.append(number)
        if not under_torchrun:
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

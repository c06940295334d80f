"""Ctrl-C and SIGTERM: a run finishes its step, saves, and says how to go on."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from scaleseg import interruption
from scaleseg.interruption import Interrupted
from scaleseg.training.processes import speaks

__all__ = ["GO_ON", "ended_workers", "interrupts"]

GO_ON = "the same command with --resume goes on"


@contextmanager
def ended_workers(interrupted: list[int]) -> Iterator[None]:
    """A SIGTERM to the whole group ends data workers in the middle of a step, which is then no state to save."""
    try:
        yield
    except RuntimeError as error:
        if interrupted and "DataLoader worker" in str(error):
            raise Interrupted(f"stopped in the middle of a step; {GO_ON} from the last checkpoint") from None
        raise


def interrupts() -> AbstractContextManager[list[int]]:
    """A list that holds the signal once SIGINT or SIGTERM came; a second one acts at once.

    Under torchrun a second one does nothing: torchrun itself sends one to all, and ends who takes longer than it waits.
    """
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ

    def say() -> None:
        if speaks():
            more = b"\n" if under_torchrun else b"; once more stops at once, unsaved\n"
            os.write(2, b"stopping after this step" + more)

    return interruption.interrupts(say, again_at_once=not under_torchrun)

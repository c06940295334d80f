"""What the cells are computed on, and that only one ablation at a time writes to a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import torch

from scaleseg.devices import choose_device, cores
from scaleseg.errors import UserError

__all__ = ["Machine", "alone", "choose_machine"]


class Machine(NamedTuple):
    """What the children compute on: one at a time for each of `devices`."""

    devices: tuple[str, ...]
    threads: int
    """Of each child."""
    note: str


def choose_machine(device: str, jobs: int) -> Machine:
    """`jobs` places: all GPUs in turn where there are several and none is named, else all on one device."""
    where = choose_device(device)
    names = [str(where)] * jobs
    if where.type == "cuda" and where.index is None and torch.cuda.device_count() > 1:
        names = [f"cuda:{number % torch.cuda.device_count()}" for number in range(jobs)]
    threads = min(torch.get_num_threads(), max(1, cores() // jobs))
    if os.environ.get("OMP_NUM_THREADS", "").isdecimal():
        threads = int(os.environ["OMP_NUM_THREADS"])
    each = f"{threads} {'thread' if threads == 1 else 'threads'} each"
    at_once = "one cell at a time" if jobs == 1 else f"{jobs} cells at a time"
    return Machine(tuple(names), threads, f"{at_once} on {', '.join(dict.fromkeys(names))}, {each}")


@contextmanager
def alone(out: Path) -> Iterator[IO[str]]:
    """The lock of an ablation's folder; UserError if another ablation, or what one left running, has it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror}); choose another folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another ablation, or a cell that one began, is writing to {out}; wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise UserError(f"{out} cannot be locked ({error.strerror}); choose an --out that has locks") from error
        yield lock

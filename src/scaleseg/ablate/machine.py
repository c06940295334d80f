"""What the cells are computed on."""

import os
from typing import NamedTuple

import torch

from scaleseg.devices import choose_device, cores

__all__ = ["Machine", "choose_machine"]


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

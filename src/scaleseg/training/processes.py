"""One run on many processes: `torchrun --nproc-per-node 2 -m scaleseg train ...`, one process a GPU, gloo on CPUs.

Every process has the same settings, the same parameters and its share of each batch. What one of them alone learns (a
photograph that cannot be read, a signal to stop) is agreed upon before the next step, so that all go on or all end.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from scaleseg.devices import choose_device
from scaleseg.errors import UserError, reason
from scaleseg.training.meeting import fresh_room

__all__ = ["Processes", "joined", "launch", "speaks"]

SILENCE = timedelta(minutes=15)
"""A process that says nothing for so long, at the start or in a step, counts as lost."""

_BROKEN = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Socket", "TCPStore")
"""What the messages of torch.distributed have in common when the other end is gone."""


def speaks() -> bool:
    """Whether this process speaks for the run: the first of many, or the only one."""
    return _place()[0] == 0


def launch() -> tuple[str, bool]:
    """Which torchrun this is ("" without one), and whether it started its processes again after one was lost."""
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    return (f"{run} {os.getppid()}", again) if run is not None else ("", False)


@contextmanager
def joined(device: str) -> Iterator["Processes"]:
    """The processes of this run: this one alone, or all that torchrun started; UserError where they cannot meet."""
    rank, count, local = _place()
    if count == 1:
        yield Processes(choose_device(device))
        return
    where = _own_device(device, local)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
    try:
        store, _, _ = next(rendezvous("env://", timeout=SILENCE))
        room = fresh_room(store, rank, count, SILENCE)
        dist.init_process_group(backend, store=room, rank=rank, world_size=count, timeout=SILENCE)
    except (RuntimeError, ValueError, TimeoutError) as error:
        raise UserError(f"process {rank + 1} of {count} cannot meet the others ({reason(error)})") from error
    try:
        yield Processes(where, rank, count)
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class Processes:
    """This process among those of its run."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """A tensor on the CPU, summed over all processes: the same bits in each."""
        if self.count > 1:
            with self._lost():
                dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return bool(self.sum(torch.tensor(int(flag))))

    def share(self, number: int) -> slice:
        """This process's part of `number` things, which are divided evenly."""
        each = number // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What every process must get through: one's mistake or full disk ends all of them, and is said once."""
        problem: str | None = None
        try:
            yield
        except (UserError, OSError) as error:
            if self.count == 1:
                raise
            problem = f"{error.filename or 'a file'}: {error.strerror}" if isinstance(error, OSError) else str(error)
        if self.any(problem is not None):
            self.fail(self._first_of(problem))

    def fail(self, problem: str) -> NoReturn:
        """End with what all processes know: the first says it, the others leave with the same code."""
        if self.first:
            raise UserError(problem)
        raise SystemExit(1)

    def leave(self, reason: Exception) -> NoReturn:
        """End for a reason that all processes know and that is nobody's mistake."""
        if self.first:
            raise reason
        raise SystemExit(130)

    def agree(self, what: str, number: int) -> None:
        """UserError unless every process has the same whole number; `what` it is, and what to do."""
        with self.together():
            total = int(self.sum(torch.tensor(number)))
            if total != number * self.count:
                raise UserError(f"the processes have different {what}")

    def share_batch_norm(self, model: nn.Module) -> None:
        """BatchNorm that is trained counts over all processes where they have GPUs; on CPUs each over its own part."""
        if self.count > 1 and self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its sum over all processes.

        All travel as one, always in the same order: from three processes on, the last bits depend on a value's place.
        """
        if self.count > 1 and tensors:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            with self._lost():
                dist.all_reduce(flat)
            _take_apart(flat, tensors)

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes the first process's."""
        if self.count > 1 and tensors:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            with self._lost():
                dist.broadcast(flat, 0)
            _take_apart(flat, tensors)

    def _first_of(self, problem: str | None) -> str:
        """The problem of the lowest process that has one; which process it was, if not the first."""
        problems: list[str | None] = [None] * self.count
        with self._lost():
            dist.all_gather_object(problems, problem)
        rank, text = next((rank, text) for rank, text in enumerate(problems) if text)
        return text if rank == 0 else f"process {rank + 1} of {self.count}: {text}"

    @contextmanager
    def _lost(self) -> Iterator[None]:
        """The errors of a connection that broke, as one sentence."""
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not (isinstance(error, dist.DistError) or any(w in str(error) for w in _BROKEN)):
                raise
            if self.rank > 1:  # two of the others say it: one of them may be the one that is lost
                raise SystemExit(1) from None
            raise UserError(
                f"process {self.rank + 1} of {self.count}: another process of this run was lost; the same command "
                "with --resume goes on from the last checkpoint (torchrun --max-restarts does so by itself)"
            ) from None


def _take_apart(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def _place() -> tuple[int, int, int]:
    """Rank, number of processes, rank on this machine, as torchrun sets them."""
    given = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
    if given["WORLD_SIZE"] in (None, "", "0", "1"):
        return 0, 1, 0
    missing = [name for name, value in given.items() if not value]
    numbers = [given[name] or "" for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if missing or not all(value.isdecimal() for value in numbers):
        raise UserError(
            f"WORLD_SIZE is {given['WORLD_SIZE']}, but {', '.join(missing) or 'RANK or LOCAL_RANK'} is not set; start "
            "with torchrun --nproc-per-node N -m scaleseg train ..., or unset WORLD_SIZE"
        )
    rank, count, local = (int(value) for value in numbers)
    if rank >= count:
        raise UserError(f"RANK is {rank} and WORLD_SIZE {count}; ranks go from 0 to {count - 1}: start with torchrun")
    return rank, count, local


def _own_device(name: str, local: int) -> torch.device:
    """The GPU of this process, or the CPU."""
    if ":" in name:
        raise UserError(f"--device is {name!r}, but torchrun gives each process its own: use cuda or cpu")
    device = choose_device(name)
    if device.type == "mps":
        raise UserError("many processes cannot share the device mps; start one process, or use --device cpu")
    if device.type == "cuda" and local >= torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise UserError(
            f"process {local + 1} of this machine has no GPU of its own: it shows {there}; start with --nproc-per-node {there}"
        )
    return torch.device("cuda", local) if device.type == "cuda" else device

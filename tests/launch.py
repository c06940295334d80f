"""Training runs of one or more processes for tests, forked from a server that has imported everything: no start-up time."""

import contextlib
import errno
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from scaleseg.config import merge
from scaleseg.errors import UserError
from scaleseg.interruption import Interrupted
from scaleseg.training import loop, train

__all__ = ["Ended", "Job", "World", "plant", "run"]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch._dynamo", "torch.utils.tensorboard", "scaleseg.training.loop"])


@dataclass(frozen=True)
class Job:
    """A run: its settings as a dictionary, its folder, and what is to go wrong (`TROUBLES`), where (rank, call)."""

    settings: dict[str, Any]
    folder: Path
    resume: bool = False
    trouble: tuple[str, int, int] | None = None
    others: tuple[dict[str, Any], ...] = ()
    """Settings of the second, third ... process where they are not the first's."""
    elsewhere: Path | None = None
    """The folder as the others see it, on a machine that does not share the first's."""
    ordered_by: int = field(default_factory=os.getpid)


@dataclass(frozen=True)
class Ended:
    """What a process left; `hung` if it was killed because it did not end."""

    code: int
    output: str
    hung: bool = False


class World:
    """The processes of one run, as torchrun would start them."""

    def __init__(self, job: Job, count: int = 1) -> None:
        self.logs = [job.folder.with_name(f"{job.folder.name}.{rank}.log") for rank in range(count)]
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        port = _free_port()
        self.processes: list[BaseProcess] = [
            CONTEXT.Process(target=_work, args=(job, rank, count, port, self.logs[rank]), daemon=False)
            for rank in range(count)
        ]
        for process in self.processes:
            process.start()

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: object) -> None:
        """Nobody outlives a test that failed."""
        self.wait(0)

    def kill(self, rank: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to one of them."""
        pid = self.processes[rank].pid
        assert pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def wait(self, seconds: float = 200) -> list[Ended]:
        """Until all have ended; who has not by then is killed."""
        deadline = time.monotonic() + seconds
        ended = []
        for process, log in zip(self.processes, self.logs, strict=True):
            process.join(max(0.0, deadline - time.monotonic()))
            hung = process.is_alive()
            if hung:
                process.kill()
                process.join()
            ended.append(Ended(process.exitcode or 0, log.read_text(encoding="utf-8") if log.exists() else "", hung))
        return ended


def run(job: Job, count: int = 1) -> list[Ended]:
    """Start and wait."""
    with World(job, count) as world:
        return world.wait()


def _work(job: Job, rank: int, count: int, port: int, log: Path) -> None:
    """In the new process: what the verb `train` does, its words in a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8")
    Thread(target=_end_with, args=(job.ordered_by,), daemon=True).start()
    torch.set_num_threads(1)
    if count > 1:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )
    if job.trouble and job.trouble[1] == rank:
        plant(job.trouble[0], job.trouble[2])
    settings: Sequence[dict[str, Any]] = (job.settings, *job.others)
    code = 0
    try:
        folder = job.elsewhere if rank and job.elsewhere else job.folder
        train(merge(settings[min(rank, len(settings) - 1)]), folder, resume=job.resume, device="cpu", say=print)
    except UserError as error:
        print(f"scaleseg: {error}")
        code = 1
    except Interrupted as stop:
        print(f"scaleseg: {stop}")
        code = 130
    sys.exit(code)


def _end_with(pid: int) -> None:
    """Nobody outlives tests that were killed."""
    while True:
        time.sleep(1)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            os._exit(1)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _run_out_of_memory() -> None:
    raise MemoryError


def _fill_the_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")


TROUBLES = {
    "killed": (loop, "count_valid", _die),  # in the middle of a step: the others are in it too, or wait for it
    "memory": (loop, "scale_aware_losses", _run_out_of_memory),
    "disk": (loop.checkpoint, "save", _fill_the_disk),
}
"""What can go wrong in a process: the function in whose place it happens."""


def plant(trouble: str, at: int) -> None:
    """Let it happen at a call, counted from 1."""
    module, name, happen = TROUBLES[trouble]
    real, calls = getattr(module, name), 0

    def replaced(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            happen()
        return real(*arguments, **options)

    setattr(module, name, replaced)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port

"""Running cells: each a child process that trains, then one that measures, some at a time, until all are done.

One thread looks after all of them. A child's words go to log.txt in its run folder. It holds the ablation's lock too, so
that nobody else begins while one that lost its parent still writes.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from scaleseg.ablate.machine import Machine
from scaleseg.interruption import Interrupted
from scaleseg.training.signals import interrupts

__all__ = ["Job", "last_lines", "run"]

PROGRAM = (sys.executable, "-m", "scaleseg.ablate.child")
POLL = 0.1
"""Seconds between two looks at the children."""
PATIENCE = 20.0
"""Seconds that children have to end when everything else has failed."""


@dataclass(frozen=True)
class Job:
    """A run: train, then measure `last`."""

    name: str
    seed: int
    folder: Path
    recipe: str
    overrides: tuple[str, ...]
    measured: tuple[str, ...] | None = ()
    """Overrides of the measurement; None = only train."""
    after: Path | None = None
    """The folder of a run that must be done before."""

    @property
    def title(self) -> str:
        return f"{self.name} seed {self.seed}"


def run(jobs: Sequence[Job], machine: Machine, lock: IO[str], done: Callable[[Job, str | None, float], None]) -> None:
    """Do them all; `done` hears of each, why it failed if so, and how many seconds it took.

    Raises Interrupted after SIGINT or SIGTERM, when the children have saved and ended; a second one ends them at once.
    """
    work = _Work(jobs, machine, lock, done)
    try:
        with interrupts() as interrupted:
            while work.left:
                if interrupted:
                    work.stop(interrupted[0])
                work.collect(stopping=bool(interrupted))
                work.begin()
                time.sleep(POLL if work.running else 0)
            if interrupted:
                raise Interrupted("stopped")
    finally:
        _end(work.running, at_once=work.stopped)


def last_lines(folder: Path, count: int = 5) -> list[str]:
    """The end of a run's log."""
    try:
        lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()][-count:]


class _Work:
    """Who waits, who runs, and which places are free."""

    def __init__(
        self, jobs: Sequence[Job], machine: Machine, lock: IO[str], done: Callable[[Job, str | None, float], None]
    ) -> None:
        self.waiting, self.machine, self.lock, self.done = list(jobs), machine, lock, done
        self.running: list[_Child] = []
        self.broken: set[Path] = set()
        self.free = list(reversed(machine.devices))
        self.stopped = False

    @property
    def left(self) -> bool:
        return bool(self.waiting or self.running)

    def stop(self, number: int) -> None:
        """Nobody begins any more, and who runs gets the signal, once."""
        if not self.stopped:
            for child in self.running:
                child.send(number)
        self.waiting, self.stopped = [], True

    def collect(self, *, stopping: bool) -> None:
        """Who has ended."""
        for child in [child for child in self.running if child.ended(stopping=stopping)]:
            self.running.remove(child)
            self.free.append(child.device)
            if child.problem:
                self.broken.add(child.job.folder)
            if child.problem or child.complete:
                self.done(child.job, child.problem, child.seconds)

    def begin(self) -> None:
        """Fill the free places with whoever need not wait for another."""
        while self.free and (job := self._next()):
            self.waiting.remove(job)
            if job.after in self.broken:
                self.broken.add(job.folder)
                self.done(job, f"{job.after} failed, and this starts from it", 0.0)
            else:
                self.running.append(_Child(job, self.free.pop(), self.machine.threads, self.lock))

    def _next(self) -> Job | None:
        unfinished = {job.folder for job in self.waiting} | {child.job.folder for child in self.running}
        return next((job for job in self.waiting if job.after is None or job.after not in unfinished), None)


class _Child:
    """A run in progress: first its training, then its measurement."""

    def __init__(self, job: Job, device: str, threads: int, lock: IO[str]) -> None:
        self.job, self.device, self.lock = job, device, lock
        self.environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        self.began = time.monotonic()
        self.problem: str | None = None
        self.complete = False
        job.folder.mkdir(parents=True, exist_ok=True)
        self.steps = [self._training(), *([] if job.measured is None else [self._measurement()])]
        self._start()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, *, stopping: bool) -> bool:
        """Whether there is nothing more to wait for; starts the next step if one has come to its end."""
        code = self.process.poll()
        if code is None:
            return False
        self._close()
        if code == 0 and self.steps and not stopping:
            self._start()
            return False
        self.complete = code == 0 and not self.steps
        if code and not stopping:
            said = last_lines(self.job.folder, 1)
            self.problem = f"ended with {_code(code)}{': ' + said[0] if said else ''}"
        return True

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._close()

    def _training(self) -> list[str]:
        job = self.job
        begun = ["--resume"] if (job.folder / "checkpoints").exists() else []
        return ["train", job.recipe, *job.overrides, "--out", str(job.folder), "--device", self.device, *begun]

    def _measurement(self) -> list[str]:
        folder, overrides = self.job.folder, self.job.measured or ()
        figures = ["--json", str(folder / "metrics.json"), "--device", self.device, "--precision", "float32"]
        return ["evaluate", str(folder / "last"), *overrides, *figures]

    def _start(self) -> None:
        words = self.steps.pop(0)
        with (self.job.folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"$ {shlex.join(['scaleseg', *words])}\n")
            log.flush()
            self.process = subprocess.Popen(
                [*PROGRAM, *words],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,  # Ctrl-C in the terminal is for the parent, who passes it on
                pass_fds=(self.lock.fileno(),),
            )

    def _close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()


def _end(running: Sequence[_Child], *, at_once: bool) -> None:
    """Whoever is still there goes: what is saved stays."""
    deadline = time.monotonic() + (0 if at_once else PATIENCE)
    for child in running:
        child.send(signal.SIGTERM)
    while any(child.process.poll() is None for child in running) and time.monotonic() < deadline:
        time.sleep(POLL)
    for child in running:
        child.kill()


def _code(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

"""Measuring on all cores: processes of one thread each, so that what comes out is the same however many there are.

A process that is killed is replaced, and what it was at is tried once more; twice on the same piece of work is an error.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

import torch

from scaleseg.errors import UserError
from scaleseg.refine_search.measure import Tally, Task, label, measure

__all__ = ["Workers"]

PROGRAM = (sys.executable, "-m", "scaleseg.refine_search.child")
POLL = 0.1
"""Seconds after which an interruption is seen at the latest."""
TRIES = 2
PATIENCE = 5.0
"""Seconds."""


class Workers:
    """`jobs` processes that measure images of a cache; with one it is this process itself. Leaving it ends them."""

    def __init__(self, jobs: int, cache: Path, say: Callable[[str], None]) -> None:
        self.jobs, self.cache, self.say = jobs, cache, say
        self.children: list[_Child] = []
        self.failures: Counter[Task] = Counter()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            child.kill()

    def carry_out(self, tasks: Sequence[Task], interrupted: Sequence[int]) -> Iterator[tuple[Task, Tally]]:
        """Each task with its tally, as they come; ends early once there is anything in `interrupted`."""
        return self._here(tasks, interrupted) if self.jobs == 1 else self._in_children(deque(tasks), interrupted)

    def _here(self, tasks: Sequence[Task], interrupted: Sequence[int]) -> Iterator[tuple[Task, Tally]]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for task in tasks:
                if interrupted:
                    return
                yield task, measure(task, self.cache)
        finally:
            torch.set_num_threads(threads)

    def _in_children(self, waiting: deque[Task], interrupted: Sequence[int]) -> Iterator[tuple[Task, Tally]]:
        while not interrupted and (waiting or any(child.task for child in self.children)):
            self._give(waiting)
            for child in self._ready():
                task, tally = child.task, child.answer()
                if task and tally:
                    yield task, tally
                else:
                    self._lost(child, waiting)

    def _give(self, waiting: deque[Task]) -> None:
        while waiting and (child := self._free()):
            child.begin(waiting.popleft())

    def _free(self) -> "_Child | None":
        """One that has nothing to do; a new one where there are fewer than `jobs`."""
        idle = next((child for child in self.children if not child.task), None)
        if idle is None and len(self.children) < self.jobs:
            idle = _Child(self.cache)
            self.children.append(idle)
        return idle

    def _ready(self) -> "list[_Child]":
        with DefaultSelector() as selector:
            for child in self.children:
                if child.task:
                    selector.register(child.answers, EVENT_READ, child)
            return [key.data for key, _ in selector.select(POLL)]

    def _lost(self, child: "_Child", waiting: deque[Task]) -> None:
        """One is gone: another will take its place, and its task."""
        self.children.remove(child)
        child.kill(patience=PATIENCE)  # its answers have ended, and so will it, with a code of its own
        if not child.task:
            return
        self.failures[child.task] += 1
        at = f"image {child.task.image + 1} with {label(child.task.refine, child.task.settings)}"
        if self.failures[child.task] >= TRIES:
            raise UserError(
                f"a process ended with {child.code}, twice at {at}; if memory ran out, give fewer --jobs: the same command "
                "goes on"
            )
        self.say(f"a process ended with {child.code} at {at}, which another one does again")
        waiting.appendleft(child.task)


class _Child:
    """A process, and what it is at."""

    def __init__(self, cache: Path) -> None:
        self.task: Task | None = None
        self.process = subprocess.Popen(
            [*PROGRAM, str(cache)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C in the terminal is for the parent
        )
        assert self.process.stdin
        assert self.process.stdout
        self.tasks, self.answers = self.process.stdin, self.process.stdout

    def begin(self, task: Task) -> None:
        self.task = task
        line = json.dumps({"image": task.image, "refine": task.refine, "settings": asdict(task.settings)}) + "\n"
        with suppress(BrokenPipeError):  # it has ended, and so have its answers: `answer` sees that
            self.tasks.write(line.encode())
            self.tasks.flush()

    def answer(self) -> Tally | None:
        """Its tally, after which it has nothing to do; None if it has ended. UserError if it says why it cannot."""
        line = self.answers.readline()
        if not line.endswith(b"\n"):
            return None
        self.task = None
        said = json.loads(line)
        if "problem" in said:
            raise UserError(said["problem"])
        return Tally(*([(place, count) for place, count in said[name]] for name in Tally._fields))

    def kill(self, patience: float = 0.0) -> None:
        """Ends it, if it has not ended by itself within `patience` seconds, and lets go of its pipes."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        self.process.kill()
        self.process.wait()
        for pipe in (self.tasks, self.answers):
            with suppress(BrokenPipeError):  # a line that it never read
                pipe.close()

    @property
    def code(self) -> str:
        code = self.process.returncode
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

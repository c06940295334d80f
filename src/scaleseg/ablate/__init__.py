"""The paper's tables, trained and measured anew: every cell a run, all of them beside the paper's own figures.

    DIR/cells/NAME/seed-K/      one run: as `train` leaves it, with log.txt and metrics.json
    DIR/table.json, .md, .svg   what there is so far, written anew after every run

Runs are processes of their own (jobs.py); what is done is known by its metrics.json (results.py), so the same command
goes on after whatever stopped it.
"""

import json
import time
from collections.abc import Callable
from typing import IO

from scaleseg import atomic
from scaleseg.ablate import results
from scaleseg.ablate.cells import TABLES, Key
from scaleseg.ablate.chart import chart
from scaleseg.ablate.jobs import Job, last_lines, run
from scaleseg.ablate.machine import Machine, choose_machine
from scaleseg.ablate.markdown import markdown
from scaleseg.ablate.plan import Plan
from scaleseg.ablate.sheet import Sheet, document, fill
from scaleseg.errors import UserError
from scaleseg.interruption import Interrupted

__all__ = ["TABLES", "Plan", "ablate"]


def ablate(
    plan: Plan, *, jobs: int = 1, device: str = "auto", command: str = "", say: Callable[[str], None] = print
) -> Sheet:
    """Train and measure what is left of the plan and write its table; the table is returned.

    Raises UserError for an order that cannot be carried out, before anything starts; Interrupted after SIGINT or
    SIGTERM, when all is saved. A run that fails does not stop the others: its row says so.
    """
    chosen = plan.chosen
    machine = choose_machine(device, jobs)
    with atomic.lock(plan.out, "another ablation, or a cell that one began,") as lock:
        plan.check()
        work = _Work(plan, command, say)
        _announce(plan, chosen, work.left, machine, say)
        try:
            work.carry_out(machine, lock)
        finally:
            sheet = work.write()
    return sheet


def _announce(plan: Plan, chosen: list[Key], left: list[Job], machine: Machine, say: Callable[[str], None]) -> None:
    """What will be done, before it is."""
    done = len(chosen) - sum(job.name in plan.cells for job in left)
    runs = "1 run" if len(chosen) == 1 else f"{len(chosen)} runs"
    say(f"{plan.name}: {runs} of recipe {plan.base}{' ' if plan.settings else ''}{' '.join(plan.settings)}")
    if done:
        say(f"{done} of them done already")
    for name, cell in plan.cells.items():
        if cell.absent and not plan.only:
            say(f"without {name}: {cell.absent}")
    if plan.only and any(name == "msc" for name, _ in chosen) and "baseline" not in plan.only:
        say("with the baseline, which msc starts from")
    if left:
        say(machine.note)


class _Work:
    """An ablation in progress."""

    def __init__(self, plan: Plan, command: str, say: Callable[[str], None]) -> None:
        self.plan, self.command, self.say = plan, command, say
        self.left = plan.jobs()
        self.failed: dict[Key, str] = {}
        self.ended = 0
        self.threads = 1

    def carry_out(self, machine: Machine, lock: IO[str]) -> None:
        self.threads, self.began = machine.threads, time.monotonic()
        try:
            run(self.left, machine, lock, self.done)
        except Interrupted:
            still = len(self.left) - self.ended
            raise Interrupted(
                f"stopped and saved, with {still} of {len(self.left)} runs left; the same command goes on"
            ) from None

    def done(self, job: Job, problem: str | None, seconds: float) -> None:
        """One run has ended: its line, and the table with it."""
        self.ended += 1
        key = (job.name, job.seed)
        if problem is None and job.measured is not None:
            try:
                results.finish(job.folder, self.plan.identity(key), self.threads)
            except (UserError, OSError, ValueError, KeyError) as error:
                problem = f"its figures cannot be read: {error}"
        if problem is not None:
            self.failed[key] = problem
            for line in last_lines(job.folder):
                self.say(f"  {line}")
        self.say(f"{job.title}: {problem or self._figure(job)}, {seconds / 60:.1f} minutes; {self._left()}")
        self.write()

    def write(self) -> Sheet:
        """All three files, each in one step."""
        sheet = fill(self.plan, self.failed)
        content = json.dumps(document(sheet, self.plan, self.command), indent=2) + "\n"
        for name, text in (("table.json", content), ("table.md", markdown(sheet)), ("table.svg", chart(sheet))):
            atomic.write(self.plan.out / name, text)
        return sheet

    def _figure(self, job: Job) -> str:
        result = results.read(job.folder, job.seed) if job.measured is not None else None
        return f"mIoU {100 * result.mIoU:.2f} %" if result else "trained"

    def _left(self) -> str:
        left = len(self.left) - self.ended
        minutes = round((time.monotonic() - self.began) / 60 / self.ended * left)
        about = f"about {minutes} minutes" if minutes > 1 else "a minute or less"
        return f"{self.ended} of {len(self.left)} done" + (f", {about} left" if left else "")

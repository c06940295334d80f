"""Dealing files out to workers and keeping the record of what comes back."""

import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from scaleseg import atomic
from scaleseg.batch import OUTPUTS, Item, check_save
from scaleseg.checkpoint import load, locate
from scaleseg.distributed.cluster import Share, joined, share
from scaleseg.distributed.record import Record
from scaleseg.distributed.worker import Job, Result, Worker, fingerprint, results_of, table_of, trials
from scaleseg.engines import Plan, assemble
from scaleseg.errors import UserError, as_raised
from scaleseg.segmentation import choose_refine

__all__ = ["Totals", "segment_distributed"]

DEALT = 16
"""Images that a worker is dealt at a time, at most; fewer of few, more of millions, for Ray keeps a table of the deals."""
DEALS = 50_000

Report = Callable[[Item, str | None], None]


class Totals(NamedTuple):
    """How many images this run segmented, how many were done before, and how many failed."""

    done: int
    before: int
    failed: int


def segment_distributed(
    checkpoint: str,
    items: Sequence[Item],
    out: Path,
    *,
    save: Iterable[str] = OUTPUTS[:3],
    plan: Plan | None = None,
    max_memory: int | None = None,
    refine: str = "none",
    device: str = "auto",
    address: str | None = None,
    actors: int | None = None,
    report: Report | None = None,
    tell: Callable[[str], None] | None = None,
) -> Totals:
    """`batch.segment_files` by `actors` workers of a Ray: the same files; what an earlier run in `out` did stays.

    Without `address` a Ray of this machine's own is started, and ends with the call. `report` hears of each item, of those
    done before too; `tell` hears how the work is shared out, and what a refinement has to say. UserError if Ray is not
    there, or if `out` holds another checkpoint's or other settings' results.
    """
    job = _job(checkpoint, out, save, plan or Plan(), max_memory, refine, device)
    with Record(out, _settings(checkpoint, job)) as record:
        todo = record.unfinished(items)
        waiting = set(todo)
        for number, item in enumerate(items):
            if report and number not in waiting:
                report(item, None)
        done = failed = 0
        with closing(_dealt(job, items, todo, address, actors, tell)) as deals:  # Ray ends here, whatever happens
            for results in deals:
                good = [(items[result.number], result.sizes) for result in results if not result.problem]
                bad = [(items[result.number], result.problem) for result in results if result.problem]
                record.add(good, bad)
                done, failed = done + len(good), failed + len(bad)
                _report(results, items, report, tell)
        _sweep(out)
    return Totals(done, len(items) - len(todo), failed)


def _job(
    checkpoint: str, out: Path, save: Iterable[str], plan: Plan, max_memory: int | None, refine: str, device: str
) -> Job:
    """What the workers are told, tried here first: a mistake is told before Ray starts."""
    if re.match(r"[a-z0-9+.-]+:/", str(out)):
        raise UserError(f"--out is {out}; results go to a folder that all workers share: give a path")
    folder = locate(checkpoint)
    model = load(folder)
    wanted = check_save(model, save)
    choose_refine(model, refine)
    if plan.precision == "int8":
        raise UserError("--precision is int8, which --distributed cannot calibrate; export it once, or give another")
    assemble(model, plan, say=lambda line: None)
    return Job(
        checkpoint=str(folder.resolve()) if Path(checkpoint).exists() else checkpoint,
        fingerprint=fingerprint(folder),
        here=str(Path.cwd()),
        out=str(out.resolve()),
        save=tuple(kind for kind in OUTPUTS if kind in wanted),
        plan=plan,
        max_memory=max_memory,
        refine=refine,
        device=device,
        threads=1,
    )


def _settings(checkpoint: str, job: Job) -> dict[str, Any]:
    """What makes two runs the same, as the user gave it."""
    return {
        "checkpoint": checkpoint,
        "fingerprint": job.fingerprint,
        "save": list(job.save),
        **asdict(job.plan),
        "max_memory": job.max_memory,
        "refine": job.refine,
        "device": job.device,
    }


def _dealt(
    job: Job,
    items: Sequence[Item],
    todo: Sequence[int],
    address: str | None,
    actors: int | None,
    tell: Callable[[str], None] | None,
) -> Generator[list[Result], None, None]:
    """Results, a deal at a time, as they come; without work no Ray."""
    if not todo:
        return
    with joined(address) as ray, _told(), _quiet(ray), trials(Path(job.out)):
        shared = share(ray, actors, job.device)
        if tell:
            tell(_said(shared, len(todo), len(items) - len(todo)))
        told = replace(job, device=shared.device, threads=shared.cores)
        size = max(1, min(DEALT, len(todo) // (8 * shared.actors)), len(todo) // DEALS)
        tables = [
            table_of([(number, items[number]) for number in todo[start : start + size]])
            for start in range(0, len(todo), size)
        ]
        results = ray.data.from_arrow(tables).map_batches(
            Worker,
            fn_constructor_args=(told,),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=shared.actors, max_tasks_in_flight_per_actor=2),
            num_cpus=shared.cores,
            num_gpus=1 if shared.device == "cuda" else None,
        )
        for table in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield results_of(table)


def _report(
    results: Sequence[Result], items: Sequence[Item], report: Report | None, tell: Callable[[str], None] | None
) -> None:
    for result in results:
        if result.note and tell:
            tell(result.note)
        if report:
            report(items[result.number], result.problem or None)


@contextmanager
def _told() -> Iterator[None]:
    """A worker's UserError with its own sentence, and in one line that workers died again and again."""
    try:
        yield
    except Exception as error:
        if f"{UserError.__module__}.UserError: " in str(error):  # Ray's tracebacks around it, and its advice below
            raise UserError(str(as_raised(UserError(str(error)))).splitlines()[0]) from None
        if isinstance(error, UserError):
            raise
        if any(kind.__name__ in DEATHS for kind in type(error).__mro__):
            raise UserError(
                "workers were killed again and again as they started, which is what happens when memory runs out; give fewer "
                "--actors, then the same command goes on"
            ) from error
        raise


DEATHS = ("ActorDiedError", "ActorUnavailableError", "RayActorError", "NodeDiedError", "OutOfMemoryError")


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Ray Data without bars; a fault comes as it was raised."""
    context = ray.data.DataContext.get_current()
    wanted = {"enable_progress_bars": False, "print_on_execution_start": False, "raise_original_map_exception": True}
    before = {name: getattr(context, name) for name in wanted if hasattr(context, name)}
    for name in before:
        setattr(context, name, wanted[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _said(shared: Share, todo: int, before: int) -> str:
    workers = f"{shared.actors} {'worker' if shared.actors == 1 else 'workers'}"
    cores = f"{shared.cores} {'core' if shared.cores == 1 else 'cores'}"
    each = "a GPU each" if shared.device == "cuda" else f"{cores} each"
    return f"{workers}, {each}; {todo} to do{f', {before} done before' if before else ''}"


def _sweep(out: Path) -> None:
    """Remove what killed workers had begun to write; their successors wrote it anew."""
    for kind in OUTPUTS:
        for folder, _, names in os.walk(out / kind):
            for name in names:
                if name.startswith(atomic.MARK):
                    Path(folder, name).unlink(missing_ok=True)

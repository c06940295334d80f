"""What a worker does: load the model once, then segment what it is dealt and write the files."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from scaleseg.batch import Item, segment_item
from scaleseg.checkpoint import load, locate
from scaleseg.devices import choose_device, place
from scaleseg.distributed.record import sizes_of
from scaleseg.engines import Plan, assemble
from scaleseg.errors import UserError
from scaleseg.segmentation import choose_refine

__all__ = ["Job", "Result", "Worker", "fingerprint", "results_of", "table_of", "trials"]

TRYING = ".trying"
"""In the output folder, while a run goes on: a file an image that is in work, with a line for each process that began it."""
KILLS = 3
"""An image whose worker was killed so often is left out: Ray itself would try it for ever."""


@dataclass(frozen=True)
class Job:
    """What all workers are told."""

    checkpoint: str
    """A folder that every machine sees under this name, a bundled name, or a Hub id."""
    fingerprint: str
    here: str
    """The working folder: names are given as seen from it."""
    out: str
    save: tuple[str, ...]
    plan: Plan
    max_memory: int | None
    refine: str
    device: str
    threads: int


@dataclass(frozen=True)
class Result:
    """What became of the item of this number: the sizes of its files, or why it failed."""

    number: int
    sizes: list[int]
    problem: str
    note: str


class Worker:
    """Called by Ray Data, in a process of its own, with tables of items; answers with tables of results."""

    def __init__(self, job: Job) -> None:
        if Path(job.here).is_dir():
            os.chdir(job.here)
        if job.device == "cpu":
            torch.set_num_threads(job.threads)
        folder = locate(job.checkpoint)
        if fingerprint(folder) != job.fingerprint:
            raise UserError(
                f"{job.checkpoint} is another checkpoint where a worker runs; give a folder that all machines share"
            )
        self.job, self.out = job, Path(job.out)
        self.model = place(load(folder), choose_device(job.device))
        self.refine = choose_refine(self.model, job.refine)
        self.engine = assemble(self.model, job.plan)

    def __call__(self, table: Any) -> Any:
        """A table of items in, a table of results out."""
        results = [self._segment(row["number"], _item(row)) for row in table.to_pylist()]
        arrow = import_module("pyarrow")
        columns = {
            "number": arrow.array([result.number for result in results], arrow.int64()),
            "sizes": arrow.array([result.sizes for result in results], arrow.list_(arrow.int64())),
            "problem": arrow.array([os.fsencode(result.problem) for result in results], arrow.binary()),
            "note": arrow.array([os.fsencode(result.note) for result in results], arrow.binary()),
        }
        return arrow.table(columns)

    def _segment(self, number: int, item: Item) -> Result:
        wanted = list(self.job.save)
        mark = self.out / TRYING / str(number)
        if mark.exists() and len(mark.read_text().splitlines()) >= KILLS:
            return Result(number, [], _deadly(item), "")
        try:
            _append(mark)
            note = segment_item(
                self.model, item, self.out, wanted,
                refine=self.refine, engine=self.engine, max_memory=self.job.max_memory,
            )  # fmt: skip
        except UserError as error:
            return Result(number, [], str(error), "")
        finally:
            mark.unlink(missing_ok=True)
        return Result(number, sizes_of(self.out, item.name, wanted), "", note)


@contextmanager
def trials(out: Path) -> Iterator[None]:
    """The folder in which workers mark what they begin, empty at first, and gone in the end."""
    shutil.rmtree(out / TRYING, ignore_errors=True)
    (out / TRYING).mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(out / TRYING, ignore_errors=True)


def table_of(items: Sequence[tuple[int, Item]]) -> Any:
    """Numbered items as an Arrow table; names are bytes, for a file's name may be no text."""
    return import_module("pyarrow").table(
        {
            "number": [number for number, _ in items],
            "source": [os.fsencode(item.source) for _, item in items],
            "name": [os.fsencode(item.name) for _, item in items],
            "url": [os.fsencode(item.url or "") for _, item in items],
        }
    )


def results_of(table: Any) -> list[Result]:
    """What a worker's table says."""
    return [
        Result(row["number"], row["sizes"], os.fsdecode(row["problem"]), os.fsdecode(row["note"]))
        for row in table.to_pylist()
    ]


def fingerprint(folder: Path) -> str:
    """What tells one checkpoint from another, wherever it lies: SHA-256 of its settings and parameters."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        try:
            digest.update((folder / name).read_bytes())
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read ({error.strerror}); give a checkpoint folder") from error
    return digest.hexdigest()


def _append(mark: Path) -> None:
    """Note that an image is begun once more; the process may not live to say so."""
    with suppress(OSError):  # a full disk: that the results cannot be written either is told in their words
        mark.parent.mkdir(parents=True, exist_ok=True)
        with mark.open("a") as file:
            file.write(f"{os.getpid()}\n")


def _deadly(item: Item) -> str:
    return (
        f"{item.url or item.source} was left out: {KILLS} workers were killed in the middle of it, out of memory or by a fault "
        "in a decoder; shrink it, or save it anew"
    )


def _item(row: dict[str, Any]) -> Item:
    return Item(Path(os.fsdecode(row["source"])), os.fsdecode(row["name"]), os.fsdecode(row["url"]) or None)

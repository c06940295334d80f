"""Searching a refinement's settings for a model, coarse to fine, as the DeepLab papers do (v1 and v2: on 100 images).

    OUT/table.json, table.md    every setting tried, with its mIoU
    OUT/cache/                  scores and results: the network runs once, and the same command goes on (folder.py)
    OUT/checkpoint/             a copy with the best settings, of a bundled model or one of the Hub

The best settings go into the checkpoint's config.json, if they are better than those it has. Settings are chosen on the
development split: the photographs that are reported on have no say (photographs.py).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from scaleseg import checkpoint
from scaleseg.config import Config, RefineConfig, to_dict
from scaleseg.datasets import Subset
from scaleseg.devices import choose_device, place
from scaleseg.errors import UserError
from scaleseg.evaluation import count
from scaleseg.interruption import interrupts
from scaleseg.model import ScaleAware
from scaleseg.recipes import override
from scaleseg.refine_search.folder import Results, alone, begin, stop_if
from scaleseg.refine_search.grid import around, check_start, describe, most, of_kind
from scaleseg.refine_search.measure import Task
from scaleseg.refine_search.photographs import Photographs, choose_photographs
from scaleseg.refine_search.scores import Progress, Say, fill
from scaleseg.refine_search.table import Row, Table, row
from scaleseg.refine_search.target import Target, choose_target, fingerprint
from scaleseg.refine_search.workers import Workers

__all__ = ["Found", "Order", "search"]


@dataclass(frozen=True)
class Order:
    """What is to be searched, on how many photographs, in how many rounds."""

    checkpoint: str
    refine: str
    out: Path
    overrides: tuple[str, ...] = ()
    """Of `data` and `refine`: a search begins at the checkpoint's settings, or at those given here."""
    images: int = 100
    rounds: int = 3
    jobs: int = 1
    """Processes of one thread each; results do not depend on how many."""
    device: str = "auto"
    """Of the network; refinement is on the CPU."""
    command: str = ""


class Found(NamedTuple):
    """How a search ended."""

    table: Table
    before: Row
    """The settings that the checkpoint had."""
    target: Target
    """Where better ones were written, if any are better."""
    reported: bool
    """Whether the settings name photographs to report figures on (data.val)."""

    @property
    def better(self) -> bool:
        return self.table.best.mIoU > self.before.mIoU


@contextmanager
def _silent(title: str, total: int) -> Iterator[Callable[[], None]]:
    yield lambda: None


def search(order: Order, *, say: Say = print, progress: Progress = _silent) -> Found:
    """Search, write the tables, and write the best settings into the checkpoint if it has no better ones.

    Goes on with what is in `order.out`. Raises UserError for an order that cannot be carried out, before anything is
    computed; Interrupted after SIGINT or SIGTERM, with at most the work in hand lost.
    """
    source = checkpoint.locate(order.checkpoint).resolve()  # a run's `best` may point elsewhere before the end
    config = checkpoint.read_config(source)
    given = _settings(order, config, config.refine)
    check_start(of_kind(given.refine, order.refine), order.refine)
    photographs = choose_photographs(given, order.overrides, order.images)
    model = _model(order, source, photographs)
    target = choose_target(order.checkpoint, source, order.out)
    before = of_kind(target.settings(), order.refine)
    with alone(order.out) as cache, interrupts() as interrupted:
        began = begin(cache, fingerprint(source), photographs.dataset.names, order.refine, config.refine)
        start = of_kind(_settings(order, config, replace(config.refine, **began)).refine, order.refine)
        check_start(start, order.refine)
        say(photographs.note)
        fill(cache, photographs.dataset, model, interrupted, say, progress)
        with Results(cache) as results, Workers(order.jobs, cache, say) as workers:
            say(_announcement(order, start, len(photographs.dataset)))
            work = _Search(order, model.classes, photographs, workers, results, interrupted, say, progress)
            work.carry_out(start)
            earlier = work.measured(before)  # first: it is a row of the table
            found = Found(work.table(), earlier, target, given.data.val is not None)
    if found.better and found.table.best.settings:
        target.write(order.refine, found.table.best.settings)
    return found


class _Search:
    """A search in progress."""

    def __init__(
        self,
        order: Order,
        classes: tuple[str, ...],
        photographs: Photographs,
        workers: Workers,
        results: Results,
        interrupted: Sequence[int],
        say: Say,
        progress: Progress,
    ) -> None:
        self.order, self.classes, self.images = order, classes, range(len(photographs.dataset))
        self.workers, self.results, self.interrupted = workers, results, interrupted
        self.say, self.progress = say, progress
        self.rows: dict[RefineConfig | None, Row] = {}
        about = {"checkpoint": order.checkpoint, "command": order.command, "note": photographs.note}
        self.about = {**about, "images": list(photographs.dataset.names)}

    def carry_out(self, start: RefineConfig) -> None:
        """All rounds: each around the best so far, nothing twice."""
        kind = self.order.refine
        self._try([None], 0, "without refinement")
        self.say(f"none: mIoU {100 * self.rows[None].mIoU:.2f} %")
        centre = start
        for number in range(1, self.order.rounds + 1):
            new = [setting for setting in around(centre, kind, number) if setting not in self.rows]
            if not new:
                self.say(f"round {number}: no setting is left to try")
                break
            self._try(new, number, f"round {number}")
            table = self.table()
            assert table.best.settings
            centre = table.best.settings
            self.say(
                f"round {number}: {len(new)} settings; best so far mIoU {100 * table.best.mIoU:.2f} % with "
                f"{describe(centre, kind)}"
            )

    def measured(self, settings: RefineConfig) -> Row:
        """One more setting, unless it was tried; in no round."""
        if settings not in self.rows:
            self._try([settings], 0, "the checkpoint's settings")
        return self.rows[settings]

    def _try(self, settings: Sequence[RefineConfig | None], number: int, title: str) -> None:
        tasks = [self._task(setting, image) for setting in settings for image in self.images]
        left = [task for task in tasks if self.results.get(task) is None]
        if len(left) < len(tasks):
            self.say(f"{title}: {len(tasks) - len(left):,} of {len(tasks):,} refinements are done already")
        with self.progress(title, len(left)) as advance:
            for task, tally in self.workers.carry_out(left, self.interrupted):
                self.results.put(task, tally)
                advance()
        stop_if(self.interrupted, self.order.out)
        for setting in settings:
            known = (self.results.get(self._task(setting, image)) for image in self.images)
            self.rows[setting] = row(setting, number, self.classes, (tally for tally in known if tally))

    def _task(self, setting: RefineConfig | None, image: int) -> Task:
        return Task(image, "none", RefineConfig()) if setting is None else Task(image, self.order.refine, setting)

    def table(self) -> Table:
        """What there is so far, written."""
        table = Table(self.order.refine, list(self.rows.values()), self.about)
        table.write(self.order.out)
        return table


def _settings(order: Order, config: Config, start: RefineConfig) -> Config:
    """The checkpoint's, with another start and with what was given; UserError if that is another network."""
    given = override(to_dict(replace(config, refine=start)), order.overrides)
    if given.model != config.model:
        raise UserError(
            "settings of the model were given, but refine.* are found for the model as it is; leave model.* out"
        )
    return given


def _model(order: Order, source: Path, photographs: Photographs) -> ScaleAware:
    """The network; UserError if the photographs' classes are others, or this refinement is none of its."""
    model = place(checkpoint.load(source), choose_device(order.device))
    count(model, Subset(photographs.dataset, ()), refine=order.refine)  # which says so, before the first photograph
    return model


def _announcement(order: Order, start: RefineConfig, images: int) -> str:
    new = most(order.refine, order.rounds)
    settings = 1 + sum(new)
    processes = "1 process" if order.jobs == 1 else f"{order.jobs} processes"
    return (
        f"{order.refine}, from {describe(start, order.refine)}: at most 1 (none) + {' + '.join(map(str, new))} settings x "
        f"{images} images = {settings * images:,} refinements, one thread each in {processes}"
    )

"""What is to be done: every cell and seed with its settings, its folder, and whether it is done already."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from scaleseg.ablate import paper, results
from scaleseg.ablate.cells import TABLES, Cell, Key, Table, check_overrides, grid, resolve, select, words
from scaleseg.ablate.jobs import Job
from scaleseg.checkpoint import locate, read_config
from scaleseg.config import Config
from scaleseg.datasets import open_evaluation, open_training
from scaleseg.errors import UserError, choose
from scaleseg.recipes import load_recipe
from scaleseg.training.run_folder import RunFolder
from scaleseg.training.start import create

__all__ = ["Plan"]

PRETRAINING = "coco-pretrain"
"""The recipe behind --init coco, and the name of its run."""


@dataclass(frozen=True)
class Plan:
    """An ablation as it was ordered; made and checked before anything starts."""

    name: str
    out: Path
    overrides: tuple[str, ...] = ()
    recipe: str = ""
    """"" = the table's own."""
    only: tuple[str, ...] = ()
    seeds: int = 1
    init: str | None = None
    coco_root: Path | None = None

    def __post_init__(self) -> None:
        choose("table", self.name, TABLES)
        if self.coco_root and self.init != "coco":
            raise UserError("--coco-root is the photographs of --init coco; give both, or neither")
        check_overrides(self.overrides)

    @property
    def table(self) -> Table:
        return TABLES[self.name]

    @property
    def base(self) -> str:
        """The recipe's name or path."""
        return self.recipe or self.table.recipe

    @property
    def settings(self) -> tuple[str, ...]:
        """The overrides that all cells share: the table's for its own recipe, where the user gave none, and the user's.

        One checkpoint a run is kept, for `last` is what counts: those of 14 runs of VGG take gigabytes.
        """
        given = {item.partition("=")[0] for item in self.overrides}
        defaults = ("train.keep=1", *(() if self.recipe else self.table.defaults))
        return (*(item for item in defaults if item.partition("=")[0] not in given), *self.overrides)

    @cached_property
    def common(self) -> Config:
        """The recipe with what all cells share."""
        return load_recipe(self.base, self.settings)

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """All cells of the table by name, also those that it cannot have."""
        return {cell.name: cell for cell in grid(self.table, self.common.model.segmenter)}

    @cached_property
    def configs(self) -> dict[Key, Config]:
        """The settings of every run, chosen or not."""
        return {
            (name, seed): resolve(self.common, cell.given(seed, self.start((name, seed))))
            for seed in range(self.seeds)
            for name, cell in self.cells.items()
            if not cell.absent
        }

    @cached_property
    def chosen(self) -> list[Key]:
        """The runs that are wanted, with the baselines that others start from."""
        absent = [cell for cell in self.cells.values() if cell.absent]
        chosen = select(self.only, self.configs, absent)
        chosen |= {("baseline", seed) for name, seed in chosen if self.cells[name].from_baseline}
        return [key for key in self.configs if key in chosen]

    @property
    def origin(self) -> str:
        """What the cells start from: `imagenet` (as in the paper's main tables), `coco`, or "" for anything else."""
        if not self.init:
            return "" if self.common.model.pretrained == "none" else "imagenet"
        is_coco = self.init == "coco" or read_config(locate(self.init)).data.dataset == "coco"
        return "coco" if is_coco else ""

    @property
    def on_own_data(self) -> bool:
        """Whether these are the table's photographs, and not the user's in their place."""
        return self.common.data.dataset == self.table.dataset

    @cached_property
    def paper(self) -> paper.PaperTable | None:
        """The paper's table of the same experiment."""
        return paper.find(self.name, self.origin) if self.on_own_data else None

    @property
    def pretraining(self) -> Path:
        """The folder of the run behind --init coco."""
        return self.out / "init" / "coco"

    def folder(self, key: Key) -> Path:
        """A cell's run folder."""
        return self.out / "cells" / key[0] / f"seed-{key[1]}"

    def start(self, key: Key) -> Path | str | None:
        """The checkpoint that a run starts from."""
        if self.cells[key[0]].from_baseline:
            return self.folder(("baseline", key[1])) / "last"
        return self.pretraining / "last" if self.init == "coco" else self.init

    def identity(self, key: Key) -> dict[str, object]:
        """What the measurement of a run is the measurement of."""
        return results.identity(self.configs[key], self.out)

    def jobs(self) -> list[Job]:
        """What is left to do, in order: what others start from comes first."""
        left = [key for key in self.chosen if results.read(self.folder(key), key[1]) is None]
        before = [self._pretraining()] if left and self.init == "coco" and not self._pretrained() else []
        return [*before, *(self._job(key) for key in left)]

    def rows(self, failed: dict[Key, str]) -> dict[str, results.Row]:
        """What every cell has come to, chosen now or earlier; `failed` says what went wrong this time."""
        rows = {}
        for name, cell in self.cells.items():
            found = [results.read(self.folder((name, seed)), seed) for seed in range(self.seeds)]
            wrong = {seed: problem for (broken, seed), problem in failed.items() if broken == name}
            rows[name] = results.Row(tuple(result for result in found if result), wrong, cell.absent)
        return rows

    def check(self) -> None:
        """UserError for whatever would fail in every cell: folders of other settings, data, the network's parameters."""
        for key in self.configs:
            results.check(self.folder(key), self.identity(key), self.out)
        left = [job for job in self.jobs() if job.name in self.cells]
        if left:
            _check_data(self.common)
            first = self.configs[left[0].name, left[0].seed]
            if left[0].after is None:
                _check_network(first)

    def _job(self, key: Key) -> Job:
        cell, start = self.cells[key[0]], self.start(key)
        after = self.folder(("baseline", key[1])) if cell.from_baseline else None
        if self.init == "coco" and not after:
            after = self.pretraining
        overrides = (*self.settings, *words(cell.given(key[1], start)))
        data = tuple(item for item in self.settings if item.startswith(("data.", "data=")))
        return Job(key[0], key[1], self.folder(key), self.base, overrides, data, after)

    def _pretraining(self) -> Job:
        if not self.coco_root:
            raise UserError("--init coco trains on COCO first; give --coco-root FOLDER, or --init CHECKPOINT")
        overrides = self._pretraining_overrides()
        config = load_recipe(PRETRAINING, overrides)
        results.check(self.pretraining, results.identity(config, self.out), self.out)
        open_training(config.data)
        return Job(PRETRAINING, config.train.seed, self.pretraining, PRETRAINING, overrides, measured=None)

    def _pretraining_overrides(self) -> tuple[str, ...]:
        """The user's own, such as model.pretrained, but for those on the photographs of the table."""
        mine = (item for item in self.settings if not item.startswith(("data.", "data=")))
        return (*mine, f"data.root={self.coco_root}")

    def _pretrained(self) -> bool:
        newest = RunFolder(self.pretraining).newest()
        steps = load_recipe(PRETRAINING, self._pretraining_overrides()).train.steps
        return newest is not None and newest.name == f"step-{steps}"


def _check_data(config: Config) -> None:
    splits, measured = open_training(config.data), open_evaluation(config.data)
    ours, theirs = tuple(splits.train.classes), tuple(measured.dataset.classes)
    if ours != theirs:
        raise UserError(
            f"data.train has the classes {', '.join(ours[:8])}, data.val {', '.join(theirs[:8])}; they must be the same"
        )


def _check_network(config: Config) -> None:
    """Builds it once, with the parameters that it is to start from."""
    classes = open_training(config.data).train.classes
    create(replace(config, data=replace(config.data, classes=classes)), None, RunFolder(Path()), _quiet)


def _quiet(line: str) -> None:
    """The cells say it themselves."""

"""Which cells a table has: a recipe with overrides, under a name such as `attention-3-es`, and which of them are chosen.

The grid is {max, average, attention} x {2, 3 scales} x {without, with extra supervision}; beside it stand the baseline
(one scale) and MSc, the paper's skip network, which starts from the trained baseline and trains its branches alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from scaleseg.config import Config, to_dict
from scaleseg.errors import UserError, choose

__all__ = [
    "COLUMNS",
    "FUSIONS",
    "TABLES",
    "Cell",
    "Key",
    "Table",
    "check_overrides",
    "grid",
    "resolve",
    "select",
    "words",
]

FUSIONS = ("max", "average", "attention")
COLUMNS = ("2", "2-es", "3", "3-es")
"""How many scales, and whether each has a loss of its own; with a fusion in front, a cell's name."""


Key = tuple[str, int]
"""A cell's name and a seed: one run."""


@dataclass(frozen=True)
class Table:
    """A table that can be made."""

    recipe: str
    dataset: str
    """`data.dataset` of it; on other data there is nothing to compare."""
    data: str
    """What the photographs are called."""
    two: tuple[float, ...] = (1.0, 0.5)
    three: tuple[float, ...] = (1.0, 0.75, 0.5)
    defaults: tuple[str, ...] = ()
    """Overrides of that recipe; the user's own replace them."""


_SHAPES = (
    "train.steps=60",
    "train.batch=16",
    "train.optimizer=adamw",
    "train.lr=0.03",
    "train.bias_lr=1",
    "train.fresh_lr=0.001",
    "train.warmup_steps=15",
)
"""What learns in 60 steps: AdamW, and an attention so slow that it does not settle on the scale that learns first."""

TABLES = {
    "voc": Table("voc-attention", "voc", "PASCAL VOC 2012 val"),
    "person-part": Table("person-part-attention", "person_part", "PASCAL-Person-Part val"),
    "coco": Table("coco-attention", "coco", "COCO 2014 subset val"),
    "voc-animals": Table("voc-animals-attention", "folder", "VOC photographs of people and animals"),
    "camvid": Table("camvid-attention", "camvid", "CamVid"),
    "shapes": Table("shapes-attention", "shapes", "Synthetic shapes, val", three=(1.0, 0.5, 0.25), defaults=_SHAPES),
}


@dataclass(frozen=True)
class Cell:
    """One cell: the settings in which it differs, by name; `absent` says why it cannot be in this table."""

    name: str
    settings: tuple[tuple[str, Any], ...] = ()
    absent: str = ""

    @property
    def from_baseline(self) -> bool:
        """Whether it starts from the baseline of the same seed."""
        return self.name == "msc"

    def given(self, seed: int, init_from: Path | str | None) -> dict[str, Any]:
        """The settings of one run that are not shared by all."""
        start = {"train.init_from": str(init_from)} if init_from else {}
        return {**dict(self.settings), **start, "train.seed": seed}


def grid(table: Table, segmenter: str) -> tuple[Cell, ...]:
    """All 14 cells; `segmenter` is the recipe's, for only LargeFOV has an MSc."""
    cells = [Cell("baseline", _settings("average", (1.0,), extra=False)), _msc(segmenter)]
    for fusion in FUSIONS:
        for column in COLUMNS:
            scales = table.three if column.startswith("3") else table.two
            cells.append(Cell(f"{fusion}-{column}", _settings(fusion, scales, extra=column.endswith("es"))))
    return tuple(cells)


def resolve(common: Config, given: Mapping[str, Any]) -> Config:
    """The settings of a run: those that all share, less what it is given."""
    sections: dict[str, dict[str, Any]] = {"model": {}, "train": {}}
    for key, value in given.items():
        section, _, name = key.partition(".")
        sections[section][name] = value
    return replace(
        common, model=replace(common.model, **sections["model"]), train=replace(common.train, **sections["train"])
    )


def words(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The same as overrides for a command line: JSON is YAML, and plain names need no quotes."""
    return tuple(
        f"{key}={value}" if isinstance(value, str) and value.isidentifier() else f"{key}={json.dumps(value)}"
        for key, value in given.items()
    )


def check_overrides(overrides: Sequence[str]) -> None:
    """UserError if one of the user's sets what the cells differ in."""
    for item in overrides:
        key, _, _ = item.partition("=")
        for taken, instead in _TAKEN.items():
            if key != "data" and _sets(item, taken):
                raise UserError(f"{item!r} sets {taken}, which the cells of the table set; {instead}")


def select(only: Sequence[str], settings: dict[Key, Config], absent: Sequence[Cell] = ()) -> set[Key]:
    """The cells that --only means, of those in `settings`; all without it. UserError where it means none.

    A cell's name chooses it. Of KEY=VALUE every key must hold; a key given twice may have either value.
    """
    names = {item for item in only if "=" not in item}
    for cell in absent:
        if cell.name in names:
            raise UserError(f"--only {cell.name}: {cell.absent}")
    for name in names:
        choose("--only", name, {known for known, _ in settings})
    named = {key for key in settings if key[0] in names}
    wanted: dict[str, list[Any]] = {}
    for item in only:
        if "=" in item:
            key, value = _read(item)
            wanted.setdefault(key, []).append(value)
    if not wanted:
        return named or set(settings)
    matching = {
        cell
        for cell, config in settings.items()
        if all(_look_up(config, key) in values for key, values in wanted.items())
    }
    if not matching:
        raise UserError(f"no cell has {' and '.join(item for item in only if '=' in item)}; {_choices(settings)}")
    return named | matching


_TAKEN = {
    "model.fusion": "choose cells with --only model.fusion=...",
    "model.scales": "choose cells with --only model.scales=...",
    "train.extra_supervision": "choose cells with --only train.extra_supervision=...",
    "train.seed": "give --seeds N for the seeds 0 to N-1, and --only train.seed=... to choose among them",
    "train.init_from": "give --init CHECKPOINT",
}
"""Settings that are a cell's, and what a user does instead of setting them."""


def _settings(fusion: str, scales: tuple[float, ...], *, extra: bool) -> tuple[tuple[str, Any], ...]:
    return (("model.fusion", fusion), ("model.scales", scales), ("train.extra_supervision", extra))


def _msc(segmenter: str) -> Cell:
    """Paper, section 4 and the DeepLab v1 release: the branches alone are trained, at the base rate."""
    if segmenter != "largefov":
        return Cell("msc", absent=f"MSc has branches for the network largefov, and this recipe's is {segmenter}")
    frozen = ("trunk", "fc6", "fc7", "fc8")
    trained = (("model.segmenter", "msc"), ("train.freeze", frozen), ("train.fresh_lr", 1.0))
    return Cell("msc", (*_settings("average", (1.0,), extra=False), *trained))


def _sets(item: str, key: str) -> bool:
    """Whether an override sets a key, alone or with its whole section; one that cannot be read is named later."""
    try:
        return OmegaConf.select(OmegaConf.from_dotlist([item]), key, default=_NOTHING) is not _NOTHING
    except Exception:
        return False


_NOTHING = object()


def _read(item: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as YAML reads it."""
    key = item.partition("=")[0]
    known = [f"{section}.{name}" for section, inner in to_dict(Config()).items() for name in inner]
    choose("--only", key, known)
    try:
        return key, OmegaConf.to_container(OmegaConf.from_dotlist([item]))[key.partition(".")[0]][key.partition(".")[2]]  # type: ignore[call-overload,index]
    except Exception as error:
        raise UserError(f"--only {item!r} cannot be read; write KEY=VALUE, such as model.fusion=attention") from error


def _look_up(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return to_dict(config)[section][name]


def _choices(settings: dict[Key, Config]) -> str:
    keys = ("model.fusion", "model.scales", "train.extra_supervision", "train.seed")
    seen = {key: sorted({str(_look_up(config, key)) for config in settings.values()}) for key in keys}
    values = "; ".join(f"{key} is {' or '.join(values)}" for key, values in seen.items())
    return f"cells are {', '.join(dict.fromkeys(name for name, _ in settings))}; {values}"

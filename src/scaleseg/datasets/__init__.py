"""Photographs with labels. A name is a file: `data.dataset=folder` is `datasets/folder.py`, which defines `open_split`.

A split is `train`, `dev` or `val`. `dev` chooses the best checkpoint and is cut out of train here, the same way for all.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import NamedTuple

import torch

from scaleseg.config import DataConfig
from scaleseg.datasets.contract import Dataset, Subset
from scaleseg.errors import UserError, choose

__all__ = ["Dataset", "Splits", "Subset", "list_datasets", "open_evaluation", "open_training", "open_whole"]


def list_datasets() -> tuple[str, ...]:
    """The names: this folder's files, less what serves them all."""
    return tuple(sorted(module.name for module in iter_modules(__path__) if module.name not in _SHARED))


_SHARED = ("archive", "contract", "pairs", "prepared")


class Splits(NamedTuple):
    """What a training run needs."""

    train: Dataset
    dev: Dataset | None
    """Chooses `best`; None where `data.dev` is 0."""
    note: str
    """How dev came about, in a sentence."""


class Measured(NamedTuple):
    """What an evaluation needs."""

    dataset: Dataset
    note: str
    """Which photographs these are, in a sentence."""


def open_training(data: DataConfig) -> Splits:
    """The training photographs less the development split, and that split."""
    whole = open_whole(data, "train")
    if not len(whole):
        raise UserError(
            f"{_where(data, 'train')} holds no photographs; give data.train a folder with images/ and masks/"
        )
    if isinstance(data.dev, str) and data.dev.startswith(SPLIT):
        return _beside(data, whole)
    chosen, note = _development(data, whole)
    if not chosen:
        return Splits(whole, None, note)
    held = set(chosen)
    train = Subset(whole, [index for index in range(len(whole)) if index not in held])
    if not len(train):
        raise UserError(f"data.dev takes all {len(whole)} photographs of data.train; leave some to learn from")
    return Splits(train, Subset(whole, chosen), note)


SPLIT = "split:"
"""What `data.dev` begins with where it names a split of its own, such as CamVid's val."""


def open_evaluation(data: DataConfig) -> Measured:
    """The reported split, `data.val`; where there is none, the development split, and the note says so."""
    if data.val is None:
        dev = open_training(data).dev
        if dev is None:
            raise UserError("there is no data.val and no data.dev to measure on; give data.val=PATH")
        return Measured(dev, "no data.val: this is the development split that chose the checkpoint, so figures flatter")
    dataset = open_whole(data, "val")
    if not len(dataset):
        raise UserError(f"{_where(data, 'val')} holds no photographs; give data.val a folder with images/ and masks/")
    return Measured(dataset, f"{len(dataset)} photographs of {_where(data, 'val')}")


def open_whole(data: DataConfig, split: str) -> Dataset:
    """All of `data.train` or of `data.val`, the development split included."""
    module = import_module(f"{__name__}.{choose('data.dataset', data.dataset, list_datasets())}")
    dataset: Dataset = module.open_split(data, split)
    return dataset


def _development(data: DataConfig, whole: Dataset) -> tuple[list[int], str]:
    """Which of the training photographs are held back, and a sentence on it."""
    share = _share(data.dev)
    if share is None:
        return _listed(Path(str(data.dev)), whole.names)
    if share == 0:
        return [], "no development split (data.dev=0): `best` is `last`"
    count = max(1, round(share * len(whole)))
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0)).tolist()
    note = f"{count} of the {len(whole)} training photographs are held back to choose the best checkpoint (data.dev={share:g})"
    return sorted(order[:count]), note


def _beside(data: DataConfig, whole: Dataset) -> Splits:
    """The development split is one that the dataset has beside train."""
    name = str(data.dev).removeprefix(SPLIT)
    dev = open_whole(replace(data, val=name), "val")
    both = sorted(set(whole.names) & set(dev.names))
    if not len(dev) or both:
        found = f"it shares {both[0]} with data.train ({len(both)} in all)" if both else "it holds no photographs"
        raise UserError(f"data.dev is {data.dev}, but {found}; give another split, a share or a list of ids")
    return Splits(whole, dev, f"the {len(dev)} photographs of {name} choose the best checkpoint (data.dev={data.dev})")


def _share(dev: object) -> float | None:
    """`data.dev` as a number; None if it is a path."""
    try:
        share = float(str(dev))
    except ValueError:
        return None
    if not 0 <= share < 1:
        raise UserError(f"data.dev is {dev}; give a share from 0 to below 1, the path of a list of ids, or split:NAME")
    return share


def _listed(path: Path, names: Sequence[str]) -> tuple[list[int], str]:
    if not path.is_file():
        raise UserError(f"data.dev is {str(path)!r}, which is not a file; give a list of ids, one a line, or a share")
    try:
        wanted = set(path.read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        raise UserError(f"data.dev is {str(path)!r}, which cannot be read as text ({error})") from error
    chosen = [index for index, name in enumerate(names) if name in wanted]
    if not chosen:
        raise UserError(f"none of the {len(wanted)} ids of {path} is a photograph of data.train")
    note = f"{len(chosen)} training photographs of {path.name} are held back to choose the best checkpoint"
    return chosen, note + (
        f"; {len(wanted) - len(chosen)} ids are not in data.train" if len(chosen) < len(wanted) else ""
    )


def _where(data: DataConfig, split: str) -> str:
    value = getattr(data, split)
    listed = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return ", ".join(item for item in listed if isinstance(item, str)) or f"{data.dataset} {split}"

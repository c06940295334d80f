"""Reading every pair before a run, so that nothing spoils it at step 3,000; and writing `data.yaml` for a folder."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scaleseg.config import DataConfig
from scaleseg.datasets import Dataset, open_training, open_whole
from scaleseg.datasets.folder import Folder, find_ids
from scaleseg.errors import UserError
from scaleseg.geometry import IGNORE

__all__ = ["Report", "Split", "check", "describe_folder", "describe_ids"]


@dataclass
class Split:
    """What was found in the photographs of one split."""

    name: str
    images: int
    classes: tuple[str, ...]
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))  # of each id, void at 255
    shares: dict[int, list[float]] = field(default_factory=dict)  # class id: its share of each image that has it

    def frequency(self, class_id: int) -> float:
        """Share of the labelled pixels."""
        labelled = int(self.pixels[: len(self.classes)].sum())
        return float(self.pixels[class_id] / labelled) if labelled else 0.0

    def sizes(self, class_id: int) -> tuple[float, float, float]:
        """The class's share of the images that have it, at 10, 50 and 90 % of them; zeros where it is never seen."""
        seen = self.shares.get(class_id)
        if not seen:
            return 0.0, 0.0, 0.0
        low, middle, high = np.percentile(seen, [10, 50, 90]).tolist()
        return low, middle, high


@dataclass(frozen=True)
class Report:
    """All splits, and how the development split comes about."""

    splits: tuple[Split, ...]
    note: str


def check(data: DataConfig, progress: Callable[[str, int, int], None] | None = None) -> Report:
    """Read every pair of `data.train` and `data.val`; UserError if they cannot even be opened."""
    names = ["train"] + (["val"] if data.val is not None else [])
    opened = {name: open_whole(data, name) for name in names}
    splits = [_read(name, dataset, progress) for name, dataset in opened.items()]
    if len(splits) == 2:
        both = sorted(set(opened["train"].names) & set(opened["val"].names))
        if both:
            splits[1].warnings.append(f"{len(both)} photographs are in train too, so figures flatter: {_few(both)}")
    return Report(tuple(splits), open_training(data).note)


def describe_folder(folder: Path, classes: Sequence[str] | None = None) -> tuple[dict[str, Any], list[str]]:
    """The data section for a folder's layout and ids, and sentences on how it was read."""
    where = _layout(folder)
    ids = find_ids([str(folder / path) for path in where.values()])
    section, notes = describe_ids(ids, list(classes) if classes else _listed(folder))
    return {"dataset": "folder", **where, **section}, [f"{key}: {path}" for key, path in where.items()] + notes


def describe_ids(ids: Sequence[int], given: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """`classes` and, where ids are not places in it, `label_map` for the ids that masks hold, and sentences on them."""
    labelled, notes = sorted(set(ids) - {IGNORE}), []
    label_map: dict[int, int] = {}
    if labelled == [0] and IGNORE in ids:
        labelled, label_map = [0, IGNORE], {0: 0, IGNORE: 1}
        notes.append("masks hold 0 and 255 only: 255 is taken as class 1, foreground")
    elif labelled != list(range(len(labelled))) and len(given) <= labelled[-1]:  # else each id is a place in the names
        label_map = {file_id: class_id for class_id, file_id in enumerate(labelled)}
        notes.append(f"masks hold the ids {labelled}: they become classes 0 to {len(labelled) - 1} (data.label_map)")
    names = list(given) or ["background" if not place else f"class-{file_id}" for place, file_id in enumerate(labelled)]
    if len(names) < len(labelled) or (label_map and len(names) > len(labelled)):
        raise UserError(
            f"{len(names)} class names ({', '.join(names)}), but masks hold the ids {labelled}; name each one"
        )
    return {"classes": names, **({"label_map": label_map} if label_map else {})}, notes


def _read(name: str, dataset: Dataset, progress: Callable[[str, int, int], None] | None) -> Split:
    split = Split(name, len(dataset), dataset.classes)
    if isinstance(dataset, Folder):
        split.problems += [f"{image} has no mask" for image in dataset.unmatched.images]
        split.problems += [f"{mask} has no photograph" for mask in dataset.unmatched.masks]
    if not len(dataset):
        split.problems.append("no photographs at all")
    void: list[str] = []
    for index in range(len(dataset)):
        try:
            _count(split, dataset[index][1], dataset.names[index], void)
        except UserError as error:
            split.problems.append(str(error))
        if progress:
            progress(name, index + 1, len(dataset))
    _judge(split, dataset, void)
    return split


def _count(split: Split, labels: torch.Tensor, name: str, void: list[str]) -> None:
    counts = torch.bincount(labels.flatten(), minlength=256).numpy()
    split.pixels += counts
    total = int(counts.sum())
    for class_id in np.flatnonzero(counts[:IGNORE]).tolist():
        split.shares.setdefault(class_id, []).append(float(counts[class_id]) / total)
    if counts[IGNORE] == total:
        void.append(name)


def _judge(split: Split, dataset: Dataset, void: list[str]) -> None:
    """What only shows over all images."""
    seen = [index for index in range(len(split.classes)) if split.pixels[index]]
    if split.pixels.sum() and seen in ([0], []) and split.pixels[IGNORE] > 0.001 * split.pixels.sum():
        split.problems.append(
            "masks hold only 0 and 255, and 255 means void: nothing to learn; if 255 is your object, set "
            "data.classes=[background,NAME] 'data.label_map={0: 0, 255: 1}'"
        )
    never = [name for index, name in enumerate(split.classes) if index not in seen]
    if never:
        split.warnings.append(f"classes never seen: {', '.join(never)}")
    if void:
        split.warnings.append(f"{len(void)} images are void all over: {_few(void)}")
    again = [name for name, times in Counter(dataset.names).items() if times > 1]
    if again:
        split.warnings.append(f"{len(again)} names occur more than once: {_few(again)}")


def _layout(folder: Path) -> dict[str, str]:
    """Where train and val lie, relative to `folder`."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give one with images/ and masks/ in it")
    if (folder / "images" / "train").is_dir():
        return {name: f".:{name}" for name in ("train", "val") if (folder / "images" / name).is_dir()}
    if (folder / "images").is_dir():
        return {"train": "."}
    if (folder / "train" / "images").is_dir():
        return {name: name for name in ("train", "val") if (folder / name / "images").is_dir()}
    raise UserError(
        f"{folder} has no images/ (nor images/train, nor train/images); put photographs into images/ and their masks, "
        "under the same names, into masks/"
    )


def _listed(folder: Path) -> list[str]:
    """The names in classes.txt (one a line) if it is there."""
    listing = folder / "classes.txt"
    if listing.is_file():
        try:
            lines = listing.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise UserError(f"{listing} cannot be read as text ({error}); it holds class names, one a line") from error
        return [line.strip() for line in lines if line.strip()]
    return []


def _few(names: Sequence[str]) -> str:
    return ", ".join(list(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

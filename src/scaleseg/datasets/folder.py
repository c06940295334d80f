"""Your own photographs: folders or zips with `images/` and `masks/`, a mask for each photograph under the same stem.

`data.train` and `data.val` are a path or a list of paths; `PATH:SUBFOLDER` reads `images/SUBFOLDER` and
`masks/SUBFOLDER` of PATH. `data.label_map` says which class each id in the files is; ids it does not name are an error.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaleseg.config import DataConfig
from scaleseg.datasets.archive import Archive
from scaleseg.datasets.pairs import Pair, Pairs, images_in, table
from scaleseg.datasets.prepared import refuse_unfinished
from scaleseg.errors import UserError
from scaleseg.images import read_labels

__all__ = ["Folder", "Unmatched", "find_ids", "open_split"]


@dataclass(frozen=True)
class Unmatched:
    """Files without their partner, for `data check`."""

    images: tuple[str, ...]
    masks: tuple[str, ...]


class Folder(Pairs):
    """Pairs from one or more folders or zips."""

    advice = "add them to data.classes or data.label_map (255 = void)"

    def __init__(self, paths: Iterable[str], classes: tuple[str, ...], label_map: dict[int, int]) -> None:
        ids = table(len(classes), label_map)
        found = [_pairs(path) for path in paths]
        super().__init__([pair for pairs, _ in found for pair in pairs], classes, ids)
        self.unmatched = Unmatched(
            tuple(name for _, alone in found for name in alone.images),
            tuple(name for _, alone in found for name in alone.masks),
        )


def open_split(data: DataConfig, split: str) -> Folder:
    """`data.train` or `data.val`; UserError if it is not set or the classes are missing."""
    value = getattr(data, split)
    if not value:
        raise UserError(f"data.{split} is not set; give the path of a folder or zip with images/ and masks/")
    if not data.classes:
        raise UserError("data.classes is empty; list the class names, or let `scaleseg data init FOLDER` do it")
    paths = [str(path) for path in (value if isinstance(value, list | tuple) else [value])]
    return Folder(paths, data.classes, data.label_map)


def find_ids(paths: Iterable[str]) -> list[int]:
    """The ids that masks hold, for a `data.yaml` to begin with; UserError names a mask that cannot be read."""
    found: set[int] = set()
    for path in paths:
        for pair in _pairs(path)[0]:
            ids = read_labels(pair.archive.read(pair.mask), pair.archive.label(pair.mask))
            found.update(np.flatnonzero(np.bincount(ids.ravel(), minlength=256)).tolist())
    if not found:
        raise UserError(f"no photograph in {', '.join(paths)} has a mask of the same name")
    return sorted(found)


def _pairs(path: str) -> tuple[list[Pair], Unmatched]:
    archive, subfolder = _split(path)
    refuse_unfinished(archive.path)
    images = images_in(archive, f"images/{subfolder}".rstrip("/"))
    masks = images_in(archive, f"masks/{subfolder}".rstrip("/"))
    if not images and not masks:
        raise UserError(
            f"{path} has no photographs in images/{subfolder}; it needs images/ and masks/ with the same names"
        )
    pairs = [Pair(stem, archive, images[stem], masks[stem]) for stem in sorted(images.keys() & masks.keys())]
    alone = Unmatched(
        tuple(archive.label(images[stem]) for stem in sorted(images.keys() - masks.keys())),
        tuple(archive.label(masks[stem]) for stem in sorted(masks.keys() - images.keys())),
    )
    return pairs, alone


def _split(path: str) -> tuple[Archive, str]:
    """PATH or PATH:SUBFOLDER; a path that exists as it stands is never split."""
    before, colon, subfolder = path.rpartition(":")
    if colon and before and not Path(path).exists():
        return Archive(before), subfolder.strip("/")
    return Archive(path), ""

"""Your own photographs: folders or zips with `images/` and `masks/`, a mask for each photograph under the same stem.

`data.train` and `data.val` are a path or a list of paths; `PATH:SUBFOLDER` reads `images/SUBFOLDER` and
`masks/SUBFOLDER` of PATH. `data.label_map` says which class each id in the files is; ids it does not name are an error.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from scaleseg.config import DataConfig
from scaleseg.datasets.archive import Archive
from scaleseg.datasets.contract import check_sizes
from scaleseg.errors import UserError
from scaleseg.geometry import IGNORE
from scaleseg.images import IMAGE_SUFFIXES, read, read_labels

__all__ = ["Folder", "Pair", "Unmatched", "find_ids", "open_split"]


@dataclass(frozen=True)
class Pair:
    """A photograph and its mask, in one archive."""

    name: str
    archive: Archive
    image: str
    mask: str


@dataclass(frozen=True)
class Unmatched:
    """Files without their partner, for `data check`."""

    images: tuple[str, ...]
    masks: tuple[str, ...]


class Folder:
    """Pairs from one or more folders or zips."""

    def __init__(self, paths: Iterable[str], classes: tuple[str, ...], label_map: dict[int, int]) -> None:
        self.classes = classes
        self.table = _lookup(classes, label_map)
        found = [_pairs(path) for path in paths]
        self.pairs = [pair for pairs, _ in found for pair in pairs]
        self.unmatched = Unmatched(
            tuple(name for _, alone in found for name in alone.images),
            tuple(name for _, alone in found for name in alone.masks),
        )
        self.names = [pair.name for pair in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Int64[Tensor, "H W"]]:
        try:
            return self._pair(index)
        except MemoryError as error:
            pair = self.pairs[index]
            raise UserError(f"{pair.archive.label(pair.image)} has more pixels than memory holds; shrink it") from error

    def read_ids(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """The mask as it is in the file."""
        pair = self.pairs[index]
        return read_labels(pair.archive.read(pair.mask), pair.archive.label(pair.mask))

    def _pair(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Int64[Tensor, "H W"]]:
        pair = self.pairs[index]
        image = read(pair.archive.read(pair.image), pair.archive.label(pair.image))
        ids = self.read_ids(index)
        check_sizes(pair.archive.label(pair.mask), ids.shape, image.shape[1:])
        labels = self.table[ids]
        if labels.min(initial=0) < 0:
            unknown = sorted(np.unique(ids[labels < 0]).tolist())
            raise UserError(
                f"{pair.archive.label(pair.mask)} has ids {unknown}, which are none of the {len(self.classes)} classes; "
                "add them to data.classes or data.label_map (255 = void)"
            )
        return image, torch.from_numpy(labels)


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
    images = _by_stem(archive, f"images/{subfolder}".rstrip("/"))
    masks = _by_stem(archive, f"masks/{subfolder}".rstrip("/"))
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


def _by_stem(archive: Archive, folder: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for file, name in archive.files(folder).items():
        stem, suffix = PurePosixPath(file).stem, PurePosixPath(file).suffix.lower()
        if file.startswith(".") or suffix not in IMAGE_SUFFIXES:
            continue
        if stem in found:
            raise UserError(
                f"{archive.label(name)} and {archive.label(found[stem])} have the same stem; keep one of them"
            )
        found[stem] = name
    return found


def _lookup(classes: tuple[str, ...], label_map: dict[int, int]) -> Int64[np.ndarray, "256"]:
    """Class id of each file id; -1 where there is none."""
    table = np.full(256, -1, np.int64)
    if label_map:
        for file_id, class_id in label_map.items():
            if not 0 <= file_id <= 255 or not (0 <= class_id < len(classes) or class_id == IGNORE):
                raise UserError(
                    f"data.label_map has {file_id}: {class_id}; it maps ids 0..255 to 0..{len(classes) - 1} or 255 (void)"
                )
            table[file_id] = class_id
    else:
        table[: len(classes)] = np.arange(len(classes))
    if IGNORE not in label_map:
        table[IGNORE] = IGNORE
    return table

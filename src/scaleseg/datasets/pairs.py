"""Photographs and masks that lie in files, two by two: what reads `folder`, prepared folders and the official layouts."""

from collections.abc import Sequence
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

__all__ = ["Pair", "Pairs", "find_top", "images_in", "match", "open_root", "table"]


@dataclass(frozen=True)
class Pair:
    """A photograph and its mask, in one archive."""

    name: str
    archive: Archive
    image: str
    mask: str


class Pairs:
    """A dataset of such pairs; `ids` is the class id of each id in the files, -1 where there is none."""

    advice = "give the dataset's own masks, with ids and not colours"
    """What to do about an id that is no class."""

    def __init__(self, pairs: Sequence[Pair], classes: tuple[str, ...], ids: Int64[np.ndarray, "256"]) -> None:
        self.pairs = list(pairs)
        self.classes = classes
        self.table = ids
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
                f"{self.advice}"
            )
        return image, torch.from_numpy(labels)


def table(num_classes: int, label_map: dict[int, int] | None = None) -> Int64[np.ndarray, "256"]:
    """The class id of each id in a file, -1 where there is none; without a map an id is its class, and 255 is void."""
    ids = np.full(256, -1, np.int64)
    if label_map:
        for file_id, class_id in label_map.items():
            if not 0 <= file_id <= 255 or not (0 <= class_id < num_classes or class_id == IGNORE):
                raise UserError(
                    f"data.label_map has {file_id}: {class_id}; it maps ids 0..255 to 0..{num_classes - 1} or 255 (void)"
                )
            ids[file_id] = class_id
    else:
        ids[:num_classes] = np.arange(num_classes)
    if IGNORE not in (label_map or {}):
        ids[IGNORE] = IGNORE
    return ids


def images_in(archive: Archive, folder: str) -> dict[str, str]:
    """The images directly in a folder, by stem; UserError if two share one."""
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


def open_root(data: DataConfig, what: str) -> Archive:
    """`data.root`; UserError, which says `what` to give, if it is not set."""
    if data.root is None:
        raise UserError(f"data.root is not set; give {what}")
    if not Path(data.root).exists():
        raise UserError(f"data.root is {data.root!r}, which does not exist; give {what}")
    return Archive(data.root)


def find_top(archive: Archive, tops: Sequence[str], needed: str, what: str) -> str:
    """The first of `tops` ("" for the archive's own) that holds files in the folder `needed`, as a prefix ending in /."""
    for top in tops:
        prefix = f"{top}/" if top else ""
        if archive.files(f"{prefix}{needed}"):
            return prefix
    raise UserError(f"{archive.path} has no files in {needed}; give {what}")


def match(archive: Archive, images: dict[str, str], masks: dict[str, str], where: str) -> list[Pair]:
    """The pairs of one split of an official dataset, by name; UserError where a photograph has no mask."""
    missing = sorted(images.keys() - masks.keys())
    if missing:
        raise UserError(
            f"{archive.label(images[missing[0]])} has no mask in {where} ({len(missing)} of {len(images)} have none); "
            "unpack the dataset's archives again"
        )
    return [Pair(name, archive, images[name], masks[name]) for name in sorted(images)]

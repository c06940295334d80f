"""Cityscapes' 19 classes: `data.root` holds leftImg8bit/ and gtFine/, as their archives unpack.

Labels are `*_gtFine_labelTrainIds.png`, or else `*_gtFine_labelIds.png` through the official table. `data.train` and
`data.val` name splits; the 19 classes and the table are those of cityscapesScripts, helpers/labels.py.
"""

import numpy as np
from jaxtyping import Int64

from scaleseg.config import DataConfig
from scaleseg.datasets.archive import Archive
from scaleseg.datasets.pairs import Pair, Pairs, match, open_root, table
from scaleseg.errors import UserError
from scaleseg.geometry import IGNORE

__all__ = ["CLASSES", "LABEL_IDS", "open_split"]

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The `labelIds` of the 19 classes, in their order; of the ids from 0 to 33 every other one is void."""
MASKS = ("_gtFine_labelTrainIds.png", "_gtFine_labelIds.png")
WHAT = "the folder that holds Cityscapes' leftImg8bit/ and gtFine/"


def open_split(data: DataConfig, split: str) -> Pairs:
    """The split that `data.train` or `data.val` names (`train` and `val` by default), under `data.root`."""
    archive, name = open_root(data, WHAT), str(getattr(data, split) or split)
    photographs = _of_cities(archive, f"leftImg8bit/{name}", "_leftImg8bit.png")
    if not photographs:
        raise UserError(f"{archive.path} has no photographs in leftImg8bit/{name}/CITY; give {WHAT}")
    trained, official = (_of_cities(archive, f"gtFine/{name}", suffix) for suffix in MASKS)
    masks = trained if photographs.keys() <= trained.keys() else official
    pairs: list[Pair] = match(archive, photographs, masks, f"gtFine/{name}/CITY/*{MASKS[0]} or *{MASKS[1]}")
    return Pairs(pairs, CLASSES, table(len(CLASSES)) if masks is trained else _official())


def _of_cities(archive: Archive, folder: str, suffix: str) -> dict[str, str]:
    """The files of every city that end so, by what comes before."""
    found: dict[str, str] = {}
    for city in archive.folders(folder):
        for file, name in archive.files(f"{folder}/{city}").items():
            if file.endswith(suffix) and not file.startswith("."):
                found[file.removesuffix(suffix)] = name
    return found


def _official() -> Int64[np.ndarray, "256"]:
    ids = np.full(256, -1, np.int64)
    ids[:34] = IGNORE
    ids[list(LABEL_IDS)] = np.arange(len(CLASSES))
    ids[IGNORE] = IGNORE
    return ids

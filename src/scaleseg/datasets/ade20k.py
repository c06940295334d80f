"""ADE20K's 150 classes (SceneParsing): `data.root` holds ADEChallengeData2016, as a folder or as the zip itself.

In its masks 0 is void and classes are 1 to 150; here they are 0 to 149. `data.train` and `data.val` name folders of
images/: `training` (also `train`) and `validation` (also `val`).
"""

import numpy as np

from scaleseg.config import DataConfig
from scaleseg.datasets.pairs import Pairs, find_top, images_in, match, open_root, table
from scaleseg.geometry import IGNORE

__all__ = ["CLASSES", "open_split"]

CLASSES = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand",
    "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table",
    "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower",
    "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat",
    "bar", "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight",
    "booth", "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator",
    "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer",
    "plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle",
    "oven", "ball", "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake",
    "dishwasher", "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan",
    "pier", "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip
"""The first name of each class in objectInfo150.txt; some of its copies say `television` for the 90th."""

FOLDERS = {"train": "training", "val": "validation"}
WHAT = "the folder or zip ADEChallengeData2016, with images/training and annotations/training"


def open_split(data: DataConfig, split: str) -> Pairs:
    """The split that `data.train` or `data.val` names (`training` and `validation` by default), under `data.root`."""
    archive, name = open_root(data, WHAT), str(getattr(data, split) or split)
    name = FOLDERS.get(name, name)
    top = find_top(archive, ("", "ADEChallengeData2016"), f"images/{name}", WHAT)
    masks = f"{top}annotations/{name}"
    pairs = match(archive, images_in(archive, f"{top}images/{name}"), images_in(archive, masks), masks)
    ids = table(0)
    ids[1 : len(CLASSES) + 1] = np.arange(len(CLASSES))
    ids[0] = IGNORE
    return Pairs(pairs, CLASSES, ids)

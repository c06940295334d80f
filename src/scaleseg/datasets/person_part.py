"""PASCAL-Person-Part: people of VOC 2010 in six parts (paper, section 4.1), as `scaleseg data prepare person-part` lays them out.

`data.root` is that folder. A person's pixel without a part label counts as background.
"""

from scaleseg.config import DataConfig
from scaleseg.datasets.pairs import Pairs
from scaleseg.datasets.prepared import open_prepared

__all__ = ["CLASSES", "open_split"]

CLASSES = ("background", "head", "torso", "upper-arms", "lower-arms", "upper-legs", "lower-legs")


def open_split(data: DataConfig, split: str) -> Pairs:
    """The list that `data.train` or `data.val` names (`train` and `val` by default), under `data.root`."""
    return open_prepared(data, split, "person-part", CLASSES)

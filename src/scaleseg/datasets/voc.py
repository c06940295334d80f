"""PASCAL VOC 2012 in the devkit's layout: `data.root` holds VOC2012/JPEGImages, SegmentationClassAug and ImageSets.

`data.train` and `data.val` name lists of ImageSets/Segmentation (`trainaug`, `val`, any of your own). Labels come from
`SegmentationClassAug` where it has the image (SBD's masks, 10,582 for training), else from `SegmentationClass`.
"""

from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from scaleseg.config import DataConfig
from scaleseg.datasets.contract import check_sizes
from scaleseg.datasets.prepared import list_split, refuse_unfinished
from scaleseg.errors import UserError
from scaleseg.images import read, read_labels

__all__ = ["CLASSES", "VOC", "open_split"]

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
MASKS = ("SegmentationClassAug", "SegmentationClass")


class VOC:
    """A split list of the devkit."""

    classes = CLASSES

    def __init__(self, root: str | Path, split: str) -> None:
        self.folder = _devkit(Path(root))
        for folder in (self.folder, self.folder.parent):
            refuse_unfinished(folder)
        self.names = list_split(self.folder / "ImageSets" / "Segmentation" / f"{split}.txt")
        self.masks = [folder for name in MASKS if (folder := self.folder / name).is_dir()]
        if not self.masks:
            raise UserError(
                f"{self.folder} has neither {' nor '.join(MASKS)}; unpack the devkit's segmentation masks there"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Int64[Tensor, "H W"]]:
        name = self.names[index]
        image = read(self.folder / "JPEGImages" / f"{name}.jpg")
        mask = next((path for folder in self.masks if (path := folder / f"{name}.png").is_file()), None)
        if mask is None:
            raise UserError(
                f"{name} has no mask in {' or '.join(folder.name for folder in self.masks)} of {self.folder}"
            )
        labels = torch.from_numpy(read_labels(mask)).long()
        check_sizes(str(mask), labels.shape, image.shape[1:])
        if bool(((labels >= len(CLASSES)) & (labels != 255)).any()):
            raise UserError(f"{mask} has an id above 20 that is not 255; it is no VOC mask")
        return image, labels


def open_split(data: DataConfig, split: str) -> VOC:
    """The list that `data.train` or `data.val` names, under `data.root`."""
    if data.root is None:
        raise UserError("data.root is not set; give the folder VOCdevkit (it holds VOC2012)")
    return VOC(data.root, str(getattr(data, split) or {"train": "trainaug", "val": "val"}[split]))


def _devkit(root: Path) -> Path:
    for folder in (root / "VOC2012", root / "VOCdevkit" / "VOC2012", root):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise UserError(f"data.root is {str(root)!r}, which holds no VOC2012/JPEGImages; give the folder VOCdevkit")

"""The paper's own figures (Attention to Scale, CVPR 2016, section 4), in percent, to be laid beside ours.

Cells are named FUSION-SCALES, with `-es` where every scale has a loss of its own (extra supervision).
"""

from dataclasses import dataclass

__all__ = ["PARTS", "PERSON", "PaperTable", "PartsTable", "find"]


@dataclass(frozen=True)
class PaperTable:
    """One table: mIoU, or the IoU of one class, in percent."""

    number: int
    section: str
    title: str
    figures: dict[str, float]
    """By cell: `baseline` (DeepLab-LargeFOV at one scale), `msc` (DeepLab-MSc-LargeFOV) where it is there, and the grid."""

    def gains(self) -> dict[str, float]:
        """Points above the baseline, of every cell but the baseline itself."""
        base = self.figures["baseline"]
        return {name: round(value - base, 2) for name, value in self.figures.items() if name != "baseline"}


@dataclass(frozen=True)
class PartsTable:
    """The IoU of each class of one cell, in percent, in the order of the class ids."""

    number: int
    section: str
    title: str
    cell: str
    figures: dict[str, float]


def find(table: str, start: str) -> PaperTable | None:
    """The paper's table of `voc`, `person-part` or `coco` that began from `imagenet` or `coco`; None where it has none."""
    return _TABLES.get((table, start))


def _grid(*rows: float) -> dict[str, float]:
    """Twelve figures as the paper prints them: max, average, attention; in each two scales, + E-Supv, three, + E-Supv."""
    columns = ("2", "2-es", "3", "3-es")
    names = [f"{fusion}-{column}" for fusion in ("max", "average", "attention") for column in columns]
    return dict(zip(names, rows, strict=True))


_PERSON_PART = PaperTable(1, "4.1", "PASCAL-Person-Part val", {
    "baseline": 51.91, "msc": 53.72, **_grid(
        52.90, 55.26, 53.02, 55.78,
        52.71, 55.17, 52.56, 55.72,
        53.49, 55.85, 53.12, 56.39,
    )})  # fmt: skip

_VOC = PaperTable(3, "4.2", "PASCAL VOC 2012 val, from ImageNet parameters", {
    "baseline": 62.28, "msc": 64.39, **_grid(
        64.81, 67.43, 65.15, 67.79,
        64.86, 67.79, 63.92, 67.98,
        65.27, 68.24, 64.37, 69.08,
    )})  # fmt: skip

_VOC_FROM_COCO = PaperTable(5, "4.2", "PASCAL VOC 2012 val, from COCO parameters", {
    "baseline": 67.58, **_grid(
        69.15, 70.01, 69.70, 70.06,
        69.22, 70.44, 68.82, 70.55,
        69.90, 70.76, 69.47, 71.42,
    )})  # fmt: skip

_COCO = PaperTable(6, "4.3", "COCO 2014 subset val", {
    "baseline": 31.22, "msc": 31.61, **_grid(
        32.95, 34.70, 33.58, 35.08,
        33.69, 35.14, 33.74, 35.72,
        34.03, 35.41, 33.42, 35.78,
    )})  # fmt: skip

PERSON = PaperTable(7, "4.3", "COCO 2014 subset val, IoU of the class person", {
    "baseline": 68.76, **_grid(
        70.07, 71.06, 69.97, 71.43,
        70.38, 71.60, 69.69, 71.70,
        70.66, 72.20, 70.14, 72.72,
    )})  # fmt: skip

PARTS = PartsTable(2, "4.1", "PASCAL-Person-Part val, IoU of each part", "attention-3-es", {
    "bkg": 93.65, "head": 81.47, "torso": 59.06, "u-arms": 44.15, "l-arms": 42.50, "u-legs": 38.28, "l-legs": 35.62,
})  # fmt: skip
"""Of the baseline the paper prints no parts."""

_TABLES = {
    ("person-part", "imagenet"): _PERSON_PART,
    ("voc", "imagenet"): _VOC,
    ("voc", "coco"): _VOC_FROM_COCO,
    ("coco", "imagenet"): _COCO,
}

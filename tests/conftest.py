"""What several tests share: tiny datasets drawn with numpy, and a small model with random parameters."""

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from browser import chromium, seen, visit  # noqa: F401
from scaleseg.cli import main
from scaleseg.config import Config, merge
from scaleseg.model import ScaleAware, create_model

CLASSES = ("ground", "disc", "bar")
PHOTOGRAPHS = 6


def draw_pair(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A photograph (H, W, 3) and its ids (H, W), 255 in one corner; sizes differ from pair to pair."""
    generator = np.random.default_rng(index)
    rows, columns = 20 + 3 * index, 31 - 2 * index
    ids = np.zeros((rows, columns), np.uint8)
    ids[2:9, 3:11] = 1
    ids[12:, 5 + index :] = 2
    ids[-2:, -2:] = 255
    colours = np.array([(40, 90, 40), (200, 60, 60), (60, 60, 200)], np.uint8)
    photo = colours[ids % 255] + generator.integers(0, 40, (rows, columns, 3), dtype=np.uint8)
    return photo, ids


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pairs in images/ and masks/: PNG, so that the pixels are known."""
    return write_folder(tmp_path / "photographs")


def write_folder(root: Path) -> Path:
    """What the fixture `folder` holds."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for index in range(PHOTOGRAPHS):
        photo, ids = draw_pair(index)
        Image.fromarray(photo).save(root / "images" / f"p{index}.png")
        Image.fromarray(ids).save(root / "masks" / f"p{index}.png")
    return root


@pytest.fixture
def zipped(folder: Path, tmp_path: Path) -> Path:
    """The same six pairs in a zip."""
    path = tmp_path / "photographs.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A VOCdevkit of three photographs: `a` has both kinds of mask, `b` only VOC's own, `c` none."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for part in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    for name in "abc":
        Image.new("RGB", (12, 9), (10, 200, 30)).save(root / "JPEGImages" / f"{name}.jpg")
    for part, name, class_id in (
        ("SegmentationClassAug", "a", 15),
        ("SegmentationClass", "a", 3),
        ("SegmentationClass", "b", 20),
    ):
        ids = np.full((9, 12), class_id, np.uint8)
        ids[0] = 255
        mask = Image.fromarray(ids)
        mask.putpalette(bytes(range(256)) * 3)
        mask.save(root / part / f"{name}.png")
    (root / "ImageSets/Segmentation/trainaug.txt").write_text("a\nb\n\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("b\n")
    return root.parent


def small_config(**model: object) -> Config:
    """Settings of a tiny model over `CLASSES`."""
    settings = {"segmenter": "small", "scales": [1.0, 0.5], "attention_width": 8, "pretrained": "none"}
    options = {"width": 4, "num_features": 8}
    return merge({"model": {**settings, "options": options, **model}, "data": {"classes": list(CLASSES)}})


def small_model(fusion: str = "attention", seed: int = 0) -> ScaleAware:
    """A tiny model whose parameters are all random, so that no weight, logit or score is zero by its initial value."""
    torch.manual_seed(seed)
    model = create_model(
        "small",
        classes=CLASSES,
        fusion=fusion,
        scales=(1.0, 0.5),
        pretrained="none",
        attention_width=8,
        options={"width": 4, "num_features": 8},
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model.eval()


@pytest.fixture
def model() -> ScaleAware:
    """The tiny model with attention."""
    return small_model()


class Ended(NamedTuple):
    """What a call of the command line left."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run `scaleseg` with arguments in this process."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["scaleseg", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run

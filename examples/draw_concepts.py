"""Draw the pictures of docs/concepts.md from the bundled model and the free photographs in scikit-image's wheel.

python examples/draw_concepts.py [FOLDER]     (docs/images by default)
"""

import sys
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image

import scaleseg
from scaleseg.config import ModelConfig
from scaleseg.geometry import Size, resize_labels, resize_photo
from scaleseg.images import draw_overlay, draw_weights, label_image, read
from scaleseg.model import Prediction, ScaleAware
from scaleseg.segmentation import predict

MODEL = "voc-animals-lite"
WIDTH, GAP, LINE = 1200, 10, 3
CLEAR = (0, 0, 0, 0)
CAT = 2


def main() -> None:
    """Write the pictures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "images")
    photo = read(Path(skimage.__file__).parent / "data" / "chelsea.png")
    model = scaleseg.load(MODEL)
    prediction = predict(model, photo, precision="float32")
    labels = prediction.at()[0].argmax(0).to(torch.uint8)
    pictures = {
        "concept-scales": scales(model, photo, prediction),
        "concept-scores": scores(prediction),
        "concept-fusions": fusions(photo),
        "concept-grids": grids(model, photo),
        "concept-labels": label_grids(labels, prediction),
        "concept-void": void(photo, labels),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.webp", quality=82, method=6)
        print(f"{folder / name}.webp: {picture.width} x {picture.height}")


def scales(model: ScaleAware, photo: torch.Tensor, prediction: Prediction) -> Image.Image:
    """The photograph at each scale, what the network says there alone, and what all say together."""
    rows, columns = photo.shape[1:]
    panels = []
    for scale, own in zip(model.scales, prediction.per_scale, strict=True):
        size = (round(rows * scale), round(columns * scale))
        small = resize_photo(photo, size)
        labels = prediction.grid.to_image(own)[0].argmax(0)
        there = resize_labels(labels[None], size, align_corners=False)[0].to(torch.uint8)
        panels.append(column(picture(small), draw_overlay(small, there, len(model.classes))))
    return fitted(row(*panels))


def scores(prediction: Prediction) -> Image.Image:
    """The cat's score on each scale's own grid, cell by cell, then merged: dark low, bright high."""
    grid = prediction.grid
    maps = [*(own[0, CAT] for own in prediction.per_scale), prediction.scores[0, CAT]]
    lowest = min(float(one.min()) for one in maps)
    highest = max(float(one.max()) for one in maps)
    shown = [draw_weights(((one - lowest) / (highest - lowest))[None]) for one in maps]
    size = (grid.image[1], grid.image[0])
    return fitted(row(*(one.resize(size, Image.Resampling.NEAREST) for one in shown)))


def fusions(photo: torch.Tensor) -> Image.Image:
    """The weights of each scale, one row a fusion: average, max, attention."""
    rows = []
    for fusion in ("average", "max", "attention"):
        settings = ModelConfig(segmenter="lite0", fusion=fusion, attention_width=128)
        result = scaleseg.segment(scaleseg.load(MODEL, settings), picture(photo), precision="float32")
        maps = [draw_weights(one[None]) for one in result.scale_weights]
        rows.append(row(result.overlay(), *maps))
    return fitted(column(*rows))


def grids(model: ScaleAware, photo: torch.Tensor) -> Image.Image:
    """Which pixels of the photograph one cell of the score grid stands for, at the largest and the smallest scale."""
    stride = model.segmenter.output_stride
    corner = photo[:, 32:224, 64:352]
    drawn = []
    for scale in (max(model.scales), min(model.scales)):
        pixels = np.asarray(picture(corner).resize((3 * corner.shape[2], 3 * corner.shape[1]))).copy()
        step = round(3 * stride / scale)
        for offset in range(LINE):
            pixels[offset::step] = pixels[:, offset::step] = 255
        drawn.append(Image.fromarray(pixels))
    return fitted(row(*drawn))


def label_grids(labels: torch.Tensor, prediction: Prediction) -> Image.Image:
    """Labels at the photograph's size, and on the grids on which the losses of scales 1 and 0.5 compare them."""
    grid = prediction.grid
    sizes: list[Size] = [grid.score_size(1.0), grid.score_size(0.5)]
    pictures = [label_image(labels.numpy(), 7).convert("RGB")]
    for size in sizes:
        coarse = grid.labels_at(labels[None].long(), size)[0].to(torch.uint8)
        pictures.append(label_image(coarse.numpy(), 7).convert("RGB"))
    size = (grid.padded[1], grid.padded[0])
    whole = Image.new("RGB", size, tuple(pictures[1].getpixel((pictures[1].width - 1, pictures[1].height - 1))))
    whole.paste(pictures[0])
    return fitted(row(whole, *(one.resize(size, Image.Resampling.NEAREST) for one in pictures[1:])))


def void(photo: torch.Tensor, labels: torch.Tensor) -> Image.Image:
    """A photograph, and a mask as a palette PNG shows it: background black, the cat's colour, void in cream."""
    ids = labels.numpy().copy()
    border = np.zeros(ids.shape, bool)
    border[:-1] |= ids[:-1] != ids[1:]
    border[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    for _ in range(3):
        border[1:] |= border[:-1]
        border[:-1] |= border[1:]
        border[:, 1:] |= border[:, :-1]
        border[:, :-1] |= border[:, 1:]
    ids[border] = 255
    return fitted(row(picture(photo), label_image(ids, 7).convert("RGB")))


def picture(photo: torch.Tensor) -> Image.Image:
    """Pixels as a PIL image."""
    return Image.fromarray(photo.permute(1, 2, 0).numpy())


def row(*panels: Image.Image) -> Image.Image:
    """Side by side, aligned at the bottom, nothing behind: pages are light or dark."""
    width = sum(panel.width for panel in panels) + GAP * (len(panels) - 1)
    sheet = Image.new("RGBA", (width, max(panel.height for panel in panels)), CLEAR)
    left = 0
    for panel in panels:
        sheet.paste(panel.convert("RGBA"), (left, sheet.height - panel.height))
        left += panel.width + GAP
    return sheet


def column(*panels: Image.Image) -> Image.Image:
    """One above the other."""
    height = sum(panel.height for panel in panels) + GAP * (len(panels) - 1)
    sheet = Image.new("RGBA", (max(panel.width for panel in panels), height), CLEAR)
    top = 0
    for panel in panels:
        sheet.paste(panel.convert("RGBA"), (0, top))
        top += panel.height + GAP
    return sheet


def fitted(sheet: Image.Image) -> Image.Image:
    """At the width of a page's column on a sharp screen."""
    return sheet.resize((WIDTH, round(sheet.height * WIDTH / sheet.width)), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()

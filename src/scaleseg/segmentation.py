"""One image in, one segmentation out: any image that can be read, of any size."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from scaleseg.devices import explained
from scaleseg.engines import Engine, Tiled, TorchEngine, check_whole, choose_side
from scaleseg.engines.memory import STRIP
from scaleseg.errors import UserError
from scaleseg.geometry import Grid, Size
from scaleseg.images import draw_edges, draw_overlay, draw_weights, label_image, read, to_tensor
from scaleseg.model import Prediction, ScaleAware
from scaleseg.refine import Refine, create_refine

__all__ = ["Segmentation", "at_image", "choose_refine", "chosen_labels", "chosen_weights", "predict", "segment"]

Input = str | Path | Image.Image | np.ndarray | Tensor


@dataclass(frozen=True)
class Segmentation:
    """What a model says of one image."""

    image: UInt8[Tensor, "3 H W"]
    labels: UInt8[Tensor, "H W"]
    """Class ids."""
    scale_weights: Float[Tensor, "scales H W"]
    """The weights behind the class chosen at each pixel; they sum to 1 over scales."""
    classes: tuple[str, ...]
    scales: tuple[float, ...]
    edges: Float[Tensor, "H W"] | None = None
    """The learned edge map of a model that has one: 0 or more."""
    note: str = ""
    """What a refinement has to say of this image, such as that it worked at a smaller size."""

    def shares(self) -> dict[str, float]:
        """The share of the image that each class covers, largest first; classes that are not there are left out."""
        counts = torch.bincount(self.labels.flatten().long(), minlength=len(self.classes))
        shares = {
            name: int(count) / self.labels.numel() for name, count in zip(self.classes, counts, strict=True) if count
        }
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def overlay(self, opacity: float = 0.6) -> Image.Image:
        """The photograph with its classes coloured."""
        return draw_overlay(self.image, self.labels, len(self.classes), opacity)

    def label_image(self) -> Image.Image:
        """The class ids as a palette image."""
        return label_image(self.labels.numpy(), len(self.classes))

    def weights_image(self) -> Image.Image:
        """One map a scale, side by side; dark 0, yellow 1."""
        return draw_weights(self.scale_weights)

    def edges_image(self) -> Image.Image:
        """The learned edges, dark on white; ValueError for a model without an edge map."""
        if self.edges is None:
            raise ValueError("this segmentation has no edges; its model was made without edge_net")
        return draw_edges(self.edges)


def segment(
    model: ScaleAware,
    image: Input,
    *,
    precision: str = "auto",
    refine: str | Refine | None = None,
    engine: Engine | None = None,
    max_memory: int | None = None,
) -> Segmentation:
    """Segment a path, a PIL image, an (H, W, 3) or (H, W) uint8 array or a (3, H, W) uint8 tensor.

    `precision` is `auto` (bf16 where it was measured to help), `float32` or `bf16`; `refine` is one of
    `refine.REFINEMENTS`, with the settings `model.refine`, or a refinement itself. An `engine` made for this model computes
    instead of PyTorch, in its own precision. `max_memory` are the bytes that the whole process may take (on a GPU: that it
    may take there): larger images are looked at in tiles (`engines.Tiled`). Raises UserError for a file that cannot be read
    or an image too large for the device, ValueError for an array that is no uint8 image.
    """
    name = image if isinstance(image, str | Path) else "the image"
    sharpen = choose_refine(model, refine)
    with explained(model.mean.device, f"give --max-memory to work in tiles, shrink {name}, or choose another --device"):
        pixels = _pixels(image)
        size = (pixels.shape[1], pixels.shape[2])
        runs = engine or TorchEngine(model, precision)
        if max_memory is not None:
            runs = _within(max_memory, runs, model, size, whole_scores=sharpen is not None)
        elif isinstance(runs, TorchEngine):
            check_whole(model, size, runs.precision, str(name))
        prediction = runs(pixels)
        labels = _labels(prediction, pixels, sharpen)
        weights = chosen_weights(prediction, labels)
        edges = None if prediction.edges is None else prediction.edges[0].cpu()
        note = sharpen.note(size) if sharpen else ""
        return Segmentation(pixels, labels, weights, model.classes, model.scales, edges, note)


def choose_refine(model: ScaleAware, refine: str | Refine | None) -> Refine | None:
    """A refinement by name, with the model's settings; UserError if this model cannot do it."""
    if not isinstance(refine, str):
        return refine
    if refine == "domain-learned" and model.edge_net is None:
        raise UserError(
            "--refine is domain-learned, but this model learned no edges (model.edge_net=true in training); choose none, crf "
            "or domain"
        )
    return create_refine(refine, model.refine)


def at_image(
    prediction: Prediction, image: UInt8[Tensor, "3 H W"], refine: Refine | None = None
) -> Float[Tensor, "classes H W"]:
    """One image's merged scores at its own size; if refined, probabilities."""
    scores = prediction.at()[0]
    if refine is None:
        return scores
    return refine(
        scores.softmax(dim=0), image.to(scores.device), None if prediction.edges is None else prediction.edges[0]
    )


def predict(
    model: ScaleAware,
    image: UInt8[Tensor, "3 H W"],
    *,
    precision: str = "auto",
    engine: Engine | None = None,
    max_memory: int | None = None,
) -> Prediction:
    """The model's prediction, in float32, of one RGB image, on the model's device; UserError if it is too large there.

    `engine` and `max_memory` as for `segment`.
    """
    with explained(
        model.mean.device, "give --max-memory to work in tiles, shrink the image, or choose another --device"
    ):
        runs = engine or TorchEngine(model, precision)
        if max_memory is not None:
            runs = _within(max_memory, runs, model, (image.shape[1], image.shape[2]), whole_scores=True)
        return runs(image)


def chosen_labels(prediction: Prediction, scores: Float[Tensor, "1 classes h w"] | None = None) -> UInt8[Tensor, "H W"]:
    """The class with the highest score at each pixel, on the CPU; of other `scores` on the prediction's grid if given.

    Rows after rows, for scores at the image's size may be gigabytes.
    """
    labels = torch.empty(*prediction.grid.image, dtype=torch.uint8)
    for strip in _strips(prediction):
        labels[strip.rows] = strip.labels(prediction.scores if scores is None else scores).cpu()
    return labels


def chosen_weights(prediction: Prediction, labels: UInt8[Tensor, "H W"]) -> Float[Tensor, "scales H W"]:
    """At each pixel the weights behind the class that `labels` say, on the CPU; rows after rows."""
    weights = torch.empty(prediction.scale_weights.shape[1], *prediction.grid.image)
    for strip in _strips(prediction):
        here = labels[strip.rows].to(prediction.scale_weights.device)
        weights[:, strip.rows] = _chosen_weights(prediction.scale_weights[0], here, strip).cpu()
    return weights


def _within(max_memory: int, engine: Engine, model: ScaleAware, size: Size, *, whole_scores: bool) -> Engine:
    """The engine itself where it stays below so many bytes with this image, else one that works in tiles."""
    side = choose_side(model, size, max_memory, engine.precision, whole_scores=whole_scores)
    return Tiled(engine, model, side) if side < max(model.grid(size).padded) else engine


def _labels(prediction: Prediction, image: Tensor, refine: Refine | None) -> Tensor:
    if refine is None:
        return chosen_labels(prediction)
    return at_image(prediction, image, refine).argmax(dim=0).to(torch.uint8).cpu()


def _chosen_weights(
    weights: Float[Tensor, "scales _ h w"], labels: UInt8[Tensor, "rows W"], strip: "_Strip"
) -> Float[Tensor, "scales rows W"]:
    """At each pixel the weights of the class chosen there; a fusion without class axis has only one map a scale."""
    if weights.shape[1] == 1:
        return strip.at_image(weights[None, :, 0])[0]
    chosen = torch.zeros(weights.shape[0], *labels.shape, device=weights.device)
    for class_id in torch.unique(labels).tolist():
        chosen = torch.where(labels == class_id, strip.at_image(weights[None, :, class_id])[0], chosen)
    return chosen


class _Strip(NamedTuple):
    """Some rows of an image, and the part of the score grid that they are interpolated from, as an image of its own."""

    rows: slice
    grid: Grid
    cells: slice
    inside: slice
    """These rows of the part."""

    def at_image(self, maps: Float[Tensor, "n channels h w"]) -> Float[Tensor, "n channels rows W"]:
        """These rows of `Grid.to_image`."""
        return self.grid.to_image(maps[..., self.cells, :])[..., self.inside, :]

    def labels(self, scores: Float[Tensor, "1 classes h w"]) -> UInt8[Tensor, "rows W"]:
        return self.at_image(scores)[0].argmax(dim=0).to(torch.uint8)


def _strips(prediction: Prediction) -> Iterator[_Strip]:
    """Rows whose scores take about `STRIP` bytes; at once all of an image that has no more, or whose cells do not align.

    A strip starts at a border of `Grid.step`; a step on each side of it comes along, for it lends its cells to interpolation.
    """
    grid, cells = prediction.grid, prediction.scores.shape[-2]
    rows, one = grid.image[0], int(grid.align_corners)
    steps = (grid.padded[0] - one) // grid.step
    height = max(1, STRIP // (4 * prediction.scores.shape[1] * grid.padded[1] * grid.step))
    if steps <= height + 2 or (cells - one) % steps:
        yield _Strip(slice(None), grid, slice(None), slice(None))
        return
    density = (cells - one) // steps
    for start in range(0, steps, height):
        top, end = start * grid.step, rows if start + height >= steps else (start + height) * grid.step
        first, last = max(0, start - 1), min(steps, start + height + 1)
        part = replace(grid, image=(min(rows, last * grid.step + one) - first * grid.step, grid.image[1]))
        inside = slice(top - first * grid.step, end - first * grid.step)
        yield _Strip(slice(top, end), part, slice(first * density, last * density + one), inside)


def _pixels(image: Input) -> UInt8[Tensor, "3 H W"]:
    if isinstance(image, str | Path):
        return read(image)
    if isinstance(image, Image.Image):
        return to_tensor(image)
    if isinstance(image, np.ndarray):
        if (
            image.dtype != np.uint8
            or image.ndim not in (2, 3)
            or not image.size
            or (image.ndim == 3 and image.shape[2] not in (1, 3, 4))
        ):
            raise ValueError(f"the array is {image.dtype} {image.shape}; expected uint8 (H, W), (H, W, 3) or (H, W, 4)")
        return to_tensor(Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image))
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise ValueError(f"the tensor is {image.dtype} {tuple(image.shape)}; expected uint8 (3, H, W)")
    return image.cpu()

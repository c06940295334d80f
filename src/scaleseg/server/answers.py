"""A result as the bytes that a client asked for: PNG, JSON, npz or safetensors."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as save_tensors
from torch import Tensor

from scaleseg.model import Prediction
from scaleseg.segmentation import Segmentation
from scaleseg.server.asked import Asked
from scaleseg.server.pixels import Pixel

__all__ = ["MEDIA", "Answer", "answer"]

MEDIA = {
    "mask": "image/png",
    "overlay": "image/png",
    "weights": "image/png",
    "json": "application/json",
    "npz": "application/x-npz",
    "safetensors": "application/vnd.safetensors",
}
"""The media type of each output."""

DIGITS = 7
"""Of a float32, in JSON."""


@dataclass(frozen=True)
class Answer:
    """The body of an answer, and what it is."""

    content: bytes
    media: str


def answer(
    asked: Asked, trained: Prediction, fused: Prediction, said: Segmentation, pixels: Sequence[Pixel], seconds: float
) -> Answer:
    """The bytes. `trained` is the network's own prediction, `fused` the one behind `said`."""
    if asked.output == "json":
        content = json.dumps(_document(asked, said, pixels, seconds)).encode()
    elif asked.output == "npz":
        content = _npz(fused, said)
    elif asked.output == "safetensors":
        content = _safetensors(asked, trained, said)
    else:
        content = _png(_picture(asked.output, said))
    return Answer(content, MEDIA[asked.output])


def _document(asked: Asked, said: Segmentation, pixels: Sequence[Pixel], seconds: float) -> dict[str, Any]:
    rows, columns = said.labels.shape
    return {
        "model": asked.model.name,
        "size": [rows, columns],
        "classes": list(said.classes),
        "scales": list(said.scales),
        "fusion": asked.fusion,
        "refine": asked.refine,
        "shares": said.shares(),
        "mean_weights": _numbers(said.scale_weights.mean(dim=(1, 2), dtype=torch.float64)),
        "pixels": [_pixel(pixel, said) for pixel in pixels],
        "note": said.note,
        "seconds": round(seconds, 4),
    }


def _pixel(pixel: Pixel, said: Segmentation) -> dict[str, Any]:
    alone = zip(said.scales, pixel.per_scale, strict=True)
    return {
        "row": pixel.row,
        "column": pixel.column,
        "label": said.classes[pixel.label],
        "probabilities": _by_class(pixel.probabilities, said.classes),
        "weights": _numbers(pixel.weights),
        "per_scale": [
            {
                "scale": scale,
                "label": said.classes[int(probabilities.argmax())],
                "probabilities": _by_class(probabilities, said.classes),
            }
            for scale, probabilities in alone
        ],
    }


def _by_class(probabilities: Tensor, classes: Sequence[str]) -> dict[str, float]:
    return dict(zip(classes, _numbers(probabilities), strict=True))


def _numbers(values: Tensor) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]


def _npz(fused: Prediction, said: Segmentation) -> bytes:
    content = io.BytesIO()
    tensors = {
        "labels": said.labels,
        "scale_weights": said.scale_weights,
        "scores": fused.scores[0],
        "weights": fused.scale_weights[0],
        **{f"per_scale_{index}": scores[0] for index, scores in enumerate(fused.per_scale)},
    }
    arrays: dict[str, Any] = {name: values.cpu().numpy() for name, values in tensors.items()}
    np.savez(content, **arrays)  # deflate is 40 times slower, and takes off a sixth
    return content.getvalue()


def _safetensors(asked: Asked, trained: Prediction, said: Segmentation) -> bytes:
    """The network's own maps, from which a client can make every fusion, and the labels as they were asked for."""
    tensors = {f"per_scale.{index}": scores[0] for index, scores in enumerate(trained.per_scale)}
    tensors |= {"weights": trained.scale_weights[0], "labels": said.labels}
    grid = trained.grid
    about = {
        "image": json.dumps(grid.image),
        "padded": json.dumps(grid.padded),
        "fused": json.dumps(grid.fused),
        "align_corners": json.dumps(grid.align_corners),
        "classes": json.dumps(said.classes),
        "scales": json.dumps(said.scales),
        "model": asked.model.name,
        "fusion": asked.fusion,
        "refine": asked.refine,
        "note": said.note,
    }
    kept = {name: values.cpu().contiguous().clone() for name, values in tensors.items()}  # parts of one storage
    content: bytes = save_tensors(kept, about)
    return content


def _picture(output: str, said: Segmentation) -> Image.Image:
    if output == "overlay":
        return said.overlay()
    return said.weights_image() if output == "weights" else said.label_image()


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=3)
    return content.getvalue()

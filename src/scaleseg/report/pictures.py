"""The pictures of a report: small copies of a photograph and of what was made of it, as data URIs.

A photograph is kept at the largest size that a page may show, and drawn again for each smaller size that is tried.
"""

import base64
import io
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image

from scaleseg.geometry import IGNORE
from scaleseg.images import draw_overlay, draw_weights, palette
from scaleseg.segmentation import Segmentation

__all__ = ["SIDES", "Maps", "Picture", "Pictures", "draw", "keep"]

SIDES = (720, 512, 400, 320, 256, 200, 160, 112)
"""Longer sides of a page's pictures in pixels; 720 is sharp on a phone and in a column of a desk's screen."""

RIGHT, WRONG, VOID, GROUND = (214, 222, 226), (173, 50, 0), (120, 120, 120), (236, 236, 236)
"""Colours of an error map, and of class 0 in label maps; void is striped besides. Light and dark tell right from wrong."""


class Maps(NamedTuple):
    """A photograph and what is known of its pixels, at one size."""

    photo: UInt8[np.ndarray, "h w 3"]
    predicted: UInt8[np.ndarray, "h w"]
    labels: UInt8[np.ndarray, "h w"] | None
    weights: tuple[UInt8[np.ndarray, "h w"], ...]
    """From 0 to 255, one a scale; none for a model of one scale."""


class Picture(NamedTuple):
    """What an `img` needs."""

    uri: str
    width: int
    height: int


class Pictures(NamedTuple):
    """All of one photograph."""

    photo: Picture
    overlay: Picture | None
    """Only without labels."""
    labels: Picture | None
    predicted: Picture | None
    errors: Picture | None
    weights: tuple[Picture, ...]

    @property
    def letters(self) -> int:
        """How much of a page they take."""
        alone = (self.photo, self.overlay, self.labels, self.predicted, self.errors)
        return sum(len(picture.uri) for picture in (*alone, *self.weights) if picture)


def keep(result: Segmentation, labels: UInt8[np.ndarray, "H W"] | None = None) -> Maps:
    """What the page may need of a photograph, at the largest of SIDES."""
    photo = Image.fromarray(result.image.permute(1, 2, 0).numpy())
    size = _fitted(photo.size, SIDES[0])
    scales = result.scale_weights if len(result.scales) > 1 else result.scale_weights[:0]
    grey = ((one.clamp(0, 1) * 255).round().to(torch.uint8).numpy() for one in scales)
    return Maps(
        np.asarray(photo.resize(size)),
        _nearest(result.labels.numpy(), size),
        None if labels is None else _nearest(labels, size),
        tuple(np.asarray(Image.fromarray(one).resize(size)) for one in grey),
    )


def draw(maps: Maps, num_classes: int, side: int) -> Pictures:
    """The pictures whose longer side is `side`, or the maps' own where that is less."""
    height, width = maps.predicted.shape
    size = _fitted((width, height), side)
    photo, predicted = Image.fromarray(maps.photo).resize(size), _nearest(maps.predicted, size)
    weights = tuple(_lossy(_weight_map(one, predicted, size)) for one in maps.weights)
    if maps.labels is None:
        tensor = torch.from_numpy(np.array(photo).transpose(2, 0, 1).copy())
        overlay = draw_overlay(tensor, torch.from_numpy(predicted.copy()), num_classes)
        return Pictures(_lossy(photo), _lossy(overlay), None, None, None, weights)
    labels = _nearest(maps.labels, size)
    return Pictures(
        _lossy(photo),
        None,
        _exact(_classes(labels, num_classes)),
        _exact(_classes(predicted, num_classes)),
        _exact(_errors(labels, predicted)),
        weights,
    )


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) with the longer at most `side`, in proportion."""
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _nearest(ids: UInt8[np.ndarray, "H W"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    return np.asarray(Image.fromarray(ids).resize(size, Image.Resampling.NEAREST))


def _weight_map(
    weights: UInt8[np.ndarray, "H W"], predicted: UInt8[np.ndarray, "h w"], size: tuple[int, int]
) -> Image.Image:
    """With the classes' borders in white: a map without them is hard to place in its photograph."""
    small = np.array(Image.fromarray(weights).resize(size))
    pixels = np.array(draw_weights(torch.from_numpy(small).float()[None] / 255))
    pixels[_borders(predicted)] = 255
    return Image.fromarray(pixels)


def _borders(ids: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    border = np.zeros(ids.shape, bool)
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    border[:, 1:] |= across
    border[:, :-1] |= across
    border[1:] |= down
    border[:-1] |= down
    return border


def _classes(ids: UInt8[np.ndarray, "h w"], num_classes: int) -> Image.Image:
    """Class colours; class 0 is pale, for black would be most of the page."""
    colours = palette(num_classes).copy()
    colours[0] = GROUND
    return Image.fromarray(_striped(colours[ids], ids == IGNORE))


def _errors(labels: UInt8[np.ndarray, "h w"], predicted: UInt8[np.ndarray, "h w"]) -> Image.Image:
    colours = np.array([RIGHT, WRONG], np.uint8)
    return Image.fromarray(_striped(colours[(labels != predicted).astype(np.uint8)], labels == IGNORE))


def _striped(pixels: UInt8[np.ndarray, "h w 3"], void: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Void in slanted stripes of grey and white."""
    rows, columns = np.indices(void.shape)
    stripe = (rows + columns) // 3 % 2 == 0
    pixels[void] = 255
    pixels[void & stripe] = VOID
    return pixels


def _lossy(picture: Image.Image) -> Picture:
    return _encoded(picture, quality=78)


def _exact(picture: Image.Image) -> Picture:
    return _encoded(picture, lossless=True, quality=30, method=2)


def _encoded(picture: Image.Image, **options: Any) -> Picture:
    content = io.BytesIO()
    picture.save(content, "WEBP", **options)
    return Picture(f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}", *picture.size)

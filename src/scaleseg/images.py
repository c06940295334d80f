"""Reading photographs and label images as people have them, and drawing labels: EXIF, grey, alpha, 16 bit, CMYK, palettes."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from scaleseg.errors import UserError

__all__ = [
    "IMAGE_SUFFIXES",
    "draw_edges",
    "draw_overlay",
    "draw_weights",
    "label_image",
    "palette",
    "read",
    "read_labels",
    "to_tensor",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""What Pillow may take a file for, whatever it is called: it would hand PostScript to a program, Ghostscript."""

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it logs of a damaged file we say ourselves

MAX_PIXELS = 200_000_000
"""Larger files are refused before they are decoded: a small file can unpack to more than memory holds."""

MAX_BYTES = 1_000_000_000
"""No more of a file is read."""

DRAWN = 1_000_000
"""Pixels that are drawn at once."""

Source = str | Path | bytes | io.BufferedIOBase
"""A path, a file's content, or an open file."""


def read(source: Source, name: str | None = None) -> UInt8[Tensor, "3 H W"]:
    """A photograph as RGB, upright (EXIF), 16 bit scaled to 8, transparency on white; UserError if it cannot be read."""
    name = name or _name(source)
    image = _open(source, name)
    with _told(name):
        ImageOps.exif_transpose(image, in_place=True)
        return _tensor(image, name)


def to_tensor(image: Image.Image, name: str = "the image") -> UInt8[Tensor, "3 H W"]:
    """A PIL image of any mode as RGB, upright."""
    with _told(name):
        return _tensor(ImageOps.exif_transpose(image), name)  # decodes what was only opened so far


def read_labels(source: Source, name: str | None = None) -> UInt8[np.ndarray, "H W"]:
    """A label image's ids: the palette index or the grey value; UserError for a colour mask, which holds no ids."""
    name = name or _name(source)
    with _told(name):
        return _ids(_open(source, name), name)


def palette(num_classes: int) -> UInt8[np.ndarray, "256 3"]:
    """PASCAL VOC's colours for class ids; void (255) is its cream. `num_classes` colours and void, the rest black."""
    colours = np.zeros((256, 3), np.uint8)
    for index in range(256):
        value = index
        for bit in range(7, -1, -1):
            for channel in range(3):
                colours[index, channel] |= ((value >> channel) & 1) << bit
            value >>= 3
    colours[num_classes:255] = 0
    return colours


def label_image(labels: UInt8[np.ndarray, "H W"], num_classes: int) -> Image.Image:
    """Class ids as a palette image: PNG viewers show colours, programs read ids."""
    image = Image.fromarray(labels)
    image.putpalette(palette(num_classes).tobytes())
    return image


def draw_overlay(
    image: UInt8[Tensor, "3 H W"], labels: UInt8[Tensor, "H W"], num_classes: int, opacity: float = 0.6
) -> Image.Image:
    """The photograph with its classes coloured; class 0, background, stays as it is."""
    ids, colours = labels.numpy(), palette(num_classes)
    drawn = np.empty((*ids.shape, 3), np.uint8)
    for rows in _strips(*ids.shape):
        blend = np.where((ids[rows] > 0)[..., None], opacity, 0.0).astype(np.float32)
        photo = image[:, rows].permute(1, 2, 0).numpy().astype(np.float32)
        mixed = photo * (1 - blend) + colours[ids[rows]] * blend
        mixed[_borders(ids, rows)] = 255
        drawn[rows] = mixed.round().astype(np.uint8)
    return Image.fromarray(drawn)


def draw_weights(scale_weights: Float[Tensor, "scales H W"]) -> Image.Image:
    """One map a scale, side by side: 0 dark blue, 1 yellow (the cividis colours, readable by the colour-blind)."""
    scales, height, width = scale_weights.shape
    colours, drawn = _cividis(), np.empty((height, scales, width, 3), np.uint8)
    for rows in _strips(height, scales * width):
        index = (scale_weights[:, rows].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        drawn[rows] = colours[index].swapaxes(0, 1)
    return Image.fromarray(drawn.reshape(height, scales * width, 3))


def draw_edges(edges: Float[Tensor, "H W"]) -> Image.Image:
    """White where there is none, black at and above the image's 99th percentile; edges have no largest value."""
    strong = torch.quantile(edges.flatten()[:: 1 + edges.numel() // 10_000_000], 0.99)  # quantile takes 16 million
    shade = 255 * (1 - (edges / strong.clamp(min=1e-12)).clamp(0, 1))
    return Image.fromarray(shade.round().to(torch.uint8).numpy())


def _strips(height: int, width: int) -> Iterator[slice]:
    """Rows that are drawn at once: in float32 a whole photograph would take many times its own bytes."""
    step = max(1, DRAWN // max(1, width))
    return (slice(start, min(start + step, height)) for start in range(0, height, step))


def _borders(ids: UInt8[np.ndarray, "H W"], rows: slice) -> Bool[np.ndarray, "rows W"]:
    """Pixels of these rows with another class than the pixel to the left or above."""
    here = ids[rows]
    edge = np.zeros(here.shape, bool)
    edge[:, 1:] = here[:, 1:] != here[:, :-1]
    first = int(rows.start == 0)  # of the image: nothing is above
    edge[first:] |= here[first:] != ids[rows.start + first - 1 : rows.stop - 1]
    return edge


def _ids(image: Image.Image, name: str) -> UInt8[np.ndarray, "H W"]:
    if image.mode in _DEEP:
        ids = np.asarray(image)
        if not np.isin(ids, np.arange(256)).all():
            raise UserError(f"{name} has ids from {ids.min()} to {ids.max()}; ids are whole numbers from 0 to 255")
        return ids.astype(np.uint8)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode not in ("L", "P"):
        grey = _equal_channels(image)
        if grey is None:
            raise UserError(
                f"{name} is a colour image ({image.mode}); a mask holds one class id a pixel: save it as grey"
            )
        return grey
    return np.array(image)


def _cividis() -> UInt8[np.ndarray, "256 3"]:
    """Nine stops of the published map, interpolated."""
    stops = np.array(
        [
            (0, 34, 78), (18, 53, 112), (59, 73, 108), (87, 93, 109), (112, 113, 115),
            (138, 134, 120), (165, 156, 116), (195, 179, 105), (254, 232, 56),
        ], np.float64,
    )  # fmt: skip
    where = np.linspace(0, 1, len(stops))
    return (
        np.stack([np.interp(np.linspace(0, 1, 256), where, stops[:, c]) for c in range(3)], 1).round().astype(np.uint8)
    )


def _open(source: Source, name: str | None) -> Image.Image:
    """The decoded first frame."""
    name = name or _name(source)
    with _told(name):
        content = source if isinstance(source, bytes) else _content(source)
        image: Image.Image = Image.open(io.BytesIO(content), formats=_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise UserError(
                f"{name} is {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read: shrink it"
            )
        image.load()
    return image


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Whatever decoders trip over in a damaged file, as a UserError; their warnings of odd metadata are left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{name} does not exist") from None
    except UnidentifiedImageError:
        raise UserError(
            f"{name} is no image that can be read; give JPEG, PNG, WebP, BMP or TIFF (convert GIF, HEIC, AVIF and the like)"
        ) from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} is refused ({str(error).rstrip('.')}); shrink it") from None
    except MemoryError as error:
        raise UserError(f"{name} has more pixels than memory holds; shrink it") from error
    except Exception as error:  # of many types: struct.error, KeyError, AttributeError, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name} cannot be decoded ({reason}); it is damaged or cut short") from error


def _content(source: str | Path | io.BufferedIOBase) -> bytes:
    """A file's bytes: Pillow itself would leave a file open that it cannot decode. A device may never end."""
    if not isinstance(source, str | Path):
        return source.read()
    with Path(source).open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"{source} has more than {MAX_BYTES:,} bytes; it is refused: give a smaller file")
    return content


_DEEP = ("I;16", "I;16L", "I;16B", "I", "F")
"""Pillow's modes of one channel with more than 8 bits; its own conversions clip them."""


def _tensor(image: Image.Image, name: str) -> UInt8[Tensor, "3 H W"]:
    """Copied as seldom as can be: at 200 million pixels each copy is 0.6 GB."""
    rows = np.asarray(image if image.mode == "RGB" and "transparency" not in image.info else _rgb(image, name))
    return torch.from_numpy(rows.transpose(2, 0, 1).copy())


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in _DEEP:
        return _scaled_to_8_bits(image, name).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image, name: str) -> Image.Image:
    """Grey of more than 8 bits; Pillow's own conversion would clip it to white."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise UserError(f"{name} holds NaN or infinity; an image needs finite values")
    top = values.max(initial=0)
    if image.mode == "F" and values.min(initial=0) >= 0 and top <= 1:
        values = values * 255
    elif image.mode != "F" and (image.mode.startswith("I;16") or top > 255):
        values = values / 257
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def _equal_channels(image: Image.Image) -> UInt8[np.ndarray, "H W"] | None:
    """The one channel of a grey mask that was saved as RGB."""
    channels = np.asarray(image.convert("RGB"))
    same = (channels == channels[..., :1]).all()
    return np.ascontiguousarray(channels[..., 0]) if same else None


def _name(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else "the image"

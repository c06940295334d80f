"""Photographs as they are copied, and masks as they are written."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from scaleseg.errors import UserError
from scaleseg.images import label_image

__all__ = ["header_size", "png", "without_rotation"]

ORIENTATION = 0x0112
"""EXIF's tag; 1 is upright."""


def png(labels: UInt8[np.ndarray, "H W"], num_classes: int) -> bytes:
    """A mask as a palette PNG in VOC's colours."""
    buffer = io.BytesIO()
    label_image(labels, num_classes).save(buffer, "PNG")
    return buffer.getvalue()


def header_size(path: Path) -> tuple[int, int]:
    """Rows and columns that a file states; UserError if it is no image."""
    with _opened(path, str(path)) as image:
        return image.height, image.width


def without_rotation(content: bytes, label: str) -> bytes:
    """The same bytes; of a photograph that is marked as turned, those of its pixels as stored, on which masks lie."""
    with _opened(io.BytesIO(content), label) as image:
        turned = image.getexif().get(ORIENTATION, 1) not in (0, 1)
    return _without_marks(content) if turned else content


@contextmanager
def _opened(source: Path | io.BytesIO, label: str) -> Iterator[Image.Image]:
    """An image's header; UserError if it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(source, formats=("JPEG", "PNG", "WEBP")) as image:
                yield image
    except UserError:
        raise
    except Exception as error:  # of many types, as in images.py
        raise UserError(
            f"{label} is no JPEG, PNG or WebP that can be read ({type(error).__name__}); it is damaged"
        ) from error


def _without_marks(jpeg: bytes) -> bytes:
    """A JPEG without its APP1 segments (EXIF, XMP); its pixels and colour profile stay as they are."""
    kept, place = [jpeg[:2]], 2
    while jpeg[place : place + 1] == b"\xff" and jpeg[place + 1 : place + 2] != b"\xda":
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        if jpeg[place + 1 : place + 2] != b"\xe1":
            kept.append(jpeg[place:end])
        place = end
    return b"".join([*kept, jpeg[place:]])

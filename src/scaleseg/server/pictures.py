"""An uploaded picture: looked at before it is decoded, for a small file may unpack to more than memory holds."""

import io
import warnings

from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from scaleseg.errors import UserError
from scaleseg.images import read
from scaleseg.server.refusal import Refusal

__all__ = ["FORMATS", "read_picture"]

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""What `images.read` reads."""


def read_picture(content: bytes, name: str, most: int) -> UInt8[Tensor, "3 H W"]:
    """The picture as RGB; Refusal 415 for another kind of file, 413 for more than `most` pixels, 400 for a damaged one."""
    width, height = _size(content, name)
    if width * height > most:
        raise Refusal(413, f"{name} is {width} x {height} pixels; at most {most:,} are taken here: shrink it")
    try:
        return read(content, name)
    except UserError as error:
        raise Refusal(400, str(error)) from error


def _size(content: bytes, name: str) -> tuple[int, int]:
    """(width, height) as the header says."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels: they are counted here
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return image.size
    except UnidentifiedImageError:
        raise Refusal(
            415,
            f"{name} is no image that can be read; give JPEG, PNG, WebP, BMP or TIFF (convert GIF, HEIC, AVIF and the like)",
        ) from None
    except Image.DecompressionBombError:
        raise Refusal(413, f"{name} has more pixels than are taken here; shrink it") from None
    except Exception as error:  # of many types, as in images
        raise Refusal(400, f"{name} cannot be read ({type(error).__name__}); it is damaged or cut short") from error

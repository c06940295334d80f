"""What is served as it is: the viewer, and free photographs to try it on. All is read at the start, by name, into a table."""

import io
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from scaleseg.samples import CREDITS, samples

__all__ = ["File", "sample_files", "static_files"]

MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
"""Other files of the folder are not served."""

TITLES = {"chelsea": "cat"}
"""Of samples that the page calls by another name."""


class File(NamedTuple):
    """A file's content, and what it is."""

    content: bytes
    media: str
    credit: str = ""


def static_files() -> dict[str, File]:
    """The viewer's files by name."""
    found = {}
    for folder in ("static", "pages"):
        place = resources.files("scaleseg.server") / folder
        for item in sorted(place.iterdir(), key=lambda item: item.name) if place.is_dir() else ():
            media = MEDIA.get(Path(item.name).suffix)
            if media and item.is_file():
                found[item.name] = File(item.read_bytes(), media)
    return found


def sample_files() -> dict[str, File]:
    """The photographs as JPEG by name; none where scikit-image is not installed."""
    return {
        TITLES.get(name, name): File(_jpeg(path), "image/jpeg", CREDITS[name])
        for name, path in (samples() or {}).items()
    }


def _jpeg(path: Path) -> bytes:
    """Without what the file says beside its pixels."""
    content = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(content, "JPEG", quality=90, subsampling=0)
    return content.getvalue()

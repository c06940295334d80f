"""What is served as it is: the viewer, and free photographs to try it on. All is read at the start, by name, into a table."""

import io
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from PIL import Image

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

SAMPLES = {
    "cat": ("chelsea.png", "a cat. Photograph by Stefan van der Walt, CC0"),
    "astronaut": ("astronaut.png", "a person. Photograph by NASA, public domain"),
    "coffee": ("coffee.png", "a cup on a table. Photograph by Rachel Michetti, CC0"),
}
"""Free photographs in scikit-image's wheel, and what is said of each."""


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
    found = find_spec("skimage")
    if found is None or found.origin is None:
        return {}
    folder, samples = Path(found.origin).parent / "data", {}
    for name, (file, credit) in SAMPLES.items():
        if (folder / file).is_file():
            samples[name] = File(_jpeg(folder / file), "image/jpeg", credit)
    return samples


def _jpeg(path: Path) -> bytes:
    """Without what the file says beside its pixels."""
    content = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(content, "JPEG", quality=90, subsampling=0)
    return content.getvalue()

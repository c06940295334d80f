"""Free photographs to try a model on: scikit-image's, read from its own folder, for its functions may ask the network."""

from importlib.util import find_spec
from pathlib import Path

__all__ = ["CREDITS", "PROJECT", "samples"]

PROJECT = "scikit-image"

CREDITS = {
    "chelsea": "a cat. Photograph by Stefan van der Walt, CC0",
    "astronaut": "a person. Photograph by NASA, public domain",
    "coffee": "a cup on a table. Photograph by Rachel Michetti, CC0",
}
"""What is said of each; on the last is nothing that the bundled model knows."""


def samples(*more: str) -> dict[str, Path] | None:
    """Their files by name, and those of `more` of its photographs, as many as there are; None without scikit-image."""
    found = find_spec("skimage")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "data"
    return {name: path for name in (*CREDITS, *more) for path in folder.glob(f"{name}.*")}

"""The network's part of a search: it runs once on each photograph, and never again while the cache is whole."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from scaleseg.datasets import Subset
from scaleseg.errors import UserError
from scaleseg.geometry import IGNORE
from scaleseg.model import ScaleAware
from scaleseg.refine_search.cache import Damaged, read, write
from scaleseg.refine_search.folder import stop_if
from scaleseg.refine_search.measure import image_file
from scaleseg.segmentation import predict

__all__ = ["Progress", "Say", "fill"]

Say = Callable[[str], None]
Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Of a title and how many there are; what it gives is called once for each that is done."""


def fill(
    cache: Path, photographs: Subset, model: ScaleAware, interrupted: Sequence[int], say: Say, progress: Progress
) -> None:
    """Put into the cache what is not in it, or damaged there.

    UserError if a photograph is another than the cache has, or if none of them has a label.
    """
    labelled = False
    with progress("scores", len(photographs)) as advance:
        for index, name in enumerate(photographs.names):
            stop_if(interrupted, cache.parent)
            image, labels = photographs[index]
            labelled = labelled or bool((labels != IGNORE).any())
            path = image_file(cache, index)
            if not _is_there(path, image, labels, name, say):
                write(path, image, labels, predict(model, image, precision="float32"))
            advance()
    if not labelled:
        raise UserError(
            f"the {len(photographs)} photographs have no labelled pixel (all void, {IGNORE}), so there is nothing to measure; "
            "look at the masks with scaleseg data check"
        )


def _is_there(path: Path, image: UInt8[Tensor, "3 H W"], labels: Int64[Tensor, "H W"], name: str, say: Say) -> bool:
    if not path.exists():
        return False
    try:
        stored = read(path)
    except Damaged as error:
        say(f"{error}: it is made anew")
        return False
    if not torch.equal(stored.image, image) or not torch.equal(stored.labels.long(), labels):
        raise UserError(
            f"{name}, or its mask, is not what it was when the search in {path.parent.parent} began; choose another --out, or "
            f"delete {path.parent} to begin anew"
        )
    return True

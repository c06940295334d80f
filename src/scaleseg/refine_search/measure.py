"""The smallest piece of work: one image of the cache, refined with one setting, its hits and misses counted."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Integer

from scaleseg.config import RefineConfig
from scaleseg.devices import explained
from scaleseg.errors import UserError
from scaleseg.metrics import TRIMAP, Confusion, near_borders
from scaleseg.refine import create_refine
from scaleseg.refine_search.cache import Damaged, read
from scaleseg.segmentation import at_image

__all__ = ["Tally", "Task", "add", "image_file", "label", "measure"]


class Task(NamedTuple):
    """A setting, and the image to try it on."""

    image: int
    refine: str
    settings: RefineConfig


class Tally(NamedTuple):
    """Two confusion matrices, of all pixels and of those near borders, as (place, count) of what is not zero."""

    fused: list[tuple[int, int]]
    trimap: list[tuple[int, int]]


def measure(task: Task, cache: Path) -> Tally:
    """Refine and count, as `evaluation.count` does; UserError if the image's file is damaged or memory runs out."""
    remedy = "give fewer --jobs, smaller photographs or a smaller refine.crf_max_pixels"
    try:
        with explained(torch.device("cpu"), remedy), torch.inference_mode():
            return _counted(task, cache)
    except Damaged as error:
        raise UserError(f"{error}; the same command makes it anew") from error


def _counted(task: Task, cache: Path) -> Tally:
    stored = read(image_file(cache, task.image))
    refine = create_refine(task.refine, task.settings)
    chosen = at_image(stored.prediction, stored.image, refine).argmax(dim=0).numpy()
    truth = stored.labels.numpy()
    fused, trimap = (Confusion(stored.prediction.scores.shape[1]) for _ in range(2))
    fused.add(truth, chosen)
    trimap.add(truth, chosen, near_borders(truth, TRIMAP))
    return Tally(_sparse(fused.matrix), _sparse(trimap.matrix))


def image_file(cache: Path, index: int) -> Path:
    """Where an image lies in the cache."""
    return cache / f"{index:05d}.safetensors"


def label(refine: str, settings: RefineConfig) -> str:
    """A refinement with all its settings: results are known by it."""
    made = create_refine(refine, settings)
    return repr(made) if made else "none"


def add(confusion: Confusion, counts: list[tuple[int, int]]) -> None:
    """One more image."""
    for place, count in counts:
        confusion.matrix.flat[place] += count
    confusion.images += 1


def _sparse(matrix: Integer[np.ndarray, "classes classes"]) -> list[tuple[int, int]]:
    flat = matrix.ravel()
    return [(int(place), int(flat[place])) for place in np.flatnonzero(flat)]

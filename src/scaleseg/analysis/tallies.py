"""What a deep evaluation keeps of each photograph: counts and sums, never maps, so that memory does not grow with pixels."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Integer

from scaleseg.analysis.contract import CRUMB, SIZES, TRIMAP_WIDTHS, ImageScore
from scaleseg.evaluation import Look
from scaleseg.fusion import create_fusion
from scaleseg.geometry import IGNORE, resize
from scaleseg.metrics import (
    TRIMAP,
    Found,
    GroupMeans,
    Reliability,
    Trimap,
    border_distance,
    boundary_tally,
    division,
    find_objects,
    sums_by_group,
    tally,
)
from scaleseg.model import Prediction
from scaleseg.segmentation import chosen_labels, chosen_weights

__all__ = ["ZONES", "Object", "Tallies", "size_bin"]

ZONES = ("background", "object", "boundary")

Labels = Integer[np.ndarray, "_ _"]


class Object(NamedTuple):
    """One object of the labels."""

    image: int
    class_id: int
    share: float
    """Of the image's pixels."""
    IoU: float
    found: float
    weights: tuple[float, ...]


class Tallies:
    """What has been seen so far; `see` takes one more photograph."""

    def __init__(self, names: Sequence[str], classes: tuple[str, ...], scales: tuple[float, ...]) -> None:
        self.names, self.classes, self.scales = names, classes, scales
        self.images: list[ImageScore] = []
        self.objects: list[Object] = []
        self.crumbs = 0
        self.alarms = np.zeros(len(SIZES) + 1, np.int64)
        self.trimap = Trimap(len(classes), max(TRIMAP_WIDTHS))
        self.reliability = Reliability()
        self.zones = GroupMeans(len(ZONES), len(scales))
        self.by_class = GroupMeans(len(classes), len(scales))

    def see(self, look: Look) -> None:
        """Count one photograph."""
        labels, chosen, valid = look.labels, look.chosen, look.labels != IGNORE
        self.reliability.add(look.confidence[valid], (labels == chosen)[valid])
        distance = border_distance(labels, max(TRIMAP_WIDTHS))
        self.trimap.add(labels, chosen, distance)
        weights = chosen_weights(look.prediction, torch.from_numpy(chosen)).numpy()
        self.by_class.add(weights[:, valid], labels[valid])
        self.zones.add(weights[:, valid], _zones(labels, distance)[valid])
        found = find_objects(labels, chosen)
        objects = list(_objects(look.index, found, weights))
        self.objects += objects
        self.crumbs += len(found.pixels) - len(objects)
        for pixels in found.alarm_pixels[found.alarm_pixels >= CRUMB].tolist():
            self.alarms[size_bin(pixels / labels.size)] += 1
        self.images.append(self._score(look, weights, objects))

    def _score(self, look: Look, weights: Float[np.ndarray, "scales H W"], objects: list[Object]) -> ImageScore:
        valid = look.labels != IGNORE
        tallies = {
            name: self._named(*tally(look.labels[valid], said[valid], len(self.classes)))
            for name, said in _fusions(look, self.scales).items()
        }
        shares = [hits / union for hits, union in tallies["fused"].values()]
        return ImageScore(
            self.names[look.index],
            look.index,
            sum(shares) / len(shares) if shares else None,
            tuple(weights.mean(axis=(1, 2), dtype=np.float64).tolist()),
            division(weights),
            tallies,
            self._named(*boundary_tally(look.labels, look.chosen, len(self.classes))),
            _by_size(objects),
        )

    def _named(
        self, hits: Integer[np.ndarray, " classes"], unions: Integer[np.ndarray, " classes"]
    ) -> dict[str, tuple[int, int]]:
        return {self.classes[place]: (int(hits[place]), int(unions[place])) for place in np.flatnonzero(unions)}


def size_bin(share: float) -> int:
    """Which bin an object of this share of the image is in; on a border, the upper one."""
    return int(np.searchsorted(SIZES, share, side="right"))


def _fusions(look: Look, scales: tuple[float, ...]) -> dict[str, Labels]:
    """The labels by what merges the same per-scale scores; of a model with one scale nothing is merged."""
    if len(scales) == 1:
        return {"fused": look.chosen}
    alone = {f"scale {scale:g}": said for scale, said in zip(scales, look.alone, strict=True)}
    right = np.any([said == look.labels for said in look.alone], axis=0)
    merged = {name: _merged(look.prediction, name) for name in ("average", "max")}
    return {"fused": look.chosen, **alone, **merged, "oracle": np.where(right, look.labels, look.chosen)}


def _merged(prediction: Prediction, fusion: str) -> Labels:
    """What a fusion that needs no features makes of the scores of each scale (Eq. 1)."""
    grid = prediction.grid
    scores = torch.stack(
        [resize(one, grid.fused, align_corners=grid.align_corners) for one in prediction.per_scale], dim=1
    )
    weights = create_fusion(fusion, scores.shape[1], 0).weights([], scores)
    return chosen_labels(prediction, (weights * scores).sum(dim=1)).numpy()


def _zones(labels: Labels, distance: Labels) -> Labels:
    """A place in `ZONES` for each pixel."""
    return np.where(distance <= TRIMAP, ZONES.index("boundary"), np.where(labels == 0, 0, ZONES.index("object")))


def _objects(image: int, found: Found, weights: Float[np.ndarray, "scales H W"]) -> Iterator[Object]:
    sums = sums_by_group(weights.reshape(len(weights), -1), found.ids.ravel(), len(found.pixels) + 1)[1:]
    means = sums / found.pixels[:, None]
    for place in np.flatnonzero(found.pixels >= CRUMB):
        pixels, hits, union = int(found.pixels[place]), int(found.hits[place]), float(found.unions[place])
        yield Object(
            image, int(found.classes[place]), pixels / found.ids.size, hits / union, hits / pixels,
            tuple(means[place].tolist()),
        )  # fmt: skip


def _by_size(objects: list[Object]) -> tuple[tuple[int, float], ...]:
    bins: list[list[float]] = [[] for _ in range(len(SIZES) + 1)]
    for item in objects:
        bins[size_bin(item.share)].append(item.IoU)
    return tuple((len(values), float(sum(values))) for values in bins)

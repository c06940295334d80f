"""Measuring a model on labelled photographs: each at its own resolution, one at a time, one confusion matrix over all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from scaleseg.checkpoint import load, locate, read_config
from scaleseg.config import Config, to_dict
from scaleseg.datasets import Dataset
from scaleseg.devices import choose_device, explained, out_of_reach, place, worker_start
from scaleseg.engines import Engine
from scaleseg.engines.memory import STRIP
from scaleseg.errors import UserError, as_raised
from scaleseg.geometry import IGNORE
from scaleseg.metrics import TRIMAP, Confusion, Metrics, near_borders
from scaleseg.model import Prediction, ScaleAware
from scaleseg.recipes import override
from scaleseg.refine import Refine
from scaleseg.segmentation import at_image, choose_refine, predict

__all__ = ["Counts", "Look", "Subject", "best_of", "count", "evaluate", "figures", "open_checkpoint"]


class Subject(NamedTuple):
    """A checkpoint that is to be measured or looked at."""

    config: Config
    """With the overrides."""
    model: ScaleAware
    """On its device."""
    refine: Refine | None


def open_checkpoint(name: str | Path, overrides: Sequence[str] = (), *, device: str, refine: str) -> Subject:
    """What verbs make of a checkpoint's name and `key=value` settings; UserError if anything of it does not fit."""
    folder = locate(name)  # once: a Hub id could mean another commit the next time
    config = override(to_dict(read_config(folder)), list(overrides))
    model = place(load(folder, config.model), choose_device(device))
    model.refine = config.refine
    return Subject(config, model, choose_refine(model, refine))


def best_of(name: str) -> str:
    """A run's folder stands for its `best`, or its `last` where nothing chose a best one; other names for themselves."""
    pointers = [] if (Path(name) / "config.json").is_file() else [Path(name) / "best", Path(name) / "last"]
    return next((str(path) for path in pointers if (path / "config.json").is_file()), name)


def evaluate(
    model: ScaleAware,
    dataset: Dataset,
    *,
    precision: str = "float32",
    refine: str | Refine | None = None,
    engine: Engine | None = None,
    max_memory: int | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Metrics:
    """mIoU and its kin, with the mIoU of each scale's own scores beside the merged. Published figures use float32.

    `refine`, `engine` and `max_memory` are those of `segment`; a refinement works on the merged scores alone.
    """
    counts = count(
        model, dataset, precision=precision, refine=refine, engine=engine, max_memory=max_memory, workers=workers,
        progress=progress,
    )  # fmt: skip
    return figures(counts, dataset)


def figures(counts: "Counts", dataset: Dataset) -> Metrics:
    """What was counted as figures; UserError if nothing of the dataset has a label."""
    metrics = counts.metrics()
    if not metrics.pixels:
        raise UserError(
            f"the {len(dataset)} photographs have no labelled pixel (all void, {IGNORE}), so there is nothing to measure; "
            "look at the masks with scaleseg data check"
        )
    return metrics


@dataclass(frozen=True)
class Counts:
    """Hits and misses of the merged scores and of each scale's own; those of parts of a dataset can be added up."""

    fused: Confusion
    trimap: Confusion
    """Of the merged scores, within `metrics.TRIMAP` pixels of a label border."""
    per_scale: dict[str, Confusion]
    classes: tuple[str, ...]

    def add(
        self,
        labels: Int64[np.ndarray, "H W"],
        chosen: UInt8[np.ndarray, "H W"],
        alone: Sequence[UInt8[np.ndarray, "H W"]],
    ) -> None:
        """Count one photograph: its labels, the merged scores' classes, and those of each scale's own scores."""
        self.fused.add(labels, chosen)
        self.trimap.add(labels, chosen, near_borders(labels, TRIMAP))
        for confusion, said in zip(self.per_scale.values(), alone, strict=True):
            confusion.add(labels, said)

    @property
    def all(self) -> list[Confusion]:
        """Every confusion matrix."""
        return [self.fused, self.trimap, *self.per_scale.values()]

    def metrics(self) -> Metrics:
        """The figures."""
        each = {scale: confusion.metrics(self.classes).mIoU for scale, confusion in self.per_scale.items()}
        trimap = self.trimap.metrics(self.classes)
        return replace(
            self.fused.metrics(self.classes), per_scale=each, trimap_mIoU=trimap.mIoU if trimap.pixels else None
        )


@dataclass(frozen=True)
class Look:
    """One labelled photograph, and what the model says of it."""

    index: int
    """In the dataset."""
    labels: Int64[np.ndarray, "H W"]
    chosen: UInt8[np.ndarray, "H W"]
    """The merged scores' classes, refined if asked for."""
    alone: tuple[UInt8[np.ndarray, "H W"], ...]
    """Those of each scale's own scores."""
    confidence: Float[np.ndarray, "H W"]
    """The probability of the chosen class."""
    prediction: Prediction


def count(
    model: ScaleAware,
    dataset: Dataset,
    *,
    precision: str = "float32",
    refine: str | Refine | None = None,
    engine: Engine | None = None,
    max_memory: int | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    see: Callable[[Look], None] | None = None,
) -> Counts:
    """What `evaluate` reads its figures off; `see` is shown each photograph, for those who ask for more."""
    _check_classes(model, dataset)
    sharpen = choose_refine(model, refine)
    known = len(model.classes)
    per_scale = {f"{scale:g}": Confusion(known) for scale in model.scales}
    counts = Counts(Confusion(known), Confusion(known), per_scale, model.classes)
    for done, (image, labels) in enumerate(_pairs(dataset, workers), start=1):
        with explained(model.mean.device, f"shrink {dataset.names[done - 1]}, or choose another --device"):
            prediction = predict(model, image, precision=precision, engine=engine, max_memory=max_memory)
            truth = labels.numpy()
            merged = at_image(prediction, image, sharpen)
            chosen = _ids(merged)
            confidence = _confidence(merged, is_score=sharpen is None) if see else None
            del merged  # at the image's size it may be large
            alone = tuple(_ids(prediction.grid.to_image(scores)[0]) for scores in prediction.per_scale)
            counts.add(truth, chosen, alone)
            if see and confidence is not None:
                see(Look(done - 1, truth, chosen, alone, confidence, prediction))
        if progress:
            progress(done, len(dataset))
    return counts


def _check_classes(model: ScaleAware, dataset: Dataset) -> None:
    if len(dataset.classes) != len(model.classes):
        raise UserError(
            f"the model has {len(model.classes)} classes ({', '.join(model.classes[:8])}), the data "
            f"{len(dataset.classes)} ({', '.join(dataset.classes[:8])}); they must be the same"
        )
    if tuple(dataset.classes) != model.classes and sorted(dataset.classes) == sorted(model.classes):
        raise UserError(
            f"the data's classes are in another order ({', '.join(dataset.classes[:8])}) than the model's "
            f"({', '.join(model.classes[:8])}); give data.classes in the model's order, with data.label_map"
        )


def _ids(scores: Float[Tensor, "classes H W"]) -> UInt8[np.ndarray, "H W"]:
    """The class of the highest score at each pixel, in bytes: several such maps of a large photograph are kept at a time."""
    return scores.argmax(dim=0).to(torch.uint8).cpu().numpy()


def _confidence(merged: Float[Tensor, "classes H W"], *, is_score: bool) -> Float[np.ndarray, "H W"]:
    """The highest probability at each pixel; of scores by softmax, rows after rows, for it takes as much room again."""
    if not is_score:
        return (merged.amax(dim=0) / merged.sum(dim=0)).cpu().numpy()
    height = max(1, STRIP // (4 * merged.shape[0] * merged.shape[2]))
    parts = [(rows.amax(dim=0) - rows.logsumexp(dim=0)).exp() for rows in torch.split(merged, height, dim=1)]
    return torch.cat(parts).cpu().numpy()


def _pairs(dataset: Dataset, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs in order, read ahead by `workers` processes."""
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers,
        worker_init_fn=out_of_reach if workers else None,
        multiprocessing_context=worker_start(workers),
    )
    try:
        yield from loader
    except UserError as error:
        raise as_raised(error) from None

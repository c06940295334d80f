"""Skipping scales: time against mIoU, and against what is found of objects of each size.

    python benchmarks/skipping.py voc-animals-lite data.val=photos.zip --json skipping.json
    python benchmarks/skipping.py voc-animals-lite data=voc-animals/data.yaml --split dev --json skipping.json

On each photograph the plain engine and one of each threshold run in turns, float32. `speed` is the plain engine's time over all
photographs divided by that of the threshold; `arithmetic` is what the pixels that were computed promise. Objects are the
connected components of a class's label, by their share of the photograph; `recall` is the share of their pixels that get
their label. Thresholds are chosen on a development split, not on what is reported.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
from machine import machine

from scaleseg import atomic, checkpoint
from scaleseg.config import to_dict
from scaleseg.datasets import Dataset, open_evaluation, open_training
from scaleseg.engines import Engine, Skipping, TorchEngine
from scaleseg.errors import UserError
from scaleseg.geometry import IGNORE
from scaleseg.metrics import Confusion
from scaleseg.model import ScaleAware
from scaleseg.recipes import override

__all__ = ["BINS", "Tally", "main"]

BINS = {"below 1 %": 0.01, "1 to 5 %": 0.05, "5 to 15 %": 0.15, "15 to 40 %": 0.4, "above 40 %": 1.01}
"""Upper ends, as shares of the photograph."""
THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.05)


class Tally:
    """What one engine gets right, and how long it takes."""

    def __init__(self, engine: Engine, classes: int) -> None:
        self.engine, self.confusion, self.seconds = engine, Confusion(classes), 0.0
        self.right, self.there = dict.fromkeys(BINS, 0), dict.fromkeys(BINS, 0)

    def look(self, image: Any, truth: np.ndarray, objects: Sequence[tuple[str, np.ndarray]]) -> None:
        """One photograph; `objects` are size bins and masks."""
        begin = time.perf_counter()
        prediction = self.engine(image)
        self.seconds += time.perf_counter() - begin
        labels = prediction.at()[0].argmax(dim=0).numpy()
        self.confusion.add(truth, labels)
        for size, mask in objects:
            self.there[size] += int(mask.sum())
            self.right[size] += int((labels[mask] == truth[mask]).sum())

    def figures(self, model: ScaleAware) -> dict[str, Any]:
        """Fractions; a bin without objects is left out."""
        found: dict[str, Any] = {
            "mIoU": self.confusion.metrics(model.classes).mIoU,
            "seconds": self.seconds,
            "recall": {size: self.right[size] / count for size, count in self.there.items() if count},
        }
        if isinstance(self.engine, Skipping):
            looked = self.engine.looked
            computed = sum(count * scale**2 for scale, count in looked.items())
            whole = self.confusion.images * sum(scale**2 for scale in model.scales)
            found |= {"threshold": self.engine.threshold, "arithmetic": whole / computed}
            found["computed"] = {f"{scale:g}": count / self.confusion.images for scale, count in looked.items()}
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(given)
    model = checkpoint.load(options.checkpoint)
    dataset = _photographs(options)
    indices = np.linspace(0, len(dataset) - 1, min(options.images, len(dataset))).astype(int).tolist()
    engines: list[Engine] = [TorchEngine(model, "float32")]
    engines += [Skipping(model, threshold, "float32") for threshold in options.thresholds]
    tallies = [Tally(engine, len(model.classes)) for engine in engines]
    for engine in engines:
        engine(dataset[indices[0]][0])  # warm
    for engine in engines[1:]:
        assert isinstance(engine, Skipping)
        engine.looked = dict.fromkeys(model.scales, 0)
    for done, index in enumerate(indices, start=1):
        image, labels = dataset[index]
        truth = labels.numpy()
        objects = list(_objects(truth))
        for tally in tallies:
            tally.look(image, truth, objects)
        if not done % 25:
            sys.stdout.write(f"{done} of {len(indices)} photographs\n")
    plain, *others = (tally.figures(model) for tally in tallies)
    report = {
        "command": shlex.join(["python", "benchmarks/skipping.py", *given]),
        **machine(), "checkpoint": str(options.checkpoint), "split": options.split, "photographs": len(indices),
        "plain": plain, "skipping": [{**figures, "speed": plain["seconds"] / figures["seconds"]} for figures in others],
    }  # fmt: skip
    _print(report)
    if options.json:
        atomic.write(options.json, json.dumps(report, indent=2) + "\n")
    return 0


def _photographs(options: argparse.Namespace) -> Dataset:
    config = override(to_dict(checkpoint.read_config(checkpoint.locate(options.checkpoint))), options.overrides)
    if options.split == "val":
        return open_evaluation(config.data).dataset
    dev = open_training(config.data).dev
    if dev is None:
        raise UserError("there is no development split (data.dev is 0); give --split val, or data.dev")
    return dev


def _objects(truth: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Connected components (8 neighbours) of every class but class 0, with the bin of their share."""
    found = []
    for class_id in np.unique(truth):
        if class_id in (0, IGNORE):
            continue
        parts, count = scipy.ndimage.label(truth == class_id, np.ones((3, 3)))
        for part in range(1, count + 1):
            mask = parts == part
            found.append((next(size for size, end in BINS.items() if mask.mean() < end), mask))
    return found


def _print(report: dict[str, Any]) -> None:
    plain = report["plain"]
    sys.stdout.write(f"plain: mIoU {100 * plain['mIoU']:.2f} %\n")
    for row in report["skipping"]:
        recall = "  ".join(
            f"{size}: {100 * (value - plain['recall'][size]):+.2f}" for size, value in row["recall"].items()
        )
        sys.stdout.write(
            f"threshold {row['threshold']:g}: speed x{row['speed']:.2f} (arithmetic x{row['arithmetic']:.2f})  mIoU "
            f"{100 * row['mIoU']:.2f} % ({100 * (row['mIoU'] - plain['mIoU']):+.2f})  recall by object size {recall}\n"
        )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", help="a checkpoint folder, a bundled name, or a Hub id")
    parser.add_argument("overrides", nargs="*", help="settings as key=value, such as data.val=photos.zip")
    parser.add_argument(
        "--split", choices=("val", "dev"), default="val", help="data.val (default), or what data.dev holds back"
    )
    parser.add_argument("--images", type=int, default=10**9, help="at most so many photographs, evenly spaced")
    parser.add_argument(
        "--thresholds", type=float, nargs="+", default=THRESHOLDS, help="to compare with skipping nothing"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())

"""Many photographs: workers of a Ray on this machine against one process that uses all cores.

    python benchmarks/distributed.py --json distributed.json

Both segment the same synthetic photographs with the same checkpoint and write the same files (masks, overlays, weights), into
folders that are empty. They take turns, and the medians are compared. The clock of the workers runs from the first result
to the last, for a Ray starts once and photographs are many: `start` says how long until the first. The clock of the one process
runs over all, its model loaded and warm.
"""

import argparse
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine, timed
from PIL import Image

from scaleseg import atomic
from scaleseg.batch import Item, find_images, segment_files
from scaleseg.checkpoint import load
from scaleseg.devices import cores
from scaleseg.distributed import segment_distributed
from scaleseg.distributed.cluster import joined
from scaleseg.errors import UserError

__all__ = ["main", "photograph", "rate"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write `--json`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(given)
    before = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        with tempfile.TemporaryDirectory() as folder:
            report = {
                "command": shlex.join(["python", "benchmarks/distributed.py", *given]),
                **machine(),
                **_measure(options, Path(folder)),
            }
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        torch.set_num_threads(before)
    _print(report)
    if options.json:
        atomic.write(options.json, json.dumps(report, indent=2) + "\n")
    return 0


def photograph(seed: int, size: tuple[int, int]) -> Image.Image:
    """Soft coloured shapes with grain, (rows, columns): it compresses like a photograph."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC), np.int16)
    grain = generator.integers(-8, 9, (*size, 1), dtype=np.int16)
    return Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8))


def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    (folder / "photographs").mkdir()
    for seed in range(options.images):
        photograph(seed, (240, 320)).save(folder / "photographs" / f"{seed:05}.jpg", quality=90)
    items = find_images([str(folder / "photographs")], folder / "out")
    model = load(options.checkpoint)
    segment_files(model, items[:1], folder / "warm")
    rates: dict[str, list[float]] = {"one process": [], "workers": []}
    starts = []
    with joined("local"):
        for run in range(options.runs):
            seconds = timed(segment_files, model, items, folder / f"one-{run}")
            rates["one process"].append(len(items) / seconds)
            start, rate = _by_workers(options, items, folder / f"workers-{run}")
            starts.append(start)
            rates["workers"].append(rate)
            _check(folder / f"one-{run}", folder / f"workers-{run}")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "checkpoint": options.checkpoint,
        "images": options.images,
        "size": [240, 320],
        "actors": options.actors,
        "runs": options.runs,
        "images_per_second": rates,
        "medians": medians,
        "ratio": medians["workers"] / medians["one process"],
        "start": starts,
    }


def _by_workers(options: argparse.Namespace, items: Sequence[Item], out: Path) -> tuple[float, float]:
    """Seconds until the first results are reported, and images a second from then on."""
    begin = time.perf_counter()
    moments: list[float] = []
    segment_distributed(
        options.checkpoint,
        items,
        out,
        actors=options.actors,
        report=lambda item, problem: moments.append(time.perf_counter()),
    )
    return moments[0] - begin, rate(moments, options.actors, time.perf_counter() - begin)


def rate(moments: Sequence[float], actors: int, seconds: float) -> float:
    """Images a second from the first deal's results on; what the others had in hand at that moment is not counted.

    Over all `seconds` where there are too few images to tell.
    """
    first = sum(moment - moments[0] < DEAL for moment in moments)
    counted = len(moments) - first * actors
    return counted / (moments[-1] - moments[0]) if counted > 0 else len(moments) / seconds


DEAL = 0.005
"""Results within these seconds are one deal's: they are reported together."""


def _check(one: Path, workers: Path) -> None:
    """UserError unless there are the same files, masks with the same labels but for few pixels: threads sum in another order."""
    names = [sorted(path.relative_to(out).as_posix() for path in out.glob("*/*")) for out in (one, workers)]
    if names[0] != names[1]:
        raise UserError(f"{len(names[0])} files of one process, {len(names[1])} of workers; they should be the same")
    for path in sorted((one / "masks").iterdir())[:20]:
        ours, theirs = (np.asarray(Image.open(out / "masks" / path.name)) for out in (one, workers))
        if (ours != theirs).mean() > 0.001:
            raise UserError(f"{path.name} has other labels by workers than by one process")


def _print(report: dict[str, Any]) -> None:
    print(f"{report['cpu']}, {report['processors']} processors, torch {report['torch']}, {report['date']}")
    print(f"{report['checkpoint']}, {report['images']} photographs of 240 x 320, median of {report['runs']}")
    print(f"{'one process, all cores':32}{report['medians']['one process']:10.2f} images/s")
    print(f"{str(report['actors']) + ' workers':32}{report['medians']['workers']:10.2f} images/s")
    print(f"{'ratio':32}{report['ratio']:10.2f}")
    print(f"{'until the first result':32}{statistics.median(report['start']):10.1f} s")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    parser.add_argument("--images", type=int, default=500, help="photographs a run (default 500)")
    parser.add_argument("--actors", type=int, default=2, help="workers (default 2)")
    parser.add_argument("--runs", type=int, default=3, help="rounds of one process and workers (default 3)")
    parser.add_argument(
        "--checkpoint", default="voc-animals-lite", help="a folder or bundled name (default %(default)s)"
    )
    options = parser.parse_args(arguments)
    if min(options.images, options.actors, options.runs) < 1:
        parser.error("give at least 1 image, 1 worker and 1 run")
    return options


if __name__ == "__main__":
    sys.exit(main())

"""How much memory the library takes: three scales against one, and a large photograph in tiles.

    python benchmarks/memory.py --json memory.json

Each case runs in a process of its own, for the most that a process ever held is never forgotten. On a CPU the figure is the
peak of the resident set (Linux: VmHWM, reset after loading), on CUDA `max_memory_allocated`. Three parts:

- `scales`: the peak above the level after loading and a first small image, of one scale (1) and of three (1, 0.75, 0.5);
  `ratio` is three over one. glibc keeps blocks of up to 32 MB for the next tensor, by chance more or fewer: these figures are
  taken with every block given back when it is freed, and `glibc_default` has the others. Parameters are as `create_model`
  draws them: memory does not depend on them.
- `large`: `segment` of a mosaic of 6000 x 4000 pixels with the bundled model under `max_memory` of 4 GB: the peak of the
  whole process, the tiles' side and the time.
- `agreement`: the share of pixels that tiles and the whole image give the same label, at a size where the whole fits, for
  several halos; the library's own stands as `halo`.

The mosaic is made of scikit-image's photographs, or of those in `--images`.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch import Tensor

import scaleseg
from scaleseg import UserError, atomic
from scaleseg.batch import find_images
from scaleseg.devices import choose_device, place
from scaleseg.engines import Tiled, TorchEngine, choose_side, parse_bytes
from scaleseg.engines.memory import process_bytes
from scaleseg.engines.tiled import default_halo
from scaleseg.geometry import resize_photo
from scaleseg.images import read, to_tensor
from scaleseg.model import ScaleAware, create_model

__all__ = ["CASES", "agreement", "large", "main", "mosaic", "scales"]

SCALES = {"one": (1.0,), "three": (1.0, 0.75, 0.5)}
RETURNING = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
"""glibc's setting by which every block above 1 MB goes back to the system when it is freed."""

BUNDLED = "voc-animals-lite"
TILE = 500
"""Pixels of a photograph in the mosaic, enlarged: objects are as large as in the data that the model learned from, or larger."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every part, print a table, write `--json`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(given)
    if options.case:
        print(json.dumps(_case(options)))
        return 0
    try:
        command = shlex.join(["python", "benchmarks/memory.py", *given])
        report = {"command": command, **machine(), "device": options.device, **_measure(options)}
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    _print(report)
    if options.json:
        atomic.write(options.json, json.dumps(report, indent=2) + "\n")
    return 0


def scales(segmenter: str, number: str, size: int, precision: str, device: str) -> dict[str, Any]:
    """The peak of one square image above the level after loading, and what the library expects of it."""
    model = create_model(segmenter, scales=SCALES[number], num_classes=21, pretrained="none").eval()
    engine = TorchEngine(place(model, choose_device(device)), precision)
    image = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
    engine(image[:, :33, :33])
    meter = Meter(model)
    engine(image)
    found = {"segmenter": segmenter, "scales": number, "size": size, "precision": engine.precision}
    padded = model.grid((size, size)).padded
    return {**found, "bytes": meter.above(), "expected": process_bytes(model, padded, engine.precision)}


def large(size: tuple[int, int], max_memory: str, zoom: float, images: str, device: str) -> dict[str, Any]:
    """`segment` of a large mosaic under a limit: the peak of the process, from its start to the labels."""
    model = place(scaleseg.load(BUNDLED), choose_device(device))
    limit, image = parse_bytes(max_memory), mosaic(size, zoom, images)
    begin = time.perf_counter()
    meter = Meter(model, whole=True)
    result = scaleseg.segment(model, image, max_memory=limit)
    seconds, peak = time.perf_counter() - begin, meter.peak()
    precision = TorchEngine(model).precision
    found = {"size": size, "limit": limit, "bytes": peak, "seconds": seconds, "precision": precision}
    return {**found, "side": choose_side(model, size, limit, precision), "labels": len(result.labels.unique())}


def agreement(
    size: tuple[int, int], side: int, halos: Sequence[int], zoom: float, images: str, precision: str, device: str
) -> dict[str, Any]:
    """The share of pixels with the same label, and the mean difference of scores, for each halo."""
    model = place(scaleseg.load(BUNDLED), choose_device(device))
    image, engine = mosaic(size, zoom, images), TorchEngine(model, precision)
    begin = time.perf_counter()
    whole = engine(image)
    found: dict[str, Any] = {"size": size, "side": side, "zoom": zoom, "precision": engine.precision}
    found |= {"halo": default_halo(model), "whole_seconds": time.perf_counter() - begin, "halos": {}}
    labels = _labels(model, whole.scores, size)
    for halo in sorted({*halos, default_halo(model)}):
        begin = time.perf_counter()
        tiled = Tiled(engine, model, side, halo)(image)
        found["halos"][str(halo)] = {
            "same_labels": float((_labels(model, tiled.scores, size) == labels).double().mean()),
            "mean_abs_difference": float((tiled.scores - whole.scores).abs().mean()),
            "seconds": time.perf_counter() - begin,
        }
    return found


CASES = {"scales": scales, "large": large, "agreement": agreement}


class Meter:
    """The most memory that is taken from now on; with `whole`, from the start of the process."""

    def __init__(self, model: ScaleAware, *, whole: bool = False) -> None:
        self.device = model.mean.device
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif not whole:
            _forget_peak()
        self.before = torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else _status("VmRSS")

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else _status("VmHWM")

    def above(self) -> int:
        return self.peak() - self.before


def mosaic(size: tuple[int, int], zoom: float, images: str = "") -> Tensor:
    """Photographs side by side, each `zoom` times as large as people see them in PASCAL VOC, until (rows, columns) are full."""
    photographs, side = _photographs(images), round(TILE * zoom)
    picture = torch.zeros(3, *size, dtype=torch.uint8)
    places = [(top, left) for top in range(0, size[0], side) for left in range(0, size[1], side)]
    for index, (top, left) in enumerate(places):
        part = resize_photo(photographs[index % len(photographs)], (side, side))
        rows, columns = min(side, size[0] - top), min(side, size[1] - left)
        picture[:, top : top + rows, left : left + columns] = part[:, :rows, :columns]
    return picture


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    report: dict[str, Any] = {}
    shared = {"device": options.device}
    if "scales" in options.parts:
        rows = []
        for segmenter in options.segmenters:
            for size in options.sizes:
                case = {"segmenter": segmenter, "size": size, "precision": options.precision, **shared}
                both = {number: _child("scales", {**case, "number": number}, **RETURNING) for number in SCALES}
                kept = {number: _child("scales", {**case, "number": number})["bytes"] for number in SCALES}
                ratio, kept_ratio = (
                    both["three"]["bytes"] / max(1, both["one"]["bytes"]),
                    kept["three"] / max(1, kept["one"]),
                )
                rows.append({**both, "ratio": ratio, "glibc_default": {**kept, "ratio": kept_ratio}})
        report["scales"] = rows
    seen = {"zoom": options.zoom, "images": options.images, **shared}
    if "large" in options.parts:
        report["large"] = _child("large", {"size": tuple(options.large), "max_memory": options.max_memory, **seen})
    if "agreement" in options.parts:
        case = {
            "size": tuple(options.whole),
            "side": options.side,
            "halos": options.halos,
            "precision": options.precision,
        }
        report["agreement"] = _child("agreement", {**case, **seen})
    return report


def _child(kind: str, case: Mapping[str, Any], **environment: str) -> Any:
    """What a process of its own found; UserError with its last line if it failed."""
    command = [sys.executable, __file__, "--case", kind, "--settings", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    if done.returncode:
        raise UserError(f"{kind} {case} failed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _case(options: argparse.Namespace) -> dict[str, Any]:
    settings = json.loads(options.settings)
    if "size" in settings and isinstance(settings["size"], list):
        settings["size"] = tuple(settings["size"])
    found: dict[str, Any] = CASES[options.case](**settings)  # type: ignore[operator]
    return found


def _labels(model: ScaleAware, scores: Tensor, size: tuple[int, int]) -> Tensor:
    return model.grid(size).to_image(scores)[0].argmax(dim=0)


def _photographs(folder: str) -> list[Tensor]:
    if folder:
        return [read(item.source) for item in find_images([folder], Path("nowhere"))]
    try:
        from PIL import Image
        from skimage import data
    except ImportError:
        raise UserError("scikit-image is not installed; pip install scikit-image, or give --images FOLDER") from None
    return [to_tensor(Image.fromarray(picture())) for picture in (data.chelsea, data.astronaut, data.coffee)]


def _forget_peak() -> None:
    """Let VmHWM begin anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status(key: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"^{key}:\s+(\d+) kB$", text, re.MULTILINE)
    if not found:
        raise UserError(f"this system does not say {key}; run the benchmark on Linux, or with --device cuda")
    return 1024 * int(found[1])


def _print(report: Mapping[str, Any]) -> None:
    print(f"{report['cpu']}, {report['threads']} threads, torch {report['torch']}, {report['date']}")
    for row in report.get("scales", ()):
        one, three = row["one"], row["three"]
        print(
            f"{one['segmenter']:10}{one['size']:6}  one scale {one['bytes'] / 1e6:7.0f} MB  three {three['bytes'] / 1e6:7.0f} MB"
            f"  ratio {row['ratio']:.3f} ({row['glibc_default']['ratio']:.3f} as glibc is)"
        )
    if "large" in report:
        row = report["large"]
        print(f"{row['size']}: {row['bytes'] / 1e9:.2f} GB of {row['limit'] / 1e9:.2f}, tiles of {row['side']}")
    if "agreement" in report:
        for halo, row in report["agreement"]["halos"].items():
            print(f"halo {halo:>5}: {100 * row['same_labels']:.3f} % of labels the same, {row['seconds']:.1f} s")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--precision", default="float32", help="auto, float32 (default) or bf16")
    parser.add_argument("--parts", nargs="+", default=list(CASES), choices=list(CASES), help="default all")
    parser.add_argument("--segmenters", nargs="+", default=["largefov", "lite0"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[513, 1025], help="sides of square images")
    parser.add_argument("--large", nargs=2, type=int, default=[4000, 6000], metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--max-memory", default="4GB", help="limit of the large photograph (default 4GB)")
    parser.add_argument("--whole", nargs=2, type=int, default=[2000, 3000], metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--side", type=int, default=1408, help="of the tiles that are compared with the whole")
    parser.add_argument("--halos", nargs="+", type=int, default=[128, 256, 384, 512])
    parser.add_argument("--zoom", type=float, default=2.0, help="of the mosaic's photographs (default 2)")
    parser.add_argument("--images", default="", metavar="FOLDER", help="photographs (default scikit-image's)")
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--settings", default="{}", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

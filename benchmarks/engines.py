"""Every engine in every precision: what it costs and what it keeps of a model's mIoU.

    python benchmarks/engines.py data.val=photos.zip data.train=others.zip --images 100 --json engines.json

Two models. The bundled one: mIoU over the first `--images` labelled photographs of data.val, images a second at `--size`,
and the peak of memory; 8 bits are calibrated on 24 photographs of data.train. LargeFOV on VGG-16 with the paper's attention
over three scales, random parameters: seconds alone. `ratio` is an engine's median over that of plain PyTorch: eager, float32,
contiguous, BatchNorm a layer of its own; of VGG the share-net of benchmarks/inference.py. Each engine has a process of its
own, all are timed in turns, plain too. A --json file from an earlier, interrupted run keeps its mIoU if it is given again.
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from inference import plain_parameters, plain_share_net, prepare
from machine import machine, timed
from PIL import Image
from torch import Tensor

from scaleseg import atomic, checkpoint
from scaleseg.benchmark import Contender, contenders, photographs, rounds, started
from scaleseg.config import merge, to_dict
from scaleseg.datasets import open_whole
from scaleseg.engines.converted import cache_folder, convert
from scaleseg.errors import UserError
from scaleseg.model import ScaleAware
from scaleseg.recipes import override
from scaleseg.segmenters import lite0

__all__ = ["main", "plain_lite0"]

MODEL = "voc-animals-lite"
CALIBRATION = 24


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write `--json` after each step."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(given)
    report: dict[str, Any] = {"command": shlex.join(["python", "benchmarks/engines.py", *given]), **machine()}
    report |= {"overrides": options.overrides, "images": options.images, "size": options.size}
    report["mIoU"] = _earlier(options, report)
    try:
        with tempfile.TemporaryDirectory() as folder:
            report["bundled"] = _bundled(options, report, Path(folder))
            _keep(options, report)
            if not options.skip_vgg:
                report["vgg"] = _vgg(options, Path(folder))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    _keep(options, report)
    _print(report)
    return 0


def plain_lite0(model: ScaleAware, image: Tensor) -> Tensor:
    """Scores of a (3, H, W) uint8 image: the model as anybody would write it, BatchNorm and ReLU6 layers of their own."""
    with _unfolded(), torch.inference_mode():
        return model(image[None].float() / 255).at()


@contextmanager
def _unfolded() -> Iterator[None]:
    """Convolutions and BatchNorm one after another, as in training with running statistics."""
    normed, relu6 = lite0._normed, lite0._relu6
    lite0._normed = lambda convolution, norm, maps: norm(convolution(maps))
    lite0._relu6 = torch.nn.functional.relu6
    try:
        yield
    finally:
        lite0._normed, lite0._relu6 = normed, relu6


def _bundled(options: argparse.Namespace, report: dict[str, Any], folder: Path) -> dict[str, Any]:
    chosen = _chosen(options)
    paths = _calibration(options.overrides, folder)
    model = checkpoint.load(MODEL)
    plain = model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    image = photographs(options.size)[0]
    return _compared(MODEL, chosen, partial(plain_lite0, plain, image), model, options, report, paths)


def _vgg(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Calibrated on what it is timed on: its parameters are random."""
    model = prepare("none")
    config = merge({"model": _settings(model), "data": {"classes": list(model.classes)}})
    checkpoint.save(folder / "vgg", model, config)
    image = photographs(options.size)[0]
    plain = partial(_plain_vgg, plain_parameters(model), image)
    chosen = [contender for contender in _chosen(options) if contender.engine != "onnx"]
    return _compared(str(folder / "vgg"), chosen, plain, model, options, None, ())


@torch.inference_mode()
def _plain_vgg(parameters: Mapping[str, Tensor], image: Tensor) -> Tensor:
    return plain_share_net(parameters, image)


def _settings(model: ScaleAware) -> dict[str, Any]:
    assert model.settings is not None
    return {
        "segmenter": model.settings.segmenter,
        "scales": list(model.scales),
        "fusion": "attention",
        "pretrained": "none",
    }


def _compared(
    name: str,
    chosen: Sequence[Contender],
    plain: Callable[[], object],
    model: ScaleAware,
    options: argparse.Namespace,
    report: dict[str, Any] | None,
    calibration: Sequence[Path],
) -> dict[str, Any]:
    """Seconds of plain and of each contender in turns, memory, and with a report mIoU."""
    if any(contender.engine != "torch" for contender in chosen):
        convert(model, options.cache)
    with started(name, chosen, options.size, options.cache, calibration) as children:
        plain()
        timers = [partial(timed, plain), *(partial(child.ask, "time") for child in children)]
        laps = rounds(timers, options.seconds)
        base = median(laps[0])
        rows = [{"engine": "plain", "precision": "float32", "seconds": base, "laps": laps[0], "ratio": 1.0}]
        for contender, child, found in zip(chosen, children, laps[1:], strict=True):
            row = {**contender._asdict(), "seconds": median(found), "laps": found, "ratio": median(found) / base}
            row |= {"images_per_second": 1 / median(found), "memory": child.ask("memory")}
            if report is not None and options.overrides:
                row["mIoU"] = _quality(child, contender, options, report)
            rows.append(row)
    return {"rows": rows}


def _quality(child: Any, contender: Contender, options: argparse.Namespace, report: dict[str, Any]) -> float:
    """Measured once: an earlier run's is taken."""
    key = f"{contender.engine}, {contender.precision}"
    if key not in report["mIoU"]:
        report["mIoU"][key] = child.ask({"overrides": options.overrides, "images": options.images})
        _keep(options, report)
        print(f"{key}: mIoU {100 * report['mIoU'][key]:.2f} %", flush=True)
    return float(report["mIoU"][key])


def _calibration(overrides: Sequence[str], folder: Path) -> list[Path]:
    """Photographs of data.train as files; without any, the children take those that they are timed on."""
    config = override(to_dict(checkpoint.read_config(checkpoint.locate(MODEL))), list(overrides))
    if config.data.train is None:
        return []
    dataset, paths = open_whole(config.data, "train"), []
    for index in range(min(CALIBRATION, len(dataset))):
        paths.append(folder / f"{index}.png")
        Image.fromarray(dataset[index][0].permute(1, 2, 0).numpy()).save(paths[-1])
    return paths


def _chosen(options: argparse.Namespace) -> list[Contender]:
    found = [contender for contender in contenders() if not options.only or contender.engine in options.only]
    if not found:
        raise UserError(f"--only is {', '.join(options.only)}; of those no engine is installed")
    return found


def _earlier(options: argparse.Namespace, report: dict[str, Any]) -> dict[str, float]:
    """The mIoU of an earlier run of the same question."""
    if not options.json or not options.json.is_file():
        return {}
    before = json.loads(options.json.read_text(encoding="utf-8"))
    same = all(before.get(key) == report[key] for key in ("overrides", "images", "torch"))
    return dict(before.get("mIoU", {})) if same else {}


def _keep(options: argparse.Namespace, report: Mapping[str, Any]) -> None:
    if options.json:
        atomic.write(options.json, json.dumps(report, indent=2) + "\n")


def _print(report: Mapping[str, Any]) -> None:
    print(f"{report['cpu']}, {report['threads']} threads, torch {report['torch']}, {report['size']} x {report['size']}")
    for model in ("bundled", "vgg"):
        print(f"{model:<10}{'precision':<10}{'s':>8}{'ratio':>8}{'images/s':>10}{'MiB':>8}{'mIoU %':>8}")
        for row in report.get(model, {}).get("rows", []):
            memory = f"{row['memory'] / 2**20:.0f}" if row.get("memory") else "-"
            kept = f"{100 * row['mIoU']:.2f}" if "mIoU" in row else "-"
            speed = f"{row['seconds']:>8.3f}{row['ratio']:>8.3f}{1 / row['seconds']:>10.2f}"
            print(f"{row['engine']:<10}{row['precision']:<10}{speed}{memory:>8}{kept:>8}")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("overrides", nargs="*", help="data.val=... and data.train=...; without them no mIoU")
    parser.add_argument("--images", type=int, default=100, help="photographs for the mIoU (default 100)")
    parser.add_argument("--size", type=int, default=513, help="rows and columns for the seconds, 32k+1 (default 513)")
    parser.add_argument("--seconds", type=float, default=6.0, help="about how long to time each engine (default 6)")
    parser.add_argument("--only", nargs="+", default=[], choices=["torch", "onnx", "openvino"], help="engines")
    parser.add_argument("--skip-vgg", action="store_true", help="the bundled model alone")
    parser.add_argument(
        "--cache", type=Path, default=cache_folder(), help="converted models (default the user's cache)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    options = parser.parse_args(arguments)
    if options.size < 33 or options.size % 32 != 1 or options.images < 1 or not options.seconds > 0:
        parser.error("give a --size of 32k+1 (33, 65, ..., 513), 1 image or more, and more than 0 seconds")
    return options


if __name__ == "__main__":
    sys.exit(main())

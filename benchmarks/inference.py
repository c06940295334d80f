"""How long one image takes: the library's default against a plain share-net written straight from the paper.

    python benchmarks/inference.py --json inference.json

Both compute the same network (LargeFOV on VGG-16, attention over scales 1, 0.75 and 0.5, 21 classes) with the same
parameters, from a uint8 image to scores at the image's size, in turns: plain, ours, plain, ours. `ratio` is the median
of ours over the median of plain. The plain one is float32, contiguous and eager: the paper's text, one line a step.

Speed does not depend on the parameters; `label_agreement` does, and no trained ones are at hand: they are as
`create_model` draws them (seed 0), but for the attention's last layer, which is zero when fresh and drawn here so that
the weights differ over the image. `--pretrained` takes the trunk from a file.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from machine import machine, peak_gflops, timed
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from scaleseg import UserError, atomic
from scaleseg.devices import choose_precision
from scaleseg.geometry import resize_photo
from scaleseg.images import read, to_tensor
from scaleseg.model import ScaleAware, create_model
from scaleseg.segmentation import predict

__all__ = ["compare", "flops", "main", "parts_seconds", "plain_parameters", "plain_share_net", "prepare"]

SCALES = (1.0, 0.75, 0.5)
NUM_CLASSES = 21
STAGES = (("conv1", 2, 2), ("conv2", 2, 2), ("conv3", 3, 2), ("conv4", 3, 1), ("conv5", 3, 1))
"""(name, convolutions, stride of the pooling behind them): VGG-16 as DeepLab-LargeFOV has it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write `--json`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(given)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(options.threads or threads_before)
    try:
        command = shlex.join(["python", "benchmarks/inference.py", *given])
        report = {"command": command, **machine(), **_measure(options)}
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        torch.set_num_threads(threads_before)
    _print(report)
    if options.json:
        atomic.write(options.json, json.dumps(report, indent=2) + "\n")
    return 0


def plain_share_net(p: Mapping[str, Tensor], image: Tensor) -> Tensor:
    """Scores (1, classes, H, W) of a (3, H, W) uint8 image whose sides are 32k+1 (paper, sections 3.1 and 3.2)."""
    pixels = ((image[None].float() / 255 - p["mean"]) / p["std"])[:, p["order"]]
    fused = [(side - 1) // 8 + 1 for side in image.shape[1:]]
    features, scores = [], []
    for scale in SCALES:
        fc7 = _plain_fc7(p, _interpolate(pixels, [int((side - 1) * scale) + 1 for side in image.shape[1:]]))
        features.append(_interpolate(fc7, fused))
        scores.append(_interpolate(_convolve(p, "segmenter.fc8", fc7), fused))
    hidden = _convolve(p, "fusion.hidden", torch.cat(features, dim=1), padding=1).relu()
    weights = _convolve(p, "fusion.logits", hidden).softmax(dim=1)
    merged = torch.stack([weights[:, s : s + 1] * scores[s] for s in range(len(SCALES))]).sum(dim=0)
    return _interpolate(merged, list(image.shape[1:]))


def plain_parameters(model: ScaleAware) -> dict[str, Tensor]:
    """The model's parameters and buffers by name, as the plain network takes them: copies, contiguous."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in model.state_dict().items()}


def flops(forward: Callable[[], object]) -> int:
    """Operations of the convolutions that `forward` does; a multiply-add is two, and padding is multiplied too."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return int(counter.get_total_flops())


def prepare(pretrained: str) -> ScaleAware:
    """The model as `scaleseg.load` would give it (channels_last, evaluation mode), its attention not uniform."""
    torch.manual_seed(0)
    model = create_model("largefov", fusion="attention", scales=SCALES, num_classes=NUM_CLASSES, pretrained=pretrained)
    nn.init.normal_(model.fusion.get_submodule("logits").weight, std=0.1)
    return model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]


def compare(ours: Tensor, plain: Tensor) -> tuple[float, float]:
    """The largest absolute difference of two score maps, and the share of pixels that they give the same label."""
    return float((ours - plain).abs().max()), float((ours.argmax(dim=1) == plain.argmax(dim=1)).double().mean())


def parts_seconds(model: ScaleAware, image: Tensor) -> dict[str, float]:
    """Where the default's time goes, of one pass: each scale's network, the attention head, and the rest."""
    laps: list[float] = []
    heads: list[float] = []
    with (
        _stopwatch(model.segmenter, "forward", laps),
        _stopwatch(model.fusion, "embed", heads),
        _stopwatch(model.fusion, "weights", heads),
    ):
        whole = timed(_ours, model, image)
    parts = {f"scale {scale:g}": lap for scale, lap in zip(model.scales, laps, strict=True)}
    return {**parts, "attention head": sum(heads), "rest": whole - sum(laps) - sum(heads)}


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    image, what = _photograph(options.image, options.size)
    model = prepare(options.pretrained)
    parameters = plain_parameters(model)
    scores = {"plain": _plain(parameters, image), "ours": _ours(model, image)}  # the warm-up of each
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(options.runs):
        seconds["plain"].append(timed(_plain, parameters, image))
        seconds["ours"].append(timed(_ours, model, image))
    medians = {name: median(values) for name, values in seconds.items()}
    on_meta = {name: tensor.to("meta") for name, tensor in parameters.items()}
    operations = flops(lambda: plain_share_net(on_meta, image.to("meta")))
    difference, same = compare(scores["ours"], scores["plain"])
    return {
        "size": options.size,
        "scales": SCALES,
        "pretrained": Path(options.pretrained).name,
        "image": what,
        "precision": choose_precision("auto", model.mean.device, helps=model.segmenter.bf16_helps),
        "runs": options.runs,
        "seconds": seconds,
        "medians": medians,
        "ratio": medians["ours"] / medians["plain"],
        "plain_gflop": operations / 1e9,
        "plain_gflops": operations / 1e9 / medians["plain"],
        "peak_fp32_gflops": peak_gflops(torch.float32),
        "peak_bf16_gflops": peak_gflops(torch.bfloat16),
        "max_abs_score": float(scores["plain"].abs().max()),
        "max_abs_difference": difference,
        "max_abs_difference_float32": compare(_ours(model, image, "float32"), scores["plain"])[0],
        "label_agreement": same,
        "labels_seen": int(scores["plain"].argmax(dim=1).unique().numel()),
        "parts_seconds": parts_seconds(model, image),
    }


@torch.inference_mode()
def _plain(parameters: Mapping[str, Tensor], image: Tensor) -> Tensor:
    return plain_share_net(parameters, image)


@torch.inference_mode()
def _ours(model: ScaleAware, image: Tensor, precision: str = "auto") -> Tensor:
    return predict(model, image, precision=precision).at()


def _plain_fc7(p: Mapping[str, Tensor], maps: Tensor) -> Tensor:
    for name, count, stride in STAGES:
        spread = 2 if name == "conv5" else 1
        for index in range(1, count + 1):
            layer = f"segmenter.trunk.{name}_{index}"
            maps = _convolve(p, layer, maps, padding=spread, dilation=spread).relu()
        maps = F.max_pool2d(maps, 3, stride, padding=1)
    maps = _convolve(p, "segmenter.fc6", maps, padding=12, dilation=12).relu()
    return _convolve(p, "segmenter.fc7", maps).relu()


def _convolve(p: Mapping[str, Tensor], layer: str, maps: Tensor, padding: int = 0, dilation: int = 1) -> Tensor:
    return F.conv2d(maps, p[f"{layer}.weight"], p[f"{layer}.bias"], padding=padding, dilation=dilation)


def _interpolate(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, size=list(size), mode="bilinear", align_corners=True)


@contextmanager
def _stopwatch(module: nn.Module, method: str, laps: list[float]) -> Iterator[None]:
    """The seconds of each call of `module.method` go to `laps`."""
    original = getattr(module, method)

    def timed(*arguments: Any) -> Any:
        begin = time.perf_counter()
        answer = original(*arguments)
        laps.append(time.perf_counter() - begin)
        return answer

    setattr(module, method, timed)
    try:
        yield
    finally:
        delattr(module, method)


def _photograph(path: Path | None, size: int) -> tuple[Tensor, str]:
    """The image and its name: `path`, else scikit-image's cat, else noise."""
    if path:
        return resize_photo(read(path), (size, size)), path.name
    try:
        from PIL import Image
        from skimage.data import chelsea
    except ImportError:
        return torch.randint(0, 256, (3, size, size), dtype=torch.uint8), "noise"
    return resize_photo(to_tensor(Image.fromarray(chelsea())), (size, size)), "chelsea (scikit-image)"


def _print(report: Mapping[str, Any]) -> None:
    print(f"{report['cpu']}, {report['threads']} threads, torch {report['torch']}, {report['date']}")
    print(f"largefov, attention over {report['scales']}, {report['size']} x {report['size']}, {report['image']}")
    print(f"{'plain, float32':32}{report['medians']['plain']:10.3f} s   median of {report['runs']}")
    print(f"{'ours, ' + report['precision']:32}{report['medians']['ours']:10.3f} s")
    for name, seconds in report["parts_seconds"].items():
        print(f"{'  ' + name:32}{seconds:10.3f} s")
    for key in ("ratio", "max_abs_difference", "max_abs_difference_float32", "max_abs_score", "label_agreement"):
        print(f"{key:32}{report[key]:10.4g}")
    for key in ("plain_gflops", "peak_fp32_gflops", "peak_bf16_gflops"):
        print(f"{key:32}{report[key]:10.1f}")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    parser.add_argument("--runs", type=int, default=7, help="rounds of plain and ours (default 7)")
    parser.add_argument("--size", type=int, default=513, help="rows and columns, 32k+1 (default 513)")
    parser.add_argument("--threads", type=int, default=0, help="0 = as many as torch takes (default)")
    parser.add_argument("--pretrained", default="none", metavar="PATH", help="the trunk's parameters (default none)")
    parser.add_argument("--image", type=Path, metavar="PATH", help="a photograph (default scikit-image's cat)")
    options = parser.parse_args(arguments)
    if options.size < 33 or options.size % 32 != 1:
        parser.error(f"--size is {options.size}; the paper's grids need 32k+1: 33, 65, ..., 321, 513")
    if options.runs < 1 or options.threads < 0:
        parser.error(f"--runs is {options.runs}, --threads {options.threads}; give at least 1 run and 0 threads")
    return options


if __name__ == "__main__":
    sys.exit(main())

"""How long a training step takes, and where its time goes: the library's own trainer on photographs from files.

    python benchmarks/training.py --json training.json

Two systems, three scales each: lite0 as in the recipe voc-animals-lite0 (crop 256, batch 8, AdamW, BatchNorm frozen) and
largefov as in voc-attention (the paper's crop 321) with a batch that a CPU can hold, on a GPU the paper's 30. JPEG files
and masks of VOC's size are written to a temporary folder (scikit-image's photographs), or `--data` gives real ones.

A step is timed from one request for a batch to the next, so that all is in it but checkpoints. Then `--profiled` further
steps run under torch.profiler, which tells where the time goes: everything that belongs to a part, forward and backward.
Arithmetic is counted by torch.utils.flop_counter in one step, forward and backward: convolutions, a multiply-add is two.
"""

import argparse
import itertools
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from machine import machine, peak_gflops, synchronize
from PIL import Image
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from scaleseg import UserError, atomic
from scaleseg.config import Config
from scaleseg.datasets.voc import CLASSES
from scaleseg.devices import choose_device, describe, keep_memory
from scaleseg.recipes import load_recipe
from scaleseg.segmenters import lite0
from scaleseg.training import loop
from scaleseg.training.loading import Batch, batches

__all__ = ["GROUPS", "count_flops", "main", "where_time_goes", "write_photographs"]

WARM_UP = 3
"""Steps before the clock starts: the first ones plan convolutions and fill the queue of batches."""

GROUPS = (
    "convolution, forward", "convolution, backward", "attention head", "activations and pooling", "resizing",
    "cross entropy", "batch norm folding", "optimiser", "data waiting", "host sync and logging", "everything else",
)  # fmt: skip

ACTIVATIONS = (
    "relu", "hardtanh", "clamp", "pool", "dropout", "bernoulli", "constant_pad", "aten::cat", "aten::add", "Relu",
    "Hardtanh", "Pool", "Pad", "Cat", "AddBackward", "MulBackward", "softmax", "Softmax",
)  # fmt: skip
"""What else is in a network, as ATen and its backward nodes call it; `Mul` is dropout's."""


@dataclass
class Watch:
    """When each step asked for its batch and when it got it; the profiler is on from step `start` to step `stop`."""

    device: torch.device
    start: int
    stop: int
    profiler: Any = None
    asked: list[float] = field(default_factory=list)
    got: list[float] = field(default_factory=list)

    def batches(self, *arguments: Any) -> Iterator[Batch]:
        """The trainer's own stream, watched."""
        self.stream = self._watched(batches(*arguments))
        return self.stream

    def end(self) -> None:
        """In the place of the last checkpoint: the request that the loop no longer makes is when its last step ended."""
        next(self.stream, None)

    def _watched(self, stream: Iterator[Batch]) -> Iterator[Batch]:
        for step in itertools.count():
            synchronize(self.device)
            if step == self.start and self.profiler:
                self.profiler.start()
            if step == self.stop and self.profiler:
                self.profiler.stop()
            self.asked.append(time.perf_counter())
            batch = next(stream, None)
            self.got.append(time.perf_counter())
            if batch is None:
                return
            self.last = batch
            yield batch


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table for each system, write `--json`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(given)
    try:
        report = _report(shlex.join(["python", "benchmarks/training.py", *given]), options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        atomic.write(options.json, json.dumps(report, indent=2) + "\n")
    return 0


def write_photographs(folder: Path, count: int = 32) -> None:
    """JPEG photographs of 500 x 375 in `images/`, and in `masks/` ellipses of VOC's ids with a void border."""
    sources = _sources()
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for index in range(count):
        draw = np.random.default_rng(index)
        source = sources[index % len(sources)]
        side = draw.uniform(0.7, 1) * min(source.width / 500, source.height / 375)
        left, top = draw.uniform(0, source.width - 500 * side), draw.uniform(0, source.height - 375 * side)
        photo = source.resize((500, 375), Image.Resampling.BICUBIC, (left, top, left + 500 * side, top + 375 * side))
        photo.save(folder / "images" / f"{index:03}.jpg", quality=92)
        Image.fromarray(_mask(draw)).save(folder / "masks" / f"{index:03}.png")


def count_flops(do: Callable[[], object]) -> int:
    """Operations of the convolutions that `do` does, backward too; a multiply-add is two, and padding is multiplied too."""
    # PyTorch's own formula multiplies a depthwise convolution's backward by its channels.
    mapping = {torch.ops.aten.convolution_backward: _backward_flops}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        do()
    return int(counter.get_total_flops())


def where_time_goes(events: Sequence[Any], *, on_gpu: bool = False) -> dict[str, float]:
    """Seconds of each of `GROUPS` (without data waiting) that the profiler's events account for; the GPU's where it works.

    A backward node belongs where the operation does that made it: PyTorch numbers both alike.
    """
    found = dict.fromkeys(GROUPS, 0.0)
    on_host = [event for event in events if event.device_type == torch.autograd.DeviceType.CPU]
    makers: dict[int, Any] = {}
    for event in sorted(on_host, key=lambda event: event.time_range.start):
        if event.sequence_nr >= 0 and "Backward" not in event.name and "evaluate_function" not in event.name:
            makers[event.sequence_nr] = event
    for event in on_host:
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        found[_group(event, makers)] += microseconds / 1e6
    return found


def _report(command: str, options: argparse.Namespace) -> dict[str, Any]:
    device = choose_device(options.device)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(options.threads or threads_before)
    keep_memory()  # as the verb `train` does
    try:
        report = {"command": command, **machine(), "device": describe(device)}
        report["peak_gflops"] = {
            name: peak_gflops(dtype, device) for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16))
        }
        with tempfile.TemporaryDirectory() as scratch:
            report["systems"] = {
                name: _measure(name, options, device, Path(scratch), report["peak_gflops"])
                for name in ([options.only] if options.only else ("lite0", "largefov"))
            }
    finally:
        torch.set_num_threads(threads_before)
    return report


def _measure(
    name: str, options: argparse.Namespace, device: torch.device, scratch: Path, peaks: Mapping[str, float]
) -> dict[str, Any]:
    """One system's figures."""
    if not options.data and not (scratch / "photographs").is_dir():
        write_photographs(scratch / "photographs")
    timed = WARM_UP + options.steps
    config = _config(name, options, device, scratch / "photographs", timed + options.profiled)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    profiler = profile(activities=activities) if options.profiled else None
    watch = Watch(device, timed, timed + options.profiled, profiler)
    with ExitStack() as held:
        trainers: list[loop.Trainer] = []
        original = loop.Trainer

        def watched(*arguments: Any) -> loop.Trainer:
            trainers.append(original(*arguments))
            held.enter_context(patch.object(trainers[0], "_save", watch.end))
            held.enter_context(_named_parts(trainers[0]))
            return trainers[0]

        held.enter_context(patch.object(loop, "Trainer", watched))
        held.enter_context(patch.object(loop, "batches", watch.batches))
        loop.train(config, scratch / name, device=options.device, say=lambda line: None)
    trainer = trainers[0]
    gflop = count_flops(lambda: trainer._train_step(watch.last)) / 1e9
    return _figures(config, watch, gflop, trainer.precision, peaks, options)


def _figures(
    config: Config, watch: Watch, gflop: float, precision: str, peaks: Mapping[str, float], options: argparse.Namespace
) -> dict[str, Any]:
    asked = watch.asked
    timed = range(WARM_UP, WARM_UP + options.steps)
    steps = [asked[step + 1] - asked[step] for step in timed]
    waits = [watch.got[step] - asked[step] for step in timed]
    each = median(steps)
    figures = {
        "batch": config.train.batch,
        "crop": config.data.crop,
        "scales": list(config.model.scales),
        "workers": config.data.workers,
        "precision": precision,
        "seconds": steps,
        "seconds_a_step": each,
        "images_per_s": config.train.batch / each,
        "waiting_for_data": sum(waits) / sum(steps),
        "gflop_a_step": gflop,
        "gflops": gflop / each,
        "share_of_peak": gflop / each / peaks[precision],
    }
    if options.profiled:
        figures["percent"] = _percent(watch, on_gpu=watch.device.type == "cuda")
    _print(config.model.segmenter, figures)
    return figures


def _percent(watch: Watch, *, on_gpu: bool) -> dict[str, float]:
    """The profiled steps' wall time by part; what no event accounts for (Python, a GPU that waits) is everything else."""
    whole = watch.asked[watch.stop] - watch.asked[watch.start]
    found = where_time_goes(watch.profiler.events(), on_gpu=on_gpu)
    found["data waiting"] = sum(watch.got[step] - watch.asked[step] for step in range(watch.start, watch.stop))
    found["everything else"] = 0.0
    found["everything else"] = max(0.0, whole - sum(found.values()))
    return {name: 100 * seconds / sum(found.values()) for name, seconds in found.items()}


def _config(name: str, options: argparse.Namespace, device: torch.device, photographs: Path, steps: int) -> Config:
    overrides = [
        f"data.train={options.data or photographs}", "data.dev=0", f"data.workers={options.workers}",
        f"train.steps={steps}", f"train.precision={options.precision}", "train.save_minutes=.inf",
        f"train.save_every={steps}",
    ]  # fmt: skip
    if name == "lite0":
        batch = options.batch or (8 if device.type == "cpu" else 30)
        return load_recipe(
            "voc-animals-lite0",
            [*overrides, f"train.batch={batch}", f"train.init_from={BUNDLED}", *_crop(options)],
        )
    batch = options.batch or (2 if device.type == "cpu" else 30)
    listed = "[" + ",".join(CLASSES) + "]"
    overrides += ["data.dataset=folder", f"data.classes={listed}", f"model.pretrained={options.pretrained}"]
    return load_recipe("voc-attention", [*overrides, f"train.batch={batch}", *_crop(options)])


def _crop(options: argparse.Namespace) -> list[str]:
    return [f"data.crop={options.crop}"] if options.crop else []


BUNDLED = Path(lite0.__file__).parents[1] / "bundled" / "voc-animals-lite"
"""Trained parameters: with random ones, activations behind frozen BatchNorm would shrink to nothing."""


@contextmanager
def _named_parts(trainer: loop.Trainer) -> Iterator[None]:
    """The parts that an operation's name does not tell apart, by name for the profiler."""
    parts = (
        (trainer.model.fusion, "embed", "attention head"),
        (trainer.model.fusion, "weights", "attention head"),
        (lite0, "_folded", "batch norm folding"),
        (loop, "scale_aware_losses", "cross entropy"),
        (loop, "count_valid", "cross entropy"),
        (trainer, "_summed", "host sync and logging"),
        (loop.Progress, "step", "host sync and logging"),
    )
    with ExitStack() as held:
        for owner, name, group in parts:
            held.enter_context(patch.object(owner, name, record_function(group)(getattr(owner, name))))
        yield


def _group(event: Any, makers: Mapping[int, Any]) -> str:
    """Which of `GROUPS` an event belongs to: a part named around it, else by what it and those around it are called."""
    around = list(_around(event))
    names = [one.name for one in around]
    if any(name.startswith("Optimizer.") for name in names):
        return "optimiser"
    backward = next((one for one in around if one.name.startswith("autograd::engine::evaluate_function")), None)
    if backward is not None and backward.sequence_nr in makers:
        around += _around(makers[backward.sequence_nr])
    for one in around:
        if one.name in GROUPS:
            return str(one.name)
    if any("conv" in name.lower() for name in names):
        return "convolution, forward" if backward is None else "convolution, backward"
    if any("upsample" in name.lower() for name in names):
        return "resizing"
    return (
        "activations and pooling" if any(part in name for part in ACTIVATIONS for name in names) else "everything else"
    )


def _around(event: Any) -> Iterator[Any]:
    """The event, then those that it happened in."""
    while event is not None:
        yield event
        event = event.cpu_parent


def _backward_flops(grad: Sequence[int], maps: Sequence[int], weight: Sequence[int], *rest: Any, **_: Any) -> int:
    """A product of the forward's size for the gradient of the maps, another for that of the weights."""
    wanted = next(item for item in reversed(rest) if isinstance(item, list | tuple) and len(item) == 3)
    return 2 * prod(grad) * prod(weight[1:]) * sum(wanted[:2])


def _sources() -> list[Image.Image]:
    """scikit-image's photographs, or smooth noise where it is not installed."""
    try:
        from skimage.data import astronaut, chelsea, coffee, rocket
    except ImportError:
        noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        return [Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)]
    return [Image.fromarray(photo()) for photo in (astronaut, chelsea, coffee, rocket)]


def _mask(draw: np.random.Generator) -> np.ndarray:
    ids = np.zeros((375, 500), np.uint8)
    rows, columns = np.mgrid[:375, :500]
    for _ in range(3):
        y, x, high, wide = draw.uniform((0, 0, 40, 40), (375, 500, 180, 240))
        distance = ((rows - y) / high) ** 2 + ((columns - x) / wide) ** 2
        ids[distance < 1] = 255
        ids[distance < 0.9] = draw.integers(1, len(CLASSES))
    return ids


def _print(name: str, figures: Mapping[str, Any]) -> None:
    print(f"{name}, batch {figures['batch']} of {figures['crop']} x {figures['crop']}, {figures['precision']}")
    print(
        f"{figures['seconds_a_step']:.3f} s a step, {figures['images_per_s']:.2f} images/s, "
        f"{100 * figures['waiting_for_data']:.1f} % waiting for data; {figures['gflop_a_step']:.1f} GFLOP a step, "
        f"{100 * figures['share_of_peak']:.1f} % of the measured peak"
    )
    for part, percent in figures.get("percent", {}).items():
        print(f"  {part:28}{percent:6.1f} %")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--only", choices=("lite0", "largefov"), help="one of the two systems")
    parser.add_argument("--steps", type=int, default=20, help="steps to time, after three to warm up (default 20)")
    parser.add_argument(
        "--profiled", type=int, default=3, help="further steps under the profiler (default 3; 0 = none)"
    )
    parser.add_argument("--batch", type=int, help="photographs a step (default lite0 8, largefov 2; on a GPU 30)")
    parser.add_argument("--crop", type=int, help="rows and columns (default lite0 256, largefov 321)")
    parser.add_argument("--workers", type=int, default=1, help="processes that read photographs (default 1)")
    parser.add_argument("--precision", default="auto", help="float32, bf16 or auto (default)")
    parser.add_argument("--threads", type=int, default=0, help="0 = as many as torch takes (default)")
    parser.add_argument("--pretrained", default="none", metavar="PATH", help="largefov's parameters (default none)")
    parser.add_argument("--data", metavar="PATH", help="a folder or zip with images/ and masks/ of VOC's ids")
    options = parser.parse_args(arguments)
    if options.steps < 1 or options.profiled < 0 or options.threads < 0:
        parser.error(f"--steps is {options.steps}, --profiled {options.profiled}; give at least 1 and 0")
    return options


if __name__ == "__main__":
    sys.exit(main())

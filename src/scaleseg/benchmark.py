"""What this machine does with a model: every engine in every precision, measured in turns, each in a process of its own.

A child process a contender, so that its peak of memory is its own; all are started first and then asked one after another,
round after round, so that other work on the machine meets all of them.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scaleseg.checkpoint import load, locate, read_config
from scaleseg.config import to_dict
from scaleseg.datasets import open_evaluation
from scaleseg.devices import has_bf16
from scaleseg.engines import create_engine
from scaleseg.engines.converted import cache_folder, convert
from scaleseg.engines.table import Row, processor, write_table
from scaleseg.errors import UserError
from scaleseg.geometry import resize_photo
from scaleseg.images import read
from scaleseg.metrics import Confusion
from scaleseg.model import ScaleAware
from scaleseg.recipes import override
from scaleseg.samples import samples

__all__ = [
    "Contender",
    "Result",
    "benchmark",
    "contenders",
    "gflop",
    "peak_gflops",
    "peak_memory",
    "photographs",
    "rounds",
    "started",
]

PEAK_SHAPES = ((256, 65), (256, 129), (512, 65))
"""(channels, side) of the 3x3 convolutions that show what a machine can do."""

ROUNDS = 3
"""At least so many rounds, however short the time."""


class Contender(NamedTuple):
    """One engine in one precision."""

    engine: str
    precision: str


class Result(NamedTuple):
    """What was measured of one."""

    engine: str
    precision: str
    seconds: float
    """The median of one image."""
    images_per_second: float
    rounds: int
    memory: int | None
    """Peak bytes of its process, loading and converting included; None where the system does not tell."""
    peak_share: float | None
    """Of the arithmetic that a large convolution reaches here in the same precision; of 8 bits none is known."""


class Report(NamedTuple):
    """All of them, and what they have to be seen beside."""

    checkpoint: str
    size: int
    threads: int
    processor: str
    gflop: float
    """Operations of one image, 1e9; a multiply-add is two, and padding is multiplied too."""
    peaks: dict[str, float]
    """1e9 operations a second of a large convolution, by precision."""
    results: tuple[Result, ...]
    table: str
    """The file that `--engine auto` reads."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "results": [result._asdict() for result in self.results]}


def benchmark(
    checkpoint: str,
    *,
    size: int = 513,
    seconds: float = 3.0,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Measure all that is installed for about `seconds` each, and keep the table that `--engine auto` chooses by."""
    if size < 2 or not seconds > 0:
        raise UserError(f"--size is {size} and --seconds {seconds:g}; give 2 pixels or more, and more than 0 seconds")
    model = load(checkpoint)
    folder = cache or cache_folder()
    chosen = contenders()
    if any(contender.engine != "torch" for contender in chosen):
        say("converting the model, unless that was done before")
        convert(model, folder)
    say(f"measuring {len(chosen)} engines and precisions, {size} x {size} pixels, {torch.get_num_threads()} threads")
    with started(checkpoint, chosen, size, folder) as children:
        laps = rounds([partial(child.ask, "time") for child in children], seconds)
        memory = [child.ask("memory") for child in children]
    operations = gflop(model, size)
    peaks = {"float32": peak_gflops(torch.float32)}
    peaks |= {"bf16": peak_gflops(torch.bfloat16)} if has_bf16(torch.device("cpu")) else {}
    results = []
    for contender, found, peak in zip(chosen, laps, memory, strict=True):
        lap = median(found)
        share = operations / lap / peaks[contender.precision] if contender.precision in peaks else None
        results.append(Result(*contender, lap, 1 / lap, len(found), peak, share))
    rows = [Row(result.engine, result.precision, result.images_per_second) for result in results]
    table = write_table(model, rows, folder)
    return Report(
        str(checkpoint), size, torch.get_num_threads(), processor(), operations, peaks, tuple(results), str(table)
    )


def contenders() -> tuple[Contender, ...]:
    """What is installed and what the processor multiplies: bf16 is no contender where it is emulated."""
    native = has_bf16(torch.device("cpu"))
    converts = find_spec("onnx") and find_spec("onnxscript")
    found = [Contender("torch", "float32"), *([Contender("torch", "bf16")] if native else [])]
    if converts and find_spec("onnxruntime"):
        found.append(Contender("onnx", "float32"))
    if converts and find_spec("openvino"):
        found += [Contender("openvino", "float32"), *([Contender("openvino", "bf16")] if native else [])]
        found += [Contender("openvino", "int8")] if find_spec("nncf") else []
    return tuple(found)


def rounds(each: Sequence[Callable[[], float]], seconds: float) -> list[list[float]]:
    """What each says, again and again in turns, for about `seconds` each."""
    laps: list[list[float]] = [[] for _ in each]
    begun = time.perf_counter()
    while len(laps[0]) < ROUNDS or time.perf_counter() - begun < seconds * len(each):
        for ask, found in zip(each, laps, strict=True):
            found.append(float(ask()))
    return laps


class Child:
    """A process with one engine, which answers questions one at a time."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scaleseg.benchmark"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._send(order)

    def ask(self, question: Any) -> Any:
        """What it answers; UserError if it has gone, which is what the system does where memory runs out."""
        self._send(question)
        return self.answer()

    def answer(self) -> Any:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        what = f"{self.order['engine']}, {self.order['precision']}"
        if not line:
            raise UserError(f"{what}: its process ended with code {self.process.wait()}; give a smaller --size")
        said = json.loads(line)
        if isinstance(said, dict) and "error" in said:
            raise UserError(f"{what}: {said['error']}")
        return said

    def end(self) -> None:
        """Let it go."""
        assert self.process.stdin is not None and self.process.stdout is not None
        for stream in (self.process.stdin, self.process.stdout):
            try:
                stream.close()
            except OSError:  # it has gone before
                continue
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _send(self, what: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()
        except OSError:  # it has gone: `answer` says so
            return


@contextmanager
def started(
    checkpoint: str, chosen: Sequence[Contender], size: int, cache: Path, calibration: Sequence[Path] = ()
) -> Iterator[list[Child]]:
    """A child a contender, ready and warm; they end with the block. One after another they start, for each needs all cores."""
    children: list[Child] = []
    try:
        for contender in chosen:
            order = {
                **contender._asdict(), "checkpoint": str(checkpoint), "size": size, "cache": str(cache),
                "threads": torch.get_num_threads(), "calibration": [str(path) for path in calibration],
            }  # fmt: skip
            children.append(Child(order))
            children[-1].answer()
        yield children
    finally:
        for child in children:
            child.end()


def photographs(size: int) -> list[torch.Tensor]:
    """The free photographs, made square; smooth noise where they are not installed."""
    paths = samples("rocket")
    if paths:
        return [resize_photo(read(path), (size, size)) for path in paths.values()]
    noise = torch.randint(0, 256, (3, max(1, size // 16), max(1, size // 16)), dtype=torch.uint8)
    return [resize_photo(noise, (size, size))]


def gflop(model: ScaleAware, size: int) -> float:
    """1e9 operations of one image of size x size: of the convolutions; a multiply-add is two."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, size, size))
    return float(counter.get_total_flops()) / 1e9


def peak_gflops(dtype: torch.dtype, device: torch.device | str = "cpu", repeats: int = 5) -> float:
    """The most that a large 3x3 convolution in channels_last was measured to reach; 1e9 operations a second."""
    best, batch = 0.0, 1 if torch.device(device).type == "cpu" else 32
    for channels, side in PEAK_SHAPES:
        layer = nn.Conv2d(channels, channels, 3, padding=1).to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        maps = torch.randn(batch, channels, side, side, device=device).to(dtype, memory_format=torch.channels_last)
        with torch.inference_mode():
            laps = [_lap(device, layer, maps) for _ in range(1 + repeats)][1:]
        best = max(best, 2 * 9 * batch * channels**2 * side**2 / min(laps) / 1e9)
    return best


def peak_memory() -> int | None:
    """The most bytes that this process held. Linux's ru_maxrss would count those of the process that started it."""
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    if sys.platform != "darwin":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _lap(device: torch.device | str, do: Callable[..., object], *arguments: object) -> float:
    """How long one call takes, until the device has done it."""
    _wait(device)
    begin = time.perf_counter()
    do(*arguments)
    _wait(device)
    return time.perf_counter() - begin


def _wait(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _serve() -> None:
    """The child: an order, then questions, a line of JSON each; the answers are all there is on its stdout."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    order = json.loads(sys.stdin.readline())
    try:
        engine, image = _prepared(order)
        answers.write(json.dumps("ready") + "\n")
        answers.flush()
        for line in sys.stdin:
            answers.write(json.dumps(_answer(json.loads(line), engine, image, order["checkpoint"])) + "\n")
            answers.flush()
    except UserError as error:
        answers.write(json.dumps({"error": str(error)}) + "\n")
        answers.flush()


def _prepared(order: dict[str, Any]) -> tuple[Any, torch.Tensor]:
    torch.set_num_threads(order["threads"])
    shown = photographs(order["size"])
    calibration = [read(Path(path)) for path in order["calibration"]] or shown
    model = load(order["checkpoint"])
    engine = create_engine(
        order["engine"], model, precision=order["precision"], calibration=calibration, cache=Path(order["cache"])
    )
    engine(shown[0])
    return engine, shown[0]


def _answer(question: Any, engine: Any, image: torch.Tensor, checkpoint: str) -> Any:
    """`time`: seconds of one image; `memory`: peak bytes; {overrides, images}: mIoU over a dataset's first images."""
    if question == "time":
        return _lap("cpu", engine, image)
    if question == "memory":
        return peak_memory()
    return _quality(engine, checkpoint, question["overrides"], question["images"])


def _quality(engine: Any, checkpoint: str, overrides: Sequence[str], images: int) -> float:
    config = override(to_dict(read_config(locate(checkpoint))), list(overrides))
    dataset = open_evaluation(config.data).dataset
    confusion = Confusion(len(dataset.classes))
    for index in range(min(images, len(dataset))):
        photograph, labels = dataset[index]
        confusion.add(labels.numpy(), engine(photograph).at()[0].argmax(dim=0).numpy())
    return float(confusion.metrics(tuple(dataset.classes)).mIoU)


if __name__ == "__main__":
    _serve()

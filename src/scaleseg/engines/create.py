"""An engine by name, and the choice among them by what was measured on this machine."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from scaleseg.engines.contract import Engine
from scaleseg.engines.onnx_engine import OnnxEngine
from scaleseg.engines.openvino_engine import OpenVinoEngine
from scaleseg.engines.table import Row, read_table
from scaleseg.engines.torch_engine import TorchEngine
from scaleseg.errors import UserError, choose
from scaleseg.model import ScaleAware

__all__ = ["ENGINES", "PRECISIONS", "create_engine"]

ENGINES = ("auto", "torch", "onnx", "openvino")
PRECISIONS = ("auto", "float32", "bf16", "int8")

HAVE = {"torch": ("auto", "float32", "bf16"), "onnx": ("auto", "float32"), "openvino": PRECISIONS}
"""Each engine's precisions."""


def create_engine(
    name: str,
    model: ScaleAware,
    *,
    precision: str = "auto",
    calibration: Sequence[UInt8[Tensor, "3 _ _"]] | None = None,
    cache: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Engine:
    """`torch`, `onnx`, `openvino`, or `auto`: the fastest that `scaleseg benchmark` measured here, else torch.

    `precision` is `auto`, `float32`, `bf16` or `int8` (openvino alone; `calibration` are photographs like those to come).
    `cache` is a folder for converted models, which cost seconds to minutes, and for the table of `auto`; without it nothing
    is kept, and the table is the user's. `say` hears what `auto` chose and why; without it stderr does. UserError for what is not
    known, not installed or cannot be had here.
    """
    choose("--engine", name, ENGINES)
    choose("--precision", precision, PRECISIONS)
    if name == "auto":
        name, precision, why = _fastest(model, precision, cache)
        (say or _to_stderr)(why)
    if precision not in HAVE[name]:
        have = ", ".join(HAVE[name][:-1]) + f" or {HAVE[name][-1]}"
        raise UserError(f"--precision is {precision}, but --engine {name} has {have}; --engine openvino has all")
    if name == "onnx":
        return OnnxEngine(model, cache)
    if name == "openvino":
        return OpenVinoEngine(model, precision, calibration, cache)
    return TorchEngine(model, precision)


def _fastest(model: ScaleAware, precision: str, cache: Path | None) -> tuple[str, str, str]:
    """Engine, precision, and a sentence that says why."""
    fallback = "openvino" if precision == "int8" else "torch"
    device = model.mean.device.type
    if device != "cpu":
        return "torch", precision, f"--engine auto takes torch: on {device} there is no other"
    rows = [row for row in read_table(model, cache) if _fits(row, precision)]
    if not rows:
        why = f"nothing was measured of this model here{_at(precision)} (scaleseg benchmark does)"
        return fallback, precision, f"--engine auto takes {fallback}: {why}"
    best = max(rows, key=lambda row: row.images_per_second)
    torches = [row.images_per_second for row in rows if row.engine == "torch"]
    beside = f", torch {max(torches):.2f}" if torches and best.engine != "torch" else ""
    why = f"it was measured as the fastest here{_at(precision)} ({best.images_per_second:.2f} images/s{beside})"
    return best.engine, best.precision, f"--engine auto takes {best.engine}, {best.precision}: {why}"


def _fits(row: Row, precision: str) -> bool:
    """Whether a row may be chosen: 8 bits change labels, so they are taken only where they are asked for by name."""
    known = row.precision in HAVE.get(row.engine, ())
    return known and (row.precision == precision if precision != "auto" else row.precision != "int8")


def _at(precision: str) -> str:
    return "" if precision == "auto" else f" at {precision}"


def _to_stderr(line: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"{line}\n")

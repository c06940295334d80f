"""How large a tile may be so that a whole process stays below a limit: nothing is tried out, the network runs on no data.

A copy of the model whose tensors have shapes and no data runs on images of two sizes, while every storage is counted from its
first use to its last: that is the exact peak of all tensors, and it grows with the number of pixels. What convolutions take for
themselves beyond them is a measured factor.
"""

import os
import re
import weakref
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scaleseg.devices import autocast, memory
from scaleseg.engines.tiled import smallest_side
from scaleseg.errors import UserError
from scaleseg.geometry import Size
from scaleseg.model import ScaleAware

__all__ = ["STRIP", "check_whole", "choose_side", "parse_bytes", "process_bytes", "spelled", "tensor_bytes"]

STRIP = 64 << 20
"""Bytes of score maps at the image's size that are there at once when labels are taken from them."""

UNITS = {"gb": 10**9, "gib": 2**30, "mb": 10**6, "mib": 2**20}

BEYOND = {"cpu": (1.35, 96 << 20), "cuda": (1.5, 256 << 20), "mps": (1.5, 256 << 20)}
"""What a process takes over what its tensors take, a factor and bytes: convolutions' workspaces, and gaps. On a CPU measured
(benchmarks/memory.py), on the others a guess on the safe side."""

PROBES = (8, 16)
"""Sides, in steps of the grid, at which the tensors are counted."""

LARGE = 8_000_000
"""Pixels from which on `check_whole` looks at all."""


def parse_bytes(text: str) -> int:
    """The number in `4GB`, `1.5 GiB`, `800MB` or `512MiB`; UserError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gb|gib|mb|mib)", text.strip().lower(), re.ASCII)
    found = int(float(match[1]) * UNITS[match[2]]) if match else 0
    if not found:
        raise UserError(f"--max-memory is {text!r}; give a number above 0 and GB, GiB, MB or MiB, such as 4GB")
    return found


def spelled(count: int) -> str:
    """Bytes as a person says them."""
    return f"{count / 10**9:.1f} GB" if count >= 10**9 else f"{count / 10**6:.0f} MB"


def choose_side(
    model: ScaleAware, size: Size, max_bytes: int, precision: str = "float32", *, whole_scores: bool = False
) -> int:
    """The side of the largest tiles in which an image of (rows, columns) stays below `max_bytes`: of the process on a CPU,
    of what it holds on another device.

    At least the padded image's longer side where no tiles are needed. `whole_scores` says that a refinement will need every
    class's scores at the image's size. UserError where even the smallest tiles are too large.
    """
    grid = model.grid(size)
    longest, step = max(grid.padded), grid.step
    least = min(smallest_side(model), longest)
    _line(model, precision)  # first: what it imports is held, too
    kept = _held(model) + _full_size(model, size, whole_scores=whole_scores)
    free = _limit(model, max_bytes) - kept

    def needed(side: int) -> int:
        return process_bytes(model, (min(side, grid.padded[0]), min(side, grid.padded[1])), precision)

    if needed(least) > free:
        raise UserError(_too_large(size, least, kept + needed(least), max_bytes))
    good, bad = least, longest + step
    while bad - good > step:
        middle = good + (bad - good) // (2 * step) * step
        good, bad = (middle, bad) if needed(middle) <= free else (good, middle)
    return good


def check_whole(model: ScaleAware, size: Size, precision: str, name: str) -> None:
    """UserError for a large image of which the tensors alone are more than a CPU's memory: the system would end the process."""
    device = model.mean.device
    there = memory(device) if device.type == "cpu" and size[0] * size[1] >= LARGE else None
    if there is None:
        return
    at_zero, a_pixel = _line(model, precision)
    needed = int(at_zero + a_pixel * size[0] * size[1])
    if needed > there:
        raise UserError(
            f"{name} ({size[1]} x {size[0]} pixels) needs {spelled(needed)} in one piece, and there are {spelled(there)}: "
            f"give --max-memory, such as {there // 2 // 10**9 or 1}GB, to work in tiles, or shrink it"
        )


def tensor_bytes(model: ScaleAware, size: Size, precision: str = "float32") -> int:
    """The most bytes that all tensors take at once, parameters aside, while `model` looks at an image of (rows, columns)."""
    return _peak(_without_data(model), size, precision)


def process_bytes(model: ScaleAware, size: Size, precision: str = "float32") -> int:
    """What the process grows by, at most, while `model` looks at an image of (rows, columns).

    Tensors grow with the number of pixels: the network runs without data only for the first image, at two sizes.
    """
    at_zero, a_pixel = _line(model, precision)
    factor, more = BEYOND[model.mean.device.type]
    return int(factor * (at_zero + a_pixel * size[0] * size[1])) + more


class _Ghost(NamedTuple):
    """A model whose tensors have shapes and devices, and no data."""

    model: ScaleAware
    mode: Any
    """PyTorch's FakeTensorMode; importing it takes a second."""
    device: torch.device


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that operators make and that are still there."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self.known: dict[int, Any] = {
            tensor.untyped_storage()._cdata: None for tensor in (*model.parameters(), *model.buffers())
        }

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in tree_leaves(result):
            if isinstance(item, Tensor):
                self._meet(item)
        return result

    def _meet(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known[key] = weakref.finalize(storage, self._part, key, size)
        self.known[key].atexit = False
        self.now += size
        self.peak = max(self.peak, self.now)

    def _part(self, key: int, size: int) -> None:
        self.now -= size
        del self.known[key]


def _peak(network: _Ghost, size: Size, precision: str) -> int:
    device = network.device
    with torch.no_grad(), network.mode, _Live(network.model) as live, autocast(device, precision):
        network.model(torch.empty(1, 3, *size, dtype=torch.uint8, device=device).float() / 255)
    return int(live.peak)


_LINES: weakref.WeakKeyDictionary[ScaleAware, dict[tuple[str, str], tuple[float, float]]] = weakref.WeakKeyDictionary()


def _line(model: ScaleAware, precision: str) -> tuple[float, float]:
    """The peak of all tensors as a line over pixels: (bytes, bytes a pixel)."""
    known, key = _LINES.setdefault(model, {}), (precision, model.mean.device.type)
    if key not in known:
        network, step = _without_data(model), model.grid((1, 1)).step
        few, many = ((step * count) ** 2 for count in PROBES)
        less, more = (_peak(network, (step * count, step * count), precision) for count in PROBES)
        slope = (more - less) / (many - few)
        known[key] = max(0.0, more - slope * many), slope
    return known[key]


def _without_data(model: ScaleAware) -> _Ghost:
    """A copy without data, made without copying a parameter."""
    from torch._subclasses import FakeTensorMode

    mode = FakeTensorMode()
    memo: dict[int, Any] = {
        id(tensor): mode.from_tensor(tensor.detach()) for tensor in (*model.parameters(), *model.buffers())
    }
    memo |= {id(tensor): nn.Parameter(memo[id(tensor)], requires_grad=False) for tensor in model.parameters()}
    return _Ghost(deepcopy(model, memo).eval(), mode, model.mean.device)


def _full_size(model: ScaleAware, size: Size, *, whole_scores: bool) -> int:
    """Bytes of what does not depend on the tile: maps at the image's size, and blended ones on the score grids."""
    pixels, classes, scales = size[0] * size[1], len(model.classes), len(model.scales)
    cells = model.grid(size).fused
    grids = 4 * cells[0] * cells[1] * (classes + 2 * scales * classes)
    maps = 0 if model.edge_net is None else 8 * pixels
    if model.mean.device.type == "cpu":
        maps += (3 + 1 + 4 * scales) * pixels
    return maps + grids + (16 * classes * pixels if whole_scores else 2 * STRIP)


def _held(model: ScaleAware) -> int:
    """Bytes that the process has already: all on a CPU, on another device what is there."""
    device = model.mean.device
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    return _resident()


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the most so far, in bytes on macOS
    return pages * os.sysconf("SC_PAGE_SIZE")


def _limit(model: ScaleAware, max_bytes: int) -> int:
    """`max_bytes`, or less where a GPU has less left."""
    device = model.mean.device
    if device.type != "cuda":
        return max_bytes
    return min(max_bytes, torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))


def _too_large(size: Size, side: int, needed: int, max_bytes: int) -> str:
    return (
        f"an image of {size[1]} x {size[0]} pixels needs {spelled(needed)} even in tiles of {side}, and --max-memory is "
        f"{spelled(max_bytes)}; give more, or shrink the image"
    )

"""Where to compute and in which precision, and what to say when a device is too small or lacks something.

float32 means float32 on every device: on CUDA, convolutions do not round to TF32 (bf16 is there for speed), and cuDNN
does not try algorithms out, for every photograph has its own size. MPS has no float64, and no channels_last: it has had
wrong results and crashes with it (pytorch/pytorch 175251, 180984, 188371).
"""

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from scaleseg.errors import UserError

__all__ = [
    "Limits", "autocast", "choose_device", "choose_precision", "container_limits", "cores", "describe", "explained",
    "has_bf16", "keep_memory", "memory", "memory_format", "no_tf32", "out_of_reach", "place", "worker_start",
]  # fmt: skip

CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

OUT_OF_MEMORY = (
    "DefaultCPUAllocator", "std::bad_alloc", "MPS backend out of memory", "Invalid buffer size",  # the latter is Metal's
    "CUDA error: out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED",
)  # fmt: skip
"""What plain RuntimeErrors say of it; torch.OutOfMemoryError and MemoryError need no words."""

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of mallopt, from glibc's malloc.h."""

LACKING = re.compile(
    r"operator '([^']+)' is not currently implemented for the MPS|'([^']+)' with arguments from the 'MPS' backend"
)

Network = TypeVar("Network", bound=nn.Module)


class Limits(NamedTuple):
    """What a container allows; None = no limit."""

    cores: float | None
    memory: int | None
    """Bytes."""


def choose_device(name: str = "auto") -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`; UserError where this machine has no such device."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device is {name!r}; choose auto, cpu, cuda, cuda:N or mps")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device is {name!r}; choose auto, cpu, cuda, cuda:N or mps") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if (device.index or 0) >= there:
        raise UserError(f"--device is {name!r}; {_instead(kind, there)}")
    return device


def choose_precision(requested: str, device: torch.device, *, helps: bool) -> str:
    """`float32` or `bf16`. `auto` takes bf16 where the hardware multiplies it and `helps`: measured for this network."""
    if requested not in ("auto", "float32", "bf16"):
        raise UserError(f"precision is {requested!r}; choose auto, float32 or bf16")
    if requested == "bf16" and device.type == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise UserError("precision is 'bf16', for which mps needs macOS 14 or newer; choose auto or float32")
    if requested == "auto":
        return "bf16" if helps and has_bf16(device) else "float32"
    return requested


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware itself multiplies bf16. MPS: not counted, for its gain was never measured."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # the question is about the current one
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # The public torch.backends.cpu names the instruction set that is used, not whether it multiplies bf16.
        return any(bool(check()) for check in (torch.cpu._is_avx512_bf16_supported, torch.cpu._is_amx_tile_supported))
    return False


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """The context in which a network computes at `precision`, `float32` or `bf16`."""
    lower = precision == "bf16"
    with no_tf32(device), torch.autocast(device.type, torch.bfloat16 if lower else None, enabled=lower):
        yield


@contextmanager
def no_tf32(device: torch.device) -> Iterator[None]:
    """The context in which CUDA's float32 convolutions keep all 24 bits; PyTorch's default rounds inputs to 11."""
    try:
        before = torch.backends.cudnn.allow_tf32
    except RuntimeError:  # the process decided by PyTorch's newer fp32_precision, which the older name cannot show
        before = False
    if device.type != "cuda" or not before:
        yield
        return
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def memory_format(device: torch.device) -> torch.memory_format:
    """How images and parameters lie in memory there: channels_last, but not on MPS."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def place(model: Network, device: torch.device) -> Network:
    """The model itself, moved to the device and laid out for it; UserError if it does not fit."""
    with explained(device, "choose another --device"):
        model.to(device=device, memory_format=memory_format(device))  # type: ignore[call-overload]
    return model


@contextmanager
def explained(device: torch.device, remedy: str) -> Iterator[None]:
    """Says in one UserError that memory ran out, and the `remedy`, or which operator MPS lacks; the rest passes."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # OutOfMemoryError and NotImplementedError are RuntimeErrors
        sentence = _explanation(error, device, remedy)
        if sentence is None:
            raise
        raise UserError(sentence) from error


def worker_start(workers: int) -> str | None:
    """How data workers start, for DataLoader's `multiprocessing_context`: forked on Linux, else Python's own way.

    From Python 3.14 on its own way there would be a server, whose children import torch for seconds and outlive a
    trainer that is killed: they watch their parent, and that is the server.
    """
    return "fork" if workers and sys.platform == "linux" else None


def describe(device: torch.device) -> str:
    """The device in words, for a line of output."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return f"{device} (Apple GPU)"
    return f"cpu ({torch.get_num_threads()} of {os.cpu_count()} threads)" if device.type == "cpu" else str(device)


def memory(device: torch.device) -> int | None:
    """Bytes of memory that the device has, of the CPU what the container allows; None where it is not known."""
    try:
        if device.type == "cuda":
            return int(torch.cuda.get_device_properties(device).total_memory)
        if device.type == "mps":
            return int(torch.mps.recommended_max_memory())
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AssertionError, AttributeError, OSError, RuntimeError, ValueError):  # also a device that is not there
        return None
    return min(total, container_limits().memory or total)


def keep_memory() -> None:
    """Have this process keep the memory that a training step frees for the next one; nothing without glibc.

    glibc gives every block of more than 32 MB back to the system at once, and takes it again page by page, zeroed: a sixth
    of a step of lite0 on a CPU. What was taken once is held until the process ends: for a process that only trains.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 64 << 20)):
        mallopt(name, value)


def cores() -> int:
    """Processor cores (hyperthreads count) that this process may keep busy."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = container_limits().cores
    return max(1, min(allowed, ceil(limit))) if limit else allowed


def container_limits() -> Limits:
    """What the control groups (version 1 or 2) of this process allow, the tightest of each; nothing outside Linux."""
    shares, sizes = [], []
    for folder in _groups("cpu"):
        numbers = _numbers(folder / "cpu.max") or [
            number for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us") for number in _numbers(folder / name)
        ]
        if len(numbers) == 2 and min(numbers) > 0:  # version 1 writes -1 for no limit, version 2 `max`
            shares.append(numbers[0] / numbers[1])
    for folder in _groups("memory"):
        sizes += _numbers(folder / "memory.max") or _numbers(folder / "memory.limit_in_bytes")
    return Limits(min(shares, default=None), min((size for size in sizes if size < 2**60), default=None))


def _instead(kind: str, there: int) -> str:
    """Why there is no such device, and what to do."""
    if kind == "cuda" and not torch.version.cuda and not torch.version.hip:
        return (
            f"this PyTorch ({torch.__version__}) is built without CUDA; install one with it (on Linux: "
            "pip uninstall -y torch && pip install torch), or use --device auto"
        )
    if kind == "cuda" and not there:
        return "PyTorch sees no CUDA device here (scaleseg doctor may tell why); use --device auto"
    return f"this machine has {there} {kind} {'device' if there == 1 else 'devices'}; use --device auto"


def _explanation(error: Exception, device: torch.device, remedy: str) -> str | None:
    text = str(error)
    lacking = LACKING.search(text) if isinstance(error, NotImplementedError) else None
    if lacking:
        operator = lacking[1] or lacking[2]
        return f"mps lacks the operator {operator}; set PYTORCH_ENABLE_MPS_FALLBACK=1, or use --device cpu"
    known = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in text for words in OUT_OF_MEMORY)
    if not known:
        return None
    on_cpu = isinstance(error, MemoryError) or "DefaultCPUAllocator" in text or "std::bad_alloc" in text
    where = torch.device("cpu") if on_cpu else device
    size = memory(where)
    return f"out of memory on {where}{f' ({size / 2**30:.1f} GiB)' if size else ''}: {remedy}"


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups that this process is in, innermost first; inside a container only some are there."""
    try:
        lines = OWN_CGROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        folder = Path(path)
        for inner in (folder, *folder.parents):
            yield CGROUPS / (controller if controllers else "") / inner.relative_to("/")


def _numbers(path: Path) -> list[int]:
    """The whole numbers in a file; none if there is no such file, or if it says anything else, such as `max`."""
    try:
        return [int(word) for word in path.read_text(encoding="utf-8").split()]
    except (OSError, ValueError):
        return []


def out_of_reach(worker: int) -> None:
    """For a data worker, at its start: a process group of its own.

    Ctrl-C in a terminal, and torchrun when it stops a run, signal the whole group; only the process that the worker
    works for may act on that, or the step at hand could not be ended and saved. A worker whose process is gone ends by
    itself, within seconds.
    """
    os.setpgid(0, 0)

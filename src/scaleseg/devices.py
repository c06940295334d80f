"""Where to compute and in which precision."""

import os
from contextlib import AbstractContextManager

import torch

from scaleseg.errors import UserError

__all__ = ["autocast", "choose_device", "choose_precision", "describe"]


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
        raise UserError(f"--device is {name!r}; this machine has {there} {kind} devices: use --device auto")
    return device


def choose_precision(requested: str, device: torch.device, *, helps: bool) -> str:
    """`float32` or `bf16`. `auto` takes bf16 where the hardware multiplies it and `helps`: measured for this network."""
    if requested in ("float32", "bf16"):
        return requested
    if requested != "auto":
        raise UserError(f"precision is {requested!r}; choose auto, float32 or bf16")
    return "bf16" if helps and _has_bf16(device) else "float32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """The context in which a network computes at `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def describe(device: torch.device) -> str:
    """The device in words, for a line of output."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} of {os.cpu_count()} threads)" if device.type == "cpu" else str(device)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # The public torch.backends.cpu names the instruction set that is used, not whether it multiplies bf16.
        return any(bool(check()) for check in (torch.cpu._is_avx512_bf16_supported, torch.cpu._is_amx_tile_supported))
    return False

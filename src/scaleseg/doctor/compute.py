"""What computes: the models that come along, each device, its speed in both precisions, and GPUs left unused."""

import os
import re
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from scaleseg.doctor.machine import output
from scaleseg.doctor.report import Report, said

if TYPE_CHECKING:
    import torch

    from scaleseg.model import ScaleAware

__all__ = ["devices", "models"]

SIDE, ROUNDS, SECONDS = 256, 5, 1.5
"""The timed image is SIDE x SIDE; at most ROUNDS of both precisions a device, and no new one after SECONDS."""


def devices(report: Report) -> None:
    """Each device, whether it computes, and what bf16 gains there."""
    import torch

    from scaleseg.devices import choose_device

    places = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    places += [torch.device("mps")] if torch.backends.mps.is_available() else []
    facts = [_device(place) for place in (torch.device("cpu"), *places)]
    chosen = choose_device("auto")
    taken = facts[next(index for index, fact in enumerate(facts) if torch.device(fact["device"]).type == chosen.type)]
    lines = [line for fact in facts for line in fact.pop("lines")]
    auto = f"--device auto takes {taken['device']}"
    auto += f", --precision auto {taken['auto_precision']} for {taken['timed']}" if "timed" in taken else ""
    report.add("devices", {"auto": taken["device"], "all": facts}, *lines, auto)
    for fact in facts:
        _judge(report, fact, is_chosen=fact is taken)
    _driver(report, has_cuda=torch.cuda.is_available())


def models(report: Report) -> None:
    """Whether the models that come with the package can be read."""
    from scaleseg.checkpoint import list_bundled, load

    facts = {}
    again = "install scaleseg again (in a checkout: pip install --force-reinstall --no-deps .)"
    for name in list_bundled():
        try:
            load(name)
            facts[name] = "readable"
        except Exception as error:
            facts[name] = said(error)
            report.problems.append(f"the bundled model {name} cannot be read ({said(error)}); {again}")
    if not facts:
        report.problems.append(f"scaleseg's bundled models are gone; {again}")
    report.add("models", facts, ", ".join(f"{name}: {state}" for name, state in facts.items()) or "none bundled")


def _device(place: "torch.device") -> dict[str, Any]:
    """The facts of one device, with the `lines` that tell them."""
    from scaleseg.devices import describe, has_bf16, memory

    facts: dict[str, Any] = {"device": str(place), "bf16": has_bf16(place), "memory_bytes": memory(place)}
    words = [f"{facts['memory_bytes'] / 2**30:.1f} GiB"] if facts["memory_bytes"] else []
    if place.type == "cuda":
        facts |= _cuda(place)
        driver = facts["driver"] or "unknown"
        words.append(f"capability {facts['capability']}, CUDA {facts['cuda']}, driver {driver}")
    words.append("multiplies bf16" if facts["bf16"] else "no bf16 in hardware, or not known")
    try:
        facts |= _timed(place)
        told = _timing(facts)
    except Exception as error:
        facts["error"] = said(error)
        told = f"fails to compute: {facts['error']}"
    return {**facts, "lines": (f"{describe(place)}: {', '.join(words)}", f"  {told}")}


def _cuda(place: "torch.device") -> dict[str, Any]:
    import torch

    major, minor = torch.cuda.get_device_capability(place)
    return {
        "name": torch.cuda.get_device_name(place), "capability": f"{major}.{minor}",
        "cuda": torch.version.cuda or f"none, ROCm {torch.version.hip}", "driver": _nvidia_driver(),
    }  # fmt: skip


def _timed(place: "torch.device") -> dict[str, Any]:
    """Seconds of one image in both precisions, in turn, so that other work on the machine meets both."""
    import torch

    from scaleseg.devices import choose_precision
    from scaleseg.devices import place as moved

    model, name = _model_to_time()
    model = moved(model, place)
    pixels = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {"float32": [], "bf16": []}
    for precision in seconds:
        _seconds(model, pixels, precision)  # kernels are chosen and compiled at the first call
    begun = time.perf_counter()
    for _ in range(ROUNDS):
        for precision, measured in seconds.items():
            measured.append(_seconds(model, pixels, precision))
        if time.perf_counter() - begun > SECONDS:
            break
    exact, rounded = (median(measured) for measured in seconds.values())
    return {
        "timed": name, "image": [SIDE, SIDE], "rounds": len(seconds["bf16"]),
        "float32_s": exact, "bf16_s": rounded, "bf16_gain": exact / rounded,
        "auto_precision": choose_precision("auto", place, helps=model.segmenter.bf16_helps),
    }  # fmt: skip


def _seconds(model: "ScaleAware", pixels: "torch.Tensor", precision: str) -> float:
    from scaleseg.segmentation import predict

    begun = time.perf_counter()
    predict(model, pixels, precision=precision).scores.sum().item()  # which waits for a GPU
    return time.perf_counter() - begun


def _model_to_time() -> "tuple[ScaleAware, str]":
    """The first bundled model; without any, a network of the same make with random parameters."""
    from scaleseg.checkpoint import list_bundled, load
    from scaleseg.errors import UserError
    from scaleseg.model import create_model

    try:
        return load(list_bundled()[0]), list_bundled()[0]
    except (IndexError, UserError):  # which `models` reports
        return create_model("lite0", num_classes=7, pretrained="none"), "lite0 with random parameters"


def _timing(facts: dict[str, Any]) -> str:
    exact, rounded = (1000 * facts[key] for key in ("float32_s", "bf16_s"))
    return (
        f"{facts['timed']} on one image of {SIDE} x {SIDE}, median of {facts['rounds']}: float32 {exact:.0f} ms, "
        f"bf16 {rounded:.0f} ms, {facts['bf16_gain']:.1f} times as fast"
    )


def _judge(report: Report, fact: dict[str, Any], *, is_chosen: bool) -> None:
    """A device that does not compute, or for which the precision `auto` is a bad choice."""
    device = fact["device"]
    if "error" in fact:
        found = report.problems if is_chosen else report.warnings
        remedy = "; use --device cpu" if device != "cpu" and is_chosen else ""
        found.append(f"{device} fails to compute ({fact['error']}){remedy}")
    elif fact["auto_precision"] == "bf16" and fact["bf16_gain"] < 0.8:
        report.warnings.append(
            f"on {device} bf16 was {fact['bf16_gain']:.1f} times as fast as float32, and --precision auto takes it; "
            "look again when the machine is idle, or give --precision float32"
        )


def _driver(report: Report, *, has_cuda: bool) -> None:
    """An NVIDIA GPU that this PyTorch cannot use."""
    import torch

    driver = _nvidia_driver()
    report.facts["nvidia_driver"] = driver
    if has_cuda or driver is None:
        return
    if not torch.version.cuda:
        report.warnings.append(
            f"an NVIDIA driver ({driver}) is here, but torch {torch.__version__} is built without CUDA; "
            "run: pip uninstall -y torch && pip install torch"
        )
    elif os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        report.warnings.append("CUDA_VISIBLE_DEVICES hides every GPU; run: unset CUDA_VISIBLE_DEVICES")
    else:
        report.warnings.append(
            f"the NVIDIA driver ({driver}) does not serve torch {torch.__version__} (CUDA {torch.version.cuda}); "
            "update the driver, or install a torch for an older CUDA"
        )


def _nvidia_driver() -> str | None:
    """The driver's version; None where none is loaded."""
    asked = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    if asked:
        return asked.splitlines()[0].strip()
    try:
        told = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8") if _has_gpu_nodes() else ""
    except OSError:
        return None
    version = re.search(r"\b\d+\.\d+(\.\d+)?\b", told)
    return version[0] if version else None


def _has_gpu_nodes() -> bool:
    """A container sees its host's /proc, but only the devices that it was given."""
    return any(Path("/dev").glob("nvidia[0-9]*"))

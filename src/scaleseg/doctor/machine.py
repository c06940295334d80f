"""The machine: its system, processor, memory and disks, and the settings that its environment makes."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from scaleseg import __version__
from scaleseg.doctor.report import Report

__all__ = ["SETTINGS", "disk", "hub", "memory", "output", "system", "threads"]

SETTINGS = (
    "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_DISABLE_XET",
    "HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT",
)  # fmt: skip
"""huggingface_hub's; HF_TOKEN's value is never shown."""

SHARED = 2**28
"""256 MiB: three batches of 30 crops of 321 x 321, with labels of 8 bytes, are 102 MB, and Docker gives 64 MiB."""


def system(report: Report) -> None:
    """Versions, and the operating system."""
    facts = {
        "scaleseg": __version__, "python": platform.python_version(), "executable": sys.executable,
        "system": platform.platform(), "architecture": platform.machine(),
    }  # fmt: skip
    report.add("scaleseg", facts, f"{__version__}, Python {facts['python']} ({sys.executable})", f"{facts['system']}")
    if platform.system() == "Windows":
        report.warnings.append("scaleseg is tried on Linux and macOS; on Windows, install and run it inside WSL")


def threads(report: Report) -> None:
    """The processor, and whether torch's threads fit what of it may be used."""
    import torch

    from scaleseg.devices import container_limits, cores

    usable, threads, limit = cores(), torch.get_num_threads(), container_limits().cores
    asked = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ}
    processor = _processor()
    facts = {
        "processor": processor, "cores": os.cpu_count(), "usable_cores": usable, "container_cores": limit,
        "torch_threads": threads, "environment": asked,
    }  # fmt: skip
    notes = [f"{name}={value}" for name, value in asked.items()]
    notes += [f"the container allows {limit:g} cores"] if limit else []
    line = f"{os.cpu_count()} cores, {usable} usable by this process, torch computes with {threads}"
    report.add("processor", facts, processor, line + (f" ({', '.join(notes)})" if notes else ""))
    if threads > usable:
        report.warnings.append(
            f"torch computes with {threads} threads on {usable} cores, which slows it down; "
            f"run: export OMP_NUM_THREADS={usable}"
        )
    elif threads == 1 and usable >= 4:
        why = f" ({', '.join(notes)})" if notes else ""
        report.warnings.append(
            f"torch computes with 1 thread of {usable} cores{why}; run: export OMP_NUM_THREADS={usable}"
        )


def memory(report: Report) -> None:
    """What there is and what is free."""
    import torch

    from scaleseg.devices import container_limits
    from scaleseg.devices import memory as memory_of

    usable, limit, free = memory_of(torch.device("cpu")), container_limits().memory, _available()
    free = min(free, usable) if free and usable else free
    words = [f"{size / 2**30:.1f} GiB {what}" for size, what in ((usable, "usable"), (free, "free")) if size]
    words += [f"the container allows {limit / 2**30:.1f} GiB"] if limit else []
    facts = {"usable_bytes": usable, "free_bytes": free, "container_bytes": limit}
    report.add("memory", facts, ", ".join(words) or "not known")
    if (free or usable or 2**40) < 2 * 2**30:
        report.warnings.append("less than 2 GiB of memory are free, and training a small recipe takes about that much")


def disk(report: Report) -> None:
    """Room where results go, and where data workers hand over batches."""
    here, free = str(Path.cwd()), shutil.disk_usage(Path.cwd()).free
    shared = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else None
    lines = [f"{free / 2**30:.1f} GiB free in {here}"]
    if shared is not None:
        lines.append(f"{shared / 2**30:.1f} GiB free in /dev/shm, through which data workers hand over batches")
    report.add("disk", {"folder": here, "free_bytes": free, "shared_memory_free_bytes": shared}, *lines)
    if free < 2**30:
        report.warnings.append(f"less than 1 GiB is free in {here}; give --out on another disk")
    if shared is not None and shared < SHARED:
        report.warnings.append(
            f"/dev/shm has {shared / 2**20:.0f} MiB free, too little for data workers with large batches; "
            "start the container with --shm-size=1g, or train with data.workers=0"
        )


def hub(report: Report) -> None:
    """The environment's settings for huggingface_hub, without secrets."""
    facts = {name: os.environ[name] for name in SETTINGS if os.environ.get(name)}
    facts = {name: re.sub(r"//[^/@]*@", "//", value) for name, value in facts.items()}  # a password in an address
    facts |= {"HF_TOKEN": "set"} if "HF_TOKEN" in facts else {}
    words = ", ".join(f"{name}={value}" for name, value in facts.items())
    report.add("hub", facts, words or "huggingface.co: no HF_ variable is set")


def output(*command: str) -> str:
    """What a small program prints; nothing where it is missing, fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""


def _processor() -> str:
    """The processor's name."""
    if platform.system() == "Darwin":
        return output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    try:
        told = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        told = None
    return told[1] if told else platform.processor() or platform.machine()


def _available() -> int | None:
    """What Linux could still hand out; None elsewhere."""
    try:
        told = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
    except OSError:
        return None
    return int(told[1]) * 1024 if told else None

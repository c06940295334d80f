"""What a server counts, as Prometheus reads it (text format 0.0.4).

Labels come from fixed tables, never from a request: a stranger's paths cannot grow it.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

__all__ = ["MEDIA", "Meter", "resident_bytes"]

MEDIA = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the histogram of durations, in seconds."""


class Meter:
    """Counts requests, durations and images; asks for the rest when it is read. Safe to use from any thread."""

    def __init__(self, routes: Iterable[str]) -> None:
        self._routes = frozenset(routes)
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._images: Counter[str] = Counter()
        self._batches: Counter[str] = Counter()
        self._durations: dict[str, tuple[list[int], float]] = {}
        self._served: dict[str, tuple[int, float]] = {}
        self._started = time.time()
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "process_resident_memory_bytes": ("Memory of the process.", resident_bytes),
        }
        """What is asked for when it is read: name -> (what it is, its value)."""

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        route = path if path in self._routes else _group(path)
        with self._lock:
            self._requests[route, status] += 1
            counts, total = self._durations.get(route, ([0] * (len(BUCKETS) + 1), 0.0))
            counts[sum(bound < seconds for bound in BUCKETS)] += 1
            self._durations[route] = counts, total + seconds
            if status == 200:
                number, served = self._served.get(route, (0, 0.0))
                self._served[route] = number + 1, served + seconds

    def images(self, model: str, count: int) -> None:
        """Count images that a model looked at together."""
        with self._lock:
            self._images[model] += count
            self._batches[model] += 1

    def mean_seconds(self, route: str) -> float:
        """The mean duration of a route's results so far, 0 without any; what was refused was refused at once."""
        with self._lock:
            number, total = self._served.get(route, (0, 0.0))
            return total / max(1, number)

    def text(self) -> str:
        """Everything, a line each."""
        with self._lock:
            parts = [
                *_counter("scaleseg_requests_total", "Requests by route and status.", {
                    (("route", route), ("status", str(status))): count
                    for (route, status), count in sorted(self._requests.items())
                }),
                *_counter("scaleseg_images_total", "Images that a model looked at.", _by_model(self._images)),
                *_counter("scaleseg_batches_total", "Passes of a model, of one image or more.", _by_model(self._batches)),
                *self._histogram(),
            ]  # fmt: skip
        parts += _gauge("process_start_time_seconds", "When the server started, since 1970.", self._started)
        for name, (about, value) in self.gauges.items():
            parts += _gauge(name, about, float(value()))
        return "\n".join(parts) + "\n"

    def _histogram(self) -> list[str]:
        name = "scaleseg_request_seconds"
        lines = [f"# HELP {name} Seconds from a request's head to the end of its answer.", f"# TYPE {name} histogram"]
        for route, (counts, total) in sorted(self._durations.items()):
            below, label = 0, _escaped(route)
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                below += count
                lines.append(f'{name}_bucket{{route="{label}",le="{bound}"}} {below}')
            lines += [f'{name}_sum{{route="{label}"}} {total:.6f}', f'{name}_count{{route="{label}"}} {below}']
        return lines


def resident_bytes() -> float:
    """What this process holds of the machine's memory."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        import resource

        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # the most so far, in bytes on macOS
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def _group(path: str) -> str:
    """A name for all the rest."""
    return next((f"{prefix}*" for prefix in ("/static/", "/samples/") if path.startswith(prefix)), "other")


def _by_model(counts: Mapping[str, int]) -> dict[tuple[tuple[str, str], ...], int]:
    return {(("model", name),): count for name, count in sorted(counts.items())}


def _counter(name: str, about: str, values: Mapping[tuple[tuple[str, str], ...], int]) -> list[str]:
    lines = [f"# HELP {name} {about}", f"# TYPE {name} counter"]
    for labels, count in values.items():
        inner = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels)
        lines.append(f"{name}{{{inner}}} {count}")
    return lines


def _gauge(name: str, about: str, value: float) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} gauge", f"{name} {value:.16g}"]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

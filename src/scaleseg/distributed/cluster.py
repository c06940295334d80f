"""Ray, quietly: started here and shut down again, or joined where it runs; how many workers of what size it holds."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import FrameType
from typing import Any, NamedTuple

from scaleseg.devices import cores
from scaleseg.errors import UserError, reason

__all__ = ["Share", "joined", "share"]

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ part speaks to stderr, past every logger
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # it prints on stdout that a task is tried again
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # as it will be; without it a warning at every start
}
OBJECTS = 200 << 20
"""Bytes of a local Ray's object store: names alone go through it."""
KNOCK, ANSWER = 5, 60
"""Seconds for a connection to an address, and for Ray to answer there: by itself it tries for minutes."""


class Share(NamedTuple):
    """Workers, and what each has."""

    actors: int
    cores: int
    device: str
    """cpu or cuda; on cuda one GPU each."""


@contextmanager
def joined(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected: to `address`, to RAY_ADDRESS, or to a Ray of its own on this machine, which ends here.

    A Ray that this process is connected to already is used, and left as it is.
    """
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise UserError("--distributed needs Ray, which is not installed; pip install 'scaleseg[ray]'")
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with _settings(QUIET if address != "local" else {**QUIET, "RAY_AUTH_MODE": "disabled"}), _silence():
        ray = import_module("ray")
        import_module("ray.data")
        if ray.is_initialized():
            yield ray
            return
        handler = signal.getsignal(signal.SIGTERM)
        try:
            _connect(ray, address)
            _on_sigterm(_leave if handler in (signal.SIG_DFL, None) else handler)
            yield ray
        finally:
            ray.shutdown()
            _on_sigterm(handler)


def share(ray: Any, actors: int | None, device: str) -> Share:
    """How many workers, on what; UserError if Ray has not as much. Without `actors`: all GPUs, or one worker in 4 cores."""
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device is {device!r}; with --distributed choose auto, cpu or cuda: Ray deals out the GPUs")
    if actors is not None and actors < 1:
        raise UserError(f"--actors is {actors}; give 1 or more")
    nodes: list[dict[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if device == "cuda" or (device == "auto" and gpus):
        if gpus < (actors or 1):
            raise UserError(f"--actors is {actors or 1}, but Ray has {gpus} GPUs, one a worker; use --device cpu")
        return Share(actors or gpus, 1, "cuda")
    return _on_cores([int(node.get("CPU", 0)) for node in nodes], actors)


def _on_sigterm(handler: Any) -> None:
    """Ray's own handler ends the process by an abort, before its children."""
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _on_cores(nodes: Sequence[int], actors: int | None) -> Share:
    """The most cores a worker that so many workers can have, each within one machine."""
    total = sum(nodes)
    workers = actors or max(min(2, total), total // 4)
    for each in range(total // max(workers, 1), 0, -1):
        if sum([node // each for node in nodes]) >= workers:
            return Share(workers, each, "cpu")
    raise UserError(f"--actors is {workers}, but Ray has {total} cores, at least one a worker; give fewer --actors")


def _connect(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == "local":
        with _deaf():
            ray.init(address, num_cpus=cores(), include_dashboard=False, object_store_memory=OBJECTS, **quiet)
        return
    _knock(address)
    try:
        with _deaf():
            ray.init(address, **quiet)
    except Exception as error:  # of many types: ConnectionError, RuntimeError, ValueError, RaySystemError
        raise _no_ray(address, reason(error)) from error


@contextmanager
def _deaf() -> Iterator[None]:
    """Nothing comes out of stderr: Ray's C++ part says there that it was told to say nothing."""
    try:
        kept = os.dup(2)
    except OSError:  # closed from the start
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _knock(address: str) -> None:
    """UserError unless Ray answers: tried by a process that can be ended, for `ray.init` cannot."""
    place = re.fullmatch(r"(?:ray://)?\[?([^\]]+?)\]?:(\d+)", address)
    if place:
        try:
            socket.create_connection((place[1], int(place[2])), timeout=KNOCK).close()
        except (OSError, OverflowError) as error:
            raise _no_ray(address, getattr(error, "strerror", None) or str(error) or "no answer") from error
    code = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False)"
    try:
        ended = subprocess.run([sys.executable, "-c", code, address], capture_output=True, check=False, timeout=ANSWER)
    except subprocess.TimeoutExpired:
        raise _no_ray(address, f"no answer in {ANSWER} seconds") from None
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip().splitlines() or ["it ended"]
        raise _no_ray(address, said[-1])


def _no_ray(address: str, why: str) -> UserError:
    return UserError(
        f"--ray-address is {address!r}, where no Ray can be reached ({why}); give host:port of a Ray that runs, of this "
        "Ray's version, or leave it out for one on this machine"
    )


@contextmanager
def _settings(values: dict[str, str]) -> Iterator[None]:
    """Environment variables, where the user has not set them, for Ray's processes."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _silence() -> Iterator[None]:
    """Ray's loggers in this process say nothing; their files in Ray's session folder do."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data")]
    before = [logger.level for logger in loggers]
    try:
        import_module("ray.data")  # sets its levels as it loads
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)

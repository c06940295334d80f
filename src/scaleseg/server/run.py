"""Starting a server, and ending it: models are loaded, a port is taken, signals are heard."""

import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from types import FrameType
from typing import NoReturn

import uvicorn

from scaleseg.checkpoint import load
from scaleseg.devices import choose_device, describe, place
from scaleseg.engines import Plan, assemble
from scaleseg.errors import UserError
from scaleseg.server.app import Server, create_app
from scaleseg.server.log import log
from scaleseg.server.models import Served, name_models, warm_up
from scaleseg.server.settings import Settings
from scaleseg.server.wire import Wire

__all__ = ["Runner", "address", "is_loopback", "load_models", "open_socket", "serve"]

BACKLOG = 1024
"""Connections that wait to be taken."""


def load_models(
    checkpoints: Sequence[str],
    *,
    device: str = "auto",
    plan: Plan | None = None,
    max_memory: int | None = None,
    say: Callable[[str], None] = print,
) -> list[Served]:
    """The models under their names, each with its engine, warmed up; UserError where one cannot work in `max_memory` bytes."""
    where = choose_device(device)
    models = []
    for given, name in zip(checkpoints, name_models(checkpoints), strict=True):
        network = place(load(given), where)
        engine = assemble(network, plan or Plan(), say=say)
        models.append(Served(name, network, engine))
        warm_up(models[-1], max_memory)
        say(f"model {name}: {describe(where)}; {engine.name}, {engine.precision}")
    return models


def serve(
    models: Sequence[Served], settings: Settings, listening: socket.socket, *, say: Callable[[str], None] = print
) -> int | None:
    """Answer on a socket until a signal says to end; the signal that did, None without one."""
    runner = Runner(create_app(models, settings), lambda: say(f"open {address(listening)}"))
    runner.run([listening])
    if runner.app.stuck:  # an image that was given up is still looked at; a thread in C cannot be asked to end
        runner.leave()
    return runner.ended_by


class Runner(uvicorn.Server):
    """uvicorn, which at the first signal lets everybody who is there be answered, and at the second ends at once."""

    def __init__(self, app: Server, ready: Callable[[], None] = lambda: None) -> None:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, proxy_headers=False, ws="none", http=Wire,
            log_level="critical",
            lifespan="on", timeout_graceful_shutdown=2, timeout_keep_alive=15, backlog=BACKLOG,
        )  # fmt: skip
        super().__init__(config)
        self.app = app
        self.ready = ready
        self.ended_by: int | None = None
        self._until = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        if self.ended_by is not None:
            self.leave()
        self.end(sig)
        if not self.app.places.empty:
            log("ending once all are answered; once more ends at once")

    def end(self, sig: int | None = None) -> None:
        """Take no more, and end when all is answered."""
        self.ended_by = sig
        self._until = monotonic() + self.app.settings.limits.drain_seconds
        self.app.places.closing = True

    def leave(self) -> NoReturn:
        """End at once, whatever is at work."""
        if sys.stdout is not None:
            sys.stdout.flush()
        os._exit(130 if self.ended_by == signal.SIGINT else 0 if self.app.stuck else 143)

    async def on_tick(self, counter: int) -> bool:
        if self.app.places.closing and (self.app.places.empty or monotonic() > self._until):
            self.should_exit = True
        return await super().on_tick(counter)


def open_socket(host: str, port: int) -> socket.socket:
    """A port that is listened on; UserError where it is taken, or no such address is here."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by name: without it asyncio leaves the delay of small packets on, 40 ms for every answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)  # a port is only taken by who listens; those who come while models load wait
    except (OSError, OverflowError, ValueError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"--host {host} --port {port} cannot be listened on ({reason}); choose another --port, or 0 for any that is free"
        ) from error
    listening.setblocking(False)
    return listening


def address(listening: socket.socket) -> str:
    """What to open in a browser."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None

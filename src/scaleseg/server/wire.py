"""Connections that do nothing useful are ended: uvicorn alone waits without end for a head, or for an answer to be taken.

What is no HTTP gets an answer like all others: JSON, and the strict headers.
"""

import asyncio
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from scaleseg.server.refusal import Refusal
from scaleseg.server.security import refused

__all__ = ["Wire"]

IDLE_SECONDS = 20.0
"""Without a whole request's head; longer than what uvicorn keeps a connection for after an answer."""

LOOK_SECONDS = 2.0
"""How often each connection is looked at."""


class Wire(H11Protocol):  # type: ignore[misc,unused-ignore]
    """One connection; it may be without a request, or on its way out, only for so long."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # type: ignore[override,unused-ignore]
        super().connection_made(cast(Any, transport))
        self._useful = self.loop.time()
        self._timer = self.loop.call_later(LOOK_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._useful = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """For what is no HTTP; where an answer was begun, or given, already, the connection ends without another one."""
        if self.cycle is not None:  # who reads the rest of the body, or would answer, is to stop
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            made = refused(Refusal(400, "the request is no HTTP that can be read; send it with an ordinary client"))
            headers = [*made.raw_headers, (b"connection", b"close")]
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=bytes(made.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        self.transport.close()

    def _look(self) -> None:
        """End it, or look again later."""
        serving = self.cycle is not None and not self.cycle.response_complete
        if serving and not self.transport.is_closing():
            self._useful = self.loop.time()
        if self.loop.time() - self._useful > IDLE_SECONDS:
            self.transport.abort()
            return
        self._timer = self.loop.call_later(LOOK_SECONDS, self._look)

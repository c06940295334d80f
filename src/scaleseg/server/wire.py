"""Connections that do nothing useful are ended: uvicorn alone waits without end for a head, or for an answer to be taken."""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

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

    def _look(self) -> None:
        """End it, or look again later."""
        serving = self.cycle is not None and not self.cycle.response_complete
        if serving and not self.transport.is_closing():
            self._useful = self.loop.time()
        if self.loop.time() - self._useful > IDLE_SECONDS:
            self.transport.abort()
            return
        self._timer = self.loop.call_later(LOOK_SECONDS, self._look)

"""The outermost layer: counts and times every request, and answers 500 where a programmer was mistaken."""

import asyncio
import traceback
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scaleseg.server.log import log
from scaleseg.server.prometheus import Meter
from scaleseg.server.refusal import Refusal
from scaleseg.server.security import refused

__all__ = ["FAILED", "Watch"]

FAILED = "the server failed at this request, and its log says why"
ENDED = "the server ended before this was answered; ask another one, or come again later"


class Watch:
    """Hands a request on; what is raised goes to stderr, never into an answer."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self.app = app
        self.meter = meter
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, start = 0, perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.in_flight += 1
        try:
            await self.app(scope, receive, noted)
        except Exception as error:
            log("".join(traceback.format_exception(error)))
            if not status:
                await refused(Refusal(500, FAILED))(scope, receive, noted)
        except asyncio.CancelledError:  # the time to end is over
            if not status:
                await refused(Refusal(503, ENDED, retry_after=10))(scope, receive, noted)
            raise
        finally:
            self.in_flight -= 1
            self.meter.request(scope["path"], status or 499, perf_counter() - start)

"""The routes: what is asked where, and what is answered."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from scaleseg import __version__
from scaleseg.server.answers import Answer
from scaleseg.server.asked import read_query
from scaleseg.server.docs_page import docs_page
from scaleseg.server.document import document
from scaleseg.server.files import File, sample_files, static_files
from scaleseg.server.jobs import Job
from scaleseg.server.models import Served
from scaleseg.server.pipeline import Pipeline
from scaleseg.server.places import Place, Places
from scaleseg.server.prometheus import MEDIA, Meter
from scaleseg.server.refusal import Refusal, shown
from scaleseg.server.security import Security, refused
from scaleseg.server.settings import Settings
from scaleseg.server.upload import announced, read_upload
from scaleseg.server.watch import FAILED, Watch

__all__ = ["Server", "create_app"]

READ = ["GET", "HEAD"]
ROUTES = ("/", "/docs", "/openapi.json", "/healthz", "/metrics", "/v1/models", "/v1/segment")
PIECE = 1 << 18
"""Bytes of an answer that are handed to the network at once."""

LATE = 2.0
"""Seconds that the threads get to end once everybody was answered."""


class Server:
    """An app and what stands behind it: places, counts, and the threads that work."""

    def __init__(self, models: Sequence[Served], settings: Settings) -> None:
        self.models: Mapping[str, Served] = {model.name: model for model in models}
        self.settings = settings
        self.meter = Meter(ROUTES)
        self.places = Places(settings.limits, lambda: self.meter.mean_seconds("/v1/segment"))
        self.pipeline = Pipeline(settings, _batch(models, settings), self.meter.images)
        self.static, self.samples = static_files(), sample_files()
        self.stuck = False
        """Whether a thread was still at an image when all others had ended."""
        self.document = document(self.models, settings)
        self.page = docs_page(self.document)
        self.watch = Watch(Security(self._routes(), settings), self.meter)
        self._gauge("scaleseg_queue_depth", "Images that wait or are worked on.", lambda: self.places.queued)
        self._gauge("scaleseg_waiting", "Images that nothing was done for yet.", lambda: self.pipeline.waiting)
        self._gauge("scaleseg_uploads", "Requests whose bodies are being read.", lambda: self.places.uploading)
        self._gauge("scaleseg_body_bytes", "Bytes of requests that are held.", lambda: self.places.bytes)
        self._gauge("scaleseg_answer_bytes", "Bytes of answers that are held.", lambda: self.places.answer_bytes)
        self._gauge("scaleseg_requests_in_flight", "Requests that are being answered.", lambda: self.watch.in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.watch(scope, receive, send)

    async def segment_image(self, request: Request) -> Response:
        """One image's answer; Refusal for whatever stands in its way."""
        asked = read_query(request.query_params.multi_items(), self.models)
        limits = self.settings.limits
        place = self.places.enter(announced(request))
        try:
            upload = await read_upload(request, place, limits)
            place.queue()
            job = Job(asked, upload.content, upload.name)
            del upload
            made = await self._done(job, request)
            place.answered(len(made.content))
            return _Held(made, place, limits.send_seconds)
        except BaseException:
            place.leave()
            raise

    async def _done(self, job: Job, request: Request) -> Answer:
        """The job's answer; given up when it takes too long, or when nobody waits for it any more."""
        self.pipeline.submit(job)
        made, gone = asyncio.wrap_future(job.future), asyncio.ensure_future(_disconnected(request))
        seconds = self.settings.limits.seconds
        try:
            await asyncio.wait((made, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if made.done():
                return made.result()
            if gone.done():
                raise Refusal(499, "the client went away before it was answered")
            raise Refusal(504, f"{job.name} took more than {seconds:g} s; shrink it, or come again when less is to do")
        finally:
            self.pipeline.withdraw(job)
            made.cancel()
            gone.cancel()

    def _gauge(self, name: str, about: str, value: Any) -> None:
        self.meter.gauges[name] = (about, value)

    def _routes(self) -> FastAPI:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            self.pipeline.start()
            yield
            self.stuck = not self.pipeline.stop(LATE)

        app = FastAPI(
            title="scaleseg", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan,
            redirect_slashes=False,
        )  # fmt: skip
        app.add_exception_handler(Refusal, _on_refusal)
        app.add_exception_handler(HTTPException, _on_http)
        app.add_exception_handler(Exception, _on_mistake)
        app.add_api_route("/", self._index, methods=READ, response_model=None)
        app.add_api_route("/static/{name}", self._static, methods=READ, response_model=None)
        app.add_api_route("/samples/{name}", self._sample, methods=READ, response_model=None)
        app.add_api_route("/docs", self._docs, methods=READ, response_model=None)
        app.add_api_route("/openapi.json", self._openapi, methods=READ, response_model=None)
        app.add_api_route("/healthz", self._health, methods=READ, response_model=None)
        app.add_api_route("/metrics", self._metrics, methods=READ, response_model=None)
        app.add_api_route("/v1/models", self._models, methods=READ, response_model=None)
        app.add_api_route("/v1/segment", self.segment_image, methods=["POST"], response_model=None)
        return app

    async def _index(self) -> Response:
        return _file(self.static, "index.html")

    async def _static(self, name: str) -> Response:
        return _file(self.static, name)

    async def _sample(self, name: str) -> Response:
        return _file({f"{known}.jpg": file for known, file in self.samples.items()}, name)

    async def _docs(self) -> Response:
        return Response(self.page, media_type="text/html")

    async def _openapi(self) -> Response:
        return JSONResponse(self.document)

    async def _health(self) -> Response:
        if self.places.closing:
            return JSONResponse({"status": "ending"}, 503, {"Retry-After": "10"})
        return JSONResponse({"status": "ok"})

    async def _metrics(self) -> Response:
        return Response(self.meter.text(), media_type=MEDIA)

    async def _models(self) -> Response:
        limits = self.settings.limits
        return JSONResponse({
            "models": [model.describe() for model in self.models.values()],
            "samples": [{"name": name, "credit": file.credit} for name, file in self.samples.items()],
            "limits": {"bytes": limits.bytes, "pixels": limits.pixels},
            "token_required": self.settings.token is not None,
            "version": __version__,
        })  # fmt: skip


def create_app(models: Sequence[Served], settings: Settings | None = None) -> Server:
    """The ASGI app that serves these models."""
    return Server(models, settings or Settings())


class _Held(Response):
    """An answer whose place is kept until it is sent, or is not taken for too long."""

    def __init__(self, made: Answer, place: Place, seconds: float) -> None:
        super().__init__(made.content, media_type=made.media)
        self.place = place
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self.seconds):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await self._send_body(send)
        except TimeoutError:  # uvicorn closes what was not sent to its end
            return
        finally:
            self.body = b""
            self.place.leave()

    async def _send_body(self, send: Send) -> None:
        """Piece by piece: uvicorn waits for a slow client only between two of them."""
        pieces = range(0, len(self.body), PIECE)
        for start in pieces:
            more = start != pieces[-1]
            await send({"type": "http.response.body", "body": self.body[start : start + PIECE], "more_body": more})


def _batch(models: Sequence[Served], settings: Settings) -> int:
    """On a CPU one image after another: more together were measured not to be faster there."""
    on_cpu = all(model.network.mean.device.type == "cpu" for model in models)
    return settings.batch or (1 if on_cpu else 8)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _file(table: Mapping[str, File], name: str) -> Response:
    if name not in table:
        raise Refusal(404, f"there is no {shown(name)!r} here; look at / or /docs")
    return Response(table[name].content, media_type=table[name].media, headers={"Cache-Control": "no-cache"})


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return refused(error)


async def _on_mistake(request: Request, error: Exception) -> Response:
    """A programmer's; `Watch` tells it to the log."""
    return refused(Refusal(500, FAILED))


async def _on_http(request: Request, error: Exception) -> Response:
    """What the router refuses: paths that are not there, methods that a path has not."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "GET, HEAD")
        return refused(Refusal(405, f"{shown(request.method)} is not done here; use {allow}", allow=allow))
    if error.status_code == 404:
        return refused(Refusal(404, f"there is no {shown(request.url.path)!r} here; look at / or /docs"))
    return refused(Refusal(error.status_code, "the request cannot be read; look at /docs"))

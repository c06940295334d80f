"""A request's image: the file of a form, or the body itself, held in memory and nowhere else."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from pathlib import PurePosixPath
from typing import NamedTuple

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from scaleseg.server.places import Place
from scaleseg.server.refusal import Refusal, shown
from scaleseg.server.settings import Limits

__all__ = ["Upload", "announced", "read_upload"]

FIELD = "image"
"""What the form's file is called."""

logging.getLogger("python_multipart").addHandler(
    logging.NullHandler()
)  # what it logs of a damaged form we say ourselves


class Upload(NamedTuple):
    """An image's file, and what to call it in sentences."""

    content: bytes
    name: str


class _Form(MultiPartParser):
    """Starlette's parser; it keeps files in memory, which is bounded here, instead of on disk."""

    max_file_size = spool_max_size = 1 << 62  # the first is the name in older versions


def announced(request: Request) -> int | None:
    """The length that the request says it has; Refusal 400 for no number."""
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise Refusal(400, f"Content-Length is {shown(text)!r}; give the number of bytes")
    return int(text[:19])


async def read_upload(request: Request, place: Place, limits: Limits) -> Upload:
    """The image. Refusal 400 where there is none or more than one, 408 if it comes too slowly, 413, 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data" and not kind.startswith("image/"):
        given = f"Content-Type is {shown(kind)!r}" if kind else "there is no Content-Type"
        raise Refusal(
            415, f"{given}; give an image as the body (image/jpeg, image/png, ...), or a form (multipart/form-data)"
        )
    try:
        async with asyncio.timeout(limits.body_seconds):
            found = await (_raw(request, place) if kind.startswith("image/") else _form(request, place))
    except TimeoutError:
        raise Refusal(
            408, f"the request's body took more than {limits.body_seconds:g} s; send a smaller image, or send it faster"
        ) from None
    if not found.content:
        raise Refusal(400, f"{found.name} is empty; give a JPEG, PNG, WebP, BMP or TIFF file")
    return found


async def _raw(request: Request, place: Place) -> Upload:
    content = bytearray()
    async for chunk in _counted(request, place):
        content += chunk
    return Upload(bytes(content), "the image")


async def _form(request: Request, place: Place) -> Upload:
    try:
        form = await _Form(request.headers, _counted(request, place), max_files=2, max_fields=2).parse()
    except (MultiPartException, UnicodeError) as error:  # the latter of some of Python's codecs, named as a charset
        reason = shown(str(error)).rstrip(".")
        raise Refusal(
            400, f"the form cannot be read ({reason}); give one file in the field {FIELD} as multipart/form-data"
        ) from None
    try:
        file = _file(form)
        return Upload(await file.read(), _name(file.filename))
    finally:
        await form.close()


def _file(form: FormData) -> UploadFile:
    """The one file."""
    items = form.multi_items()
    others = [name for name, _ in items if name != FIELD]
    if others:
        raise Refusal(
            400, f"the form has a field {shown(others[0])!r}; give the image in {FIELD}, the rest in the query"
        )
    if len(items) != 1:
        count = "no" if not items else f"{len(items)}"
        raise Refusal(400, f"the form has {count} fields {FIELD}; give one file a request")
    value = items[0][1]
    if not isinstance(value, UploadFile):
        raise Refusal(400, f"the field {FIELD} is text; give a file (curl -F {FIELD}=@photo.jpg)")
    return value


async def _counted(request: Request, place: Place) -> AsyncGenerator[bytes, None]:
    """The body as it comes, each piece held before it is kept; Refusal 400 if the client goes away in the middle of it."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the request ended before its body did; send it again")
        piece: bytes = message.get("body", b"")
        place.grow(len(piece))
        if piece:
            yield piece
        if not message.get("more_body", False):
            return


def _name(given: str | None) -> str:
    """The file's own name as the client calls it, without folders."""
    last = PurePosixPath((given or "").replace("\\", "/")).name
    return shown(last) if last else "the image"

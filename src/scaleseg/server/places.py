"""How many requests, and how many bytes of them, are held at once: who does not fit in is told when to come again."""

from collections.abc import Callable
from math import ceil

from scaleseg.server.refusal import Refusal
from scaleseg.server.settings import Limits

__all__ = ["Place", "Places"]

LONGEST_WAIT = 60
"""Seconds that a client is asked to wait, at most."""


class Places:
    """What is held now. Used by one event loop alone, so nothing here is locked."""

    def __init__(self, limits: Limits, mean_seconds: Callable[[], float] = lambda: 0.0) -> None:
        self.limits = limits
        self.mean_seconds = mean_seconds
        self.uploading = 0
        self.queued = 0
        self.bytes = 0
        self.answer_bytes = 0
        self.closing = False

    def enter(self, announced: int | None) -> "Place":
        """A place for a request whose body is still to come; Refusal 503 if there is none, 413 for too long a body."""
        if announced is not None and announced > self.limits.bytes:
            raise too_long(self.limits.bytes)
        if self.closing:
            raise Refusal(503, "the server is about to end; ask another one, or come again later", retry_after=10)
        if self.queued >= self.limits.queue or self.uploading >= self.limits.uploads:
            raise self.busy()
        if self.bytes + (announced or 0) > self.limits.bytes_in_flight:
            raise self.busy()
        return Place(self)

    def busy(self) -> Refusal:
        """503, with the time that those who wait will take."""
        wait = min(LONGEST_WAIT, max(1, ceil(self.mean_seconds())))
        return Refusal(503, f"the server has as much to do as it takes; come again in {wait} s", retry_after=wait)

    @property
    def empty(self) -> bool:
        """Whether nobody is being served."""
        return self.uploading == 0 and self.queued == 0


class Place:
    """One request's share of what is held; `leave` gives all of it back, and may be called again."""

    def __init__(self, places: Places) -> None:
        self._all = places
        self._uploading, self._queued, self._bytes, self._answer = 1, 0, 0, 0
        places.uploading += 1

    def grow(self, count: int) -> None:
        """Hold more bytes of the body; Refusal 413 if it is too long, 503 if all bodies together are."""
        self._bytes += count
        self._all.bytes += count
        if self._bytes > self._all.limits.bytes:
            raise too_long(self._all.limits.bytes)
        if self._all.bytes > self._all.limits.bytes_in_flight:
            raise self._all.busy()

    def queue(self) -> None:
        """The body is there; Refusal 503 if too many wait already."""
        if self._all.queued >= self._all.limits.queue:
            raise self._all.busy()
        self._all.uploading -= self._uploading
        self._uploading, self._queued = 0, 1
        self._all.queued += 1

    def answered(self, count: int) -> None:
        """The body is done with, and an answer of so many bytes is held; Refusal 503 if all answers together are too long."""
        self._all.bytes -= self._bytes
        self._bytes = 0
        if self._all.answer_bytes and self._all.answer_bytes + count > self._all.limits.answers_in_flight:
            raise self._all.busy()
        self._answer = count
        self._all.answer_bytes += count

    def leave(self) -> None:
        self._all.uploading -= self._uploading
        self._all.queued -= self._queued
        self._all.bytes -= self._bytes
        self._all.answer_bytes -= self._answer
        self._uploading, self._queued, self._bytes, self._answer = 0, 0, 0, 0


def too_long(most: int) -> Refusal:
    """413."""
    return Refusal(413, f"the request has more than {most:,} bytes; shrink the image, or save it as JPEG")

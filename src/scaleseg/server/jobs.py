"""One image on its way through the server, and what carries it from thread to thread."""

import threading
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from jaxtyping import UInt8
from torch import Tensor

from scaleseg.model import Prediction
from scaleseg.segmentation import Segmentation
from scaleseg.server.answers import Answer
from scaleseg.server.asked import Asked
from scaleseg.server.log import log
from scaleseg.server.pixels import Pixel
from scaleseg.server.refusal import Refusal

__all__ = ["Belt", "Guard", "Job", "Results"]


@dataclass(eq=False)
class Job:
    """One image on its way."""

    asked: Asked
    content: bytes
    """The file; gone once it is decoded."""
    name: str
    future: "Future[Answer]" = field(default_factory=Future)
    gone: bool = False
    """Nobody waits for it any more."""
    image: UInt8[Tensor, "3 _ _"] | None = None
    results: "Results | None" = None

    def finish(self, made: "Answer | Refusal") -> None:
        """Tell whoever waits; nobody may be left, and the future given up from the other side at any moment."""
        try:
            if isinstance(made, Refusal):
                self.future.set_exception(made)
            else:
                self.future.set_result(made)
        except InvalidStateError:
            pass


@dataclass(frozen=True)
class Results:
    """What was computed, before it is encoded."""

    trained: Prediction
    fused: Prediction
    said: Segmentation
    pixels: tuple[Pixel, ...]
    seconds: float


class Belt:
    """Jobs on their way from one thread to the next; whoever puts waits while there are `most`."""

    def __init__(self, most: int | None = None) -> None:
        self._jobs: deque[Job] = deque()
        self._most = most
        self._closed = False
        self._changed = threading.Condition()

    def put(self, job: Job) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._most is None or len(self._jobs) < self._most)
            self._jobs.append(job)
            self._changed.notify_all()

    def take(self) -> Job | None:
        """The next one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            job = self._jobs.popleft() if self._jobs else None
            self._changed.notify_all()
            return job

    def take_like(self, first: Job, alike: Callable[[Job, Job], bool], most: int) -> list[Job]:
        """Those that are there and like the first, at most so many; the others keep their order."""
        with self._changed:
            found = [job for job in self._jobs if alike(first, job)][:most]
            for job in found:
                self._jobs.remove(job)
            self._changed.notify_all()
            return found

    def remove(self, job: Job) -> bool:
        """Take out a job; whether it was there."""
        with self._changed:
            there = job in self._jobs
            if there:
                self._jobs.remove(job)
                self._changed.notify_all()
            return there

    def __len__(self) -> int:
        return len(self._jobs)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Guard:
    """Work on one job: what is raised becomes the job's answer, and the thread goes on. As a value: whether anybody waits."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __enter__(self) -> bool:
        if self.job.gone:
            self._drop()
        return not self.job.gone

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None:
            return False
        if not isinstance(error, Refusal):
            log("".join(traceback.format_exception(error)))
            error = Refusal(500, "the server failed at this image, and its log says why; other images are not affected")
        self._drop()
        self.job.finish(error)
        return True

    def _drop(self) -> None:
        """Memory is given back at once: who asked may hold on to the job."""
        self.job.content, self.job.image, self.job.results = b"", None, None

"""From an image's bytes to an answer's: three threads in a row, that read, compute and write.

Only the middle one touches a model, so a model never meets two images at once but in a batch. Pictures are decoded by one
thread and answers encoded by another, while the device computes. What stands between them is bounded: an image is
decoded only when there is room for it. A job whose client is gone is dropped wherever it is.
"""

import threading
from collections.abc import Callable
from time import monotonic, perf_counter

import torch
from jaxtyping import UInt8
from torch import Tensor

from scaleseg.devices import explained, memory
from scaleseg.engines import Engine, Tiled, TorchEngine, choose_side
from scaleseg.errors import UserError
from scaleseg.model import Prediction
from scaleseg.segmentation import choose_refine, segment
from scaleseg.server.answers import answer
from scaleseg.server.batching import can_batch, group_of, predict_batch
from scaleseg.server.fusing import Said, fuse_again
from scaleseg.server.jobs import Belt, Guard, Job, Results
from scaleseg.server.log import log
from scaleseg.server.pictures import read_picture
from scaleseg.server.pixels import read_pixels
from scaleseg.server.refusal import Refusal
from scaleseg.server.settings import Settings

__all__ = ["Pipeline"]

LARGE = 4_000_000
"""Pixels from which on an image is kept below a part of the memory, in tiles, even where no limit was given."""

BETWEEN = 2
"""Images that wait decoded, or answers that wait to be encoded, beside a batch."""

REFINED = 16
"""Bytes a class and pixel that a refinement takes."""


class Pipeline:
    """Takes jobs and fulfils their futures: with an Answer, or with a Refusal. `looked` hears how many images a batch had."""

    def __init__(self, settings: Settings, batch: int, looked: Callable[[str, int], None] | None = None) -> None:
        self.settings = settings
        self.batch = batch
        self.looked = looked or (lambda name, count: None)
        self._waiting, self._read, self._computed = Belt(), Belt(batch + BETWEEN), Belt(BETWEEN)
        steps = ((self._read_one, self._read), (self._compute_some, self._computed), (self._write_one, None))
        self._threads = [threading.Thread(target=self._run, args=step, daemon=True) for step in steps]

    def start(self) -> None:
        """Let the threads run."""
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Take a job; how many there may be is for the caller to see to."""
        self._waiting.put(job)

    def withdraw(self, job: Job) -> None:
        """Nobody waits for this job any more: what is left of it is dropped, now or where it is met next."""
        job.gone = True
        if self._waiting.remove(job):
            job.content = b""

    @property
    def waiting(self) -> int:
        """Jobs that nothing was done for yet."""
        return len(self._waiting)

    def stop(self, seconds: float) -> bool:
        """End after what is there already; whether all was done in so many seconds."""
        self._waiting.close()
        until = monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, step: Callable[[], bool], after: Belt | None) -> None:
        """A thread. Each step is a call of its own, so that what it held is free while the next one is waited for."""
        while step():
            pass
        if after is not None:
            after.close()

    def _read_one(self) -> bool:
        """Decode an image; whether there was one."""
        if (job := self._waiting.take()) is None:
            return False
        with Guard(job) as alive:
            if alive:
                job.image = read_picture(job.content, job.name, self.settings.limits.pixels)
                _check(job, job.image, self.settings.limits.refined_bytes)
                job.content = b""
                self._read.put(job)
        return True

    def _compute_some(self) -> bool:
        """Look at an image, and with it at those that can go along; whether there was one."""
        if (first := self._read.take()) is None:
            return False
        group = [first]
        if self.batch > 1 and can_batch(first.asked.model.engine):
            group += self._read.take_like(first, _alike, self.batch - 1)
        for job in self._together(group):
            self._computed.put(job)
        return True

    def _write_one(self) -> bool:
        """Encode an answer; whether there was one."""
        if (job := self._computed.take()) is None:
            return False
        with Guard(job) as alive:
            if alive and (made := job.results) is not None:
                job.finish(answer(job.asked, made.trained, made.fused, made.said, made.pixels, made.seconds))
        job.results = None
        return True

    def _together(self, group: list[Job]) -> list[Job]:
        """Those of a group that were computed; a batch that fails is done again one by one, so that none harms another."""
        group = [job for job in group if not job.gone]
        if not group:
            return []
        start = perf_counter()
        predictions = _predictions(group) if len(group) > 1 else [None]
        if predictions is None:
            return [job for one in group for job in self._together([one])]
        self.looked(group[0].asked.model.name, len(group))
        each = (perf_counter() - start) / len(group)
        done = []
        for job, prediction in zip(group, predictions, strict=True):
            with Guard(job) as alive:
                if alive:
                    job.results = self._results(job, prediction, each)
                    job.image = None
                    done.append(job)
        return done

    def _results(self, job: Job, prediction: Prediction | None, each: float) -> Results:
        asked, image, start = job.asked, job.image, perf_counter()
        assert image is not None
        network = asked.model.network
        rows, columns = image.shape[1:]
        remedy = "shrink the image"
        try:
            with explained(network.mean.device, remedy), torch.inference_mode():
                if prediction is None:
                    prediction = self._engine(job, image)(image)
                if job.gone:
                    raise Refusal(499, "nobody waits for this image any more")
                refine = choose_refine(network, asked.refine)
                fused = fuse_again(prediction, asked.fusion, asked.weights)
                said = segment(network, image, engine=Said(fused), refine=refine)
                pixels = read_pixels(asked.pixels, fused, said, refine)
        except UserError as error:
            log(f"{columns} x {rows} pixels: {error}")
            raise Refusal(
                413, f"{job.name} is {columns} x {rows} pixels, more than this server has memory for; shrink it"
            ) from error
        return Results(prediction, fused, said, pixels, each + perf_counter() - start)

    def _engine(self, job: Job, image: UInt8[Tensor, "3 _ _"]) -> Engine:
        """The model's engine, in tiles where the image would take more memory than it may."""
        model = job.asked.model
        size = (image.shape[1], image.shape[2])
        allowed = self.settings.max_memory
        if allowed is None and size[0] * size[1] >= LARGE:
            there = memory(model.network.mean.device)
            allowed = None if there is None else there // 2
        if allowed is None:
            return model.engine
        refined = job.asked.refine != "none"
        side = choose_side(model.network, size, allowed, model.engine.precision, whole_scores=refined)
        return Tiled(model.engine, model.network, side) if side < max(model.network.grid(size).padded) else model.engine


def _check(job: Job, image: UInt8[Tensor, "3 _ _"], refined_bytes: int) -> None:
    """Refusal for what can be known of an image before it is computed."""
    rows, columns = image.shape[1:]
    for row, column in job.asked.pixels:
        if row >= rows or column >= columns:
            raise Refusal(
                400, f"pixel is {row},{column}, and {job.name} has {rows} rows and {columns} columns; count from 0"
            )
    most = refined_bytes // (REFINED * len(job.asked.model.network.classes))
    if job.asked.refine != "none" and rows * columns > most:
        raise Refusal(
            413,
            f"{job.name} is {columns} x {rows} pixels, and at most {most:,} are refined here; shrink it, or give refine=none",
        )


def _alike(one: Job, other: Job) -> bool:
    if one.asked.model is not other.asked.model or one.image is None or other.image is None:
        return False
    small = max(one.image[0].numel(), other.image[0].numel()) < LARGE
    network = one.asked.model.network
    return small and group_of(network, one.image) == group_of(network, other.image)


def _predictions(group: list[Job]) -> list[Prediction] | None:
    """A batch's, None if it failed; one image alone is left to be computed by itself."""
    engine, images = group[0].asked.model.engine, [job.image for job in group if job.image is not None]
    assert isinstance(engine, TorchEngine) and len(images) == len(group)
    try:
        return predict_batch(engine, images)
    except Exception as error:
        log(f"a batch of {len(group)} failed ({error}); its images are done one by one")
        return None

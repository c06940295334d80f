"""Whether looking at several images together helps a server: images a second by size of the batch.

    python benchmarks/micro_batches.py --batches 1 2 4 8 --size 321 --json micro_batches.json

`loop` is `segment` called in a loop. `batch` is `predict_batch` of so many images of one size, with what `segment` does after
it. `server` is the whole server on loopback, asked by `--clients` clients at once, all of them in this process. Batches are
timed in turns, so that a slow minute of the machine hits all of them.
"""

import argparse
import http.client
import io
import json
import shlex
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

from machine import machine, synchronize, timed
from PIL import Image
from torch import Tensor

from scaleseg import atomic, checkpoint
from scaleseg.benchmark import photographs, rounds
from scaleseg.devices import choose_device, place
from scaleseg.engines import TorchEngine
from scaleseg.errors import UserError
from scaleseg.segmentation import segment
from scaleseg.server import Limits, Runner, Served, Settings, create_app, open_socket
from scaleseg.server.batching import predict_batch
from scaleseg.server.fusing import Said

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write `--json`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(given)
    try:
        device = choose_device(options.device)
        engine = TorchEngine(place(checkpoint.load(options.model), device), options.precision)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    image = photographs(options.size)[0]
    report: dict[str, Any] = {"command": shlex.join(["python", "benchmarks/micro_batches.py", *given]), **machine()}
    report |= {"model": options.model, "device": str(device), "precision": engine.precision, "size": options.size}
    report["rows"] = _direct(engine, image, options) + _served(engine, image, options)
    for row in report["rows"]:
        print(f"{row['what']:<8}{row['batch']:>4}{row['images_per_second']:>10.2f} images/s")
    if options.json:
        atomic.write(options.json, json.dumps(report, indent=2) + "\n")
    return 0


def _direct(engine: TorchEngine, image: Tensor, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Without a server: a loop, and batches."""
    most = max(options.batches)
    todo = [("loop", 1, partial(_loop, engine, image, most))]
    todo += [("batch", batch, partial(_batches, engine, image, batch, most // batch)) for batch in options.batches]
    for _, _, work in todo:
        work()
    laps = rounds([partial(timed, work) for _, _, work in todo], options.seconds * len(todo))
    counts = [most if what == "loop" else most // batch * batch for what, batch, _ in todo]
    return [
        _row(what, batch, count / median(found), found)
        for (what, batch, _), found, count in zip(todo, laps, counts, strict=True)
    ]


def _loop(engine: TorchEngine, image: Tensor, count: int) -> None:
    for _ in range(count):
        segment(engine.model, image, engine=engine)
    synchronize(engine.model.mean.device)


def _batches(engine: TorchEngine, image: Tensor, batch: int, count: int) -> None:
    for _ in range(count):
        for prediction in predict_batch(engine, [image] * batch):
            segment(engine.model, image, engine=Said(prediction))
    synchronize(engine.model.mean.device)


def _served(engine: TorchEngine, image: Tensor, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The server with each size of the batch."""
    content = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(content, "JPEG")
    rows = []
    for batch in options.batches:
        settings = Settings(Limits(queue=options.clients), batch=batch)
        runner, listening = (
            Runner(create_app([Served("model", engine.model, engine)], settings)),
            open_socket("127.0.0.1", 0),
        )
        thread = threading.Thread(target=runner.run, args=([listening],))
        thread.start()
        while not runner.started:
            sleep(0.01)
        try:
            rows.append(_row("server", batch, _asked(listening.getsockname()[1], content.getvalue(), options), []))
        finally:
            runner.end()
            thread.join()
    return rows


def _asked(port: int, content: bytes, options: argparse.Namespace) -> float:
    """Answers a second to clients that ask again as soon as they are answered."""
    begin = perf_counter()
    until = begin + options.seconds

    def ask(_: int) -> int:
        connection, done = http.client.HTTPConnection("127.0.0.1", port), 0
        while perf_counter() < until:
            connection.request("POST", "/v1/segment", content, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            response.read()
            done += response.status == 200
        connection.close()
        return done

    with ThreadPoolExecutor(options.clients) as pool:
        total = sum(pool.map(ask, range(options.clients)))
    return total / (perf_counter() - begin)


def _row(what: str, batch: int, speed: float, laps: Sequence[float]) -> dict[str, Any]:
    return {"what": what, "batch": batch, "images_per_second": speed, "laps": list(laps)}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="voc-animals-lite", help="a checkpoint folder, a bundled name, or a Hub id")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8], help="images together (default 1 4 8)")
    parser.add_argument("--size", type=int, default=321, help="rows and columns (default 321)")
    parser.add_argument("--clients", type=int, default=16, help="that ask the server at once (default 16)")
    parser.add_argument("--seconds", type=float, default=6.0, help="about how long to time each (default 6)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bf16")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    options = parser.parse_args(arguments)
    if options.size < 1 or min(options.batches) < 1 or options.clients < 1 or not options.seconds > 0:
        parser.error("give sizes, batches and clients of 1 or more, and more than 0 seconds")
    return options


if __name__ == "__main__":
    sys.exit(main())

"""A server on a free port of loopback, for tests: in a thread of this process, or the verb in a process of its own."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep

import httpx2
import numpy as np
from PIL import Image

from scaleseg.engines import TorchEngine
from scaleseg.model import ScaleAware
from scaleseg.server import Runner, Served, Server, Settings, address, create_app, open_socket

__all__ = ["encoded", "photo", "served", "serving", "started"]


def photo(rows: int = 40, columns: int = 57, seed: int = 0) -> np.ndarray:
    """A photograph with blobs, so that neighbouring pixels differ little and classes do not flicker."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 255, (6, 7, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((columns, rows), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """A picture's file."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def served(models: dict[str, ScaleAware], engine: type[TorchEngine] = TorchEngine) -> list[Served]:
    """Models in float32, so that what is compared is exact."""
    return [Served(name, model, engine(model, "float32")) for name, model in models.items()]


@contextmanager
def serving(
    models: dict[str, ScaleAware], settings: Settings | None = None, engine: type[TorchEngine] = TorchEngine
) -> Iterator[tuple[httpx2.Client, Server]]:
    """A client of a server in a thread, and the app behind it."""
    app = create_app(served(models, engine), settings)
    runner, listening = Runner(app), open_socket("127.0.0.1", 0)
    thread = threading.Thread(target=runner.run, args=([listening],))
    thread.start()
    try:
        while not runner.started:
            sleep(0.01)
        with httpx2.Client(base_url=address(listening), timeout=60) as client:
            yield client, app
    finally:
        runner.end()
        thread.join(30)
        assert not thread.is_alive()


@contextmanager
def started(
    checkpoint: Path, *options: str, program: str = "from scaleseg.cli import main; main()", **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str, Sequence[str]]]:
    """`scaleseg serve` as a process on a free port, its address, and the lines that it has said by then."""
    command = [sys.executable, "-c", program, "serve", str(checkpoint), "--port", "0", *options]
    known = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent), **environment}
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=known) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            while not lines or not lines[-1].startswith("open "):
                line = process.stdout.readline()
                assert line, process.stderr.read()
                lines.append(line.rstrip("\n"))
            yield process, lines[-1].removeprefix("open "), lines
        finally:
            process.kill()

"""`scaleseg serve` as a process: many clients at once, its memory, its start, and its end. SCALESEG_LOAD=long: 30 s."""

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest
import torch

from conftest import small_config, small_model
from scaleseg import checkpoint
from scaleseg.cli import main
from scaleseg.engines import TorchEngine
from scaleseg.model import Prediction
from scaleseg.server import Limits, Server, Settings, is_loopback
from serving import encoded, photo, serving, started

SECONDS = 30.0 if os.environ.get("SCALESEG_LOAD") == "long" else 5.0
CLIENTS = 200
PICTURES = [encoded(photo(60 + 8 * index, 90 - 5 * index, index), "JPEG") for index in range(6)]
OUTPUTS = ("mask", "json", "weights", "npz", "safetensors", "overlay")
MEMORY = 64e6
"""Bytes that the process may grow by between the first fifth of the load and its end."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny model."""
    path = tmp_path_factory.mktemp("served") / "tiny"
    checkpoint.save(path, small_model(), small_config())
    return path


def resident(url: str) -> float:
    """What the server says of its memory."""
    lines = httpx2.get(f"{url}metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith("process_resident_memory_bytes ")).split(" ")[1])


async def load(url: str, seconds: float) -> Counter[int]:
    """Answers by status, of clients that ask again as soon as they are answered."""
    end, seen = time.monotonic() + seconds, Counter[int]()
    limits = httpx2.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)

    async def ask(client: httpx2.AsyncClient, number: int) -> None:
        while time.monotonic() < end:
            query = {"output": OUTPUTS[number % 6]}
            response = await client.post("v1/segment", params=query, files={"image": PICTURES[number % 5]})
            seen[response.status_code] += 1
            if response.status_code == 503:
                assert int(response.headers["retry-after"]) >= 1
                await asyncio.sleep(0.05)
            number += 7

    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        await asyncio.gather(*(ask(client, number) for number in range(CLIENTS)))
    return seen


SLOW = """
import time
from scaleseg.engines import TorchEngine
call = TorchEngine.__call__
TorchEngine.__call__ = lambda self, image: (time.sleep(2.0 if image.shape[1] == 100 else 0.0), call(self, image))[1]
from scaleseg.cli import main
main()
"""
"""The verb with an engine to which one picture takes two seconds."""
LATE, QUICK = PICTURES[5], PICTURES[0]


@pytest.mark.slow
def test_two_hundred_clients_get_results_or_are_asked_to_come_again_and_memory_stays(saved: Path) -> None:
    with started(saved, "--queue", "16", "--precision", "float32", program=SLOW) as (process, url, lines):
        assert lines[0].startswith("model tiny: cpu")
        assert "torch, float32" in lines[0]
        assert url.startswith("http://127.0.0.1:")
        warm = asyncio.run(load(url, SECONDS / 5))
        before = resident(url)
        seen = asyncio.run(load(url, SECONDS))
        after = resident(url)
        print(
            f"{SECONDS:g} s, {CLIENTS} clients: {dict(warm + seen)}, {before / 1e6:.1f} MB, then {after / 1e6:.1f} MB"
        )
        assert set(warm + seen) == {200, 503}
        assert seen[200] > 10  # nothing is asked of this machine's speed
        assert after - before < MEMORY
        answered_to_the_end(process, url)


def answered_to_the_end(process: subprocess.Popen[str], url: str) -> None:
    """A SIGTERM while an image is at work: it is answered, others are asked to go elsewhere, and the process ends with 0."""
    found: list[httpx2.Response] = []
    ask = threading.Thread(target=lambda: found.append(post(url, LATE)))
    with httpx2.Client(base_url=url) as other:
        assert other.get("healthz").json() == {"status": "ok"}
        ask.start()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert other.get("healthz").status_code == 503
        refused = other.post("v1/segment", files={"image": QUICK})
        assert refused.status_code == 503
        assert "about to end" in refused.json()["error"]
        ask.join(30)
    assert found[0].status_code == 200
    assert process.wait(20) == 0
    assert process.stderr is not None
    assert process.stderr.read() == "scaleseg: ending once all are answered; once more ends at once\n"


@pytest.mark.slow
def test_a_second_signal_ends_at_once(saved: Path) -> None:
    with started(saved, "--host", "0.0.0.0", program=SLOW) as (process, url, _):
        with impatient(url, LATE):
            time.sleep(0.5)
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert time.monotonic() - start < 1.4
        assert process.stderr is not None
        assert "warning: --host is 0.0.0.0 and there is no token" in process.stderr.read()


def test_ctrl_c_is_130_as_with_other_verbs(call, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaleseg.server.serve", lambda *_, **__: signal.SIGINT)
    assert call(saved, "--port", "0")[0] == 130


class Dawdling(TorchEngine):
    """An engine to which one size of picture takes a second."""

    def __call__(self, image: torch.Tensor) -> Prediction:
        time.sleep(1.0 if image.shape[1] == 100 else 0.0)
        return super().__call__(image)


@contextmanager
def dawdling(**limits: object) -> Iterator[tuple[str, Server]]:
    model = small_model()
    with serving({"tiny": model}, Settings(Limits(**limits)), Dawdling) as (client, app):
        yield str(client.base_url), app


def test_an_image_that_takes_too_long_is_504_and_the_next_one_is_answered(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with dawdling(seconds=0.4) as (url, app):
        with monkeypatch.context() as patch:  # after the network nothing more is done with it
            patch.setattr("scaleseg.server.pipeline.segment", lambda *_, **__: pytest.fail("it was not dropped"))
            late = post(url, LATE)
            time.sleep(0.7)
        assert late.status_code == 504
        assert "took more than 0.4 s" in late.json()["error"]
        wait_until(lambda: app.places.empty)  # a place is left once the answer is sent, which a client may see before
        assert post(url, QUICK).status_code == 200
    assert capfd.readouterr().err == ""


def test_a_client_that_goes_away_frees_its_place() -> None:
    with dawdling(queue=9) as (url, app):
        away = [impatient(url, LATE) for _ in range(9)]
        wait_until(lambda: app.places.queued == 9 and app.pipeline.waiting > 0)
        assert post(url, QUICK).status_code == 503
        for connection in away:
            connection.close()
        wait_until(lambda: app.places.empty)
        assert app.pipeline.waiting == 0
        start = time.monotonic()
        assert post(url, QUICK).status_code == 200
        assert time.monotonic() - start < 1.9  # of nine images only the one at work is done to its end
        wait_until(lambda: app.places.bytes == app.places.answer_bytes == 0)


def test_an_answer_that_nobody_takes_is_given_up() -> None:
    with serving({"tiny": small_model()}, Settings(Limits(send_seconds=0.3))) as (client, app):
        large = encoded(photo(1500, 1500), "JPEG")
        stalled = impatient(str(client.base_url), large, "?output=npz")
        wait_until(lambda: app.places.answer_bytes > 1e6)
        wait_until(lambda: app.places.empty and app.places.answer_bytes == 0)
        stalled.close()


def test_a_connection_that_asks_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaleseg.server.wire.IDLE_SECONDS", 0.2)
    monkeypatch.setattr("scaleseg.server.wire.LOOK_SECONDS", 0.1)
    with serving({"tiny": small_model()}) as (client, _):
        where = (client.base_url.host, client.base_url.port)
        with socket.create_connection(where, timeout=10) as silent, socket.create_connection(where, timeout=10) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
            for connection in (silent, slow):
                with suppress(ConnectionResetError):
                    assert connection.recv(10) == b""


def test_a_connection_that_asks_again_and_again_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaleseg.server.wire.IDLE_SECONDS", 0.3)
    monkeypatch.setattr("scaleseg.server.wire.LOOK_SECONDS", 0.05)
    with serving({"tiny": small_model()}) as (client, _):
        connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=10)
        connection.connect()
        first = connection.sock
        for _ in range(8):
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            time.sleep(0.1)
        assert connection.sock is first
        connection.close()


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def post(url: str, content: bytes) -> httpx2.Response:
    return httpx2.post(f"{url}v1/segment", files={"image": content}, timeout=30)


def impatient(url: str, content: bytes, query: str = "") -> socket.socket:
    """A connection on which an image was sent, and no answer is read."""
    parts = httpx2.URL(url)
    connection = socket.create_connection((parts.host, parts.port))
    head = f"POST /v1/segment{query} HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """The verb in this process, for what ends before it serves: exit code and stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["scaleseg", "serve", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--token-file", "nothing.txt"), "cannot be read"),
        (("--max-bytes", "many"), "--max-bytes is 'many'"),
        (("--max-memory", "many"), "--max-memory is 'many'"),
        (("--host", "no.such.host.invalid"), "cannot be listened on"),
        (("--port", "0"), "no checkpoint folder"),
    ],
)
def test_what_cannot_be_used_is_told_before_a_model_is_loaded(call, options: tuple[str, ...], sentence: str) -> None:
    code, said = call("./no-such-model", *options)
    assert code == 1
    assert sentence in said


@pytest.mark.parametrize("content", ["", "  \n", "two words", "t\u00f6ken", "a\nb"])
def test_a_token_file_that_holds_none_is_told(call, tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content, encoding="utf-8")
    code, said = call("voc-animals-lite", "--token-file", tmp_path / "token")
    assert code == 1
    assert "--token-file" in said


def test_a_token_in_the_environment_must_be_one_too(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALESEG_TOKEN", " ")
    code, said = call("voc-animals-lite")
    assert code == 1
    assert "SCALESEG_TOKEN holds no token" in said


def test_a_port_that_is_taken_is_told(call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = call("voc-animals-lite", "--port", taken.getsockname()[1])
    assert code == 1
    assert "choose another --port" in said


def test_the_token_of_the_file_is_what_clients_must_give(saved: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "token").write_text("letmein\n")
    given: list[Settings] = []
    monkeypatch.setattr("scaleseg.server.serve", lambda models, settings, listening, say: given.append(settings))
    monkeypatch.setenv("SCALESEG_TOKEN", "other")
    arguments = [str(saved), "--port", "0", "--host", "127.0.0.1", "--allow-host", "Seg.example"]
    for more in ([], ["--token-file", str(tmp_path / "token"), "--max-bytes", "900MB", "--batch", "4"]):
        monkeypatch.setattr(sys, "argv", ["scaleseg", "serve", *arguments, *more])
        with suppress(SystemExit):
            main()
    assert [settings.token for settings in given] == ["other", "letmein"]
    assert given[0].hosts == {"127.0.0.1", "localhost", "::1", "seg.example"}
    assert given[1].limits.bytes == given[1].limits.bytes_in_flight == 900_000_000
    assert given[1].batch == 4


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("localhost", True), ("::1", True), ("0.0.0.0", False),
     ("127.evil.example", False), ("", False), ("::", False)],
)  # fmt: skip
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected

"""Damaged files of every kind (tests/mutants.py) give a result or one sentence: never another error, a warning, a hang or 2 GB.

A few hundred by default. SCALESEG_TORTURE=long runs 5,000; SCALESEG_TORTURE=1234 runs that seed alone, as a failure says.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import pytest

from mutants import SHARES, kind_of, mutant
from torture import PROBES, SECONDS, USES

ASKED = os.environ.get("SCALESEG_TORTURE", "short")
SEEDS = {"short": range(200), "long": range(5_000)}.get(ASKED) or range(int(ASKED), int(ASKED) + 1)
ASLEEP = 12 * SECONDS
"""Wall-clock seconds for one mutant, or for the imports before the first: the process counts the processor's time itself."""


def run(folder: Path, seeds: range, seconds: float = SECONDS, asleep: float = ASLEEP) -> list[dict[str, Any]]:
    """How each mutant ended; a process that one of them ends is started again after it."""
    ended: list[dict[str, Any]] = []
    while len(ended) < len(seeds):
        ended += _until_one_dies(folder, seeds[len(ended) :], seconds, asleep)
    return ended


def _until_one_dies(folder: Path, seeds: range, seconds: float, asleep: float) -> list[dict[str, Any]]:
    script = Path(__file__).with_name("torture.py")
    command = [sys.executable, *map(str, (script, folder, seeds.start, seeds.stop, seconds))]
    ended: list[dict[str, Any]] = []
    with (
        (folder / "start").open("w+") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        ) as process,
    ):
        try:
            for line in _lines(process, asleep):
                ended += [line] if "outcome" in line else []
            slept = False
        except Empty:
            slept = True
        finally:
            process.kill()
    if len(ended) < len(seeds):
        seed = seeds[len(ended)]
        said = "".join(path.read_text() for path in (folder / "start", folder / "stderr") if path.exists())
        assert (folder / f"seed-{seed}").exists(), f"{seed} was not begun, exit code {process.returncode}: {said}"
        reason = "it slept" if slept else _cause(process.returncode, seconds)
        stack = (folder / "stack").read_text() + (folder / "stderr").read_text()[-3_000:]
        ended.append({"seed": seed, "outcome": "failed", "detail": f"the process ended: {reason}\n{stack}"})
    return ended


def _lines(process: "subprocess.Popen[str]", asleep: float) -> Iterator[dict[str, Any]]:
    """Its lines as they come; queue.Empty if none comes for too long."""
    lines: Queue[str | None] = Queue()
    assert process.stdout
    stdout = process.stdout

    def listen() -> None:
        for line in stdout:
            lines.put(line)
        lines.put(None)

    listener = Thread(target=listen, daemon=True)
    listener.start()
    try:
        line = lines.get(timeout=asleep)
        while line is not None:
            yield json.loads(line)
            line = lines.get(timeout=asleep)
    finally:
        process.kill()
        listener.join()


def _cause(code: int, seconds: float) -> str:
    if code == -signal.SIGPROF:
        return f"more than {seconds:g} seconds"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """How every mutant ended."""
    return run(tmp_path_factory.mktemp("torture"), SEEDS)


@pytest.mark.timeout(3_600)
def test_every_damaged_file_gives_a_result_or_one_sentence(
    outcomes: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    failed = [
        f"seed {ended['seed']} ({kind_of(ended['seed'])}): {ended['detail']}\n"
        f"    again: SCALESEG_TORTURE={ended['seed']} python -m pytest tests/test_torture.py; "
        f"its files: {tmp_path_factory.getbasetemp()}/torture*/seed-{ended['seed']}"
        for ended in outcomes
        if ended["outcome"] == "failed"
    ]
    assert not failed, f"{len(failed)} of {len(outcomes)}\n" + "\n".join(failed)


@pytest.mark.skipif(len(SEEDS) == 1, reason="one seed was asked for")
def test_the_damage_is_neither_always_harmless_nor_always_fatal(outcomes: list[dict[str, Any]]) -> None:
    counts = Counter(ended["outcome"] for ended in outcomes)
    assert len(outcomes) == len(SEEDS)
    assert min(counts["result"], counts["refused"]) > len(SEEDS) / 5


def test_a_seed_always_gives_the_same_damage() -> None:
    seeds = [next(seed for seed in range(100) if kind_of(seed) == kind) for kind in SHARES]
    assert [mutant(seed) for seed in seeds] == [mutant(seed) for seed in seeds]


def test_every_kind_of_damage_is_used_and_has_its_share() -> None:
    assert SHARES.keys() == USES.keys() - {"probe"}
    assert Counter(kind_of(seed) for seed in range(750, 850)) == SHARES


def test_what_goes_wrong_is_seen(tmp_path: Path) -> None:
    expected = {
        "fine": "", "sentence": "no", "lines": "no single line", "bug": "ZeroDivisionError", "warning": "UserWarning: careful",
        "stderr": "a cry", "memory": "2 GB", "spin": "more than 0.5 seconds", "sleep": "it slept", "crash": "SIGABRT",
    }  # fmt: skip
    ended = dict(zip(PROBES, run(tmp_path, range(-len(PROBES), 0), seconds=0.5, asleep=2), strict=True))
    if sys.platform != "linux":  # where RLIMIT_AS does not bind
        del expected["memory"]
    assert [name for name in expected if ended[name]["outcome"] != "failed"] == ["fine", "sentence"]
    assert [name for name, word in expected.items() if word not in ended[name]["detail"]] == []

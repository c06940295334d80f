"""Runs of one and two processes, killed at random moments again and again, end in the bits of a run left alone.

A few kills by default, 200 with SCALESEG_TORTURE=long; a failure names the seed, SCALESEG_TORTURE=seed runs it alone.
"""

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import small_config
from launch import Job, World, run
from scaleseg import checkpoint
from scaleseg.config import merge, to_dict
from test_training import same_bits

ASKED = os.environ.get("SCALESEG_TORTURE", "short")
KILLS = {"short": 3, "long": 100}.get(ASKED, 1)
FIRST = int(ASKED) if ASKED.isdecimal() else 0


def settings(folder: Path) -> dict[str, Any]:
    """A run that saves at every step, measures at every third, and reads by a process of its own."""
    config = small_config(options={"width": 4, "num_features": 8, "dropout": 0.3})
    data = {"train": str(folder), "classes": list(config.data.classes), "dev": 0.4, "crop": 33, "workers": 1}
    training = {"steps": 12, "batch": 2, "save_every": 1, "validate_every": 3, "log_every": 1, "lr": 0.01, "keep": 2}
    return to_dict(merge(to_dict(config), {"data": data, "train": training}))


def is_cut_short(job: Job, count: int, victim: int, seconds: float, patience: float) -> bool:
    """Start, or go on; whether a SIGKILL after `seconds` came before the end.

    One that waits for a process which died before they met is killed after `patience` seconds, as torchrun would.
    """
    with World(job, count) as world:
        time.sleep(seconds)
        world.kill(victim)
        ended = world.wait(patience)
    assert all(process.code in (0, 1, -signal.SIGKILL) for process in ended)
    met = "device cpu" in ended[0].output
    assert not (met and any(process.hung for process in ended)), "a process waits for one that is dead"
    return any(process.code for process in ended)


def assert_all_is_whole(folder: Path) -> None:
    """What a kill left: every checkpoint loads, and the pointers lead to one."""
    for saved in folder.glob("checkpoints/step-*"):
        checkpoint.load(saved)
        checkpoint.load_training_state(saved)
    for name in ("last", "best"):
        assert not (folder / name).is_symlink() or (folder / name / "model.safetensors").is_file()


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("count", [1, 2])
def test_killed_at_random_moments_a_run_ends_in_the_same_bits(folder: Path, tmp_path: Path, count: int) -> None:
    job = Job(settings(folder), tmp_path / "killed", resume=True)
    run(Job(settings(folder), tmp_path / "warm"), count)  # the first start takes longer than the others
    begin = time.monotonic()
    whole = run(Job(settings(folder), tmp_path / "whole"), count)
    usual = time.monotonic() - begin
    assert [ended.code for ended in whole] == [0] * count
    kills, seed = 0, FIRST
    while kills < KILLS:
        chance = random.Random(seed)
        while is_cut_short(job, count, chance.randrange(count), chance.uniform(0.2, usual), 5 * usual + 10):
            kills += 1
            assert_all_is_whole(job.folder)
        assert same_bits(tmp_path / "whole" / "last", job.folder / "last"), (
            f"SCALESEG_TORTURE={seed}, {count} processes"
        )
        assert (tmp_path / "whole" / "best").resolve().name == (job.folder / "best").resolve().name
        shutil.rmtree(job.folder)
        seed += 1

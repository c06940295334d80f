"""Training on many processes: the losses of one, exact resume, lost processes, mistakes said once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
import torch.distributed as dist

from conftest import small_config, write_folder
from launch import Job, World, run
from scaleseg.config import merge, to_dict
from scaleseg.errors import UserError
from scaleseg.training.loading import Stream
from scaleseg.training.meeting import fresh_room
from scaleseg.training.processes import Processes, joined
from test_training import same_bits

LITE0 = {"segmenter": "lite0", "options": {"dropout": 0.0}, "pretrained": "imagenet", "attention_dropout": 0.0}
EXACT = {"options": {"width": 4, "num_features": 8, "dropout": 0.0}, "attention_dropout": 0.0}


def settings(folder: Path, model: dict[str, Any] | None = None, **training: Any) -> dict[str, Any]:
    """A short run of the tiny model, with dropout unless `model` says otherwise."""
    config = small_config(**{"options": {"width": 4, "num_features": 8, "dropout": 0.3}, **(model or {})})
    data = {"train": str(folder), "classes": list(config.data.classes), "dev": 0.4, "crop": 33, "workers": 0}
    base = {"steps": 8, "batch": 4, "save_every": 3, "validate_every": 4, "log_every": 1, "lr": 0.01}
    return to_dict(merge(to_dict(config), {"data": data, "train": {**base, **training}}))


def lines(run_folder: Path, key: str) -> list[Any]:
    """The values under `key` in metrics.jsonl, in order."""
    records = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return [record[key] for record in records if key in record]


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six photographs, once for all."""
    return write_folder(tmp_path_factory.mktemp("photographs"))


@pytest.mark.parametrize(
    ("model", "training"),
    [
        (EXACT, {}),
        (EXACT, {"accumulate": 2, "class_weights": "auto"}),
        (LITE0, {"steps": 3, "lr": 0.0001}),
    ],
    ids=["small", "accumulated", "frozen BatchNorm"],
)
def test_two_processes_have_the_losses_of_one(
    shared_folder: Path, tmp_path: Path, model: dict[str, Any], training: dict[str, Any]
) -> None:
    config = settings(shared_folder, model, **training)
    for count in (1, 2):
        assert [ended.code for ended in run(Job(config, tmp_path / str(count)), count)] == [0] * count
    one, two = (lines(tmp_path / str(count), "loss") for count in (1, 2))
    assert one == pytest.approx(two, abs=1e-5)
    assert len(one) == config["train"]["steps"]


def test_two_processes_measure_the_development_split_as_one(shared_folder: Path, tmp_path: Path) -> None:
    config = settings(shared_folder, EXACT)
    for count in (1, 2):
        run(Job(config, tmp_path / str(count)), count)
    one, two = (lines(tmp_path / str(count), "dev") for count in (1, 2))
    assert [dev["pixels"] for dev in one] == [dev["pixels"] for dev in two]
    assert [dev["mIoU"] for dev in one] == pytest.approx([dev["mIoU"] for dev in two], abs=1e-3)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_that_lost_a_process_resumes_to_the_same_bits(
    shared_folder: Path, tmp_path: Path, count: int, rank: int
) -> None:
    config = settings(shared_folder, batch=6)
    run(Job(config, tmp_path / "whole"), count)
    ended = run(Job(config, tmp_path / "cut", trouble=("killed", rank, 6)), count)
    assert ended[rank].code == -signal.SIGKILL
    assert [other.code for index, other in enumerate(ended) if index != rank] == [1] * (count - 1)
    assert (tmp_path / "cut" / "last").resolve().name == "step-4"
    assert [other.code for other in run(Job(config, tmp_path / "cut", resume=True), count)] == [0] * count
    assert same_bits(tmp_path / "whole" / "last", tmp_path / "cut" / "last")


def test_a_lost_process_is_said_in_one_line(shared_folder: Path, tmp_path: Path) -> None:
    first, _ = run(Job(settings(shared_folder), tmp_path / "run", trouble=("killed", 1, 2)), 2)
    assert first.output.splitlines()[-1] == (
        "scaleseg: process 1 of 2: another process of this run was lost; the same command with --resume goes on from "
        "the last checkpoint (torchrun --max-restarts does so by itself)"
    )
    assert "Traceback" not in first.output


RESTARTED = """
import os, sys
sys.path.insert(0, sys.argv.pop(1))
from launch import plant
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1":
    plant("killed", 6)
from scaleseg.cli import main
main()
"""


def test_torchrun_restarts_a_run_that_lost_a_process_from_its_last_checkpoint(
    shared_folder: Path, tmp_path: Path
) -> None:
    config = settings(shared_folder)
    run(Job(config, tmp_path / "whole"), 2)
    (tmp_path / "recipe.yaml").write_text(json.dumps(config))
    (tmp_path / "script.py").write_text(RESTARTED)
    script = str(tmp_path / "script.py")
    with torchrun(tmp_path / "recipe.yaml", tmp_path / "run", "--max-restarts", "1", script=script) as started:
        said = started.communicate(timeout=200)[0]
    assert started.returncode == 0, said
    assert "going on from step 4" in said
    assert same_bits(tmp_path / "whole" / "last", tmp_path / "run" / "last")


def test_a_restart_never_goes_on_with_a_run_that_another_torchrun_began(shared_folder: Path, tmp_path: Path) -> None:
    config = settings(shared_folder, steps=3)
    run(Job(config, tmp_path / "run"), 2)
    (tmp_path / "recipe.yaml").write_text(json.dumps(settings(shared_folder, steps=5)))
    with torchrun(tmp_path / "recipe.yaml", tmp_path / "run", "--max-restarts", "1") as started:
        said = started.communicate(timeout=200)[0]
    assert said.count("holds a run already") == 2
    assert (tmp_path / "run" / "last").resolve().name == "step-3"


def test_those_who_are_started_again_meet_in_a_room_without_the_dead() -> None:
    store = dist.HashStore()
    for rank in (0, 1):
        store.set(f"here/{rank}", "dead")
    store.set("room/dead", "old")
    rooms: dict[int, dist.Store] = {}

    def enter(rank: int) -> None:
        rooms[rank] = fresh_room(store, rank, 2, timedelta(seconds=20))

    others = [Thread(target=enter, args=(rank,)) for rank in (1, 0)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    rooms[0].set("word", "heard")
    assert rooms[1].get("word") == b"heard"


def test_who_waits_in_vain_says_so() -> None:
    with pytest.raises(TimeoutError, match="1 of 2 processes did not come"):
        fresh_room(dist.HashStore(), 0, 2, timedelta(seconds=0.2))


def test_a_mistake_of_all_is_said_once(tmp_path: Path) -> None:
    ended = run(Job(settings(tmp_path / "nowhere"), tmp_path / "run"), 2)
    assert [other.code for other in ended] == [1, 1]
    assert "nowhere does not exist" in ended[0].output
    assert ended[1].output == ""


def test_a_mistake_of_one_ends_all_and_says_whose_it_is(shared_folder: Path, tmp_path: Path) -> None:
    other = settings(tmp_path / "nowhere")
    ended = run(Job(settings(shared_folder), tmp_path / "run", others=(other,)), 2)
    assert [process.code for process in ended] == [1, 1]
    assert "scaleseg: process 2 of 2: " in ended[0].output
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_other_photographs_on_another_machine_are_refused(shared_folder: Path, tmp_path: Path) -> None:
    moved = write_folder(tmp_path / "moved")
    for part in ("images", "masks"):
        (moved / part / "p0.png").rename(moved / part / "p9.png")
    ended = run(Job(settings(shared_folder), tmp_path / "run", others=(settings(moved),)), 2)
    assert "scaleseg: the processes have different training photographs" in ended[0].output


def test_a_resume_from_a_folder_that_only_one_machine_sees_is_refused(shared_folder: Path, tmp_path: Path) -> None:
    config = settings(shared_folder, steps=3)
    run(Job(config, tmp_path / "run"), 2)
    ended = run(Job(config, tmp_path / "run", resume=True, elsewhere=tmp_path / "other"), 2)
    assert [process.code for process in ended] == [1, 1]
    assert "different checkpoints; --out must be a folder that every machine sees" in ended[0].output


def test_a_photograph_that_only_one_process_cannot_read_ends_all(tmp_path: Path) -> None:
    broken = write_folder(tmp_path / "broken")
    (broken / "images" / "p3.png").write_bytes(b"broken")
    config = settings(broken)
    config["data"]["dev"] = 0
    ended = run(Job(config, tmp_path / "run"), 2)
    assert [process.code for process in ended] == [1, 1]
    assert "p3.png is no image that can be read" in ended[0].output
    assert ended[1].output == ""


def test_a_loss_that_is_not_finite_is_said_once(shared_folder: Path, tmp_path: Path) -> None:
    ended = run(Job(settings(shared_folder, lr=1e30), tmp_path / "run"), 2)
    assert [process.code for process in ended] == [1, 1]
    assert "the loss is" in ended[0].output
    assert ended[1].output == ""


def test_settings_that_differ_between_machines_are_refused(shared_folder: Path, tmp_path: Path) -> None:
    ended = run(Job(settings(shared_folder), tmp_path / "run", others=(settings(shared_folder, lr=0.02),)), 2)
    assert "scaleseg: the processes have different settings; give every machine the same command" in ended[0].output


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (("memory", 1, 3), "process 2 of 2: out of memory on cpu"),
        (("disk", 0, 1), "model.safetensors: No space left on device"),
    ],
)
def test_what_only_one_process_runs_out_of_ends_all_and_is_said_once(
    shared_folder: Path, tmp_path: Path, trouble: tuple[str, int, int], sentence: str
) -> None:
    ended = run(Job(settings(shared_folder), tmp_path / "run", trouble=trouble), 2)
    assert [process.code for process in ended] == [1, 1]
    assert ended[0].output.splitlines()[-1].startswith(f"scaleseg: {sentence}")
    assert ended[1].output == ""


def in_training(world: World) -> None:
    """Wait until it is under way."""
    deadline = time.monotonic() + 200
    while not world.logs[0].exists() or "step 3/" not in world.logs[0].read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


ENDLESS = {"steps": 100000, "save_every": 100000, "validate_every": 100000}


@pytest.mark.parametrize("ranks", [(0, 1), (1,)])
def test_a_signal_to_any_process_saves_and_ends_all(
    shared_folder: Path, tmp_path: Path, ranks: tuple[int, ...]
) -> None:
    with World(Job(settings(shared_folder, **ENDLESS), tmp_path / "run"), 2) as world:
        in_training(world)
        for rank in ranks:
            world.kill(rank, signal.SIGTERM)
        ended = world.wait()
    assert [process.code for process in ended] == [130, 130]
    assert "and saved; the same command with --resume goes on" in ended[0].output
    assert (tmp_path / "run" / "last" / "training_state.pt").is_file()


def test_a_signal_to_torchrun_saves_although_its_data_workers_get_it_too(shared_folder: Path, tmp_path: Path) -> None:
    config = settings(shared_folder, **ENDLESS)
    config["data"]["workers"] = 1
    (tmp_path / "recipe.yaml").write_text(json.dumps(config))
    with torchrun(tmp_path / "recipe.yaml", tmp_path / "run") as started:
        assert started.stdout is not None
        lines = iter(started.stdout.readline, "")
        assert any("step 3/" in line for line in lines)
        started.send_signal(signal.SIGTERM)
        said = list(lines)
    assert sum("and saved; the same command with --resume goes on" in line for line in said) == 1
    assert (tmp_path / "run" / "last" / "training_state.pt").is_file()


@contextmanager
def torchrun(recipe: Path, out: Path, *options: str, script: str = "") -> Iterator["subprocess.Popen[str]"]:
    """torchrun itself, with two processes."""
    run_by = [script, str(Path(__file__).parent)] if script else ["-m", "scaleseg"]
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options, *run_by),
        *("train", str(recipe), "--out", str(out), "--device", "cpu"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as started:
        try:
            yield started
        except BaseException:
            started.kill()
            raise


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="children are looked up in /proc")
def test_no_data_worker_outlives_a_killed_trainer(shared_folder: Path, tmp_path: Path) -> None:
    config = settings(shared_folder, **ENDLESS)
    config["data"]["workers"] = 1
    with World(Job(config, tmp_path / "run")) as world:
        in_training(world)
        pid = world.processes[0].pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        world.kill(0)
        world.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert workers


def test_a_batch_that_cannot_be_shared_is_refused(shared_folder: Path, tmp_path: Path) -> None:
    ended = run(Job(settings(shared_folder, batch=3), tmp_path / "run"), 2)
    assert "train.batch is 3; 2 processes with train.accumulate=1 need a multiple of 2" in ended[0].output


def test_a_resume_on_another_number_of_processes_says_that_bits_differ(shared_folder: Path, tmp_path: Path) -> None:
    run(Job(settings(shared_folder, steps=3), tmp_path / "run"), 2)
    (ended,) = run(Job(settings(shared_folder), tmp_path / "run", resume=True))
    assert ended.code == 0
    assert "processes: 2 before, 1 now; the same samples, but not the same bits" in ended.output


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shares_of_all_processes_are_the_stream_of_one(count: int) -> None:
    whole = list(Stream(size=7, seed=3, batch=6, start=2, stop=5))
    parts = [list(Stream(7, 3, 6, 2, 5, Processes(torch.device("cpu"), rank, count).share(6))) for rank in range(count)]
    each = 6 // count
    joint = [sample for step in range(3) for part in parts for sample in part[step * each : (step + 1) * each]]
    assert joint == whole


@pytest.mark.parametrize(
    ("environment", "device", "message"),
    [
        ({"WORLD_SIZE": "2"}, "cpu", "WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"),
        (
            {"WORLD_SIZE": "2", "RANK": "x", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "cpu",
            "torchrun",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "cuda:1",
            "torchrun gives each process its own",
        ),
    ],
)
def test_a_start_that_cannot_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], device: str, message: str
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message), joined(device):
        pass


def test_alone_nothing_is_asked_of_others() -> None:
    with joined("cpu") as processes:
        assert (processes.rank, processes.count, processes.first) == (0, 1, True)
        assert processes.sum(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]

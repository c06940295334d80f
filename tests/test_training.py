"""The trainer: exact resume after kills and crashes, interruptions, refusals, schedules, accumulation."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import small_config
from scaleseg import checkpoint
from scaleseg.config import Config, TrainConfig, merge, to_dict
from scaleseg.errors import UserError
from scaleseg.segmenters.small import Small
from scaleseg.training import train
from scaleseg.training.loading import Stream
from scaleseg.training.optimizer import rate
from scaleseg.training.run_folder import RunFolder

BASE = {
    "steps": 12, "batch": 2, "save_every": 3, "validate_every": 4, "log_every": 2, "lr": 0.01, "keep": 2,
}  # fmt: skip


def settings(folder: Path, model: dict[str, object] | None = None, **training: object) -> Config:
    """A short run of the tiny model on the six photographs."""
    config = small_config(**{"options": {"width": 4, "num_features": 8, "dropout": 0.3}, **(model or {})})
    data = {"train": str(folder), "classes": list(config.data.classes), "dev": 0.2, "crop": 33, "workers": 0}
    return merge(to_dict(config), {"data": data, "train": {**BASE, **training}})


def quiet(line: str) -> None:
    """For runs whose words do not matter."""


def same_bits(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same parameters and the same optimiser state."""
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    states = [checkpoint.load_training_state(folder)["optimizer"]["state"] for folder in (one, other)]
    momenta = [[entry["momentum_buffer"] for _, entry in sorted(state.items())] for state in states]
    return (
        first.keys() == second.keys()
        and all(torch.equal(first[name], second[name]) for name in first)
        and len(momenta[0]) == len(momenta[1]) > 0
        and all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    )


class Crash(Exception):
    """What a test throws into a run."""


def crash_when(fragment: str) -> Callable[[str], None]:
    """A listener that ends the run when it hears something."""

    def say(line: str) -> None:
        if fragment in line:
            raise Crash

    return say


@pytest.mark.parametrize("moment", ["step 2/", "step 4  dev", "step 8/", "step 10/"])
def test_a_crashed_run_resumes_to_the_same_bits(folder: Path, tmp_path: Path, moment: str) -> None:
    whole = train(settings(folder), tmp_path / "whole", say=quiet)
    with pytest.raises(Crash):
        train(settings(folder), tmp_path / "cut", say=crash_when(moment))
    assert same_bits(whole, train(settings(folder), tmp_path / "cut", resume=True, say=quiet))


KILLER = """
import os, signal, sys
count, fatal, real = 0, int(sys.argv[1]), os.fsync
def fsync(descriptor):
    global count
    count += 1
    if count == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
sys.argv = ["scaleseg", *sys.argv[2:]]
from scaleseg.cli import main
main()
"""


def test_a_run_killed_in_the_middle_of_its_saves_resumes_to_the_same_bits(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, save_every=1, validate_every=5, steps=8)
    whole = train(config, tmp_path / "whole", say=quiet)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(to_dict(config)))
    command = ["train", str(recipe), "--out", str(tmp_path / "killed"), "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    deaths = 0
    for sync in (5, 12, 16, 23):  # in a checkpoint's files, in its folder, in its pointers
        ended = subprocess.run(
            [sys.executable, "-c", KILLER, str(sync), *command], capture_output=True, env=environment, check=False
        )
        deaths += ended.returncode == -signal.SIGKILL
        for folder_name in (tmp_path / "killed").glob("checkpoints/step-*"):
            checkpoint.load(folder_name)
    assert deaths >= 3
    assert same_bits(whole, train(config, tmp_path / "killed", resume=True, say=quiet))
    assert (tmp_path / "killed" / "best").resolve().name == (tmp_path / "whole" / "best").resolve().name


def test_a_kill_between_a_checkpoint_and_its_pointers_is_mended(folder: Path, tmp_path: Path) -> None:
    train(settings(folder, steps=4), tmp_path / "run", say=quiet)
    best = (tmp_path / "run" / "best").resolve()
    for name in ("last", "best"):
        (tmp_path / "run" / name).unlink()
    train(settings(folder, steps=4), tmp_path / "run", resume=True, say=quiet)
    assert (tmp_path / "run" / "best").resolve() == best
    assert (tmp_path / "run" / "last").resolve().name == "step-4"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photograph_that_breaks_during_training_is_named_in_one_sentence(
    folder: Path, tmp_path: Path, workers: int
) -> None:
    config = settings(folder)
    for part in (folder / "images").iterdir():
        part.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"^\S+p\d\.png is no image that can be read[^\n]*$"):
        train(replace(config, data=replace(config.data, workers=workers)), tmp_path / "run", say=quiet)


def test_a_mistake_before_the_first_step_does_not_take_the_folder(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, steps=1)
    with pytest.raises(UserError, match="does not exist"):
        train(replace(config, data=replace(config.data, train="nowhere")), tmp_path / "run", say=quiet)
    train(config, tmp_path / "run", say=quiet)


def test_ctrl_c_saves_and_says_how_to_go_on(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(to_dict(settings(folder, steps=100000, log_every=1, save_every=1000))))
    command = [sys.executable, "-m", "scaleseg", "train", str(recipe), "--out", str(tmp_path / "run")]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            lines.append(line)
            if line.startswith("step 2/"):
                run.send_signal(signal.SIGINT)
    assert run.returncode == 130
    assert "--resume" in lines[-1]
    step = checkpoint.load_training_state(tmp_path / "run" / "last")["step"]
    assert f"stopped at step {step} " in lines[-1]


def test_the_number_of_workers_changes_no_bit(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, steps=4)
    alone = train(config, tmp_path / "0", say=quiet)
    two = train(replace(config, data=replace(config.data, workers=2)), tmp_path / "2", say=quiet)
    assert same_bits(alone, two)


def test_a_batch_in_parts_gives_the_losses_of_the_whole(folder: Path, tmp_path: Path) -> None:
    model = {"options": {"width": 4, "num_features": 8}, "attention_dropout": 0.0}
    for parts in (1, 2):
        train(
            settings(folder, model, batch=4, accumulate=parts, steps=4, log_every=1), tmp_path / str(parts), say=quiet
        )
    one, two = ([line["loss"] for line in metrics(tmp_path / name) if "loss" in line] for name in ("1", "2"))
    assert one == pytest.approx(two, abs=1e-5)


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_training_lowers_the_loss(folder: Path, tmp_path: Path) -> None:
    train(settings(folder, steps=60, optimizer="adamw", log_every=1, lr=0.003), tmp_path / "run", say=quiet)
    losses = [line["loss_fused"] for line in metrics(tmp_path / "run") if "loss" in line]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_metrics_hold_each_step_once_after_a_crash(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Crash):
        train(settings(folder), tmp_path / "run", say=crash_when("step 8/"))
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')  # a kill in the middle of a line
    train(settings(folder), tmp_path / "run", resume=True, say=quiet)
    assert [line["step"] for line in metrics(tmp_path / "run") if "loss" in line] == [2, 4, 6, 8, 10, 12]


def test_a_second_run_in_one_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run"), pytest.raises(UserError, match="another run is writing"):
        train(settings(folder), tmp_path / "run", say=quiet)


def test_a_folder_with_a_run_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    train(settings(folder, steps=1), tmp_path / "run", say=quiet)
    with pytest.raises(UserError, match="holds a run already"):
        train(settings(folder, steps=1), tmp_path / "run", say=quiet)


def test_resuming_with_another_setting_is_refused_with_the_difference(folder: Path, tmp_path: Path) -> None:
    train(settings(folder, steps=1), tmp_path / "run", say=quiet)
    with pytest.raises(UserError, match=r"train\.lr: 0\.01 then, 0\.02 now"):
        train(settings(folder, steps=2, lr=0.02), tmp_path / "run", resume=True, say=quiet)


def test_resuming_may_change_length_paths_workers_and_logging(folder: Path, tmp_path: Path) -> None:
    train(settings(folder, steps=2), tmp_path / "run", say=quiet)
    moved = tmp_path / "moved"
    folder.rename(moved)
    config = settings(moved, steps=4, log_every=1, save_every=1)
    longer = train(replace(config, data=replace(config.data, workers=1)), tmp_path / "run", resume=True, say=quiet)
    assert longer.name == "step-4"


def test_resuming_on_other_photographs_is_refused(folder: Path, tmp_path: Path) -> None:
    train(settings(folder, steps=1), tmp_path / "run", say=quiet)
    for part in ("images", "masks"):
        (folder / part / "p0.png").rename(folder / part / "p9.png")
    with pytest.raises(UserError, match="other photographs"):
        train(settings(folder, steps=2), tmp_path / "run", resume=True, say=quiet)


def test_a_run_beyond_its_length_is_refused(folder: Path, tmp_path: Path) -> None:
    train(settings(folder, steps=3), tmp_path / "run", say=quiet)
    with pytest.raises(UserError, match="at step 3 already"):
        train(settings(folder, steps=2), tmp_path / "run", resume=True, say=quiet)


def test_resuming_what_never_began_begins(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    train(settings(folder, steps=1), tmp_path / "run", resume=True, say=said.append)
    assert any("starting from the beginning" in line for line in said)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_photographs(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step \d+; .*p\d"):
        train(settings(folder, lr=1e30), tmp_path / "run", say=quiet)


def test_best_is_the_best_on_the_development_split(folder: Path, tmp_path: Path) -> None:
    train(settings(folder, validate_every=2), tmp_path / "run", say=quiet)
    measured = {line["step"]: line["dev"]["mIoU"] for line in metrics(tmp_path / "run") if "dev" in line}
    best = checkpoint.load_training_state(tmp_path / "run" / "best")["step"]
    assert measured[best] == max(measured.values())
    assert (tmp_path / "run" / "last").resolve().name == "step-12"


def test_without_a_development_split_best_is_last(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, steps=2)
    train(replace(config, data=replace(config.data, dev=0)), tmp_path / "run", say=quiet)
    assert (tmp_path / "run" / "best").resolve() == (tmp_path / "run" / "last").resolve()


def test_only_the_newest_checkpoints_and_the_best_are_kept(folder: Path, tmp_path: Path) -> None:
    train(settings(folder, save_every=1, validate_every=50), tmp_path / "run", say=quiet)
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert {"step-11", "step-12"} <= names
    assert len(names) <= 3


def test_the_config_of_a_run_repeats_it(folder: Path, tmp_path: Path) -> None:
    from scaleseg.recipes import load_recipe

    first = train(settings(folder, steps=3), tmp_path / "run", say=quiet)
    again = train(load_recipe(str(tmp_path / "run" / "config.yaml")), tmp_path / "again", say=quiet)
    assert same_bits(first, again)


def test_starting_from_a_checkpoint_with_other_classes_names_the_fresh_head(folder: Path, tmp_path: Path) -> None:
    before = train(settings(folder, steps=1), tmp_path / "run", say=quiet)
    config = settings(folder, steps=1, init_from=str(before))
    renamed = replace(config, data=replace(config.data, classes=("ground", "ring", "bar")))
    said: list[str] = []
    train(renamed, tmp_path / "next", say=said.append)
    line = next(line for line in said if line.startswith("starting from"))
    assert line.endswith("fresh: segmenter.head.weight, segmenter.head.bias")


def parameters_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_frozen_layers_keep_every_bit_and_the_others_learn(folder: Path, tmp_path: Path) -> None:
    first = train(settings(folder, steps=1), tmp_path / "run", say=quiet)
    after = train(settings(folder, steps=3, init_from=str(first), freeze=["trunk"]), tmp_path / "next", say=quiet)
    before, now = parameters_of(first), parameters_of(after)
    kept = {name for name in before if torch.equal(before[name], now[name])}
    assert {name for name in before if name.startswith("segmenter.trunk.")} <= kept
    assert not {name for name in before if name.startswith(("segmenter.head.", "fusion."))} & kept


def test_a_frozen_fusion_keeps_every_bit(folder: Path, tmp_path: Path) -> None:
    first = train(settings(folder, steps=2), tmp_path / "run", say=quiet)
    after = train(settings(folder, steps=2, init_from=str(first), freeze=["fusion"]), tmp_path / "next", say=quiet)
    before, now = parameters_of(first), parameters_of(after)
    same = {name for name in before if torch.equal(before[name], now[name])} - {"mean", "std", "order"}
    assert same == {name for name in before if name.startswith("fusion.")}


def test_a_second_stage_resumes_to_the_same_bits(folder: Path, tmp_path: Path) -> None:
    first = train(settings(folder, steps=1), tmp_path / "run", say=quiet)
    stage = settings(folder, init_from=str(first), freeze=["trunk"])
    whole = train(stage, tmp_path / "whole", say=quiet)
    with pytest.raises(Crash):
        train(stage, tmp_path / "crashed", say=crash_when("step 8/"))
    assert same_bits(whole, train(stage, tmp_path / "crashed", resume=True, say=quiet))


def test_computing_a_scale_again_in_the_backward_pass_changes_no_bit(folder: Path, tmp_path: Path) -> None:
    plain = train(settings(folder, steps=3), tmp_path / "plain", say=quiet)
    again = train(settings(folder, steps=3, checkpointing=True), tmp_path / "again", say=quiet)
    assert same_bits(plain, again)


def test_a_scale_is_really_computed_twice(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    before = Small.forward
    monkeypatch.setattr(Small, "forward", lambda self, images: calls.append(1) or before(self, images))
    train(settings(folder, steps=1, checkpointing=True, validate_every=9), tmp_path / "run", say=quiet)
    trained = len(calls)
    calls.clear()
    train(settings(folder, steps=1, validate_every=9), tmp_path / "plain", say=quiet)
    assert trained == len(calls) + 2  # two scales, one step


def test_checkpointing_is_refused_where_batch_norm_learns(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, {"segmenter": "lite0", "options": {}}, checkpointing=True)
    with pytest.raises(UserError, match="BatchNorm learns here and would count every batch twice"):
        train(config, tmp_path / "run", say=quiet)


@pytest.mark.parametrize("layer", ["trnk", "", "segmenter.trunk", "trunk.9"])
def test_a_layer_that_cannot_be_frozen_is_named_beside_those_that_can(folder: Path, tmp_path: Path, layer: str) -> None:
    with pytest.raises(
        UserError, match=rf"names '{layer}'; this segmenter's layers are trunk, head; and there are segmenter, which"
    ):
        train(settings(folder, freeze=[layer]), tmp_path / "run", say=quiet)


def test_freezing_everything_is_refused(folder: Path, tmp_path: Path) -> None:
    first = train(settings(folder, steps=1), tmp_path / "run", say=quiet)
    everything = settings(folder, init_from=str(first), freeze=["trunk", "head", "fusion"])
    with pytest.raises(UserError, match="nothing is left to train"):
        train(everything, tmp_path / "next", say=quiet)


@pytest.mark.parametrize("layer", ["head", "fusion", "trunk", "trunk.0"])
def test_a_layer_that_starts_at_random_cannot_be_frozen(folder: Path, tmp_path: Path, layer: str) -> None:
    with pytest.raises(UserError, match=rf"train.freeze names {layer}, but .* starts at random and would never learn"):
        train(settings(folder, freeze=[layer]), tmp_path / "run", say=quiet)


def test_automatic_class_weights_are_said_and_kept_for_a_resume(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    train(settings(folder, steps=2, class_weights="auto"), tmp_path / "run", say=said.append)
    assert any(line.startswith("class weights: ground") for line in said)
    kept = checkpoint.load_training_state(tmp_path / "run" / "last")["class_weights"]
    assert kept.shape == (3,)
    assert float(kept.min()) > 0


@pytest.mark.parametrize("wish", [[1.0, 2.0], "much"])
def test_class_weights_that_do_not_fit_are_refused(folder: Path, tmp_path: Path, wish: object) -> None:
    with pytest.raises(UserError, match="one a class"):
        train(settings(folder, class_weights=wish), tmp_path / "run", say=quiet)


def test_an_epoch_of_the_stream_is_a_permutation() -> None:
    samples = list(Stream(size=7, seed=3, batch=2, start=0, stop=7))
    assert sorted(index for epoch, index in samples if epoch == 0) == list(range(7))
    assert [index for epoch, index in samples[:7]] != [index for epoch, index in samples[7:]]


@pytest.mark.parametrize("start", range(8))
def test_the_stream_can_be_entered_at_any_step(start: int) -> None:
    whole = list(Stream(size=5, seed=3, batch=2, start=0, stop=8))
    assert list(Stream(size=5, seed=3, batch=2, start=start, stop=8)) == whole[2 * start :]


def test_poly_keeps_the_horizon_of_the_first_start(folder: Path, tmp_path: Path) -> None:
    train(settings(folder, steps=4, schedule="poly", log_every=1), tmp_path / "run", say=quiet)
    train(settings(folder, steps=6, schedule="poly", log_every=1), tmp_path / "run", resume=True, say=quiet)
    rates = [line["lr"] for line in metrics(tmp_path / "run") if "loss" in line]
    assert rates[4:] == [0.0, 0.0]


def test_schedules_start_at_one_and_warm_up() -> None:
    assert [rate(TrainConfig(schedule=name), 0) for name in ("step", "poly", "constant")] == [1.0, 1.0, 1.0]
    assert [rate(TrainConfig(warmup_steps=3), step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_a_folder_that_cannot_be_written_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        train(settings(folder), tmp_path / "file" / "run", say=quiet)


def test_what_ended_before_its_first_checkpoint_can_be_started_anew(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the loss is"):
        train(settings(folder, lr=1e30, save_every=100, log_every=1), tmp_path / "run", say=quiet)
    train(settings(folder, steps=2, log_every=1), tmp_path / "run", say=quiet)
    assert [line["step"] for line in metrics(tmp_path / "run") if "loss" in line] == [1, 2]

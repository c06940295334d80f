"""The verb `refine-search`: which settings are tried, that the best is the best, that it goes on, and what it writes."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import Ended, small_config, small_model, write_folder
from scaleseg import atomic, checkpoint
from scaleseg.config import RefineConfig, merge, to_dict
from scaleseg.datasets import Subset, open_training
from scaleseg.errors import UserError
from scaleseg.evaluation import count
from scaleseg.interruption import Interrupted
from scaleseg.refine import DenseCRF, DomainTransform, create_refine
from scaleseg.refine_search import Found, Order, cache, scores, search, workers
from scaleseg.refine_search.folder import alone
from scaleseg.refine_search.grid import SEARCHED, around, of_kind
from scaleseg.refine_search.measure import Task
from scaleseg.refine_search.photographs import choose_photographs
from scaleseg.refine_search.table import Row, Table

DEV = 0.34
"""Of the six photographs two are held back."""
HELD = 2


class Place(NamedTuple):
    """Photographs, a checkpoint that knows where its own lie, and a folder for the search."""

    photographs: Path
    model: Path
    out: Path

    def order(self, refine: str = "domain", **others: object) -> Order:
        return Order(str(self.model), refine, self.out, **others)  # type: ignore[arg-type]

    @property
    def table(self) -> dict:
        return json.loads((self.out / "table.json").read_text())

    @property
    def config(self) -> dict:
        return json.loads((self.model / "config.json").read_text())


def furnish(root: Path) -> Place:
    photographs = write_folder(root / "photographs")
    config = small_config()
    data = replace(config.data, train=str(photographs), val=str(root / "not there"), dev=DEV)
    checkpoint.save(root / "model", small_model(), replace(config, data=data))
    return Place(photographs, root / "model", root / "search")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Where nothing was searched yet."""
    return furnish(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Found]:
    """A whole search, and its end; tests only look at it."""
    there = furnish(tmp_path_factory.mktemp("finished"))
    shutil.copytree(there.model, there.model.with_name("before"))
    return there, search(there.order(), say=quiet)


@pytest.fixture
def again(finished: tuple[Place, Found], tmp_path: Path) -> Place:
    """A copy of the finished search, the checkpoint as before: its photographs lie where they lay."""
    there, _ = finished
    shutil.copytree(there.out, tmp_path / "search")
    shutil.copytree(there.model.with_name("before"), tmp_path / "model")
    return Place(there.photographs, tmp_path / "model", tmp_path / "search")


def quiet(line: str) -> None:
    """Nobody listens."""


def sigmas(row: Row) -> tuple[float, float]:
    assert row.settings
    return row.settings.sigma_s, row.settings.sigma_r


def rows_of(table: dict) -> list[dict]:
    """All but what differs between two ways of giving the same order."""
    return table["settings"]


# ---- which settings


def test_the_first_round_is_half_one_and_twice_of_each_the_settings_themselves_first() -> None:
    centre = of_kind(RefineConfig(), "crf")
    grid = [(one.bi_w, one.bi_xy_std, one.bi_rgb_std) for one in around(centre, "crf", 1)]
    assert grid[0] == (4, 121, 5)
    assert len(grid) == 27
    assert set(grid) == set(product((2, 4, 8), (60.5, 121, 242), (2.5, 5, 10)))


@pytest.mark.parametrize("kind", SEARCHED)
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_each_round_halves_the_step_in_log_space(kind: str, number: int) -> None:
    centre = of_kind(RefineConfig(), kind)
    step = 2.0 ** (1 - number)
    for name in SEARCHED[kind]:
        found = sorted(
            {float(np.log2(getattr(one, name) / getattr(centre, name))) for one in around(centre, kind, number)}
        )
        assert found == pytest.approx([-step, 0, step], abs=0.01)


@pytest.mark.parametrize("kind", SEARCHED)
def test_no_round_touches_what_is_fixed(kind: str) -> None:
    given = replace(RefineConfig(), pos_w=1.5, crf_iterations=4, iterations=2, min_weight=0.1)
    centre = of_kind(given, kind)
    for one in around(centre, kind, 1):
        back = {name: getattr(centre, name) for name in SEARCHED[kind]}
        assert replace(one, **back) == centre


def test_values_stay_within_sense() -> None:
    centre = of_kind(replace(RefineConfig(), sigma_s=1500.0, sigma_r=0.006), "domain")
    assert {one.sigma_s for one in around(centre, "domain", 1)} == {750, 1500, 2000}
    assert {one.sigma_r for one in around(centre, "domain", 1)} == {0.005, 0.006, 0.012}


def test_rounds_go_on_around_the_best_so_far_and_try_nothing_twice(finished: tuple[Place, Found]) -> None:
    _, found = finished
    tried = [row for row in found.table.rows if row.settings]
    assert len({sigmas(row) for row in tried}) == len(tried)
    for number in (2, 3):
        before = [row for row in tried if row.round < number]
        best = max(before, key=lambda row: row.mIoU).settings
        assert best
        grid = {(one.sigma_s, one.sigma_r) for one in around(best, "domain", number)}
        new = {sigmas(row) for row in tried if row.round == number}
        assert new == grid - {sigmas(row) for row in before}


def test_of_equals_the_one_tried_first_is_the_best() -> None:
    first, second = RefineConfig(sigma_s=10.0), RefineConfig(sigma_s=20.0)
    rows = [Row(None, 0, 0.9, None), Row(first, 1, 0.5, None), Row(second, 1, 0.5, 0.7)]
    assert Table("domain", rows, {}).best.settings == first


def test_a_value_of_zero_is_no_place_to_begin_at(place: Place) -> None:
    with pytest.raises(UserError, match=r"refine\.bi_w is 0.*refine\.bi_w=4"):
        search(place.order("crf", overrides=("refine.bi_w=0",)), say=quiet)


# ---- which photographs


@pytest.mark.parametrize(("images", "chosen"), [(1, [1]), (2, [0, 2]), (3, [0, 1, 2]), (100, [0, 1, 2])])
def test_photographs_are_evenly_spaced_over_the_development_split(place: Place, images: int, chosen: list[int]) -> None:
    config = merge(to_dict(checkpoint.read_config(place.model)), {"data": {"dev": 0.5}})
    dev = open_training(config.data).dev
    assert dev
    assert choose_photographs(config, (), images).dataset.names == [dev.names[index] for index in chosen]


def test_the_reported_photographs_have_no_say_unless_the_user_says_so(place: Place) -> None:
    config = merge(to_dict(checkpoint.read_config(place.model)), {"data": {"val": str(place.photographs)}})
    given = f"data.val={place.photographs}"
    own = choose_photographs(config, (), 100)
    assert len(own.dataset) == HELD
    assert "independent" not in own.note
    theirs = choose_photographs(config, (given,), 100)
    assert len(theirs.dataset) == 6
    assert "figures on these photographs are no longer independent" in theirs.note
    assert len(choose_photographs(config, (given, f"data.train={place.photographs}"), 100).dataset) == HELD


# ---- figures


@pytest.mark.parametrize("which", ["best", "none"])
def test_the_tables_figures_are_those_of_evaluation(finished: tuple[Place, Found], which: str) -> None:
    there, found = finished
    row = found.table.best if which == "best" else found.table.none
    dev = open_training(checkpoint.read_config(there.model).data).dev
    assert dev
    sharpen = create_refine("domain", row.settings) if row.settings else None
    metrics = count(checkpoint.load(there.model), dev, refine=sharpen).metrics()
    assert (row.mIoU, row.trimap_mIoU) == (metrics.mIoU, metrics.trimap_mIoU)


def test_no_row_is_above_the_best(finished: tuple[Place, Found]) -> None:
    there, found = finished
    figures = [row["mIoU"] for row in there.table["settings"] if row["settings"] != "none"]
    assert len(set(figures)) > 5  # else any would do
    assert there.table["best"]["mIoU"] == found.table.best.mIoU == max(figures)


def test_table_md_is_the_same_in_percent_the_best_first(finished: tuple[Place, Found]) -> None:
    there, found = finished
    lines = (there.out / "table.md").read_text().splitlines()
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:]]
    assert len(shown) == len(found.table.rows)
    assert [cells[2] for cells in shown] == [f"{100 * row.mIoU:.2f}" for row in found.table.ranked]
    assert ["none", "none", f"{100 * found.table.none.mIoU:.2f}"] in [cells[:3] for cells in shown]


def test_the_crf_is_searched_too(place: Place) -> None:
    found = search(place.order("crf", rounds=1, images=1, overrides=("refine.crf_iterations=2",)), say=quiet)
    tried = [row for row in found.table.rows if row.round == 1]
    assert len(tried) == 27
    assert (found.before.round, found.before.settings) == (0, of_kind(RefineConfig(), "crf"))  # with its own ten
    best = max(tried, key=lambda row: row.mIoU)
    assert best.settings
    sharpen = create_refine("crf", best.settings)
    assert isinstance(sharpen, DenseCRF)
    assert sharpen.iterations == 2
    dev = open_training(checkpoint.read_config(place.model).data).dev
    assert dev
    assert best.mIoU == count(checkpoint.load(place.model), Subset(dev, [1]), refine=sharpen).metrics().mIoU


def test_learned_edges_are_searched_with_the_models_own_edges(place: Place) -> None:
    config = checkpoint.read_config(place.model)
    config = replace(config, model=replace(config.model, edge_net=True))
    torch.manual_seed(0)
    model = checkpoint.build(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    checkpoint.save(place.model, model, config)
    found = search(place.order("domain-learned", rounds=1), say=quiet)
    assert found.table.best.settings
    sharpen = create_refine("domain-learned", found.table.best.settings)
    assert isinstance(sharpen, DomainTransform)
    dev = open_training(config.data).dev
    assert dev
    assert found.table.best.mIoU == count(checkpoint.load(place.model), dev, refine=sharpen).metrics().mIoU


# ---- going on


def forbid(name: str) -> Callable[..., object]:
    def call(*_: object, **__: object) -> object:
        raise AssertionError(f"{name} ran")

    return call


def test_a_second_start_computes_nothing_and_comes_to_the_same(again: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    before = again.table
    monkeypatch.setattr(scores, "predict", forbid("the network"))
    monkeypatch.setattr(workers, "measure", forbid("a refinement"))
    search(again.order(), say=quiet)
    assert rows_of(again.table) == rows_of(before)
    search(again.order(), say=quiet)  # now with the best settings in config.json
    assert rows_of(again.table) == rows_of(before)


def test_after_a_kill_only_what_is_missing_is_done(again: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    before = again.table
    results = again.out / "cache" / "results.jsonl"
    lines = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(b"".join(lines[:30]) + lines[30][:20])
    (again.out / "table.json").unlink()
    monkeypatch.setattr(scores, "predict", forbid("the network"))
    measured = []
    monkeypatch.setattr(workers, "measure", lambda *task: measured.append(task) or _measure(*task))
    search(again.order(), say=quiet)
    assert rows_of(again.table) == rows_of(before)
    assert len(measured) == len(lines) - 30


_measure = workers.measure


def test_an_interruption_stops_and_the_same_order_comes_to_the_same(
    place: Place, finished: tuple[Place, Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def interrupted(*task: object) -> object:
        calls.append(1)
        if len(calls) == 11:
            os.kill(os.getpid(), signal.SIGINT)
        return _measure(*task)  # type: ignore[arg-type]

    monkeypatch.setattr(workers, "measure", interrupted)
    with pytest.raises(Interrupted, match="the same command goes on"):
        search(place.order(rounds=1), say=quiet)
    assert len(calls) == 11
    search(place.order(rounds=1), say=quiet)
    assert rows_of(place.table) == [row for row in rows_of(finished[0].table) if row["round"] < 2]
    assert len(calls) == HELD * len(place.table["settings"])


def test_two_processes_come_to_what_one_does(again: Place) -> None:
    before, lines = again.table, (again.out / "cache" / "results.jsonl").read_text().splitlines()
    (again.out / "cache" / "results.jsonl").unlink()
    search(again.order(jobs=2), say=quiet)
    assert rows_of(again.table) == rows_of(before)
    assert sorted((again.out / "cache" / "results.jsonl").read_text().splitlines()) == sorted(lines)


def test_a_child_ends_when_nobody_is_left_to_tell_it(tmp_path: Path) -> None:
    with subprocess.Popen([*workers.PROGRAM, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.communicate(timeout=60) == (b"", None)
    assert child.returncode == 0


# ---- processes that fail: a stand-in for children, which takes no time

STAND_IN = """
import json, os, pathlib, signal, sys, time
home = pathlib.Path(__file__).parent
(home / f"pid-{os.getpid()}").touch()
for line in sys.stdin:
    task = json.loads(line)
    for what in (home / "plan").read_text().split():
        if what == "hang":
            time.sleep(60)
        if what == "die" or (what == "die-once" and not (home / "died").exists()):
            (home / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "complain":
            print(json.dumps({"problem": "out of luck"}), flush=True)
    print(json.dumps({"fused": [[task["image"], 5]], "trimap": []}), flush=True)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Children that count nothing, and do as they are told."""

    def plan(what: str) -> Path:
        home = tmp_path / "stand-in"
        home.mkdir()
        (home / "child.py").write_text(STAND_IN)
        (home / "plan").write_text(what)
        monkeypatch.setattr(workers, "PROGRAM", (sys.executable, str(home / "child.py")))
        return home

    return plan


def alive(home: Path) -> list[int]:
    """The children that have not ended."""
    left = []
    for path in home.glob("pid-*"):
        with suppress(ProcessLookupError):
            os.kill(int(path.name.removeprefix("pid-")), 0)
            left.append(int(path.name.removeprefix("pid-")))
    return left


def test_a_killed_child_is_reported_in_one_line_and_its_work_done_again(
    place: Place, stand_in: Callable[[str], Path]
) -> None:
    home = stand_in("die-once")
    said: list[str] = []
    found = search(place.order(jobs=2, rounds=1), say=said.append)
    lines = [line for line in said if "SIGKILL" in line]
    assert len(lines) == 1
    assert "does again" in lines[0]
    results = [json.loads(line) for line in (place.out / "cache" / "results.jsonl").read_text().splitlines()]
    times = Counter((result["refine"], result["image"]) for result in results)
    assert set(times.values()) == {1}
    assert len(times) == HELD * len(found.table.rows)
    assert alive(home) == []


def test_work_that_kills_every_child_is_an_error_and_the_rest_stays(
    place: Place, stand_in: Callable[[str], Path]
) -> None:
    home = stand_in("die")
    with pytest.raises(UserError, match=r"signal SIGKILL, twice at image .*fewer --jobs"):
        search(place.order(jobs=2), say=quiet)
    assert len(list((place.out / "cache").glob("*.safetensors"))) == HELD
    assert alive(home) == []


def test_what_a_child_complains_of_is_the_error(place: Place, stand_in: Callable[[str], Path]) -> None:
    home = stand_in("complain")
    with pytest.raises(UserError, match=r"^out of luck$"):
        search(place.order(jobs=2), say=quiet)
    assert alive(home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_children_at_once(
    place: Place, stand_in: Callable[[str], Path], number: int, refine_search: Callable[..., Ended]
) -> None:
    home = stand_in("hang")

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while len(list(home.glob("pid-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    other = Thread(target=interrupt)
    other.start()
    began = time.monotonic()
    ended = refine_search(place.model, "--refine", "domain", "--out", place.out, "--jobs", 2)
    other.join()
    assert ended.code == 130
    assert "the same command goes on" in ended.err
    assert time.monotonic() - began < 50
    assert alive(home) == []


# ---- what is written


def test_config_json_changes_in_refine_alone_and_parameters_do_not(finished: tuple[Place, Found]) -> None:
    there, found = finished
    before = json.loads((there.model.with_name("before") / "config.json").read_text())
    assert found.better  # else nothing is shown here
    best = there.table["best"]["settings"]
    assert there.config == {**before, "refine": {**before["refine"], **best}}
    assert checkpoint.load(there.model).refine == replace(RefineConfig(), **best)
    for name in ("model.safetensors",):
        assert (there.model / name).read_bytes() == (there.model.with_name("before") / name).read_bytes()


def test_two_refinements_share_the_scores_and_both_get_their_settings(
    again: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    search(again.order(), say=quiet)
    domain = again.config["refine"]
    monkeypatch.setattr(scores, "predict", forbid("the network"))
    found = search(again.order("crf", rounds=1, overrides=("refine.crf_iterations=1",)), say=quiet)
    assert found.better
    both = again.config["refine"]
    assert both["sigma_s"] == domain["sigma_s"] != RefineConfig().sigma_s
    best = found.table.best.settings
    assert best
    assert (both["bi_w"], both["crf_iterations"]) == (best.bi_w, 1)


def test_settings_that_are_as_good_stay(again: Place) -> None:
    search(again.order(), say=quiet)
    before = (again.model / "config.json").stat()
    found = search(again.order(), say=quiet)
    assert not found.better
    assert (again.model / "config.json").stat().st_ino == before.st_ino


def test_better_settings_than_all_that_are_tried_stay(again: Place, finished: tuple[Place, Found]) -> None:
    best = finished[1].table.best.settings
    assert best
    document = {**again.config, "refine": asdict(best)}
    (again.model / "config.json").write_text(json.dumps(document))
    found = search(again.order(rounds=1), say=quiet)
    assert again.config == document
    assert not found.better
    assert found.before.mIoU == finished[1].table.best.mIoU
    assert found.before.round == 0


def test_a_runs_pointer_stays_and_the_folder_behind_it_changes(again: Place) -> None:
    run = again.model.with_name("run")
    (run / "checkpoints").mkdir(parents=True)
    again.model.rename(run / "checkpoints" / "step-2")
    (run / "best").symlink_to("checkpoints/step-2")
    found = search(replace(again.order(), checkpoint=str(run / "best")), say=quiet)
    assert (run / "best").is_symlink()
    written = json.loads((run / "checkpoints" / "step-2" / "config.json").read_text())["refine"]
    assert found.table.best.settings == of_kind(RefineConfig(**written), "domain")


def test_a_pointer_that_moves_on_meanwhile_does_not_get_the_settings_of_another_checkpoint(again: Place) -> None:
    run = again.model.with_name("run")
    (run / "checkpoints").mkdir(parents=True)
    shutil.copytree(again.model, run / "checkpoints" / "step-4")
    again.model.rename(run / "checkpoints" / "step-2")
    (run / "best").symlink_to("checkpoints/step-2")
    found = search(
        replace(again.order(), checkpoint=str(run / "best")),
        say=lambda line: atomic.point(run / "best", "checkpoints/step-4"),
    )
    assert found.better
    assert checkpoint.read_config(run / "checkpoints" / "step-4").refine == RefineConfig()
    assert checkpoint.read_config(run / "checkpoints" / "step-2").refine != RefineConfig()


def test_a_bundled_model_is_copied(again: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = again.model.with_name("bundled")
    shutil.copytree(again.model, bundled / "tiny")
    monkeypatch.setattr(checkpoint, "BUNDLED", bundled)
    found = search(replace(again.order(), checkpoint="tiny"), say=quiet)
    assert (bundled / "tiny" / "config.json").read_bytes() == (again.model / "config.json").read_bytes()
    copy = again.out / "checkpoint"
    assert (copy / "model.safetensors").read_bytes() == (again.model / "model.safetensors").read_bytes()
    assert found.table.best.settings == of_kind(checkpoint.load(copy).refine, "domain")
    assert not search(replace(again.order(), checkpoint="tiny"), say=quiet).better  # than those of the copy


def test_somebody_elses_folder_is_not_overwritten_by_a_copy(again: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = again.model.with_name("bundled")
    shutil.copytree(again.model, bundled / "tiny")
    monkeypatch.setattr(checkpoint, "BUNDLED", bundled)
    (again.out / "checkpoint").mkdir()
    (again.out / "checkpoint" / "diary.txt").write_text("mine")
    with pytest.raises(UserError, match="is taken; choose another --out"):
        search(replace(again.order(), checkpoint="tiny"), say=quiet)
    assert (again.out / "checkpoint" / "diary.txt").read_text() == "mine"


# ---- the cache


def test_scores_are_kept_without_loss(place: Place, tmp_path: Path) -> None:
    dev = open_training(checkpoint.read_config(place.model).data).dev
    assert dev
    image, labels = dev[0]
    prediction = scores.predict(checkpoint.load(place.model), image)
    cache.write(tmp_path / "one", image, labels, prediction)
    stored = cache.read(tmp_path / "one")
    assert torch.equal(stored.image, image)
    assert torch.equal(stored.labels.long(), labels)
    assert torch.equal(stored.prediction.at(), prediction.at())


@pytest.mark.parametrize("place_in_file", [3, 500, -5])
def test_a_damaged_file_is_said_and_made_anew(
    again: Place, finished: tuple[Place, Found], place_in_file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = again.out / "cache" / "00001.safetensors"
    content = bytearray(path.read_bytes())
    content[place_in_file] ^= 16
    path.write_bytes(content)
    names: list[int] = []
    monkeypatch.setattr(scores, "predict", lambda *given, **others: names.append(1) or _predict(*given, **others))
    said: list[str] = []
    search(again.order(), say=said.append)
    assert len(names) == 1
    assert len([line for line in said if "00001.safetensors" in line]) == 1
    before, after = (cache.read(out / "cache" / "00001.safetensors") for out in (finished[0].out, again.out))
    assert torch.equal(before.prediction.scores, after.prediction.scores)
    assert torch.equal(before.image, after.image)


_predict = scores.predict


def test_a_file_that_goes_missing_on_the_way_is_said(again: Place) -> None:
    task = Task(7, "none", RefineConfig())
    with pytest.raises(UserError, match=r"00007\.safetensors cannot be read.*the same command makes it anew"):
        _measure(task, again.out / "cache")


# ---- what cannot be used


@pytest.fixture
def refine_search(call: Callable[..., Ended]) -> Callable[..., Ended]:
    """Run `scaleseg refine-search` with arguments in this process."""
    return partial(call, "refine-search")


def test_the_verb_says_what_it_does_what_is_best_and_how_to_measure_it(
    again: Place, refine_search: Callable[..., Ended]
) -> None:
    ended = refine_search(again.model, "--refine", "domain", "--out", again.out, "--jobs", 1)
    assert ended.code == 0, ended.err
    assert "at most 1 (none) + 9 + 8 + 8 settings x 2 images = 52 refinements" in ended.out
    best = again.table["best"]
    assert f"mIoU {100 * best['mIoU']:.2f} % with sigma_s={best['settings']['sigma_s']:g}" in ended.out
    assert f"scaleseg evaluate {again.model} --refine domain" in ended.out
    assert again.table["command"].startswith("scaleseg refine-search ")


WRONG = {
    "no learned edges": (["--refine", "domain-learned"], "learned no edges"),
    "no search for none": (["--refine", "none"], "--refine is 'none'; choose crf, domain or domain-learned"),
    "no development split": (["--refine", "domain", "data.dev=0"], "no development split"),
    "classes of other data": (["--refine", "domain", "data.classes=[a,b]"], "they must be the same"),
    "another network": (["--refine", "domain", "model.fusion=max"], "leave model.* out"),
    "settings out of range": (["--refine", "domain", "refine.sigma_s=-3"], "sigma_s of the domain transform is -3"),
    "an unknown setting": (["--refine", "domain", "refine.sigma=3"], "refine.sigma"),
    "no such photographs": (["--refine", "domain", "data.train=nowhere"], "nowhere"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_used_is_said_in_one_line_and_nothing_is_made(
    place: Place, refine_search: Callable[..., Ended], what: str
) -> None:
    words, said = WRONG[what]
    ended = refine_search(place.model, *words, "--out", place.out)
    assert ended.code == 1
    assert said in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not place.out.exists()


@pytest.mark.parametrize("words", [("--images", 0), ("--rounds", 0), ("--jobs", 0)])
def test_less_than_one_is_wrong_usage(
    place: Place, refine_search: Callable[..., Ended], words: tuple[str, int]
) -> None:
    assert refine_search(place.model, "--refine", "domain", "--out", place.out, *words).code == 2


def test_void_photographs_cannot_be_measured(place: Place, refine_search: Callable[..., Ended]) -> None:
    for mask in (place.photographs / "masks").iterdir():
        with Image.open(mask) as image:
            void = np.full_like(np.array(image), 255)
        Image.fromarray(void).save(mask)
    assert "no labelled pixel" in refine_search(place.model, "--refine", "domain", "--out", place.out).err


def test_a_folder_that_cannot_be_written_is_said(place: Place, refine_search: Callable[..., Ended]) -> None:
    place.out.write_text("a file")
    ended = refine_search(place.model, "--refine", "domain", "--out", place.out)
    assert (ended.code, len(ended.err.strip().splitlines())) == (1, 1)
    assert "cannot be written" in ended.err


def test_two_searches_do_not_share_a_folder(place: Place, refine_search: Callable[..., Ended]) -> None:
    with alone(place.out):
        assert "another search" in refine_search(place.model, "--refine", "domain", "--out", place.out).err


def test_a_full_disk_is_said_and_the_same_command_goes_on(
    place: Place, refine_search: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def full(path: Path, content: bytes | str) -> None:
        written.append(path)
        if len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        _write(path, content)

    monkeypatch.setattr(atomic, "write", full)
    ended = refine_search(place.model, "--refine", "domain", "--out", place.out, "--jobs", 1, "--rounds", 1)
    assert ended.code == 1
    assert "No space left on device; free some space, then give the same command again" in ended.err
    assert refine_search(place.model, "--refine", "domain", "--out", place.out, "--jobs", 1, "--rounds", 1).code == 0


_write = atomic.write


def test_another_checkpoint_in_the_same_folder_is_an_error(again: Place, refine_search: Callable[..., Ended]) -> None:
    checkpoint.save(again.model, small_model(seed=1), checkpoint.read_config(again.model))
    before = (again.out / "table.json").read_bytes()
    ended = refine_search(again.model, "--refine", "domain", "--out", again.out)
    assert ended.code == 1
    assert "another checkpoint; choose another --out, or delete" in ended.err
    assert (again.out / "table.json").read_bytes() == before


def test_other_photographs_in_the_same_folder_are_an_error(again: Place, refine_search: Callable[..., Ended]) -> None:
    ended = refine_search(again.model, "--refine", "domain", "--out", again.out, "--images", 1)
    assert ended.code == 1
    assert "other photographs (2, the first" in ended.err


def test_a_mask_that_was_changed_is_another_photograph(
    again: Place, tmp_path: Path, refine_search: Callable[..., Ended]
) -> None:
    changed = shutil.copytree(again.photographs, tmp_path / "changed")
    for mask in (changed / "masks").iterdir():
        with Image.open(mask) as image:
            ids = np.array(image)
        ids[0, 0] = 2
        Image.fromarray(ids).save(mask)
    ended = refine_search(again.model, f"data.train={changed}", "--refine", "domain", "--out", again.out)
    assert ended.code == 1
    assert "is not what it was when the search" in ended.err


def test_the_table_of_something_else_is_not_overwritten(place: Place, refine_search: Callable[..., Ended]) -> None:
    place.out.mkdir()
    (place.out / "table.json").write_text('{"table": "voc"}')
    assert "table of something else" in refine_search(place.model, "--refine", "domain", "--out", place.out).err
    assert (place.out / "table.json").read_text() == '{"table": "voc"}'


def test_a_damaged_search_json_is_said(again: Place, refine_search: Callable[..., Ended]) -> None:
    (again.out / "cache" / "search.json").write_text("{")
    assert "to begin anew" in refine_search(again.model, "--refine", "domain", "--out", again.out).err

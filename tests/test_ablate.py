"""The verb `ablate`: which cells there are, what it takes for done, how it ends, and how tables look."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from threading import Thread
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from conftest import small_config, small_model
from scaleseg import atomic, checkpoint
from scaleseg.ablate import Plan, jobs, machine, paper, results
from scaleseg.ablate.cells import TABLES, grid, select
from scaleseg.ablate.chart import chart
from scaleseg.ablate.markdown import markdown
from scaleseg.ablate.results import Result, Row, identity
from scaleseg.ablate.sheet import Sheet, document, fill
from scaleseg.cli import main
from scaleseg.config import to_dict
from scaleseg.errors import UserError
from scaleseg.recipes import load_recipe
from scaleseg.training.run_folder import RunFolder

TINY = ("train.steps=2", "train.batch=2", "data.train=10", "data.val=2", "data.crop=33", "data.workers=0")
GRID = [f"{fusion}-{column}" for fusion in ("max", "average", "attention") for column in ("2", "2-es", "3", "3-es")]

STAND_IN = """
import json, os, pathlib, signal, sys, time
verb, *words = sys.argv[1:]
home = pathlib.Path(__file__).parent
def gone(number, frame):
    if not (home / "deaf").exists():
        sys.exit(130)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, gone)
if verb == "train":
    run = pathlib.Path(words[words.index("--out") + 1])
    (run / "checkpoints").mkdir(exist_ok=True)
    with (home / "calls").open("a") as file:
        file.write(json.dumps([run.parent.name, *words]) + chr(10))
    print("a word of", run.parent.name, "on", os.environ["OMP_NUM_THREADS"])
    if run.parent.name in (home / "fails").read_text().split():
        sys.exit("out of luck")
    while run.parent.name in (home / "hangs").read_text().split():
        time.sleep(0.02)
    speed = {"step": 2, "images_per_s": 4.0}
    (run / "metrics.jsonl").write_text(json.dumps(speed) + chr(10))
else:
    figures = {"mIoU": 0.5, "IoU": {"background": 0.6, "person": 0.4}, "images": 2, "device": "cpu", "precision": "float32"}
    pathlib.Path(words[words.index("--json") + 1]).write_text(json.dumps(figures))
"""
"""A child that trains nothing: it notes what it was called with, and fails or hangs where it is told to."""


class StandIn(NamedTuple):
    """The folder of a stand-in for children."""

    home: Path

    def fail(self, *names: str) -> None:
        (self.home / "fails").write_text(" ".join(names))

    def hang(self, *names: str) -> None:
        (self.home / "hangs").write_text(" ".join(names))

    @property
    def calls(self) -> list[list[str]]:
        """The name of each cell that was trained, and the words behind `train`."""
        path = self.home / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def trained(self) -> list[str]:
        return [call[0] for call in self.calls]

    def wait(self, name: str) -> None:
        """Until a cell is being trained."""
        deadline = time.monotonic() + 60
        while name not in self.trained:
            assert time.monotonic() < deadline, f"{name} was never trained"
            time.sleep(0.02)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Children that take no time."""
    home = tmp_path / "stand-in"
    home.mkdir()
    (home / "child.py").write_text(STAND_IN)
    monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, str(home / "child.py")))
    monkeypatch.setattr(jobs, "POLL", 0.02)
    made = StandIn(home)
    made.fail()
    made.hang()
    return made


class Ended(NamedTuple):
    """Exit code, stdout and stderr of a call."""

    code: int
    out: str
    err: str


Call = Callable[..., Ended]


@pytest.fixture
def ablate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Run `scaleseg ablate shapes` on tiny data into `tmp_path/t`, with more arguments."""

    def run(*arguments: object, table: str = "shapes", settings: tuple[str, ...] = TINY) -> Ended:
        words = ["scaleseg", "ablate", table, *settings, "--out", tmp_path / "t", "--device", "cpu", *arguments]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return Ended(code, *capsys.readouterr())

    return run


def only(*names: str) -> list[str]:
    return [word for name in names for word in ("--only", name)]


@cache
def plan(name: str = "voc", out: Path = Path("t"), **order: object) -> Plan:
    return Plan(name, out, **order)  # type: ignore[arg-type]


# ---- the paper's figures


def test_the_papers_best_cells_gain_what_the_paper_says() -> None:
    tables = [paper.find("person-part", "imagenet"), paper.find("voc", "imagenet"), paper.find("voc", "coco")]
    tables += [paper.find("coco", "imagenet"), paper.PERSON]
    assert [table and table.gains()["attention-3-es"] for table in tables] == [4.48, 6.80, 3.84, 4.56, 3.96]


def test_attention_with_extra_supervision_is_the_papers_best_cell_everywhere() -> None:
    for start in (("person-part", "imagenet"), ("voc", "imagenet"), ("voc", "coco"), ("coco", "imagenet")):
        table = paper.find(*start)
        assert table
        assert max(table.figures, key=lambda name: table.figures[name]) == "attention-3-es"


def test_the_papers_parts_have_its_mean() -> None:
    table = paper.find("person-part", "imagenet")
    assert table
    assert round(mean(paper.PARTS.figures.values()), 2) == table.figures[paper.PARTS.cell]


def test_a_table_that_the_paper_does_not_have_has_no_figures() -> None:
    assert paper.find("shapes", "imagenet") is None
    assert paper.find("voc", "") is None


# ---- cells


def test_a_table_has_the_grid_of_twelve_a_baseline_and_msc() -> None:
    assert list(plan().cells) == ["baseline", "msc", *GRID]
    assert set(paper.find("voc", "imagenet").figures) == set(plan().cells)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", GRID)
def test_a_cell_has_the_settings_that_its_name_says(name: str) -> None:
    config = plan().configs[name, 0]
    fusion, count, *extra = name.split("-")
    assert (config.model.fusion, len(config.model.scales)) == (fusion, int(count))
    assert config.train.extra_supervision is bool(extra)


@pytest.mark.parametrize("name", ["baseline", "msc", "average-3-es"])
def test_what_a_child_is_told_gives_the_cells_settings(name: str) -> None:
    ordered = plan("coco", overrides=("train.steps=9", "data.root=a b"), init="it's: here", only=(name,))
    job = next(job for job in ordered.jobs() if job.name == name)
    assert load_recipe(job.recipe, job.overrides) == ordered.configs[name, 0]


def test_the_best_cell_is_the_recipe_itself() -> None:
    assert plan().configs["attention-3-es", 0] == load_recipe("voc-attention", ["train.keep=1"])


def test_a_user_may_keep_more_checkpoints_than_one() -> None:
    assert plan(overrides=("train.keep=3",)).common.train.keep == 3


def test_msc_starts_from_the_baseline_of_the_same_seed_and_trains_its_branches() -> None:
    config = plan(seeds=2).configs["msc", 1]
    assert config.train.init_from == "t/cells/baseline/seed-1/last"
    assert config.model.segmenter == "msc"
    assert config.train.freeze == ("trunk", "fc6", "fc7", "fc8")
    assert config.train.fresh_lr == 1


def test_only_largefov_has_an_msc() -> None:
    absent = [cell for cell in grid(TABLES["shapes"], "small") if cell.absent]
    assert [cell.name for cell in absent] == ["msc"]
    assert "small" in absent[0].absent
    assert ("msc", 0) not in plan("shapes").configs


def test_shapes_have_scales_of_their_own() -> None:
    assert plan("shapes").configs["max-3", 0].model.scales == (1.0, 0.5, 0.25)


def test_every_seed_is_a_cells_own_run() -> None:
    configs = plan(seeds=3).configs
    assert sorted(config.train.seed for (name, _), config in configs.items() if name == "max-2") == [0, 1, 2]


def test_a_users_settings_hold_for_every_cell_and_replace_the_tables_own() -> None:
    ordered = plan("shapes", overrides=("train.steps=7",))
    assert {config.train.steps for config in ordered.configs.values()} == {7}
    assert [item for item in ordered.settings if item.startswith("train.steps")] == ["train.steps=7"]
    assert plan("shapes", recipe="shapes-attention").common == load_recipe("shapes-attention", ["train.keep=1"])


def test_another_recipe_may_be_given() -> None:
    ordered = plan("voc-animals", recipe="voc-animals-lite0")
    assert ordered.configs["max-2", 0].model.segmenter == "lite0"
    assert "lite0" in ordered.cells["msc"].absent


def test_a_checkpoint_to_start_from_is_every_cells_but_mscs() -> None:
    configs = plan(init="runs/a: b/last").configs
    starts = {config.train.init_from for (name, _), config in configs.items() if name != "msc"}
    assert starts == {"runs/a: b/last"}
    assert configs["msc", 0].train.init_from == "t/cells/baseline/seed-0/last"


def test_coco_as_a_start_is_compared_with_the_papers_own_table() -> None:
    ordered = plan(init="coco", coco_root=Path("coco"))
    assert ordered.paper is paper.find("voc", "coco")
    assert ordered.configs["max-2", 0].train.init_from == "t/init/coco/last"


def test_coco_is_trained_first_and_everything_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaleseg.ablate.plan.open_training", lambda data: None)  # COCO is not here
    ordered = plan(out=tmp_path, init="coco", coco_root=Path("coco"), only=("msc", "max-2"))
    first, *rest = ordered.jobs()
    assert (first.name, first.after, first.measured) == ("coco-pretrain", None, None)
    assert load_recipe(first.recipe, first.overrides).data.root == "coco"
    afters = {job.name: job.after for job in rest}
    assert afters == {"baseline": first.folder, "max-2": first.folder, "msc": ordered.folder(("baseline", 0))}


def test_another_start_or_other_data_is_compared_with_nothing(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "own", small_model(), small_config())
    assert plan(init=str(tmp_path / "own")).paper is None
    others = plan(overrides=("data.dataset=shapes",))
    assert others.paper is None
    assert fill(others, {}).title == "other data (shapes)"
    random = plan(overrides=("model.pretrained=none",))
    assert random.paper is None
    assert fill(random, {}).title == "PASCAL VOC 2012 val"


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"overrides": ("model.fusion=max",)}, "--only model.fusion"),
        ({"overrides": ("model={scales: [1.0]}",)}, "--only model.scales"),
        ({"overrides": ("train.seed=3",)}, "--seeds"),
        ({"overrides": ("train.init_from=x",)}, "--init"),
        ({"name": "vok"}, "did you mean 'voc'"),
        ({"coco_root": Path("coco")}, "--init coco"),
    ],
)
def test_an_order_that_cannot_be_carried_out_is_refused(order: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan(**order)  # type: ignore[arg-type]


# ---- --only


def chosen(*wanted: str, name: str = "voc", seeds: int = 1) -> list[str]:
    return [cell for cell, _ in plan(name, only=wanted, seeds=seeds).chosen]


def test_a_setting_chooses_the_cells_that_have_it() -> None:
    assert chosen("model.fusion=attention") == [name for name in GRID if name.startswith("attention")]
    assert chosen("train.extra_supervision=true") == [name for name in GRID if name.endswith("es")]


def test_a_value_is_compared_as_yaml_reads_it() -> None:
    assert chosen("model.scales=[1,0.5]") == [name for name in GRID if "-2" in name]


def test_several_keys_must_all_hold_and_one_key_may_have_several_values() -> None:
    assert chosen("model.fusion=max", "model.fusion=attention", "model.scales=[1, .5]") == [
        "max-2", "max-2-es", "attention-2", "attention-2-es",
    ]  # fmt: skip


def test_names_add_up() -> None:
    assert chosen("baseline", "attention-3-es") == ["baseline", "attention-3-es"]
    assert chosen("baseline", "model.fusion=max", "model.scales=[1.0, 0.5]") == ["baseline", "max-2", "max-2-es"]


def test_msc_brings_the_baseline_along_in_its_own_seed() -> None:
    assert plan(only=("msc", "train.seed=1"), seeds=2).chosen[:2] == [("baseline", 0), ("msc", 0)]
    assert chosen("msc") == ["baseline", "msc"]


def test_what_chooses_nothing_names_what_there_is() -> None:
    with pytest.raises(UserError, match=r"baseline, msc, max-2.*model\.fusion is attention or average or max"):
        select(("model.fusion=min",), plan().configs)
    with pytest.raises(UserError, match="did you mean 'max-2'"):
        select(("max2",), plan().configs)
    with pytest.raises(UserError, match=r"did you mean 'model\.fusion'"):
        select(("model.fusio=max",), plan().configs)


def test_choosing_an_msc_that_cannot_be_says_why() -> None:
    with pytest.raises(UserError, match="largefov"):
        chosen("msc", name="shapes")


# ---- what counts as done


def test_where_the_folder_lies_and_how_often_it_logs_change_no_identity(tmp_path: Path) -> None:
    def settings(out: Path, *overrides: str) -> dict[str, object]:
        return dict(identity(plan(out=out, overrides=overrides).configs["msc", 0], out))

    here = settings(tmp_path / "a")
    assert settings(tmp_path / "b", "data.root=elsewhere", "train.log_every=7") == here
    assert settings(tmp_path / "a", "train.steps=7") != here


def test_a_run_begun_with_other_settings_is_refused_and_one_with_the_same_is_not(tmp_path: Path) -> None:
    ordered = plan("shapes", tmp_path, overrides=TINY)
    with RunFolder(ordered.folder(("max-2", 0))) as run:
        run.write_config(ordered.configs["max-2", 0])
    ordered.check()
    with pytest.raises(UserError, match=r"max-2.*train\.batch: 2 there, 3 now"):
        plan("shapes", tmp_path, overrides=(*TINY, "train.batch=3")).check()


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_a_run_begun_before_the_folder_moved_goes_on_from_the_same_start(tmp_path: Path, seed: int, same: bool) -> None:
    ordered = plan("voc", tmp_path / "new")
    (ordered.folder(("baseline", 0)) / "last").mkdir(parents=True)
    config = ordered.configs["msc", 0]
    there = f"old/cells/baseline/seed-{seed}/last"
    with RunFolder(ordered.folder(("msc", 0))) as run:
        run.write_config(replace(config, train=replace(config.train, init_from=there)))
    before, now = ordered.folder(("msc", 0)), ordered.identity(("msc", 0))
    if same:
        results.check(before, now, ordered.out)
    else:
        with pytest.raises(UserError, match=r"train\.init_from: old/cells/baseline/seed-1/last there"):
            results.check(before, now, ordered.out)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("data.val=none", "data.val"), ("model.pretrained=nowhere.pt", "nowhere.pt"), ("model.options={a: 1}", "a")],
)
def test_what_would_fail_in_every_cell_fails_before_the_first(
    ablate: Call, stand_in: StandIn, wrong: str, said: str
) -> None:
    ended = ablate(settings=(*TINY, wrong))
    assert ended.code == 1
    assert said in ended.err
    assert stand_in.calls == []


def test_a_figure_older_than_a_setting_counts_as_measured_at_its_default(tmp_path: Path) -> None:
    ordered = plan("shapes", tmp_path, overrides=TINY)
    folder = ordered.folder(("max-2", 0))
    folder.mkdir(parents=True)
    settings = {name: value for name, value in ordered.identity(("max-2", 0)).items() if name != "train.freeze"}
    (folder / "metrics.json").write_text(json.dumps({"settings": settings}))
    ordered.check()


# ---- running


def test_all_cells_are_trained_measured_and_laid_out(ablate: Call, stand_in: StandIn, tmp_path: Path) -> None:
    ended = ablate("--seeds", 2)
    assert ended.code == 0, ended.err
    assert sorted(stand_in.trained) == sorted(["baseline", *GRID] * 2)
    lines = [line for line in ended.out.splitlines() if "mIoU 50.00 %" in line]
    assert len(lines) == 26
    assert "26 of 26 done" in lines[-1]
    assert "25 of 26 done, a minute or less left" in lines[-2]
    table = json.loads((tmp_path / "t" / "table.json").read_text())
    assert {name for name, cell in table["cells"].items() if len(cell["seeds"]) == 2} == {"baseline", *GRID}
    assert table["cells"]["max-2"]["seeds"]["0"]["seconds"] == 1.0  # two steps of two at four images a second


def test_a_cell_that_is_done_is_not_trained_again(ablate: Call, stand_in: StandIn) -> None:
    ablate(*only("max-2"))
    ended = ablate(*only("max-2", "max-3"))
    assert stand_in.trained == ["max-2", "max-3"]
    assert "1 of them done already" in ended.out


def test_a_figure_without_its_settings_is_measured_again(ablate: Call, stand_in: StandIn, tmp_path: Path) -> None:
    ablate(*only("max-2"))
    path = tmp_path / "t" / "cells" / "max-2" / "seed-0" / "metrics.json"
    path.write_text(json.dumps({"mIoU": 0.1, "IoU": {}}))  # as a kill between evaluation and its end leaves it
    ablate(*only("max-2"))
    assert len(stand_in.calls) == 2
    assert "--resume" in stand_in.calls[1]
    assert json.loads(path.read_text())["mIoU"] == 0.5


def test_other_settings_need_another_folder(ablate: Call, stand_in: StandIn) -> None:
    ablate(*only("max-2"))
    ended = ablate(*only("max-3"), settings=(*TINY, "train.lr=0.5"))
    assert ended.code == 1
    assert "train.lr: " in ended.err
    assert "another --out" in ended.err
    assert stand_in.trained == ["max-2"]


def test_a_failing_cell_does_not_stop_the_others(ablate: Call, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.fail("max-2")
    ended = ablate(*only("max-2", "max-3"))
    assert ended.code == 1
    assert "  out of luck" in ended.out
    assert "failed: max-2 seed 0" in ended.err
    text = (tmp_path / "t" / "table.md").read_text()
    assert "| max | failed [^3] |" in text
    assert "[^3]: seed 0 failed: ended with exit code 1: out of luck." in text
    assert stand_in.trained == ["max-2", "max-3"]
    stand_in.fail()
    assert ablate(*only("max-2", "max-3")).code == 0
    assert stand_in.trained == ["max-2", "max-3", "max-2"]


def test_msc_is_not_begun_where_its_baseline_failed(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.fail("baseline")
    failed = carry_out(stand_in, tmp_path, ("baseline", None), ("msc", "baseline"), ("max-2", None))
    assert stand_in.trained == ["baseline", "max-2"]
    assert set(failed) == {"baseline", "msc"}


def test_msc_waits_for_its_baseline_while_others_go_ahead(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.hang("baseline")

    def let_go() -> None:
        stand_in.wait("max-2")
        stand_in.hang()

    other = Thread(target=let_go)
    other.start()
    carry_out(stand_in, tmp_path, ("baseline", None), ("msc", "baseline"), ("max-2", None), places=2)
    other.join()
    assert set(stand_in.trained[:2]) == {"baseline", "max-2"}
    assert stand_in.trained[2:] == ["msc"]


def carry_out(stand_in: StandIn, out: Path, *order: tuple[str, str | None], places: int = 1) -> dict[str, str]:
    """Run (cell, what it waits for) in some places; what failed."""
    work = [
        jobs.Job(name, 0, out / name / "seed-0", "r", (), (), out / after / "seed-0" if after else None)
        for name, after in order
    ]
    failed: dict[str, str] = {}

    def done(job: jobs.Job, problem: str | None, seconds: float) -> None:
        if problem:
            failed[job.name] = problem

    with atomic.lock(out / "lock", "another") as lock:
        jobs.run(work, machine.Machine(("cpu",) * places, 1, ""), lock, done)
    return failed


def test_threads_are_shared_out_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [machine.choose_machine("cpu", count).threads for count in (1, 2, 3, 20)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.choose_machine("cpu", 2).threads == 3


def test_cells_take_turns_on_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert machine.choose_machine("auto", 3).devices == ("cuda:0", "cuda:1", "cuda:0")
    assert machine.choose_machine("cuda:1", 2).devices == ("cuda:1", "cuda:1")


def interrupt_when(stand_in: StandIn, name: str, number: int = signal.SIGINT) -> Thread:
    def run() -> None:
        stand_in.wait(name)
        time.sleep(0.2)
        os.kill(os.getpid(), number)

    thread = Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_children_and_the_same_command_goes_on(
    ablate: Call, stand_in: StandIn, tmp_path: Path, number: int
) -> None:
    stand_in.hang("max-3")
    other = interrupt_when(stand_in, "max-3", number)
    ended = ablate(*only("max-2", "max-3", "average-2"))
    other.join()
    assert ended.code == 130
    assert "2 of 3 runs left; the same command goes on" in ended.err
    assert stand_in.trained == ["max-2", "max-3"]
    assert "50.00" in (tmp_path / "t" / "table.md").read_text()
    stand_in.hang()
    assert ablate(*only("max-2", "max-3", "average-2")).code == 0
    assert stand_in.trained == ["max-2", "max-3", "max-3", "average-2"]
    assert ["--resume" in call for call in stand_in.calls] == [False, False, True, False]


def test_a_second_ctrl_c_waits_for_nobody(ablate: Call, stand_in: StandIn, request: pytest.FixtureRequest) -> None:
    (stand_in.home / "deaf").touch()
    stand_in.hang("max-3")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def twice() -> None:
        interrupt_when(stand_in, "max-3").join()
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    other = Thread(target=twice)
    other.start()
    began = time.monotonic()
    ended = ablate(*only("max-3", "average-2"))
    other.join()
    assert ended.code == 130
    assert time.monotonic() - began < jobs.PATIENCE
    assert stand_in.trained == ["max-3"]


def test_two_at_once_in_one_folder_are_one_too_many(ablate: Call, stand_in: StandIn, tmp_path: Path) -> None:
    with atomic.lock(tmp_path / "t", "another ablation"):
        ended = ablate()
    assert ended.code == 1
    assert "another ablation" in ended.err
    assert stand_in.calls == []


def test_a_child_that_lost_its_parent_keeps_others_out(ablate: Call, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.hang("max-2")
    program = (
        "import sys\nfrom scaleseg.ablate import jobs\nfrom scaleseg.cli import main\n"
        f"jobs.PROGRAM = {jobs.PROGRAM!r}\nmain()"
    )
    words = ["ablate", "shapes", *TINY, "--out", str(tmp_path / "t"), "--only", "max-2"]
    parent = subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.DEVNULL)
    stand_in.wait("max-2")
    parent.kill()
    parent.wait()
    assert "is writing to" in ablate(*only("max-2")).err
    stand_in.hang()  # the orphan ends
    deadline = time.monotonic() + 60
    while "is writing to" in (ended := ablate(*only("max-2"))).err:
        assert time.monotonic() < deadline
    assert ended.code == 0


def test_a_trainer_saves_and_ends_when_whoever_ordered_it_is_gone(tmp_path: Path) -> None:
    words = [
        "train",
        "shapes-attention",
        *TINY,
        "train.steps=100000",
        "train.log_every=1",
        "--out",
        str(tmp_path / "r"),
    ]
    child = subprocess.Popen(
        [*jobs.PROGRAM, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdin
    assert child.stdout
    for line in child.stdout:
        if line.startswith("step 2/"):
            break
    child.stdin.close()
    rest = child.stdout.read()
    with child.stderr as errors:  # type: ignore[union-attr]
        assert "stopped at step" in errors.read()
    child.stdout.close()
    assert child.wait() == 130, rest
    assert (tmp_path / "r" / "last" / "training_state.pt").exists()


def test_two_real_cells_at_a_time_become_a_table(ablate: Call, tmp_path: Path) -> None:
    ended = ablate(*only("baseline", "attention-2-es"), "--jobs", 2)
    assert ended.code == 0, ended.out
    assert "2 cells at a time on cpu" in ended.out
    table = json.loads((tmp_path / "t" / "table.json").read_text())
    run = tmp_path / "t" / "cells" / "attention-2-es" / "seed-0"
    figures = json.loads((run / "metrics.json").read_text())
    assert table["cells"]["attention-2-es"]["mIoU"] == figures["mIoU"]
    assert f"{100 * figures['mIoU']:.2f}" in (tmp_path / "t" / "table.md").read_text()
    assert figures["threads"] == table["threads"][0]
    assert figures["settings"]["train.extra_supervision"] is True
    assert RunFolder(run).read_config().model.scales == (1.0, 0.5)
    shutil.rmtree(run / "checkpoints")  # what is done is not looked at again
    again = ablate(*only("baseline", "attention-2-es"))
    assert "2 of them done already" in again.out


# ---- how tables look


def result(seed: int, value: float, **classes: float) -> Result:
    return Result(
        seed, value, classes or {"background": value}, 60, 12.5, 8.0, 200, "cpu (1 of 2 threads)", 1, "float32"
    )


def sheet(name: str = "voc", **rows: Row) -> Sheet:
    """A table with these rows (attention_3_es for attention-3-es), the others empty."""
    ordered = plan(name)
    filled = fill(ordered, {})
    given = {cell.replace("_", "-"): row for cell, row in rows.items()}
    everything = {cell: given.get(cell, Row()) for cell in ordered.cells}
    classes = tuple(next((row.results[0].IoU for row in given.values() if row.results), ()))
    return Sheet(name, filled.title, everything, filled.columns, filled.paper, classes, filled.caption)


def test_a_cell_shows_ours_the_papers_and_both_gains() -> None:
    text = markdown(sheet(baseline=Row((result(0, 0.60),)), attention_3_es=Row((result(0, 0.6512),))))
    assert "| baseline (one scale) | 60.00 (62.28) |" in text
    assert "65.12 (69.08) |" in text
    assert "+5.12 (+6.80) |" in text
    assert "|  | {1, 0.5} | {1, 0.5} + E-Supv | {1, 0.75, 0.5} | {1, 0.75, 0.5} + E-Supv |" in text


def test_seeds_are_averaged_and_their_spread_is_the_samples() -> None:
    values = (0.60, 0.62, 0.67)
    row = Row(tuple(result(seed, value) for seed, value in enumerate(values)))
    assert f"{100 * mean(values):.2f} ± {100 * stdev(values):.2f} (62.28)" in markdown(sheet(baseline=row))
    assert document(sheet(baseline=row), plan(), "")["cells"]["baseline"]["std"] == pytest.approx(stdev(values))
    assert "std" not in document(sheet(baseline=Row((result(0, 0.6),))), plan(), "")["cells"]["baseline"]


def test_a_cell_that_lacks_a_seed_says_so_and_gains_over_the_seeds_that_both_have() -> None:
    base = Row((result(0, 0.60), result(1, 0.50)))
    cell = Row((result(0, 0.64), result(1, 0.55), result(2, 0.90)))
    uneven = replace(sheet(baseline=base, max_2=cell), seeds=3)
    assert uneven.gain("max-2") == pytest.approx(4.5)
    text = markdown(uneven)
    assert "| baseline (one scale) | 55.00 ± 7.07 (62.28) [^1] |" in text
    assert "[^1]: without seed 2 so far (gains are over the seeds that both have)." in text
    assert "69.67 ± 18.18 (64.81) |" in text


def test_nothing_is_gained_over_a_baseline_of_other_seeds() -> None:
    assert sheet(baseline=Row((result(0, 0.60),)), max_2=Row((result(1, 0.64),))).gain("max-2") is None


def test_every_row_of_a_markdown_table_has_as_many_columns_as_its_head() -> None:
    for block in markdown(sheet("coco", baseline=Row((result(0, 0.3, person=0.6),)))).split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            assert len({line.count("|") for line in lines}) == 1


def test_a_logs_last_words_cannot_break_the_table() -> None:
    text = markdown(sheet(max_2=Row((), {0: "[x](http://a) | `b`\n# c"})))
    assert "seed 0 failed: x (http://a)    b  # c." in text


def test_person_part_shows_the_papers_parts_beside_ours() -> None:
    names = ("background", "head", "torso", "upper-arms", "lower-arms", "upper-legs", "lower-legs")
    parts = dict(zip(names, (0.9, 0.8, 0.5, 0.4, 0.3, 0.2, 0.1), strict=True))
    text = markdown(sheet("person-part", attention_3_es=Row((result(0, 0.4571, **parts),))))
    assert "|  | head | torso | u-arms | l-arms | u-legs | l-legs | bkg | avg |" in text
    assert "| attention-3-es | 80.00 | 50.00 | 40.00 | 30.00 | 20.00 | 10.00 | 90.00 | 45.71 |" in text
    assert "| 81.47 | 59.06 | 44.15 | 42.50 | 38.28 | 35.62 | 93.65 | 56.39 |" in text


def test_coco_shows_the_papers_persons_beside_ours() -> None:
    text = markdown(sheet("coco", average_2=Row((result(0, 0.3, background=0.8, person=0.65),))))
    assert "the paper's Table 7" in text
    assert "| average | 65.00 (70.38) |" in text


@pytest.mark.parametrize("name", ["person-part", "coco"])
def test_from_another_start_the_papers_parts_and_persons_are_not_shown(name: str) -> None:
    classes = ("background", "person", "c", "d", "e", "f", "g")
    row = Row((result(0, 0.3, **dict.fromkeys(classes, 0.3)),))
    text = markdown(replace(sheet(name, attention_3_es=row), paper=None))
    assert "## IoU of " in text
    assert "the paper's" not in text


def test_a_table_without_figures_of_the_paper_has_no_brackets() -> None:
    text = markdown(sheet("shapes", baseline=Row((result(0, 0.6),)), max_2=Row((result(0, 0.7),))))
    assert "(" not in text.partition("## mIoU")[2].replace("(one scale)", "").replace("(skip network)", "")


def test_json_holds_fractions_beside_the_papers() -> None:
    rows = sheet(baseline=Row((result(0, 0.60),)), attention_3_es=Row((result(0, 0.65),)))
    cell = document(rows, plan(), "scaleseg ablate voc")["cells"]["attention-3-es"]
    assert (cell["mIoU"], cell["paper"], cell["paper_gain"]) == (0.65, 0.6908, 0.068)
    assert cell["gain"] == pytest.approx(0.05)


def dots(drawing: str, kind: str) -> list[float]:
    tree = ElementTree.fromstring(drawing)
    return [
        float(item.attrib["cx"])
        for item in tree.iter("{http://www.w3.org/2000/svg}circle")
        if item.get("class") == kind
    ]


def test_the_chart_has_a_dot_a_figure_in_order_of_size_inside_the_picture() -> None:
    rows = sheet(baseline=Row((result(0, 0.60),)), max_2=Row((result(0, 0.70), result(1, 0.64))))
    baseline, best = dots(chart(rows), "ours")[1:]  # the first is the legend's
    assert 150 <= baseline < best <= 580
    assert len(dots(chart(rows), "paper")) == 1 + 14
    assert chart(rows).count('class="whisker"') == 1


@pytest.mark.parametrize("name", sorted(TABLES))
def test_no_heading_of_the_chart_reaches_into_the_plot(name: str) -> None:
    tree = ElementTree.fromstring(chart(sheet(name)))
    headings = [item for item in tree.iter("{http://www.w3.org/2000/svg}text") if "E-Supv" in (item.text or "")]
    ends = [float(item.attrib["x"]) + 6.8 * len(item.text or "") for item in headings]  # of 13 pixels, generously
    rules = [float(item.attrib["x1"]) for item in tree.iter("{http://www.w3.org/2000/svg}line")]
    assert max(ends) < min(rules)


def test_the_chart_of_nothing_is_a_drawing_too() -> None:
    assert ElementTree.fromstring(chart(sheet("shapes"))).attrib["viewBox"].startswith("0 0 720 ")


def test_settings_of_the_recipe_reach_the_table_as_json_holds_them(tmp_path: Path) -> None:
    flat = identity(plan("voc-animals").configs["max-2", 0], tmp_path)
    assert json.loads(json.dumps(flat)) == flat
    assert flat["model.scales"] == to_dict(plan("voc-animals").configs["max-2", 0])["model"]["scales"]

"""Many files by many workers: the files of one process, each once, whatever is stopped or killed on the way."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import small_config, small_model
from scaleseg import checkpoint
from scaleseg.batch import Item, files_of, find_images, segment_files
from scaleseg.distributed import Totals, find_inputs, segment_distributed
from scaleseg.distributed.cluster import KNOCK, Share, _knock, joined, share
from scaleseg.distributed.predict import _told
from scaleseg.distributed.record import Record
from scaleseg.distributed.worker import KILLS, TRYING, Job, Worker, fingerprint, results_of, table_of
from scaleseg.engines import Plan
from scaleseg.errors import UserError
from scaleseg.images import read

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's, of its own settings

MANY, SAVE = 200, ("masks", "weights")


def draw(path: Path, seed: int, side: int = 24) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    Image.fromarray(generator.integers(0, 255, (side + seed % 5, side + 6, 3), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many small photographs in two folders, and a damaged one."""
    root = tmp_path_factory.mktemp("photographs")
    for index in range(MANY):
        draw(root / ("a" if index % 2 else "b") / f"p{index}.png", index)
    (root / "damaged.png").write_text("no photograph")
    return root


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    checkpoint.save(folder, small_model(), small_config())
    return folder


@pytest.fixture(scope="module")
def alone(photographs: Path, saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the photographs."""
    out = tmp_path_factory.mktemp("alone") / "out"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    segment_files(checkpoint.load(saved), find_images([str(photographs)], out), out, save=SAVE)
    torch.set_num_threads(threads)
    return out


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One Ray for all tests of this file; other processes find it at its address."""
    pytest.importorskip("ray.data", exc_type=ImportError)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr("scaleseg.distributed.cluster.cores", lambda: 2)
        with joined(None) as ray:
            yield ray


def contents(out: Path) -> dict[str, bytes]:
    """Every file below the output folders, leftovers too."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for kind in SAVE
        for path in sorted((out / kind).rglob("*"))
        if path.is_file()
    }


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def kill_one(out: Path) -> None:
    """SIGKILL to a worker in the middle of an image, as its mark tells; there is one soon."""
    for _ in range(20_000):
        for mark in (out / TRYING).glob("*"):
            try:
                os.kill(int(mark.read_text(encoding="utf-8").split()[-1]), signal.SIGKILL)
                return
            except (OSError, IndexError):  # done with just now
                continue
        time.sleep(0.001)
    raise AssertionError("no worker was ever at work")


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_and_every_file_is_that_of_one_process(
    ray: Any, photographs: Path, saved: Path, alone: Path, tmp_path: Path
) -> None:
    out, told, seen = tmp_path / "out", [], []

    def report(item: Item, problem: str | None) -> None:
        if not seen:
            kill_one(out)
        seen.append(item.name)
        told.extend([problem] if problem else [])

    totals = segment_distributed(
        str(saved), find_inputs([str(photographs)], out), out, save=SAVE, actors=2, report=report
    )
    assert totals == Totals(MANY, 0, 1)
    assert contents(out) == contents(alone)
    assert len(seen) == len(set(seen)) == MANY + 1
    assert sorted(entry["name"] for entry in lines(out / "done.jsonl")) == sorted(set(seen) - {"damaged"})
    assert [(entry["name"], entry["problem"]) for entry in lines(out / "failures.jsonl")] == [("damaged", told[0])]
    with pytest.raises(UserError) as single:
        read(photographs / "damaged.png")
    assert told == [str(single.value)]


DRIVER = """
import os, signal, sys
from pathlib import Path
from scaleseg.distributed import find_inputs, segment_distributed
inputs, out, saved, address = sys.argv[1:]
seen = []
def report(item, problem):
    seen.append(item)
    if len(seen) == 24:
        os.kill(os.getpid(), signal.SIGKILL)
segment_distributed(
    saved, find_inputs([inputs], Path(out)), Path(out), save=["masks"], actors=1, address=address, report=report
)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("SCALESEG_TORTURE") != "long", reason="takes two minutes; make torture runs it")
def test_a_run_whose_process_was_killed_goes_on_where_it_was(
    ray: Any, photographs: Path, saved: Path, alone: Path, tmp_path: Path
) -> None:
    out, address = tmp_path / "out", ray.get_runtime_context().gcs_address
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, str(photographs / "a"), str(out), str(saved), address],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGKILL, "", "")
    with (out / "done.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"name": "p7", "sou')  # as a full disk or a power cut leaves it
    before = {entry["name"]: (out / "masks" / f"{entry['name']}.png").stat().st_mtime_ns
              for entry in lines_that_hold(out / "done.jsonl")}  # fmt: skip
    totals = segment_distributed(str(saved), find_inputs([str(photographs / "a")], out), out, save=["masks"], actors=1)
    assert totals == Totals(MANY // 2 - len(before), len(before), 0)
    assert len(before) >= 24 - 16
    assert sorted(entry["name"] for entry in lines(out / "done.jsonl")) == sorted(
        p.stem for p in (out / "masks").iterdir()
    )
    assert {name: (out / "masks" / f"{name}.png").stat().st_mtime_ns for name in before} == before
    expected = {name.replace("/a/", "/"): data for name, data in contents(alone).items() if name.startswith("masks/a/")}
    assert contents(out) == expected


def lines_that_hold(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:-1]]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "distributed.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)
        spec = importlib.util.spec_from_file_location("benchmark_distributed", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_benchmark_writes_the_rates_of_both_down(
    ray: Any, benchmark: ModuleType, saved: Path, tmp_path: Path
) -> None:
    path = tmp_path / "distributed.json"
    arguments = ["--images", "4", "--runs", "1", "--actors", "1", "--checkpoint", str(saved), "--json", str(path)]
    assert benchmark.main(arguments) == 0
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["ratio"] == report["medians"]["workers"] / report["medians"]["one process"] > 0
    assert [len(values) for values in report["images_per_second"].values()] == [1, 1]


def test_the_benchmark_counts_from_the_first_deal_on(benchmark: ModuleType) -> None:
    moments = [10.0, 10.001, 10.5, 10.501, 12.0, 12.001, 12.001, 12.001, 14.0, 14.0]  # 2 at first, 2 in hand, 6 in 4 s
    assert benchmark.rate(moments, 2, 99.0) == 6 / 4
    assert benchmark.rate([10.0, 10.001], 2, 4.0) == 2 / 4


# ---- one worker, called as Ray Data calls it ----


def worker(saved: Path, out: Path, **changes: Any) -> Worker:
    pytest.importorskip("pyarrow")
    settings = {
        "checkpoint": str(saved), "fingerprint": fingerprint(saved), "here": str(Path.cwd()), "out": str(out),
        "save": SAVE, "plan": Plan(), "max_memory": None, "refine": "none", "device": "cpu", "threads": torch.get_num_threads(),
    }  # fmt: skip
    return Worker(Job(**{**settings, **changes}))


def test_a_worker_reads_what_fsspec_reads_as_it_reads_files(saved: Path, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "p.png", 3)
    store = fsspec.filesystem("memory")
    store.pipe("/photographs/q.png", (tmp_path / "in" / "p.png").read_bytes())
    items = find_inputs([str(tmp_path / "in"), "memory://photographs/"], tmp_path / "out")
    results = results_of(worker(saved, tmp_path / "out")(table_of(list(enumerate(items)))))
    assert [item.name for item in items] == ["p", "q"]
    assert [result.problem for result in results] == ["", ""]
    for kind, suffix in (("masks", ".png"), ("weights", ".png"), ("weights", ".npz")):
        assert (tmp_path / "out" / kind / f"p{suffix}").read_bytes() == (
            tmp_path / "out" / kind / f"q{suffix}"
        ).read_bytes()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://nowhere/p.png", "memory://nowhere/p.png does not exist"),
        ("memory://broken.png", "memory://broken.png is no image that can be read"),
        ("nosuch://bucket/p.png", "nosuch://bucket/p.png cannot be read (Protocol not known: nosuch)"),
    ],
)
def test_an_address_that_holds_no_photograph_is_told_with_its_name(saved: Path, tmp_path: Path, url: str, said: str):
    fsspec.filesystem("memory").pipe("/broken.png", b"no photograph")
    [result] = results_of(worker(saved, tmp_path)(table_of([(4, Item(Path("p.png"), "p", url))])))
    assert result.number == 4
    assert result.problem.startswith(said)


def test_names_that_are_no_text_pass_through(saved: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe")
    try:
        draw(tmp_path / "in" / f"{name}.png", 1)
    except OSError:
        pytest.skip("this file system has no such names")
    [item] = find_inputs([str(tmp_path / "in")], tmp_path / "out")
    [result] = results_of(worker(saved, tmp_path / "out")(table_of([(0, item)])))
    assert result.problem == ""
    assert (tmp_path / "out" / "masks" / f"{name}.png").is_file()


def test_an_image_that_killed_its_workers_is_left_out(saved: Path, tmp_path: Path) -> None:
    draw(tmp_path / "p.png", 1)
    item = Item(tmp_path / "p.png", "p")
    (tmp_path / "out" / TRYING).mkdir(parents=True)
    mark = tmp_path / "out" / TRYING / "0"
    mark.write_text("11\n" * (KILLS - 1), encoding="utf-8")
    one = worker(saved, tmp_path / "out")
    assert results_of(one(table_of([(0, item)])))[0].problem == ""
    assert not mark.exists()
    mark.write_text("11\n" * KILLS, encoding="utf-8")
    assert "p.png was left out: 3 workers were killed" in results_of(one(table_of([(0, item)])))[0].problem


def test_a_workers_mistake_is_told_in_its_own_sentence() -> None:
    wrapped = "ray::map()\n  File ...\nscaleseg.errors.UserError: m is damaged; copy it again\nFailed to apply UDF."
    with pytest.raises(UserError, match=r"^m is damaged; copy it again$"), _told():
        raise RuntimeError(wrapped)


def test_workers_that_die_as_they_start_are_told_in_one_line() -> None:
    class ActorDiedError(Exception):
        """As Ray calls it."""

    with pytest.raises(UserError, match="fewer --actors"), _told():
        raise ActorDiedError("The actor died unexpectedly before finishing this task.")


def test_a_worker_refuses_a_checkpoint_that_is_another_where_it_runs(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another checkpoint where a worker runs"):
        worker(saved, tmp_path, fingerprint="0" * 64)


# ---- the record ----


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "checkpoint": "m", "fingerprint": "f", "save": list(SAVE), "precision": "auto", "refine": "none",
        "device": "auto", **changes,
    }  # fmt: skip


def finished(out: Path, names: str) -> list[Item]:
    """Items with files under `out`, and recorded."""
    items = [Item(Path(f"/photographs/{name}.png"), name) for name in names]
    for item in items:
        for file in files_of(item.name, SAVE):
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (out / file).write_text(f"of {item.name}", encoding="utf-8")
    with Record(out, settings()) as record:
        record.unfinished([])
        record.add([(item, [4, 4, 4]) for item in items], [])
    return items


def unfinished(out: Path, items: list[Item]) -> str:
    with Record(out, settings()) as record:
        return "".join(items[number].name for number in record.unfinished(items))


def test_what_is_recorded_is_not_done_again(tmp_path: Path) -> None:
    items = finished(tmp_path, "abc")
    assert unfinished(tmp_path, [*items, Item(Path("/photographs/d.png"), "d")]) == "d"


SPOILT: dict[str, Callable[[Path], object]] = {
    "a file is gone": lambda out: (out / "masks" / "b.png").unlink(),
    "a file was cut short": lambda out: (out / "weights" / "b.npz").write_text("of"),
    "the line was cut short": lambda out: edit(
        out, lambda text: text.replace('"b.png"', '"b.p').replace("/b.png", "/b")
    ),
    "the last line has no end": lambda out: edit(out, lambda text: sort_last(text, "b").rstrip("\n")),
    "the line is another image's of the same name": lambda out: edit(
        out, lambda text: text.replace("/b.png", "/B.png")
    ),
}


def edit(out: Path, change: Callable[[str], str]) -> None:
    path = out / "done.jsonl"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def sort_last(text: str, name: str) -> str:
    return "".join(sorted(text.splitlines(keepends=True), key=lambda line: f'"{name}"' in line))


@pytest.mark.parametrize("case", SPOILT)
def test_a_record_that_does_not_hold_is_done_again_and_stands_there_once(tmp_path: Path, case: str) -> None:
    items = finished(tmp_path, "abc")
    SPOILT[case](tmp_path)
    assert unfinished(tmp_path, items) == "b"
    with Record(tmp_path, settings()) as record:
        record.unfinished(items)
        (tmp_path / "masks" / "b.png").write_text("of b", encoding="utf-8")
        (tmp_path / "weights" / "b.npz").write_text("of b", encoding="utf-8")
        record.add([(items[1], [4, 4, 4])], [])
    assert sorted(entry["name"] for entry in lines(tmp_path / "done.jsonl")) == ["a", "b", "c"]


def test_a_record_without_settings_is_nobody_s(tmp_path: Path) -> None:
    items = finished(tmp_path, "ab")
    (tmp_path / "settings.json").unlink()
    assert unfinished(tmp_path, items) == "ab"


def test_failures_are_those_of_the_last_run(tmp_path: Path) -> None:
    item = Item(Path("/photographs/a.png"), "a")
    for problem in ("first", "second"):
        with Record(tmp_path, settings()) as record:
            assert record.unfinished([item]) == [0]
            record.add([], [(item, problem)])
    assert [entry["problem"] for entry in lines(tmp_path / "failures.jsonl")] == ["second"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fingerprint": "g"}, r"was begun with another checkpoint \('m'\)"),
        ({"save": ["masks"]}, "was begun with save masks,weights, not masks; take the same --save"),
        ({"precision": "float32"}, "was begun with precision auto, not float32; take the same --precision"),
        ({"refine": "crf"}, "was begun with refine none, not crf; take the same --refine"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    finished(tmp_path, "a")
    with pytest.raises(UserError, match=said), Record(tmp_path, settings(**changes)):
        pass


def test_the_same_checkpoint_by_another_name_is_the_same(tmp_path: Path) -> None:
    items = finished(tmp_path, "a")
    with Record(tmp_path, settings(checkpoint="elsewhere")) as record:
        assert record.unfinished(items) == []


def test_a_folder_takes_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        Record(tmp_path, settings()),
        pytest.raises(UserError, match="another predict is writing"),
        Record(tmp_path, settings()),
    ):
        pass


# ---- before Ray starts ----


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str | None) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("scaleseg.distributed.predict.joined", refuse)


@pytest.mark.usefixtures("no_ray")
def test_another_checkpoint_is_refused_before_ray_starts(saved: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "other", small_model(seed=1), small_config())
    draw(tmp_path / "p.png", 1)
    items = find_inputs([str(tmp_path / "p.png")], tmp_path / "out")
    with pytest.raises(AssertionError, match="Ray was started"):
        segment_distributed(str(saved), items, tmp_path / "out")
    with pytest.raises(UserError, match="was begun with another checkpoint"):
        segment_distributed(str(tmp_path / "other"), items, tmp_path / "out")


@pytest.mark.usefixtures("no_ray")
def test_a_run_that_is_done_needs_no_ray(saved: Path, tmp_path: Path) -> None:
    draw(tmp_path / "p.png", 1)
    items = find_inputs([str(tmp_path / "p.png")], tmp_path / "out")
    with pytest.raises(AssertionError, match="Ray was started"):
        segment_distributed(str(saved), items, tmp_path / "out", save=["masks"])
    segment_files(checkpoint.load(saved), items, tmp_path / "out", save=["masks"])
    with (tmp_path / "out" / "done.jsonl").open("a", encoding="utf-8") as file:
        size = (tmp_path / "out" / "masks" / "p.png").stat().st_size
        file.write(json.dumps({"name": "p", "source": str(tmp_path / "p.png"), "bytes": [size]}) + "\n")
    reported: list[str] = []
    totals = segment_distributed(
        str(saved), items, tmp_path / "out", save=["masks"], report=lambda item, problem: reported.append(item.name)
    )
    assert totals == Totals(0, 1, 0)
    assert reported == ["p"]


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"save": ["edges"]}, "--save names edges, but this model learned none"),
        ({"refine": "domain-learned"}, "this model learned no edges"),
        ({"plan": Plan(precision="half")}, "--precision is 'half'"),
        ({"out": Path("s3://bucket/out")}, "results go to a folder that all workers share"),
    ],
)
def test_a_mistake_is_told_before_ray_starts(saved: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    arguments = {"items": [Item(Path("p.png"), "p")], "out": tmp_path / "out", **changes}
    with pytest.raises(UserError, match=said):
        segment_distributed(str(saved), **arguments)


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaleseg.distributed.cluster.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'scaleseg\[ray\]'"), joined(None):
        pass


class Cluster:
    """What `share` asks of Ray."""

    def __init__(self, *nodes: dict[str, float]) -> None:
        self.alive = nodes

    def nodes(self) -> list[dict[str, Any]]:
        gone = {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 9.0}}
        return [{"Alive": True, "Resources": node} for node in self.alive] + [gone]


@pytest.mark.parametrize(
    ("nodes", "actors", "expected"),
    [
        ([2], None, Share(2, 1, "cpu")),
        ([1], None, Share(1, 1, "cpu")),
        ([16], None, Share(4, 4, "cpu")),
        ([16], 5, Share(5, 3, "cpu")),
        ([4, 4], 3, Share(3, 2, "cpu")),  # not two with 4 and none left for the third
        ([3, 3], 4, Share(4, 1, "cpu")),
        ([0, 8], 2, Share(2, 4, "cpu")),
    ],
)
def test_workers_share_the_cores_of_the_machines_that_are_there(
    nodes: list[int], actors: int | None, expected: Share
) -> None:
    assert share(Cluster(*({"CPU": float(cores)} for cores in nodes)), actors, "auto") == expected


def test_where_there_are_gpus_each_worker_has_one(saved: Path) -> None:
    cluster = Cluster({"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 1.0})
    assert share(cluster, None, "auto") == Share(3, 1, "cuda")
    assert share(cluster, 2, "cuda") == Share(2, 1, "cuda")
    assert share(cluster, None, "cpu") == Share(4, 4, "cpu")


@pytest.mark.parametrize(
    ("actors", "device", "said"),
    [
        (3, "auto", "--actors is 3, but Ray has 2 cores"),
        (1, "cuda", "but Ray has 0 GPUs"),
        (0, "cpu", "--actors is 0; give 1 or more"),
        (1, "cuda:1", "with --distributed choose auto, cpu or cuda"),
    ],
)
def test_more_than_ray_has_is_refused(actors: int, device: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        share(Cluster({"CPU": 2.0}), actors, device)


def test_an_address_where_nothing_listens_is_told_at_once() -> None:
    pytest.importorskip("ray.data", exc_type=ImportError)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(UserError, match=f"--ray-address is '127.0.0.1:{port}', where no Ray can be reached"):
        _knock(f"127.0.0.1:{port}")
    assert time.monotonic() - begin < KNOCK + 1


def test_an_address_where_something_else_listens_is_told_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.data", exc_type=ImportError)
    monkeypatch.setattr("scaleseg.distributed.cluster.ANSWER", 1)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(UserError, match="no answer in 1 seconds"):
            _knock(f"ray://127.0.0.1:{deaf.getsockname()[1]}")


# ---- which images ----


def test_files_folders_and_globs_are_named_as_by_one_process(photographs: Path, tmp_path: Path) -> None:
    inputs = [str(photographs), str(photographs / "a" / "*.png")]
    assert find_inputs(inputs, tmp_path) == find_images(inputs, tmp_path)


@pytest.mark.parametrize("given", ["@{}", "{}"])
def test_a_list_holds_paths_and_addresses_a_line(tmp_path: Path, given: str) -> None:
    draw(tmp_path / "p.png", 1)
    listing = tmp_path / "list.txt"
    listing.write_text(
        f"{tmp_path}/p.png\r\n\nmemory://deep/q r.jpg\ns3://b/q r.png?version=3\n{tmp_path}/gone.png\n",
        encoding="utf-8",
    )
    items = find_inputs([given.format(listing)], tmp_path / "out")
    assert items == [
        Item(tmp_path / "p.png", "p"),
        Item(Path("deep/q r.jpg"), "q r-jpg", "memory://deep/q r.jpg"),
        Item(Path("b/q r.png?version=3"), "q r-png", "s3://b/q r.png?version=3"),
        Item(tmp_path / "gone.png", "gone"),
    ]


def test_a_list_may_lie_in_a_store(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/lists/mine.txt", b"memory://lists/a.png\n")
    assert [item.url for item in find_inputs(["memory://lists/mine.txt"], tmp_path)] == ["memory://lists/a.png"]


def test_a_list_that_is_not_there_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the list nowhere cannot be read"):
        find_inputs(["@nowhere"], tmp_path)


def test_addresses_are_folders_globs_and_files_as_paths_are(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    for key in ("/shop/a.png", "/shop/deep/b.JPG", "/shop/c.txt.gz", "/shop/.hidden.png"):
        store.pipe(key, b"")
    names = {given: [item.name for item in find_inputs([given], tmp_path)] for given in
             ("memory://shop", "memory://shop/*.png", "memory://shop/c.txt.gz")}  # fmt: skip
    assert names["memory://shop"] == ["a", "deep/b"]
    assert "a" in names["memory://shop/*.png"] and "deep/b" not in names["memory://shop/*.png"]
    assert names["memory://shop/c.txt.gz"] == ["c.txt"]


def test_no_key_of_a_store_leads_out_of_the_output_folder(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/evil/../../../x.png", b"")
    for item in find_inputs(["memory://evil"], tmp_path):
        assert ".." not in Path(item.name).parts and not Path(item.name).is_absolute()


def test_a_store_that_is_not_known_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nosuch://bucket/ cannot be listed"):
        find_inputs(["nosuch://bucket/"], tmp_path)


def test_a_photograph_given_as_a_list_is_refused_in_a_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "p.png")
    with pytest.raises(UserError, match=r"the list .*p\.png cannot be read \(it is no text\); give a text file"):
        find_inputs([f"@{tmp_path / 'p.png'}"], tmp_path / "out")


def test_a_list_that_is_not_there_says_so_without_python_s_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\); give a text file"):
        find_inputs([f"@{tmp_path / 'none'}"], tmp_path / "out")


def test_a_line_too_long_for_a_name_does_not_spoil_a_list(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text(f"{tmp_path / 'a.jpg'}\n{'x' * 5000}\n")
    assert len(find_inputs([str(tmp_path / "all.txt")], tmp_path / "out")) == 2

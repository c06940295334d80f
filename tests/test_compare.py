"""`evaluate --deep` and `compare` as a user calls them, and the paired bootstrap behind them against loops."""

import errno
import json
import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import CLASSES, small_config, small_model, write_folder
from scaleseg import checkpoint
from scaleseg.analysis import Analysis, ImageScore, analyze, compare
from scaleseg.cli.deep import bare
from scaleseg.datasets.folder import Folder
from scaleseg.errors import UserError


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are not broken where the terminal is narrow."""
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """Checkpoints of two tiny models."""
    paths = tmp_path / "one", tmp_path / "two"
    for seed, path in enumerate(paths):
        checkpoint.save(path, small_model(seed=seed), small_config())
    return paths


@cache
def measured(seed: int) -> Analysis:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return analyze(small_model(seed=seed), Folder([str(write_folder(Path(folder) / "p"))], CLASSES, {}))


def with_hits(base: Analysis, gain: int) -> Analysis:
    """Twelve photographs of 100 pixels of one class, of which 40 to 51 and the gain are hits."""

    def image(place: int) -> ImageScore:
        tallies = {name: {"disc": (40 + place + gain, 100)} for name in base.fusions}
        return ImageScore(f"p{place}", place, 0.5, (0.5, 0.5), 0.0, tallies, {"disc": (40 + place + gain, 100)})

    return replace(base, images=tuple(image(place) for place in range(12)))


def renamed(found: Analysis, names: list[str]) -> Analysis:
    images = [replace(image, name=name) for image, name in zip(found.images, names, strict=True)]
    return replace(found, images=tuple(images))


def test_a_model_compared_with_itself_differs_in_nothing() -> None:
    found = compare(measured(0), measured(0))
    assert found.mIoU.difference == (0, 0, 0)
    assert not found.mIoU.is_certain
    assert "are equal" in found.sentence("a", "b")


def test_the_figures_of_both_are_their_own() -> None:
    found = compare(measured(0), measured(1))
    assert (found.mIoU.first, found.mIoU.second) == (measured(0).mIoU.value, measured(1).mIoU.value)
    assert (found.boundary_IoU.first, found.boundary_IoU.second) == (
        measured(0).boundary_IoU.value,
        measured(1).boundary_IoU.value,
    )
    assert {name: each.second for name, each in found.IoU.items()} == {
        name: each.value for name, each in measured(1).IoU.items()
    }
    assert [each.first if each else None for each in found.sizes] == [
        size.IoU.value if size.IoU else None for size in measured(0).sizes
    ]


def test_the_interval_is_a_loop_over_draws_of_the_same_photographs() -> None:
    generator, gains = np.random.default_rng(0), []
    for _ in range(1000):
        drawn, values = generator.integers(0, 6, 6), []
        for found in (measured(0), measured(1)):
            sums = np.zeros((len(CLASSES), 2))
            for index in drawn:
                for name, pair in found.images[index].tallies["fused"].items():
                    sums[CLASSES.index(name)] += pair
            values.append(np.mean([hits / union for hits, union in sums if union]))
        gains.append(values[1] - values[0])
    difference = compare(measured(0), measured(1)).mIoU.difference
    assert (difference.low, difference.high) == pytest.approx(tuple(np.percentile(gains, [2.5, 97.5])))


def test_the_other_way_round_every_difference_has_the_other_sign() -> None:
    there, back = compare(measured(0), measured(1)).mIoU, compare(measured(1), measured(0)).mIoU
    value, low, high = back.difference
    assert there.difference == pytest.approx((-value, -high, -low))


def test_what_every_photograph_gains_is_more_than_chance() -> None:
    base = measured(0)
    found = compare(with_hits(base, 0), with_hits(base, 3))
    assert found.mIoU.difference == pytest.approx((0.03, 0.03, 0.03))
    assert found.mIoU.is_certain
    assert found.sentence("a", "b").endswith("b is better than a by more than chance")
    assert found.IoU["disc"].images == 12


def test_what_becomes_worse_is_said_of_the_better() -> None:
    found = compare(with_hits(measured(0), 3), with_hits(measured(0), 0))
    assert found.sentence("a", "b").endswith("a is better than b by more than chance")


@pytest.mark.parametrize(("count", "certain"), [(5, False), (6, True)])
def test_fewer_than_six_photographs_tell_nothing(count: int, certain: bool) -> None:
    some = [with_hits(measured(0), gain) for gain in (0, 3)]
    found = compare(*(replace(one, images=one.images[:count]) for one in some))
    assert found.mIoU.is_certain is certain
    assert ("fewer than 6 photographs" in found.sentence("a", "b")) is not certain


def test_a_gain_that_half_of_the_photographs_lose_may_be_chance() -> None:
    first, second = with_hits(measured(0), 0), with_hits(measured(0), 5)
    mixed = replace(first, images=tuple((first, second)[place % 2].images[place] for place in range(12)))
    other = replace(first, images=tuple((second, first)[place % 2].images[place] for place in range(12)))
    assert "that may be chance, for the interval holds 0" in compare(mixed, other).sentence("a", "b")


def test_photographs_in_another_order_are_matched_by_name() -> None:
    turned = replace(measured(1), images=measured(1).images[::-1])
    assert compare(measured(0), turned) == compare(measured(0), measured(1))


def test_other_photographs_are_named() -> None:
    other = renamed(measured(1), ["p0", "p1", "p2", "p3", "p4", "new"])
    with pytest.raises(UserError, match=r"only the first has 'p5', only the second has 'new'; measure both"):
        compare(measured(0), other)


def test_names_that_occur_twice_must_stand_in_the_same_order() -> None:
    names = ["p0", "p0", "p1", "p2", "p3", "p4"]
    assert compare(renamed(measured(0), names), renamed(measured(1), names)).images == 6
    with pytest.raises(UserError, match="photographs differ"):
        compare(renamed(measured(0), names), renamed(measured(1), names[::-1]))


def test_other_classes_are_named() -> None:
    with pytest.raises(UserError, match=r"only the first has 'disc', only the second has 'ball'"):
        compare(measured(0), replace(measured(1), classes=("ground", "ball", "bar")))


def test_classes_in_another_order_are_refused() -> None:
    with pytest.raises(UserError, match="in another order"):
        compare(measured(0), replace(measured(1), classes=CLASSES[::-1]))


def test_other_labels_of_the_same_photographs_are_refused() -> None:
    first = measured(1).images[0]
    changed = replace(first, sizes=(*first.sizes[:-1], (first.sizes[-1][0] + 1, 0.5)))
    other = replace(measured(1), images=(changed, *measured(1).images[1:]))
    with pytest.raises(UserError, match=r"labels differ: those of 'p0'"):
        compare(measured(0), other)
    fewer = replace(measured(1), metrics=replace(measured(1).metrics, pixels=7))
    with pytest.raises(UserError, match=r"labels differ: .* and 7 labelled pixels"):
        compare(measured(0), fewer)


def test_evaluate_deep_prints_and_writes_what_analyze_finds(call, models, folder: Path, tmp_path: Path) -> None:
    ended = call("evaluate", models[0], f"data.val={folder}", "--deep", "--json", tmp_path / "d.json")
    assert ended.code == 0, ended.err
    document = json.loads((tmp_path / "d.json").read_text())
    found = Analysis.from_dict(document)
    assert found == analyze(checkpoint.load(models[0]), Folder([str(folder)], CLASSES, {}))
    assert document["mIoU"] == found.metrics.mIoU
    for told in ("By fusion", "oracle", "Objects by size", "boundary IoU", "calibration error", "worst photographs"):
        assert told in ended.out
    assert f"{100 * found.fusions['oracle'].value:.2f}" in ended.out


def few(folder: Path, count: int) -> None:
    """Leaves so many photographs."""
    for path in sorted((folder / "images").iterdir())[count:]:
        path.unlink()
        (folder / "masks" / path.name).unlink()


@pytest.mark.parametrize("count", [1, 5])
def test_evaluate_deep_claims_nothing_of_few_photographs(call, models, folder: Path, count: int) -> None:
    few(folder, count)
    ended = call("evaluate", models[0], f"data.val={folder}", "--deep")
    assert ended.code == 0
    assert "fewer than 6 photographs tell no interval" in ended.out
    assert not re.search(r"\d to \d+\.\d\d|as the paper says|against what the paper says", ended.out)


def test_no_photograph_is_among_the_worst_and_the_best(call, models, folder: Path) -> None:
    few(folder, 5)
    lines = call("evaluate", models[0], f"data.val={folder}", "--deep").out.splitlines()
    worst, best = (set(re.findall(r"p\d", line)) for line in lines if "photographs, mIoU" in line)
    assert (len(worst), len(best), worst & best) == (2, 3, set())


def test_of_a_refined_model_only_its_own_fusion_is_said_to_be_refined(call, models, folder: Path) -> None:
    said = "of these only fused is refined"
    assert said in call("evaluate", models[0], f"data.val={folder}", "--deep", "--refine", "domain").out
    assert said not in call("evaluate", models[0], f"data.val={folder}", "--deep").out


def test_a_json_that_is_a_device_is_left_alone(call, models, folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    ended = call("evaluate", models[0], f"data.val={folder}", "--json", tmp_path / "pipe")
    assert (ended.code, "is no plain file" in ended.err) == (1, True)
    assert (tmp_path / "pipe").is_fifo()


def test_the_json_of_evaluate_deep_tells_nothing_of_the_machine(call, models, folder: Path, tmp_path: Path) -> None:
    call("evaluate", models[0], f"data.val=[{folder},{folder}]", "--deep", "--json", tmp_path / "d.json")
    text = (tmp_path / "d.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["overrides"] == ["data.val=[photographs,photographs]"]
    assert json.loads(text)["checkpoint"] == "one"


@pytest.mark.parametrize("deep", [["--deep"], []])
def test_a_json_that_cannot_be_written_is_told_before_the_work(call, models, folder, tmp_path, deep) -> None:
    ended = call("evaluate", models[0], f"data.val={folder}", *deep, "--json", tmp_path / "missing" / "d.json")
    assert ended.code == 1
    assert "is in a folder that does not exist; choose another path" in ended.err
    assert "photographs" not in ended.out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_told_before_the_work(call, models, folder, tmp_path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    ended = call("evaluate", models[0], f"data.val={folder}", "--json", tmp_path / "locked" / "d.json")
    assert "cannot be written (Permission denied)" in ended.err


@pytest.mark.parametrize("verb", ["evaluate", "compare", "benchmark"])
def test_the_json_is_safe_before_a_table_is_printed(call, models, folder, tmp_path, monkeypatch, verb) -> None:
    words = {
        "evaluate": ("evaluate", models[0], f"data.val={folder}", "--deep"),
        "compare": ("compare", *models, f"data.val={folder}"),
        "benchmark": ("benchmark", models[0]),
    }[verb]

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    report = SimpleNamespace(to_dict=lambda: {"size": 513})
    monkeypatch.setattr("scaleseg.benchmark.benchmark", lambda *_, **__: report)
    monkeypatch.setattr("scaleseg.cli.benchmark._print", full)
    monkeypatch.setattr("rich.console.Console.print", full)
    ended = call(*words, "--json", tmp_path / "d.json")
    assert (ended.code, "No space left on device" in ended.err) == (1, True)
    assert json.loads((tmp_path / "d.json").read_text())


@pytest.mark.parametrize("verb", ["evaluate", "compare"])
def test_figures_are_printed_though_their_file_cannot_be_written(
    call, models, folder, tmp_path, monkeypatch, verb
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("scaleseg.atomic.write", full)
    checkpoints = models[: 1 if verb == "evaluate" else 2]
    ended = call(verb, *checkpoints, f"data.val={folder}", "--json", tmp_path / "d.json")
    assert (ended.code, "cannot be written (No space left on device)" in ended.err) == (1, True)
    assert "mIoU" in ended.out


def test_compare_of_files_is_compare_of_checkpoints_and_of_runs(call, models, folder: Path, tmp_path: Path) -> None:
    data = f"data.val={folder}"
    for path in models:
        call("evaluate", path, data, "--deep", "--json", tmp_path / f"{path.name}.json")
    run = tmp_path / "run"
    run.mkdir()
    (run / "best").symlink_to(models[1])
    files = tmp_path / "one.json", tmp_path / "two.json"
    written = []
    for pair in ((*files,), (*models, data), (files[0], run, data)):
        ended = call("compare", *pair, "--json", tmp_path / "c.json")
        assert ended.code == 0, ended.err
        document = json.loads((tmp_path / "c.json").read_text())
        written.append({name: document[name] for name in ("mIoU", "boundary_IoU", "IoU", "sizes", "images")})
    assert written[0] == written[1] == written[2]
    assert written[0]["mIoU"]["first"] == measured(0).mIoU.value
    assert ended.out.strip().endswith("chance") or "may be chance" in ended.out


def test_compare_refuses_what_is_no_deep_evaluation(call, models, tmp_path: Path) -> None:
    (tmp_path / "plain.json").write_text('{"mIoU": 0.5}')
    (tmp_path / "torn.json").write_text('{"analysis": {')
    ended = call("compare", tmp_path / "plain.json", tmp_path / "plain.json")
    assert (ended.code, "plain.json: this is no deep evaluation" in ended.err) == (1, True)
    ended = call("compare", tmp_path / "torn.json", tmp_path / "torn.json")
    assert (ended.code, "cannot be read as JSON" in ended.err) == (1, True)
    ended = call("compare", tmp_path / "nothing", tmp_path / "nothing")
    assert (ended.code, "is no checkpoint folder" in ended.err) == (1, True)


def test_settings_for_two_files_are_refused(call, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(measured(0).to_dict()))
    ended = call("compare", tmp_path / "a.json", tmp_path / "b.json", "data.val=x")
    assert (ended.code, "both are files; leave it out" in ended.err) == (1, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("voc-animals-lite", "voc-animals-lite"),
        ("runs/a/best", "runs/a/best"),
        ("../shared/val.zip", "../shared/val.zip"),
        ("/home/me/runs/a", "a"),
        ("/home/me/runs/a/", "a/"),
        ("~/runs/a", "a"),
        ("data.val=/home/my name/val.zip", "data.val=val.zip"),
        ("data.val=[/a/b.zip,/c/d.zip:val]", "data.val=[b.zip,d.zip:val]"),
        ("data.val=['/a/b.zip', '/c/d.zip']", "data.val=['b.zip', 'd.zip']"),
        ("445 photographs of /a/b.zip, /c/d.zip", "445 photographs of b.zip, d.zip"),
        ("org/name@main", "org/name@main"),
        ("refine.bi_w=3/4", "refine.bi_w=3/4"),
    ],
)
def test_absolute_paths_lose_their_folders(text: str, expected: str) -> None:
    assert bare(text) == expected

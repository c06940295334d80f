"""benchmarks/refinement.py: its figures are the evaluation's, a stopped run goes on, and the page says what the JSON says."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from conftest import CLASSES, small_config, write_folder
from scaleseg import checkpoint
from scaleseg.config import to_dict
from scaleseg.datasets import open_evaluation
from scaleseg.evaluation import evaluate
from scaleseg.metrics import bootstrap_difference
from scaleseg.recipes import override

ROOT = Path(__file__).parents[1]
KINDS = ["none", "crf", "domain", "domain-learned"]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("refinement")


@pytest.fixture(scope="module")
def page(script: ModuleType) -> ModuleType:
    return importlib.import_module("refinement_page")


def saved(folder: Path, *, edge_net: bool = True, seed: int = 0) -> Path:
    """A checkpoint of a tiny model whose parameters are all random."""
    config = small_config(edge_net=edge_net)
    torch.manual_seed(seed)
    model = checkpoint.build(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    checkpoint.save(folder, model, config)
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments: a model with an edge map, and six photographs."""
    root = tmp_path_factory.mktemp("refinement")
    return [str(saved(root / "model")), f"data.val={write_folder(root / 'six')}"]


@pytest.fixture(scope="module")
def measured(script: ModuleType, task: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("measured") / "refinement.json"
    assert script.main([*task, "--json", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def report(measured: Path) -> dict[str, Any]:
    return read(measured)


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def untimed(report: Any) -> Any:
    """Without what no two runs share."""
    if not isinstance(report, dict):
        return report
    return {key: untimed(one) for key, one in report.items() if key not in ("seconds", "network_seconds", "date")}


def stop_after(script: ModuleType, monkeypatch: pytest.MonkeyPatch, photographs: int) -> list[int]:
    """Ctrl-C before a later photograph's network; the cache is written after every second. Counts the network's runs."""
    runs: list[int] = []
    predict = script.predict

    def counting(*arguments: Any, **named: Any) -> Any:
        if len(runs) == photographs:
            raise KeyboardInterrupt
        runs.append(1)
        return predict(*arguments, **named)

    monkeypatch.setattr(script, "predict", counting)
    monkeypatch.setattr(script, "EVERY", 2)
    return runs


@pytest.mark.parametrize("kind", KINDS)
def test_the_figures_of_a_refinement_are_those_of_evaluate(task, report, kind):
    folder = Path(task[0])
    data = open_evaluation(override(to_dict(checkpoint.read_config(folder)), task[1:]).data)
    expected, one = evaluate(checkpoint.load(folder), data.dataset, refine=kind), report["kinds"][kind]
    assert (one["mIoU"], one["trimap_mIoU"], one["IoU"]) == (expected.mIoU, expected.trimap_mIoU, expected.IoU)


def test_refinements_change_what_is_measured(report):
    assert len({one["mIoU"] for one in report["kinds"].values()}) == len(KINDS)


def test_a_difference_is_that_of_the_two_figures(report):
    none = report["kinds"]["none"]
    assert "difference" not in none
    for kind in KINDS[1:]:
        one = report["kinds"][kind]
        assert one["difference"]["all"]["mIoU"] == pytest.approx(one["mIoU"] - none["mIoU"], abs=1e-12)
        assert one["difference"]["trimap"]["mIoU"] == pytest.approx(one["trimap_mIoU"] - none["trimap_mIoU"], abs=1e-12)


def test_intervals_are_those_of_the_bootstrap(script):
    stacks = np.random.default_rng(0).integers(1, 90, (2, 7, 1 + len(script.WIDTHS), 3, 3))
    differences = script._differences(*stacks)
    low, high = bootstrap_difference(stacks[0][:, script.BAND], stacks[1][:, script.BAND], resamples=1000, seed=0)
    assert differences["trimap"]["interval"] == (low, high)
    assert low < differences["trimap"]["mIoU"] < high


def test_the_curve_has_the_trimap_s_figure_at_its_width(report):
    for one in report["kinds"].values():
        assert one["curve"][str(report["trimap"])] == one["trimap_mIoU"]
        assert list(one["curve"]) == ["1", "2", "3", "5", "10", "20"]


def test_the_report_says_how_it_came_about(report):
    assert report["images"] == 6 and report["data"] == "six" and report["classes"] == list(CLASSES)
    assert report["kinds"]["crf"]["settings"].startswith("DenseCRF(bi_w=4.0")
    assert {"torch", "numpy", "python", "scaleseg", "cpu", "threads", "date", "seed", "resamples"} <= report.keys()
    assert all(one["seconds"] > 0 for one in report["kinds"].values()) and report["network_seconds"] > 0


def test_the_report_names_no_folder_of_this_machine(task, measured):
    text = measured.read_text(encoding="utf-8")
    assert str(Path(task[0]).parent) not in text and str(measured.parent) not in text
    assert read(measured)["command"] == "python benchmarks/refinement.py model data.val=six --json refinement.json"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("docs/results/a.json", "docs/results/a.json"),
        ("/somewhere/else/a.json", "a.json"),
        ("../else/a.json", "a.json"),
        ("data.val=[/b/one.zip,/b/two.zip]", "data.val=[one.zip,two.zip]"),
        ("data.val=/b/pets:val", "data.val=pets:val"),
        ("refine.sigma_s=30", "refine.sigma_s=30"),
    ],
)
def test_a_path_from_the_root_loses_its_folders(script, given, said):
    assert script._bare(given) == said


def test_a_stopped_run_goes_on_to_the_same_figures(script, task, report, tmp_path, monkeypatch):
    path = tmp_path / "refinement.json"
    with monkeypatch.context() as patch:
        stop_after(script, patch, 5)
        assert script.main([*task, "--json", str(path)]) == 130
    assert not path.exists() and (tmp_path / "refinement.partial.npz").exists()
    runs = stop_after(script, monkeypatch, 6)
    assert script.main([*task, "--json", str(path)]) == 0
    assert len(runs) == 2  # four of the six were in the cache
    assert untimed(read(path)) == untimed(report)


def test_the_cache_is_gone_at_the_end(measured):
    assert [file.name for file in measured.parent.iterdir()] == ["refinement.json"]


@pytest.mark.parametrize("other", ["model", "data", "settings"])
def test_a_cache_of_another_job_is_refused(script, task, tmp_path, monkeypatch, capsys, other):
    cache = tmp_path / "left.npz"
    with monkeypatch.context() as patch:
        stop_after(script, patch, 3)
        assert script.main([*task, "--cache", str(cache)]) == 130
    model, data, more = *task, []
    if other == "model":
        model = str(saved(tmp_path / "model", seed=1))
    elif other == "data":
        data = f"data.val={write_folder(tmp_path / 'six')}"
        (tmp_path / "six" / "masks" / "p4.png").write_bytes((tmp_path / "six" / "masks" / "p5.png").read_bytes())
        (tmp_path / "six" / "images" / "p4.png").write_bytes((tmp_path / "six" / "images" / "p5.png").read_bytes())
    else:
        more = ["refine.bi_xy_std=60"]
    capsys.readouterr()
    assert script.main([model, data, *more, "--cache", str(cache)]) == 1
    error = capsys.readouterr().err
    assert error == f"left.npz was made with another {other}; delete it, or give another --cache\n"


def test_a_damaged_cache_is_refused(script, task, tmp_path, capsys):
    cache = tmp_path / "left.npz"
    cache.write_bytes(b"PK\x03\x04 cut short")
    assert script.main([*task, "--cache", str(cache)]) == 1
    error = capsys.readouterr().err
    assert "left.npz cannot be read as a cache" in error and error.count("\n") == 1


def test_without_an_edge_map_its_refinement_is_left_out_with_a_sentence(script, task, tmp_path, capsys):
    path = tmp_path / "refinement.json"
    assert script.main([str(saved(tmp_path / "model", edge_net=False)), task[1], "--json", str(path)]) == 0
    assert list(read(path)["kinds"]) == KINDS[:3]
    assert "this model learned no edge map" in read(path)["left_out"]["domain-learned"]
    assert "domain-learned is left out: this model learned no edge map" in capsys.readouterr().out


def test_other_classes_are_refused(script, task, capsys):
    assert script.main([*task, "data.classes=[ground,bar,disc]"]) == 1
    assert "the model's classes are ground, disc, bar, the data's ground, bar, disc" in capsys.readouterr().err


def test_a_class_that_no_label_has_is_told(page, report):
    assert report["not_in_labels"] == []
    assert "No label is disc or bar" in page.figures({**report, "not_in_labels": ["disc", "bar"]})


def written(page: ModuleType, folder: Path) -> Path:
    path = folder / "page.md"
    path.write_text(f"# Before\n\n{page.BEGIN}\n{page.PLACEHOLDER}\n{page.END}\n\nAfter.\n", encoding="utf-8")
    return path


def test_the_page_is_rewritten_between_its_markers_alone(script, page, measured, tmp_path):
    path = written(page, tmp_path)
    for _ in range(2):
        assert script.main(["--from-json", str(measured), "--markdown", str(path)]) == 0
    before, rest = path.read_text(encoding="utf-8").split(page.BEGIN)
    between, after = rest.split(page.END)
    assert (before, after) == ("# Before\n\n", "\n\nAfter.\n")
    assert between == f"\n{page.figures(read(measured))}"


def test_the_page_links_to_figures_in_its_own_folder(page, report, tmp_path):
    (tmp_path / "results").mkdir()
    path = written(page, tmp_path)
    page.rewrite(path, report, tmp_path / "results" / "a.json")
    assert "([a.json](results/a.json))" in path.read_text(encoding="utf-8")


def test_the_page_holds_every_figure_in_percent(page, report):
    text = page.figures(report)
    for one in report["kinds"].values():
        fractions = [one["mIoU"], one["trimap_mIoU"], *one["interval"], *one["curve"].values(), *one["IoU"].values()]
        assert all(f"{100 * value:.2f}" in text for value in fractions)


def test_a_row_of_the_table_has_a_cell_for_each_of_its_head(page, report):
    for block in re.findall(r"(?:^\|.*\n)+", page.figures(report), re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_a_page_without_markers_is_refused(script, measured, tmp_path, capsys):
    path = tmp_path / "page.md"
    path.write_text("# Nothing\n", encoding="utf-8")
    assert script.main(["--from-json", str(measured), "--markdown", str(path)]) == 1
    assert "has no line <!-- figures: begin -->" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == "# Nothing\n"


@pytest.mark.parametrize(
    "arguments", [[], ["--from-json", "a.json"], ["m", "--from-json", "a.json", "--markdown", "b"]]
)
def test_arguments_that_ask_for_nothing_or_two_things_are_refused(script, arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        script.main(arguments)
    assert "--from-json" in capsys.readouterr().err


def test_the_committed_page_says_what_the_committed_figures_say(page):
    text = (ROOT / "docs" / "refinement.md").read_text(encoding="utf-8")
    results = ROOT / "docs" / "results" / "refinement.json"
    between = text.partition(page.BEGIN)[2].partition(page.END)[0]
    link = f"[{results.name}](results/{results.name})"
    expected = page.figures(read(results), link) if results.exists() else f"{page.PLACEHOLDER}\n"
    assert between == f"\n{expected}", (
        "run: python benchmarks/refinement.py --from-json docs/results/refinement.json ..."
    )


def test_the_detail_is_where_most_pixels_differ(page):
    maps = np.random.default_rng(0).integers(0, 2, (3, 19, 23)) * (np.arange(23) > 6)
    differ = (maps != maps[0]).any(axis=0)
    counts = {(y, x): differ[y : y + 6, x : x + 6].sum() for y in range(14) for x in range(18)}
    assert counts[page.most_different(maps, 6)] == max(counts.values())


def test_the_picture_shows_the_cat_its_edges_and_every_refinement(script, page, task, tmp_path):
    path = tmp_path / "cat.png"
    assert script.main([task[0], "--picture", str(path)]) == 0
    with page.Image.open(path) as image:
        assert image.width <= page.WIDTH and image.height > 300 + 200
    assert path.stat().st_size < 300_000
    assert [file.name for file in tmp_path.iterdir()] == ["cat.png"]  # and nothing was measured

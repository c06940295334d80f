"""The demo: pictures, numbers, and one page that asks nobody for anything."""

import json
import re
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scaleseg
from scaleseg.config import Config, DataConfig, ModelConfig
from scaleseg.demo import PAGE_BYTES, demo
from scaleseg.errors import UserError
from scaleseg.report.use import NOTEWORTHY

CLASSES = ("background", "person", "<b>cat</b> & co")
SCALES = (1.0, 0.5)


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data.replace("\u00a0", " ")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return _photo(tmp_path / "garden.png", seed=0)


def test_every_photograph_gets_its_pictures_and_the_folder_its_numbers_and_page(tmp_path: Path, photo: Path) -> None:
    demo(tmp_path / "out", model=_model(tmp_path), images=[photo], say=_quiet)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "garden-mask.png", "garden-overlay.png", "garden-weights.png", "results.json", "index.html",
    }  # fmt: skip


def test_the_path_of_the_page_is_returned_and_said_and_then_how_to_see_more(tmp_path: Path, photo: Path) -> None:
    said: list[str] = []
    model = _model(tmp_path)
    index = demo(tmp_path / "out", model=model, images=[photo], say=said.append)
    assert index.is_file()
    assert said[-2:] == [f"open {index}", f"see more: scaleseg serve {model}"]


def test_shares_are_the_masks_pixel_counts_and_sum_to_one(tmp_path: Path, photo: Path) -> None:
    demo(tmp_path / "out", model=_model(tmp_path), images=[photo], say=_quiet)
    shares = json.loads((tmp_path / "out/results.json").read_text())["garden"]
    ids = np.asarray(Image.open(tmp_path / "out/garden-mask.png"))
    counted = {CLASSES[index]: count / ids.size for index, count in enumerate(np.bincount(ids.ravel())) if count}
    assert len(counted) > 1
    assert shares == pytest.approx(counted)
    assert sum(shares.values()) == pytest.approx(1)


def test_pictures_are_as_large_as_the_photograph_and_weights_lie_side_by_side(tmp_path: Path, photo: Path) -> None:
    demo(tmp_path / "out", model=_model(tmp_path), images=[photo], say=_quiet)
    kinds = ("mask", "overlay", "weights")
    shapes = {kind: np.asarray(Image.open(tmp_path / f"out/garden-{kind}.png")).shape for kind in kinds}
    assert shapes == {"mask": (60, 90), "overlay": (60, 90, 3), "weights": (60, 90 * len(SCALES), 3)}


def test_the_page_refers_to_nothing_outside_itself(tmp_path: Path, photo: Path) -> None:
    index = demo(tmp_path / "out", model=_model(tmp_path), images=[photo], say=_quiet)
    links = [
        attributes[name]
        for _, attributes in Page(index).elements
        for name in ("src", "href", "srcset", "data", "action", "poster")
        if name in attributes
    ]
    assert len(links) >= 2 + len(SCALES)
    assert all(str(link).startswith("data:") for link in links)
    assert not re.search(r"https?:|url\(|@import", index.read_text(encoding="utf-8"))


def test_the_page_needs_no_script(tmp_path: Path, photo: Path) -> None:
    page = Page(demo(tmp_path / "out", model=_model(tmp_path), images=[photo], say=_quiet))
    assert "script" not in {tag for tag, _ in page.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_every_picture_of_the_page_has_a_text_in_its_place(tmp_path: Path, photo: Path) -> None:
    page = Page(demo(tmp_path / "out", model=_model(tmp_path), images=[photo], say=_quiet))
    texts = [attributes.get("alt") for tag, attributes in page.elements if tag == "img"]
    assert len(texts) == 2 + len(SCALES)
    assert all(texts)
    assert len(set(texts)) == len(texts)


def test_names_of_classes_and_files_are_text_never_markup(tmp_path: Path) -> None:
    odd = _photo(tmp_path / 'a<i onclick="x">\'&amp;.png', seed=0)
    page = Page(demo(tmp_path / "out", model=_model(tmp_path), images=[odd], say=_quiet))
    assert not {"b", "i"} & {tag for tag, _ in page.elements}
    assert odd.stem in page.text
    assert CLASSES[2] in page.text


def test_each_weight_map_says_its_scale_and_mean(tmp_path: Path, photo: Path) -> None:
    model = _model(tmp_path)
    page = Page(demo(tmp_path / "out", model=model, images=[photo], say=_quiet))
    means = 100 * scaleseg.segment(scaleseg.load(model), photo).scale_weights.numpy().mean(axis=(1, 2))
    captions = [f"weight of scale {scale:g}: mean {mean:.0f} %" for scale, mean in zip(SCALES, means, strict=True)]
    assert re.findall(r"weight of scale [\d.]+: mean \d+ %", page.text) == captions


def test_the_page_tells_on_which_class_each_scale_weighs_most(tmp_path: Path, photo: Path) -> None:
    model = _model(tmp_path)
    page = Page(demo(tmp_path / "out", model=model, images=[photo], say=_quiet))
    result = scaleseg.segment(scaleseg.load(model), photo)
    labels, weights = result.labels.numpy(), result.scale_weights.numpy()
    there = [index for index in range(len(CLASSES)) if (labels == index).mean() >= NOTEWORTHY]
    assert len(there) > 1
    means = [{CLASSES[index]: one_scale[labels == index].mean() for index in there} for one_scale in weights]
    (first, first_mean), (second, second_mean) = (max(mean.items(), key=lambda item: item[1]) for mean in means)
    assert (
        f"Here scale 1 is believed most on {first} ({100 * first_mean:.0f} % on average) "
        f"and scale 0.5 on {second} ({100 * second_mean:.0f} %)." in page.text
    )


def test_where_every_scale_weighs_the_same_the_page_names_no_favourite(tmp_path: Path, photo: Path) -> None:
    model = _model(tmp_path, fusion="average")
    page = Page(demo(tmp_path / "out", model=model, images=[photo], say=_quiet))
    assert "no scale stands out: on every class each weighs 50 % on average" in page.text
    assert "believed most" not in page.text


def test_photographs_of_one_name_are_all_kept(tmp_path: Path, photo: Path) -> None:
    other = _photo(tmp_path / "elsewhere" / "Garden.png", seed=1)
    demo(tmp_path / "out", model=_model(tmp_path), images=[photo, other, photo], say=_quiet)
    assert list(json.loads((tmp_path / "out/results.json").read_text())) == ["garden", "Garden-2", "garden-3"]
    assert (tmp_path / "out/Garden-2-mask.png").is_file()


def test_a_second_run_replaces_the_first(tmp_path: Path, photo: Path) -> None:
    model, out = _model(tmp_path), tmp_path / "out"
    demo(out, model=model, images=[photo], say=_quiet)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    _photo(photo, seed=1)
    demo(out, model=model, images=[photo], say=_quiet)
    second = {path.name: path.read_bytes() for path in out.iterdir()}
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] == second[name]] == []


def test_a_page_of_large_photographs_stays_small(tmp_path: Path) -> None:
    photos = [_photo(tmp_path / f"{seed}.png", seed=seed, size=(760, 760), cell=1) for seed in range(2)]
    index = demo(tmp_path / "out", model=_model(tmp_path), images=photos, say=_quiet)
    assert sum(photo.stat().st_size for photo in photos) > PAGE_BYTES
    assert index.stat().st_size < PAGE_BYTES


def test_without_photographs_those_of_scikit_image_are_shown(tmp_path: Path) -> None:
    page = Page(demo(tmp_path / "out", model=_model(tmp_path), say=_quiet))
    assert list(json.loads((tmp_path / "out/results.json").read_text())) == ["chelsea", "astronaut", "coffee"]
    assert "CC0" in page.text


@pytest.mark.parametrize("module", ["skimage", "jinja2"])
def test_a_missing_extra_is_told_with_the_line_that_installs_it(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=re.escape("pip install 'scaleseg[demo]'")):
        demo(tmp_path / "out", model=_model(tmp_path), say=_quiet)
    assert not (tmp_path / "out").exists()


def test_own_photographs_need_no_scikit_image(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert demo(tmp_path / "out", model=_model(tmp_path), images=[photo], say=_quiet).is_file()


def test_a_file_in_the_folders_place_is_a_users_error(tmp_path: Path, photo: Path) -> None:
    with pytest.raises(UserError, match="give another folder with --out"):
        demo(photo, model=_model(tmp_path), images=[photo], say=_quiet)


def _photo(path: Path, *, seed: int, size: tuple[int, int] = (60, 90), cell: int = 10) -> Path:
    """A file of random colours, in squares of `cell` pixels."""
    rows, columns = size
    colours = np.random.default_rng(seed).integers(0, 256, (rows // cell, columns // cell, 3), np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(colours.repeat(cell, axis=0).repeat(cell, axis=1)).save(path)
    return path


def _model(tmp_path: Path, *, fusion: str = "attention", scales: Sequence[float] = SCALES) -> str:
    """A saved random network whose classes and scale weights differ from pixel to pixel."""
    settings = ModelConfig(segmenter="small", fusion=fusion, scales=tuple(scales), pretrained="none", attention_width=8)
    torch.manual_seed(0)
    model = scaleseg.create_model(
        "small", classes=CLASSES, fusion=fusion, scales=scales, pretrained="none", attention_width=8
    )
    for parameter in (parameter for name, parameter in model.named_parameters() if name in model.fresh()):
        torch.nn.init.normal_(parameter, std=0.5)
    scaleseg.save(tmp_path / "model", model, Config(model=settings, data=DataConfig(classes=CLASSES)))
    return str(tmp_path / "model")


def _quiet(line: str) -> None:
    """Says nothing."""

"""The report: its numbers are the analysis's, its sentences no stronger than their intervals, its page asks for nothing."""

import errno
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import CLASSES, small_config, small_model
from scaleseg import checkpoint
from scaleseg.analysis import Analysis, Calibration, CalibrationBin, Estimate, ImageScore, ObjectSize, ScaleUse, gain
from scaleseg.cli import main
from scaleseg.errors import UserError
from scaleseg.metrics import Metrics
from scaleseg.report import Shown, Wish, compose, gallery_page, measured_page, report, show, template
from scaleseg.report.gallery import Shares, choose
from scaleseg.report.headlines import headlines, of_scales, of_sizes
from scaleseg.report.history import curves
from scaleseg.report.pictures import SIDES, Maps, Pictures, draw
from scaleseg.report.words import without_folders
from scaleseg.segmentation import Segmentation

SCALES = (1.0, 0.5)
HOSTILE = '<script>alert("x")</script>&amp;\'\u202e'


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._inside: list[list[str]] | None = None
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append((tag, given))
        if given.get("role") == "region":
            self._inside = self.tables.setdefault(str(given["aria-label"]), [])
        if tag == "tr" and self._inside is not None:
            self._inside.append([])
        self._cell = tag in ("td", "th") or (self._cell and tag not in ("tr", "table"))
        if tag in ("td", "th") and self._inside:
            self._inside[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")
        if tag == "table":
            self._inside = None

    def handle_data(self, data: str) -> None:
        self.text += data.replace("\u00a0", " ")
        if self._cell and self._inside:
            self._inside[-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def estimate(value: float, wide: float = 0.02) -> Estimate:
    return Estimate(value, max(0.0, value - wide), min(1.0, value + wide))


def analysis(
    *, classes: tuple[str, ...] = CLASSES, scales: tuple[float, ...] = SCALES, images: int = 6, spread: float = 0.02
) -> Analysis:
    """One made by hand, every figure different from every other."""
    several = len(scales) > 1
    fusions = ("fused", *(f"scale {scale:g}" for scale in scales), "average", "max", "oracle")
    weights = tuple(float(w) for w in np.linspace(2, 1, len(scales)) / np.linspace(2, 1, len(scales)).sum())
    iou = {name: estimate(0.9 - 0.31 * place / len(classes), spread) for place, name in enumerate(classes)}
    edges = (0.0, 0.01, 0.05, 0.15, 0.4, 1.0)
    sizes = tuple(
        ObjectSize(
            low, high, 7 + place, estimate(0.41 + 0.07 * place, spread), 0.5 + 0.06 * place, {}, weights, {}, place
        )
        for place, (low, high) in enumerate(pairwise(edges))
    )
    bins = tuple(
        CalibrationBin(place / 15, (place + 1) / 15, 1 / 15, (place + 0.5) / 15, (place + 0.25) / 15)
        for place in range(15)
    )
    return Analysis(
        metrics=Metrics(0.7, 0.8, 0.9, 0.85, {name: value.value for name, value in iou.items()}),
        classes=classes,
        scales=scales,
        mIoU=estimate(0.7123, spread),
        IoU=iou,
        fusions={name: estimate(0.7123 - 0.0101 * place + 0.1 * (name == "oracle")) for place, name in enumerate(fusions)},
        sizes=sizes,
        boundary_IoU=estimate(0.5432, spread),
        trimap=tuple((width, 0.4 + 0.013 * width) for width in range(1, 21)),
        calibration=Calibration(1 / 60, bins),
        scale_use=ScaleUse(-0.31, (-0.4, -0.2), 45, {"object": weights, "boundary": weights[::-1], "background": weights},
                           dict.fromkeys(classes, weights)) if several else None,
        images=tuple(score(place, fusions, weights, classes) for place in range(images)),
    )  # fmt: skip


def score(place: int, fusions: tuple[str, ...], weights: tuple[float, ...], classes: tuple[str, ...]) -> ImageScore:
    counted = {name: {one: (50 + place, 100 + rank) for rank, one in enumerate(classes)} for name in fusions}
    sizes = ((1, 0.5),) * 5
    return ImageScore(f"photo {place}", place, 0.5 + 0.01 * place, weights, 0.3 - 0.001 * place, counted, {}, sizes)


def a_photograph(
    place: int,
    *,
    classes: tuple[str, ...] = CLASSES,
    scales: tuple[float, ...] = SCALES,
    size: tuple[int, int] = (24, 36),
    labelled: bool = True,
    noise: bool = False,
) -> Shown:
    """A photograph of random pixels, labels and predictions."""
    generator = np.random.default_rng(place)
    rows, columns = size
    cell = 1 if noise else 6
    ids = generator.integers(0, len(classes), (-(-rows // cell), -(-columns // cell)), np.uint8)
    ids = ids.repeat(cell, 0).repeat(cell, 1)[:rows, :columns]
    labels = np.where(generator.random(size) < 0.8, np.roll(ids, 3, axis=1), 255).astype(np.uint8)
    image = torch.from_numpy(generator.integers(0, 256, (3, rows, columns), np.uint8))
    weights = torch.from_numpy(generator.random((len(scales), rows, columns), np.float32))
    result = Segmentation(image, torch.from_numpy(ids), weights / weights.sum(0), classes, scales)
    return show(f"photo {place}", result, labels=labels if labelled else None, score=0.5 if labelled else None)


def page_of(found: Analysis, shown: dict[int, Shown] | None = None, **more: object) -> str:
    shown = (
        {place: a_photograph(place, classes=found.classes, scales=found.scales) for place in (0, 1)}
        if shown is None
        else shown
    )
    page = measured_page("a-model", found, shown, facts="small", data="6 photographs", **more)  # type: ignore[arg-type]
    return compose(template("report"), page)


def two(value: float | None) -> str:
    """As tables show a fraction."""
    return "\u2013" if value is None else f"{100 * value:.2f}"


def body(page: Page, title: str) -> list[list[str]]:
    return page.tables[title][1:]


def test_every_chart_has_a_name_and_a_table() -> None:
    page = Page(page_of(analysis()))
    assert len(page.tables) == len(page.of("details")) == 8
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in page.of("svg"))
    assert len(page.of("svg")) == 8


def test_the_table_of_classes_is_the_analysis_best_first() -> None:
    found = analysis()
    ordered = sorted(found.IoU.items(), key=lambda item: -item[1].value)
    assert body(Page(page_of(found)), "IoU of each class") == [[name, *map(two, value)] for name, value in ordered]


def test_the_table_of_sizes_is_the_analysis() -> None:
    found = analysis()
    found = replace(found, sizes=(*found.sizes[:4], ObjectSize(0.4, 1.0, 0, None, None, {}, None, {})))
    rows = body(Page(page_of(found)), "IoU by the size of objects")
    assert [row[1:] for row in rows] == [
        [str(size.objects), *map(two, size.IoU or (None,) * 3), two(size.found), str(size.false_alarms)]
        for size in found.sizes
    ]
    assert [row[0].replace("\u00a0", " ") for row in rows] == [
        "below 1 %", "1 to 5 %", "5 to 15 %", "15 to 40 %", "above 40 %",
    ]  # fmt: skip


def test_names_of_sizes_are_whole_beside_thousands_of_objects() -> None:
    found = analysis()
    found = replace(found, sizes=tuple(size._replace(objects=1_234) for size in found.sizes))
    assert ">above 40\u00a0%<tspan" in page_of(found)
    assert ">15 to 40\u00a0%<tspan" in page_of(found)


def test_the_table_of_fusions_is_the_analysis() -> None:
    found = analysis()
    rows = {name: figures for name, *figures in body(Page(page_of(found)), "mIoU by what merges the scales")}
    names = {"the model's own": "fused", "only scale 1": "scale 1", "only scale 0.5": "scale 0.5"}
    assert {names.get(name, name): row for name, row in rows.items()} == {
        name: [*map(two, value)] for name, value in found.fusions.items()
    }


def test_the_tables_of_weights_are_the_analysis() -> None:
    found = analysis()
    page = Page(page_of(found))
    assert found.scale_use is not None
    by_size = body(page, "Which scale is believed, by the size of objects")
    assert [row[2:] for row in by_size] == [[*map(two, size.weights or ())] for size in found.sizes]
    for title, weights in (
        ("Which scale is believed where", found.scale_use.zones),
        ("Which scale is believed on which class", found.scale_use.classes),
    ):
        assert body(page, title) == [[name, *map(two, parts)] for name, parts in weights.items()]


def test_the_tables_of_curves_are_the_analysis() -> None:
    found = analysis()
    page = Page(page_of(found))
    assert body(page, "mIoU near outlines") == [[str(width), two(value)] for width, value in found.trimap]
    assert body(page, "How far a probability can be believed") == [[*map(two, step)] for step in found.calibration.bins]


def test_the_bars_are_as_long_as_their_figures() -> None:
    found = analysis()
    chart = re.search(r'aria-label="IoU of each class.*?</svg>', page_of(found))
    assert chart
    widths = [float(width) for width in re.findall(r'<rect class="bar[^"]*"[^>]* width="([\d.]+)"', chart[0])]
    values = sorted((value.value for value in found.IoU.values()), reverse=True)
    assert np.allclose(np.array(widths) / widths[0], np.array(values) / values[0], atol=0.002)


def test_the_headlines_are_the_analysis() -> None:
    found = analysis()
    figures = {item.name: (item.figure, item.interval) for item in headlines(found)}
    assert figures["mIoU"] == ("71.2\u00a0%", "69.2 to 73.2\u00a0%")
    assert figures["boundary IoU"] == ("54.3\u00a0%", "52.3 to 56.3\u00a0%")
    assert figures["calibration error (ECE)"] == ("1.7\u00a0%", "")
    oracle = found.fusions["oracle"]
    assert figures["oracle"][0] == f"{100 * oracle.value:.1f}\u00a0%"
    assert list(figures) == [
        "mIoU",
        "boundary IoU",
        "calibration error (ECE)",
        "average instead",
        "max instead",
        "oracle",
    ]


@pytest.mark.parametrize(
    ("interval", "said"),
    [((-0.4, -0.2), "smaller scales, as the paper says"), ((0.1, 0.2), "the opposite"), ((-0.2, 0.1), "no direction")],
)
def test_a_direction_is_told_only_where_the_interval_lies_on_one_side(interval: tuple[float, float], said: str) -> None:
    use = ScaleUse(sum(interval) / 2, interval, 45, {}, {})
    assert said in of_scales(replace(analysis(), scale_use=use))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_photographs_tell_no_direction_no_winner_and_no_interval(count: int) -> None:
    few = replace(paired(count, 0, images=count), sizes=analysis().sizes)
    page = Page(page_of(few, {0: a_photograph(0)}))
    assert "too few photographs" in of_scales(few)
    assert "too few photographs to tell whether the model's own fusion or average is better" in page.text
    assert not re.search(r"is (better|worse) than|Weakest|95 % interval", page.text)
    assert body(page, "mIoU by what merges the scales")[-1][2:] == ["\u2013", "\u2013"]
    assert not re.search(
        r'class="whisker" d=', compose(template("report"), measured_page("m", few, {}, facts="", data=""))
    )


def test_few_photographs_are_said_to_make_a_rough_interval() -> None:
    assert "With only 6 photographs the interval itself is rough" in headlines(analysis())[0].sentence
    assert "rough" not in headlines(analysis(images=30))[0].sentence


def test_a_class_and_a_size_of_few_photographs_have_no_interval() -> None:
    found = analysis()
    alone, *others = found.images
    rare = {name: {one: pair for one, pair in of.items() if one != "bar"} for name, of in alone.tallies.items()}
    lone = replace(alone, tallies=rare, sizes=((0, 0.0), *alone.sizes[1:]))
    page = Page(page_of(replace(found, images=(lone, *others))))
    by_class = {name: figures for name, *figures in body(page, "IoU of each class")}
    assert by_class["bar"][1:] == ["\u2013", "\u2013"]
    assert "\u2013" not in by_class["disc"]
    assert "Classes in fewer than 6 photographs have no interval" in page.text
    assert "Between ground and disc lie" in page.text
    assert body(page, "IoU by the size of objects")[0][3:5] == ["\u2013", "\u2013"]
    assert "Sizes in fewer than 6 photographs have no interval. Weakest: 1 to 5" in page.text


def test_without_outlines_in_the_labels_there_is_no_curve() -> None:
    assert "mIoU near outlines" not in Page(page_of(replace(analysis(), trimap=()))).tables


def test_without_objects_the_correlation_is_told_to_be_none() -> None:
    assert "They are too few, or all of one size" in of_scales(
        replace(analysis(), scale_use=ScaleUse(None, None, 2, {}, {}))
    )


@pytest.mark.parametrize(("spread", "told"), [(0.02, True), (0.3, False)])
def test_weakest_and_strongest_sizes_are_named_only_where_their_intervals_lie_apart(spread: float, told: bool) -> None:
    said = of_sizes(analysis(spread=spread))
    assert ("Weakest: below 1" in said) is told
    assert ("overlap" in said) is not told


@pytest.mark.parametrize(("boundary", "said"), [(0.5, "less exactly"), (0.9, "more exactly"), (0.71, "overlaps")])
def test_outlines_are_compared_with_areas_by_their_intervals(boundary: float, said: str) -> None:
    assert said in headlines(replace(analysis(), boundary_IoU=estimate(boundary)))[1].sentence


@pytest.mark.parametrize(
    ("accuracy", "said"), [(0.2, "too sure, by 60.0"), (0.9, "too careful, by 10.0"), (0.8, "neither")]
)
def test_calibration_says_which_way(accuracy: float, said: str) -> None:
    found = Calibration(abs(0.8 - accuracy), (CalibrationBin(0.6, 0.9, 1.0, 0.8, accuracy),))
    assert said in headlines(replace(analysis(), calibration=found))[2].sentence.replace("\u00a0", " ")


def paired(better: int, worse: int, images: int = 40) -> Analysis:
    """`fused` has more hits than `average` in `better` images, fewer in `worse`."""
    found = analysis(images=images)
    scores = []
    for place, image in enumerate(found.images):
        more = 8 if place < better else -8 if place < better + worse else 0
        counted = {**image.tallies, "average": {"disc": (50, 100)}, "fused": {"disc": (50 + more, 100)}}
        scores.append(replace(image, tallies=counted))
    return replace(found, images=tuple(scores))


@pytest.mark.parametrize(
    ("better", "worse", "said"),
    [
        (30, 0, "own fusion is better than average"),
        (0, 30, "own fusion is worse than average"),
        (5, 4, "do not tell which"),
        (0, 0, "give the same"),
    ],
)
def test_fusions_are_compared_on_the_same_photographs(better: int, worse: int, said: str) -> None:
    sentence = next(item.sentence for item in headlines(paired(better, worse)) if item.name == "average instead")
    assert said in sentence


def test_the_gain_of_a_fusion_is_the_difference_of_the_two_figures() -> None:
    found = gain(paired(30, 0), "average").difference
    assert found.value == pytest.approx(30 * 8 / (40 * 100))
    assert 0 < found.low < found.value < found.high


def test_a_model_of_one_scale_has_no_chart_of_scales_and_no_weight_map() -> None:
    found = analysis(scales=(1.0,))
    page = Page(page_of(found))
    assert [item.name for item in headlines(found)] == ["mIoU", "boundary IoU", "calibration error (ECE)"]
    assert not [title for title in page.tables if "scale" in title]
    assert "weight of" not in page.text
    assert len(page.of("img")) == 2 * 4


def test_every_picture_has_a_text_of_its_own_that_says_what_is_seen() -> None:
    shown = {place: a_photograph(place) for place in range(3)}
    texts = [str(image["alt"]) for image in Page(page_of(analysis(), shown)).of("img")]
    assert len(texts) == len(set(texts)) == 3 * (4 + len(SCALES))
    of_first = [text for text in texts if "photo 0" in text]
    shares = shown[0].shares
    assert shares is not None
    right = f"{100 * shares.right:.0f}\u00a0% of the pixels right"
    assert right in next(text for text in of_first if text.startswith("Errors on"))
    assert all(name in next(text for text in of_first if text.startswith("Labels of")) for name in CLASSES)


def test_the_page_refers_to_nothing_outside_itself_and_runs_nothing() -> None:
    text = page_of(analysis())
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import", text)
    links = [v for _, attributes in page.elements for k, v in attributes.items() if k in ("src", "href", "srcset")]
    assert all(str(link).startswith(("data:", "#")) for link in links)
    assert "script" not in {tag for tag, _ in page.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    policies = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_every_link_of_the_page_leads_somewhere() -> None:
    page = Page(page_of(analysis()))
    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(link["href"]).removeprefix("#") for link in page.of("a")} <= set(ids)


def test_names_of_classes_models_and_photographs_are_text_never_markup() -> None:
    classes = (HOSTILE, "b" * 300, "<i>")
    found = analysis(classes=classes)
    shown = {0: replace(a_photograph(0, classes=classes), name=HOSTILE, note="<b>note</b>")}
    page = measured_page(HOSTILE, found, shown, facts="<u>", data="<em>", notes=["<i>"], footer=[("<b>", "<i>")])
    parsed = Page(compose(template("report"), page))
    assert not {"script", "b", "i", "u", "em"} & {tag for tag, _ in parsed.elements}
    assert HOSTILE.replace("\u202e", "\\u202e") in parsed.text
    assert "\u202e" not in parsed.text
    assert body(parsed, "IoU of each class")[0][0] == HOSTILE.replace("\u202e", "\\u202e")


def cache_of(draw: Callable[..., Pictures]) -> Callable[..., Pictures]:
    """Pictures of the same maps at the same size are drawn once."""
    drawn: dict[tuple[int, int], Pictures] = {}

    def remembered(maps: Maps, num_classes: int, side: int) -> Pictures:
        key = id(maps), side
        if key not in drawn:
            drawn[key] = draw(maps, num_classes, side)
        return drawn[key]

    return remembered


def test_a_report_of_forty_photographs_of_noise_is_below_5_mb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaleseg.report.page.draw", cache_of(draw))  # the same two photographs again and again
    noise = [a_photograph(place, size=(375, 500), noise=True) for place in range(2)]
    found = analysis(images=400)
    images = tuple(replace(one, division=float(100 < one.index <= 110)) for one in found.images)
    shown = {place: replace(noise[place % 2], name=f"photo {place}") for place in range(400)}
    text = page_of(replace(found, images=images), shown)
    assert (
        38 * (4 + len(SCALES)) <= len(Page(text).of("img")) <= 40 * (4 + len(SCALES))
    )  # the draw may meet a worst one
    assert len(text.encode()) < 5_000_000


def test_few_photographs_are_shown_larger_than_many() -> None:
    scales = (1.0, 0.5)
    shown = {0: a_photograph(0, size=(375, 500), noise=True)}
    widths = [image["width"] for image in Page(page_of(analysis(), shown)).of("img")]
    assert widths == ["500"] * (4 + len(scales))


def test_a_page_of_150_classes_and_hostile_lengths_has_them_all() -> None:
    classes = tuple(f"class number {place}" for place in range(150))
    text = page_of(analysis(classes=classes), {0: a_photograph(0, classes=classes)})
    page = Page(text)
    assert len(body(page, "IoU of each class")) == 150
    assert len([chart for chart in page.of("svg") if "IoU of each class" in str(chart["aria-label"])]) == 5


def test_an_absent_class_is_named_and_in_no_chart() -> None:
    found = analysis()
    there = {name: value for name, value in found.IoU.items() if name != "bar"}
    page = Page(page_of(replace(found, IoU=there)))
    assert "In neither labels nor predictions, and in no mean: bar." in page.text
    assert "bar" not in [row[0] for row in body(page, "IoU of each class")]


def test_sections_are_the_worst_the_best_a_seeded_draw_and_the_most_divided() -> None:
    images = analysis(images=50).images
    sections = {section.key: list(section.indices) for section in choose(images, several=True)}
    assert sections["worst"] == list(range(10))
    assert sections["best"] == list(range(49, 39, -1))
    assert sections["divided"] == list(range(10))
    assert len(set(sections["random"])) == 10
    assert sections["random"] == {s.key: list(s.indices) for s in choose(images, several=True)}["random"]


@pytest.mark.parametrize("count", [1, 2, 3, 13, 19])
def test_of_few_photographs_none_is_worst_and_best_and_none_twice_in_a_section(count: int) -> None:
    sections = {section.key: section.indices for section in choose(analysis(images=count).images, several=True)}
    assert not set(sections.get("worst", ())) & set(sections["best"])
    assert all(len(indices) == len(set(indices)) for indices in sections.values())
    assert len(sections["random"]) == min(10, count)


def test_photographs_that_are_all_void_are_neither_worst_nor_best() -> None:
    images = tuple(replace(image, mIoU=None) if image.index < 3 else image for image in analysis().images)
    sections = {section.key: section.indices for section in choose(images, several=True)}
    assert not {0, 1, 2} & {*sections["worst"], *sections["best"]}


def test_a_photograph_that_is_all_void_says_so() -> None:
    void = replace(a_photograph(0), mIoU=None, shares=Shares(0.0, 0.0, 1.0))
    found = analysis()
    lone = replace(found, images=(replace(found.images[0], mIoU=None), *found.images[1:]))
    page = Page(page_of(lone, {0: void}))
    assert "all void" in page.text
    assert any("100\u00a0% void" in str(image["alt"]) for image in page.of("img"))


def test_where_scales_never_differ_no_photograph_is_most_divided() -> None:
    images = tuple(replace(image, division=0.0) for image in analysis().images)
    assert "divided" not in {section.key for section in choose(images, several=True)}
    assert "divided" not in {section.key for section in choose(analysis().images, several=False)}


def test_a_photograph_of_two_sections_has_its_pictures_once() -> None:
    page = Page(page_of(analysis(), {place: a_photograph(place) for place in range(6)}))
    assert len(page.of("img")) == 6 * (4 + len(SCALES))
    assert "Shown above, under" in page.text


def test_an_error_map_shows_right_wrong_and_void_apart() -> None:
    maps = a_photograph(0).maps
    assert maps is not None
    assert maps.labels is not None
    drawn = decoded(draw(maps, 3, SIDES[0]).errors)
    void, right = maps.labels == 255, (maps.labels == maps.predicted) & (maps.labels != 255)
    colours = [{tuple(pixel) for pixel in drawn[where]} for where in (right, ~right & ~void, void)]
    assert [len(found) for found in colours] == [1, 1, 2]
    assert not colours[0] & colours[1]
    assert not (colours[0] | colours[1]) & colours[2]


def test_right_and_wrong_differ_in_lightness_as_text_must() -> None:
    def light(colour: tuple[int, int, int]) -> float:
        linear = [(c / 255 / 12.92) if c / 255 <= 0.03928 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    from scaleseg.report.pictures import RIGHT, WRONG

    assert (light(RIGHT) + 0.05) / (light(WRONG) + 0.05) > 4.5


def decoded(picture: object) -> np.ndarray:
    import base64
    import io

    content = base64.b64decode(str(picture.uri).partition(",")[2])  # type: ignore[attr-defined]
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image.convert("RGB"))


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (6000, 3)])
def test_photographs_of_any_shape_are_drawn(size: tuple[int, int]) -> None:
    shown = a_photograph(0, size=size)
    assert shown.size == (size[1], size[0])
    images = Page(page_of(analysis(), {0: shown})).of("img")
    assert len(images) == 4 + len(SCALES)
    assert all(1 <= int(str(image[side])) <= SIDES[0] for image in images for side in ("width", "height"))


def test_the_share_of_weight_that_moves_is_that_of_the_analysis() -> None:
    weights = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    result = Segmentation(
        torch.zeros(3, 1, 2, dtype=torch.uint8), torch.zeros(1, 2, dtype=torch.uint8), weights, CLASSES, SCALES
    )
    assert show("a", result).division == pytest.approx(0.5)


def write_history(run: Path, lines: list[str]) -> Path:
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text("{}")
    (run / "metrics.jsonl").write_text("\n".join(lines))
    return run / "metrics.jsonl"


def test_training_curves_are_the_runs_records(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "loss": 9 / step, "loss_fused": 3 / step}) for step in range(1, 6)]
    dev = {"mIoU": 0.5, "per_scale": {"1": 0.4, "0.5": 0.3}}
    lines += [json.dumps({"step": step, "dev": dev}) for step in (2, 4)]
    loss, development = curves(write_history(tmp_path / "run", lines))
    assert [row[:3] for row in loss.rows] == [(str(s), f"{9 / s:.4f}", f"{3 / s:.4f}") for s in range(1, 6)]
    assert development.rows == (("2", "50.00", "40.00", "30.00"), ("4", "50.00", "40.00", "30.00"))


def test_a_record_that_is_cut_short_or_not_a_number_is_left_out(tmp_path: Path) -> None:
    lines = [
        '{"step": 1, "loss": 2.0}',
        '{"step": 2, "loss": NaN}',
        '{"step": "x", "loss": 1}',
        "[]",
        '{"step": 3, "lo',
    ]
    (loss,) = curves(write_history(tmp_path / "run", lines))
    assert [row[0] for row in loss.rows] == ["1"]


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 2, "loss": 1e308}',
        '{"step": 2, "loss": -1e308}',
        '{"step": 2, "loss": 1' + "0" * 400 + "}",
        '{"step": 1' + "0" * 400 + ', "loss": 1}',
        "[" * 100_000,
    ],
    ids=["large", "small", "loss", "step", "deep"],
)
def test_a_record_that_is_no_measurement_is_left_out(tmp_path: Path, line: str) -> None:
    (loss,) = curves(write_history(tmp_path / "run", ['{"step": 1, "loss": 2.0}', line]))
    assert [row[0] for row in loss.rows] == ["1"]


def test_of_a_step_that_was_done_twice_the_last_is_shown(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in ((1, 9.0), (2, 8.0), (3, 7.0), (2, 5.0))]
    (loss,) = curves(write_history(tmp_path / "run", lines))
    assert loss.rows == (("1", "9.0000"), ("2", "5.0000"), ("3", "7.0000"))


def test_a_long_run_is_thinned_by_means(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "loss": float(step)}) for step in range(1, 1001)]
    (loss,) = curves(write_history(tmp_path / "run", lines))
    assert len(loss.rows) == 100
    assert loss.rows[0] == ("10", f"{np.mean(range(1, 11)):.4f}")


def test_words_of_a_command_lose_their_folders() -> None:
    assert without_folders("data.val=/home/me/val.zip") == "data.val=val.zip"
    assert without_folders("runs/cat/best") == "best"
    assert without_folders("train.steps=3") == "train.steps=3"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    checkpoint.save(path, small_model(), small_config())
    return path


def quiet(line: str) -> None:
    """Says nothing."""


def test_a_report_of_a_dataset_has_its_figures_and_photographs(saved: Path, folder: Path, tmp_path: Path) -> None:
    wish = Wish(str(saved), (f"data.val={folder}",), command=("scaleseg", "report", str(saved), f"data.val={folder}"))
    text = report(wish, tmp_path / "r.html", say=quiet).read_text(encoding="utf-8")
    page = Page(text)
    assert "On 6 photographs of photographs, mIoU is" in page.text
    assert len(page.of("img")) == 6 * (4 + len(SCALES))
    assert len(page.tables) == 8
    assert str(tmp_path) not in text
    assert "scaleseg report model data.val=photographs" in page.text


def test_a_saved_analysis_gives_the_same_page_without_measuring(
    saved: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scaleseg.analysis import analyze
    from scaleseg.datasets import open_evaluation
    from scaleseg.recipes import override

    config = override({}, [f"data.val={folder}", 'data.classes=["ground","disc","bar"]'])
    found = analyze(checkpoint.load(saved), open_evaluation(config.data).dataset)
    (tmp_path / "d.json").write_text(json.dumps({"analysis": found.to_dict()}))
    plain = report(Wish(str(saved), (f"data.val={folder}",)), tmp_path / "a.html", say=quiet).read_text()
    monkeypatch.setattr("scaleseg.report.measured.analyze", lambda *_, **__: pytest.fail("measured"))
    wish = Wish(str(saved), (f"data.val={folder}",), analysis=tmp_path / "d.json")
    assert report(wish, tmp_path / "b.html", say=quiet).read_text() == plain


@pytest.mark.parametrize("content", ["", "[]", '{"mIoU": 0.5}', "\x00", "[" * 100_000], ids=range(5))
def test_an_analysis_that_is_none_is_a_users_error(saved: Path, folder: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "d.json").write_text(content)
    wish = Wish(str(saved), (f"data.val={folder}",), analysis=tmp_path / "d.json")
    with pytest.raises(UserError, match=r"--analysis .*d\.json"):
        report(wish, tmp_path / "r.html", say=quiet)


def test_an_analysis_of_other_photographs_is_refused(saved: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps(analysis().to_dict()))
    wish = Wish(str(saved), (f"data.val={folder}",), analysis=tmp_path / "d.json")
    with pytest.raises(UserError, match="is of other photographs"):
        report(wish, tmp_path / "r.html", say=quiet)


def test_an_analysis_of_another_model_with_these_classes_and_scales_is_refused(
    saved: Path, folder: Path, tmp_path: Path
) -> None:
    from scaleseg.analysis import analyze
    from scaleseg.datasets.folder import Folder

    found = analyze(small_model(seed=1), Folder([str(folder)], CLASSES, {}))
    (tmp_path / "d.json").write_text(json.dumps(found.to_dict()))
    wish = Wish(str(saved), (f"data.val={folder}",), analysis=tmp_path / "d.json")
    with pytest.raises(UserError, match="is not of this model as it is run now"):
        report(wish, tmp_path / "r.html", say=quiet)


def test_what_refinement_changes_is_not_laid_to_fusion(saved: Path, folder: Path, tmp_path: Path) -> None:
    for refine, told in (("domain", True), ("none", False)):
        wish = Wish(str(saved), (f"data.val={folder}",), refine=refine)
        page = Page(report(wish, tmp_path / "r.html", say=quiet).read_text())
        assert ("due to both, fusion and refinement" in page.text) is told


def test_of_a_single_class_no_scale_is_said_to_be_believed_most_there() -> None:
    from scaleseg.report.use import sentence

    row = a_photograph(0, labelled=False).classes[0]._replace(name="wall", share=1.0, weights=(0.7, 0.3))
    assert sentence([replace(a_photograph(0, labelled=False), classes=(row,))], SCALES).replace("\u00a0", " ") == (
        "Here the model sees wall alone; on average scale 1 weighs 70 % and scale 0.5 weighs 30 %."
    )


def test_without_labels_there_is_the_gallery_and_the_use_of_scales(saved: Path, folder: Path, tmp_path: Path) -> None:
    page = Page(report(Wish(str(saved), images=(str(folder / "images"),)), tmp_path / "r.html", say=quiet).read_text())
    assert len(page.of("img")) == 6 * (2 + len(SCALES))
    assert list(page.tables) == ["Which scale is believed on which class"]
    assert "mIoU" not in page.text


def test_of_many_photographs_without_labels_forty_are_shown_and_none_twice() -> None:
    shown = [a_photograph(place, labelled=False) for place in range(50)]
    kept = [one if place < 40 else replace(one, maps=None) for place, one in enumerate(shown)]
    page = gallery_page("m", SCALES, 3, kept, facts="", footer=[])
    indices = [index for section in page.sections for index in section.indices]
    assert sorted(indices) == list(range(40))
    most = max(range(40), key=lambda place: shown[place].division)
    assert page.sections[0].indices[0] == most


def test_a_photograph_that_cannot_be_read_is_said_and_left_out(saved: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "images" / "p1.png").write_bytes(b"nothing")
    said: list[str] = []
    text = report(Wish(str(saved), images=(str(folder / "images"),)), tmp_path / "r.html", say=said.append).read_text()
    assert any(line.startswith("left out: ") and "p1.png" in line for line in said)
    assert "left out, for they could not be read: p1.png" in Page(text).text
    assert str(tmp_path) not in text


def test_a_photograph_that_vanished_after_it_was_measured_is_left_out(
    saved: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import scaleseg.report.measured as measured

    def vanish(*arguments: object, **options: object) -> Analysis:
        found = analyze(*arguments, **options)  # type: ignore[arg-type]
        (folder / "images" / "p2.png").unlink()
        return found

    analyze = measured.analyze
    monkeypatch.setattr(measured, "analyze", vanish)
    text = report(Wish(str(saved), (f"data.val={folder}",)), tmp_path / "r.html", say=quiet).read_text()
    page = Page(text)
    assert "could not be read again: p2" in page.text
    assert len(page.of("img")) == 5 * (4 + len(SCALES))
    assert str(tmp_path) not in text


def test_photographs_of_which_none_can_be_read_are_a_users_error(saved: Path, folder: Path, tmp_path: Path) -> None:
    for path in (folder / "images").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="none of the 6 photographs can be used"):
        report(Wish(str(saved), images=(str(folder / "images"),)), tmp_path / "r.html", say=quiet)
    assert not (tmp_path / "r.html").exists()


def test_a_folder_without_photographs_is_a_users_error(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no photographs"):
        report(Wish(str(saved), images=(str(tmp_path / "empty"),)), tmp_path / "r.html", say=quiet)


def a_folder(root: Path) -> Path:
    return root


def in_no_folder(root: Path) -> Path:
    return root / "nowhere" / "r.html"


def in_a_file(root: Path) -> Path:
    (root / "file").touch()
    return root / "file" / "r.html"


@pytest.mark.parametrize("place", [a_folder, in_no_folder, in_a_file], ids=lambda place: place.__name__)
def test_an_out_that_cannot_be_written_is_refused_before_the_model_is_read(tmp_path: Path, place) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match="--out"):
        report(Wish("no-such-model"), place(tmp_path), say=quiet)


def test_a_folder_that_may_not_be_written_is_refused_before_the_model_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\)"):
        report(Wish("no-such-model"), tmp_path / "r.html", say=quiet)


@pytest.mark.parametrize("module", ["jinja2", "scipy"])
def test_a_missing_extra_is_told_with_the_line_that_installs_it(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        UserError, match=re.escape(f"{module}, which is not installed; run: pip install 'scaleseg[report]'")
    ):
        report(Wish("no-such-model"), tmp_path / "r.html", say=quiet)


def test_ctrl_c_while_the_page_is_drawn_leaves_the_old_page(
    saved: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "r.html").write_text("old")
    monkeypatch.setattr("scaleseg.report.page.draw", stop)
    with pytest.raises(KeyboardInterrupt):
        report(Wish(str(saved), images=(str(folder / "images"),)), tmp_path / "r.html", say=quiet)
    assert (tmp_path / "r.html").read_text() == "old"
    assert not list(tmp_path.glob(".writing-*"))


def test_a_runs_folder_means_its_best_checkpoint_and_brings_its_curves(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    checkpoint.save(run / "checkpoints" / "step-2", small_model(), small_config())
    (run / "best").symlink_to("checkpoints/step-2")
    write_history(run, [json.dumps({"step": step, "loss": 1.0 / step}) for step in (1, 2)])
    for given in (run, run / "best", run / "checkpoints" / "step-2"):
        wish = Wish(str(given), (f"data.val={folder}",))
        page = Page(report(wish, tmp_path / "r.html", say=quiet).read_text())
        assert "Loss in training" in page.tables
        assert f"How well {'step-2' if given.name == 'step-2' else 'run/best'} sees" in page.text


def test_images_and_an_analysis_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give one of them"):
        report(Wish("m", images=("a",), analysis=tmp_path / "d.json"), tmp_path / "r.html", say=quiet)


def test_figures_of_the_development_split_are_said_to_flatter(folder: Path, tmp_path: Path) -> None:
    config = replace(small_config(), data=replace(small_config().data, train=str(folder), dev=0.5))
    checkpoint.save(tmp_path / "model", small_model(), config)
    text = report(Wish(str(tmp_path / "model")), tmp_path / "r.html", say=quiet).read_text()
    assert "figures flatter" in Page(text).text
    assert "3 photographs of folder, the development split" in Page(text).text
    assert str(tmp_path) not in text


def test_photographs_whose_names_are_no_text_are_shown(saved: Path, tmp_path: Path) -> None:
    name = b"caf\xe9 \xe2\x80\xae.png".decode("utf-8", "surrogateescape")
    Image.new("RGB", (9, 9)).save(tmp_path / name)
    page = Page(report(Wish(str(saved), images=(str(tmp_path / name),)), tmp_path / "r.html", say=quiet).read_text())
    assert "caf\\udce9 \\u202e.png" in page.text


def test_photographs_of_one_pixel_and_of_six_thousand_are_shown(saved: Path, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "small.png")
    Image.new("RGB", (6000, 40)).save(tmp_path / "large.png")
    images = (str(tmp_path / "small.png"), str(tmp_path / "large.png"))
    page = Page(report(Wish(str(saved), images=images), tmp_path / "r.html", say=quiet).read_text())
    sizes = [(image["width"], image["height"]) for image in page.of("img")]
    assert sizes == [("1", "1")] * 4 + [("720", "5")] * 4


def test_an_analysis_with_another_refinement_is_refused(saved: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps({"analysis": analysis().to_dict(), "refine": "none"}))
    wish = Wish(str(saved), (f"data.val={folder}",), analysis=tmp_path / "d.json", refine="crf")
    with pytest.raises(UserError, match="was measured with --refine none"):
        report(wish, tmp_path / "r.html", say=quiet)


def test_the_verb_writes_the_page_and_says_where(
    saved: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [
        "report",
        str(saved),
        "--images",
        str(folder / "images/p0.png"),
        "--images",
        str(folder / "images/p?.png"),
    ]
    monkeypatch.setattr(sys, "argv", ["scaleseg", *arguments, "--out", "r.html"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == "open r.html"
    assert len(Page((tmp_path / "r.html").read_text()).of("img")) == 6 * (2 + len(SCALES))

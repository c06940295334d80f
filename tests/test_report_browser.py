"""The report in a real Chromium, read from the disk without a network: it asks for nothing, fits a telephone, and prints."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from test_report import SCALES, a_photograph, analysis, page_of

Visit = Callable[..., Any]

LONG = "a-very-long-name-of-a-class-without-a-single-place-to-break-it-0123456789"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of 21 classes, three scales and photographs of odd shapes and names."""
    classes = (*(f"class {place}" for place in range(17)), LONG, "W" * 40, "\u5927" * 40, "a" * 15)
    scales = (1.0, 0.75, 0.5)
    sizes = ((90, 120), (120, 40), (1, 1), (3, 700))
    shown = {place: a_photograph(place, classes=classes, scales=scales, size=size) for place, size in enumerate(sizes)}
    shown[0] = replace(shown[0], name=LONG * 2)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(
        page_of(analysis(classes=classes, scales=scales, images=4), shown, footer=[("Date", "today")]), encoding="utf-8"
    )
    return path.as_uri()


def test_the_page_opens_without_a_network_and_shows_every_picture(visit: Visit, address: str) -> None:
    page = visit(address, offline=True)
    pictures = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)")
    assert len(pictures) == 4 * (4 + 3)
    assert all(pictures)


def test_a_request_that_somebody_writes_into_the_page_is_refused(visit: Visit, address: str, seen: Any) -> None:
    seen.allowed += ["Content Security Policy", "asked https://example.org"]  # Chromium names what it refuses, too
    page = visit(address, offline=True)
    with page.expect_event("requestfailed") as failed:
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=\"https://example.org/x.png\">')")
    assert failed.value.failure == "csp"


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_the_page_never_scrolls_sideways(visit: Visit, address: str, width: int) -> None:
    page = visit(address, offline=True, viewport={"width": width, "height": 740})
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, p, img, svg, figcaption, li, summary')]"
        ".filter(part => part.getBoundingClientRect().right > innerWidth + 1).map(part => part.outerHTML.slice(0, 80))"
    )
    assert outside == []


def test_charts_are_legible_on_a_telephone(visit: Visit, address: str) -> None:
    page = visit(address, offline=True, viewport={"width": 360, "height": 740})
    heights = page.evaluate(
        "[...document.querySelectorAll('.chart text')].map(text => text.getBoundingClientRect().height)"
    )
    assert min(heights) > 8


def test_no_text_of_a_chart_leaves_it(visit: Visit, address: str) -> None:
    page = visit(address, offline=True)
    outside = page.evaluate(
        """[...document.querySelectorAll('.chart')].flatMap(chart => {
            const frame = chart.getBoundingClientRect();
            return [...chart.querySelectorAll('text')].filter(text => {
                const box = text.getBoundingClientRect();
                return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1
                    || box.bottom > frame.bottom + 1;
            }).map(text => text.textContent);
        })"""
    )
    assert outside == []


LUMINANCE = """
([text, ground]) => {
    const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(c => c / 255)
            .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const [high, low] = [light(text), light(ground)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
}
"""
"""The contrast of two colours (WCAG 2)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(visit: Visit, address: str, scheme: str) -> None:
    page = visit(address, offline=True, color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    colours = page.evaluate("['h1', '.lede', '.facts', '.interval', 'figcaption', 'summary', 'footer dd']"
                            ".map(name => getComputedStyle(document.querySelector(name)).color)")  # fmt: skip
    parts = page.evaluate(
        "[0, 1, 2].map(n => [getComputedStyle(document.querySelector(`.chart .on${n}`)).fill,"
        " getComputedStyle(document.querySelector(`.chart .fill${n}`)).fill])"
    )
    assert min(page.evaluate(LUMINANCE, pair) for pair in [*((colour, ground) for colour in colours), *parts]) >= 4.5


def test_a_dark_page_is_dark(visit: Visit, address: str) -> None:
    grounds = [
        visit(address, offline=True, color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert grounds == ["rgb(250, 249, 246)", "rgb(18, 21, 25)"]


def test_printing_shows_every_table_on_a_light_page(visit: Visit, address: str) -> None:
    page = visit(address, offline=True, color_scheme="dark")
    closed = (
        "[...document.querySelectorAll('table')].filter(table => !table.checkVisibility({contentVisibilityAuto: true}))"
    )
    assert page.evaluate(f"{closed}.length") == 8
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_function(f"{closed}.length === 0")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(250, 249, 246)"


def test_no_table_is_cut_off_on_paper(visit: Visit, address: str) -> None:
    page = visit(address, offline=True, viewport={"width": 688, "height": 1000})  # A4 less its margins
    page.emulate_media(media="print")
    wide = (
        "[...document.querySelectorAll('table')].filter(table => table.offsetWidth > table.parentElement.clientWidth)"
    )
    assert page.evaluate(f"{wide}.length") == 0
    cells = "[...document.querySelectorAll('#chart-sizes tbody th')]"
    assert set(page.evaluate(f"{cells}.map(cell => cell.getClientRects()[0].height < 30)")) == {True}  # one line each


def test_the_numbers_open_by_the_keyboard(visit: Visit, address: str) -> None:
    page = visit(address, offline=True)
    page.focus("#chart-classes summary")
    page.keyboard.press("Enter")
    assert page.is_visible("#chart-classes table")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "region"


def test_a_page_without_labels_lays_weight_maps_side_by_side(visit: Visit, tmp_path: Path) -> None:
    from scaleseg.report import compose, gallery_page, template

    page = gallery_page("m", SCALES, 3, [a_photograph(0, size=(90, 120), labelled=False)], facts="", footer=[])
    path = tmp_path / "index.html"
    path.write_text(compose(template("report"), page), encoding="utf-8")
    opened = visit(path.as_uri(), offline=True)
    tops = opened.evaluate(
        "[...document.querySelectorAll('figure')].map(f => Math.round(f.getBoundingClientRect().top))"
    )
    assert tops[0] == tops[1] < tops[2] == tops[3]

"""The viewer in a real browser: what it shows is what the API says, by mouse, by finger and by keyboard."""

import base64
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import scaleseg
from browser import Seen
from scaleseg.model import ScaleAware, create_model
from scaleseg.server import Limits, Settings
from serving import encoded, photo, serving

CLASSES = ("ground", "disc", "bar", "ring")
OTHERS = ("ground", "ring", "disc", "star")
"""Of the second model: other numbers for the same names, and one of its own."""
HOSTILE = (
    "<b>rest</b>",
    "<img src=x onerror=alert(1)>",
    "endless" * 12,
    "</script>",
    *(f"class {i}" for i in range(4, 21)),
)
LONG = "run-" + "x" * 70
"""A model's name without a place to break it."""
RULES = ("trained", "average", "max", "weights")
BY_HAND = (0.2, 0.3, 0.5)
TIES = 2e-3
"""The share of pixels whose two best scores may be so near that float32 and float64 decide differently."""
PHOTO = photo(90, 123, seed=3)
PNG = encoded(PHOTO)
GIF = encoded(PHOTO, "GIF")
"""A browser decodes it, the server does not."""
REST = "body[data-rest='true']"
RESIZE = """({ values, cells: [rows, columns], size, align }) => {
  const { byCell, bilinear, labels, taps } = scaleseg.geometry;
  const grid = { values: byCell(Float32Array.from(values), 3, rows * columns), rows, columns, channels: 3 };
  const places = [taps(size[0], rows, align), taps(size[1], columns, align)];
  return [Array.from(bilinear(grid, ...places)), Array.from(labels(grid, ...places))];
}"""


def random_model(
    classes: tuple[str, ...], scales: tuple[float, ...], seed: int, fusion: str = "attention"
) -> ScaleAware:
    torch.manual_seed(seed)
    options = {"width": 4, "num_features": 8}
    model = create_model(
        "small", classes=classes, fusion=fusion, scales=scales, pretrained="none", attention_width=8, options=options
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model.eval()


@pytest.fixture(scope="module")
def client(chromium: Any) -> Iterator[httpx2.Client]:
    """A server with tiny models and the bundled one; none where there is no browser to look with."""
    models = {
        "tiny": random_model(CLASSES, (1.0, 0.75, 0.5), seed=1),
        "second": random_model(OTHERS, (1.0, 0.5), seed=2, fusion="max"),
        "single": random_model(CLASSES, (1.0,), seed=3),
        LONG: random_model(HOSTILE, (1.0, 0.5), seed=4),
        "voc-animals-lite": scaleseg.load("voc-animals-lite"),
    }
    with serving(models, Settings(Limits(bytes=4_000_000))) as (client, _):
        yield client


@dataclass
class Viewer:
    """A page, and the server behind it as a program would ask it."""

    page: Any
    client: httpx2.Client
    content: bytes = b""

    def give(self, content: bytes = PNG, name: str = "photo.png", rest: bool = True) -> "Viewer":
        """Choose a photograph."""
        self.content = content
        self.page.set_input_files("#file", {"name": name, "mimeType": "", "buffer": content})
        return self.rest() if rest else self

    def rest(self) -> "Viewer":
        self.page.wait_for_selector(REST, state="attached")
        return self

    def rule(self, kind: str) -> dict[str, str]:
        """Choose a fusion; the same as the API's parameters."""
        self.check("fusion", kind)
        if kind != "weights":
            return {"fusion": kind}
        self.page.evaluate("weights => scaleseg.setWeights(weights)", list(BY_HAND))
        self.rest()
        return {"fusion": kind, "weights": ",".join(map(str, BY_HAND))}

    def check(self, name: str, value: str) -> None:
        self.page.click(f"label:has(input[name={name}][value={value}])")
        self.rest()

    def labels(self) -> np.ndarray:
        """The class ids that the canvas shows."""
        values, size = self.page.evaluate("[Array.from(scaleseg.labels()), scaleseg.size()]")
        return np.array(values, np.uint8).reshape(size)

    def painted(self, canvas: str = "#canvas") -> np.ndarray:
        """The canvas's own pixels, (H, W, 3)."""
        url = self.page.evaluate("name => document.querySelector(name).toDataURL()", canvas)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))

    def ask(self, **query: Any) -> httpx2.Response:
        response = self.client.post("/v1/segment", params=query, files={"image": ("photo.png", self.content)})
        assert response.status_code == 200, response.text
        return response

    def mask(self, **query: Any) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(self.ask(**query).content)))

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector).replace("\u00a0", " ")


@pytest.fixture
def viewer(visit: Callable[..., Any], client: httpx2.Client) -> Callable[..., Viewer]:
    def open_viewer(model: str = "tiny", **options: Any) -> Viewer:
        page = visit(str(client.base_url), **options)
        found = Viewer(page, client).rest()
        page.select_option("#model", model)
        return found

    return open_viewer


def test_a_photograph_that_is_chosen_is_shown_with_the_servers_labels(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    assert _apart(shown.labels(), shown.mask()) <= TIES
    assert len(np.unique(shown.labels())) > 2
    assert "123 x 90 pixels, segmented by tiny" in shown.text("#status")


def test_a_photograph_may_be_dropped_or_pasted(viewer: Callable[..., Viewer]) -> None:
    shown = viewer()
    shown.content = PNG
    for event in ("drop", "paste"):
        _hand_over(shown, event, f"{event}ped.png", "second.png")
        assert f"{event}ped.png, 123 x 90 pixels" in shown.text("#status")
        assert "Of the 2 files given only the first is shown." in shown.text("#status")
        assert _apart(shown.labels(), shown.mask()) <= TIES


def test_a_folder_or_a_text_is_answered_with_what_is_accepted(viewer: Callable[..., Viewer], tmp_path: Path) -> None:
    shown = viewer()
    (tmp_path / "holidays").mkdir()
    session = shown.page.context.new_cdp_session(shown.page)
    data = {"items": [], "files": [str(tmp_path / "holidays")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 100, "y": 100, "data": data})
    shown.page.wait_for_selector("#error:has-text('holidays cannot be read: it is a folder')")
    assert "give one photograph: JPEG, PNG, WebP, BMP or TIFF." in shown.rest().text("#error")
    _hand_over(shown, "paste")
    assert shown.text("#error") == "What was pasted is no file; give a photograph: JPEG, PNG, WebP, BMP or TIFF."


def test_the_bundled_model_finds_the_cat_of_the_sample(viewer: Callable[..., Viewer]) -> None:
    pytest.importorskip("skimage")
    shown = viewer("voc-animals-lite")
    shown.page.click("#samples button[title^='cat']")
    shown.rest().content = shown.client.get("/samples/cat.jpg").content
    shares = shown.ask(model="voc-animals-lite", output="json").json()["shares"]
    assert shares["cat"] > 0.5
    assert f"cat {100 * shares['cat']:.1f} %" in shown.text("#legend").replace("\n", " ")
    assert _apart(shown.labels(), shown.mask(model="voc-animals-lite")) <= TIES


@pytest.mark.parametrize("model", ["tiny", "second"])
def test_every_fusion_changes_the_labels_as_the_api_says(viewer: Callable[..., Viewer], model: str) -> None:
    shown = viewer(model).give()
    masks = []
    for kind in RULES[: 4 if model == "tiny" else 3]:
        masks.append(shown.mask(model=model, **shown.rule(kind)))
        assert _apart(shown.labels(), masks[-1]) <= TIES, kind
    assert _apart(masks[0], masks[1]) > 10 * TIES


def test_the_read_out_says_the_apis_numbers_of_the_pixel_under_the_mouse(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    for kind in RULES:
        _read_out_is_the_apis(shown, shown.rule(kind))


def _read_out_is_the_apis(shown: Viewer, query: dict[str, str]) -> None:
    box = shown.page.locator("#canvas").bounding_box()
    row, column = 31, 77
    shown.page.mouse.move(box["x"] + (column + 0.5) / 123 * box["width"], box["y"] + (row + 0.5) / 90 * box["height"])
    shown.rest()
    said = shown.ask(output="json", pixel=f"{row},{column}", **query).json()["pixels"][0]
    assert shown.text("#pixel-place") == f"row {row}, column {column}"
    assert shown.text("#pixel-answer") == said["label"]
    bars = dict(zip(_texts(shown, "#pixel-bars .name"), _percents(shown, "#pixel-bars .number"), strict=True))
    assert bars == pytest.approx({name: 100 * value for name, value in said["probabilities"].items()}, abs=0.0501)
    assert _percents(shown, ".weight .number") == pytest.approx(
        [100 * weight for weight in said["weights"]], abs=0.0501
    )
    alone = [(one["label"], 100 * max(one["probabilities"].values())) for one in said["per_scale"]]
    found = list(
        zip(_texts(shown, "#pixel-scales td:last-child"), _percents(shown, "td:last-child .number"), strict=True)
    )
    assert [name.split()[0] for name, _ in found] == [name for name, _ in alone]
    assert [value for _, value in found] == pytest.approx([value for _, value in alone], abs=0.0501)


def test_the_pages_numbers_are_the_apis_to_five_digits(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    pixels = [(0, 0), (89, 122), (44, 60), (13, 101)]
    for model in ("tiny", "second", "single", "voc-animals-lite"):
        shown.page.select_option("#model", model)
        shown.rest()
        asked = {"output": "json", "model": model, "pixel": [f"{row},{column}" for row, column in pixels]}
        for (row, column), said in zip(pixels, shown.ask(**asked).json()["pixels"], strict=True):
            found = shown.page.evaluate("([row, column]) => scaleseg.pixel(row, column)", [row, column])
            assert found["probabilities"] == pytest.approx(list(said["probabilities"].values()), abs=1e-5)
            assert found["weights"] == pytest.approx(said["weights"], abs=1e-5)
            for one, other in zip(found["perScale"], said["per_scale"], strict=True):
                assert one["probabilities"] == pytest.approx(list(other["probabilities"].values()), abs=1e-5)


def test_shares_and_mean_weights_are_the_apis(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    said = shown.ask(output="json").json()
    names = [text.split()[0] for text in _texts(shown, ".chip")]
    legend = dict(zip(names, _percents(shown, ".chip .number"), strict=True))
    assert legend == pytest.approx({name: 100 * share for name, share in said["shares"].items()}, abs=0.06)
    means = [100 * weight for weight in said["mean_weights"]]
    assert _percents(shown, "#sliders .number") == pytest.approx(means, abs=0.0501)
    assert _percents(shown, "#views label:nth-child(-n+4) small", skip_empty=True) == pytest.approx(means, abs=0.0501)


def test_a_slider_moves_by_keys_the_others_follow_in_proportion_and_labels_change(
    viewer: Callable[..., Viewer],
) -> None:
    shown = viewer().give()
    before, means = shown.labels(), _percents(shown, "#sliders .number")
    shown.page.focus("#hand-0")
    for _ in range(3):
        shown.page.keyboard.press("PageUp")
    shown.rest()
    kind, weights = shown.page.evaluate("[scaleseg.rule().kind, scaleseg.rule().weights]")
    assert kind == "weights"
    assert shown.page.is_checked("input[name=fusion][value=weights]")
    assert sum(weights) == pytest.approx(1)
    assert 100 * weights[0] == pytest.approx(means[0] + 30, abs=0.2)
    assert weights[1] / weights[2] == pytest.approx(means[1] / means[2], rel=0.01)
    assert _apart(before, shown.labels()) > 0
    given = ",".join(f"{weight:.6f}" for weight in weights)
    assert _apart(shown.labels(), shown.mask(fusion="weights", weights=given)) <= TIES


def test_the_triangle_is_dragged_to_a_corner_and_one_scale_counts_alone(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    shown.page.locator("#triangle").scroll_into_view_if_needed()
    box = shown.page.locator("#triangle").bounding_box()
    shown.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shown.page.mouse.down()
    shown.page.mouse.move(box["x"] + box["width"] / 2, box["y"] - 40, steps=4)
    shown.page.mouse.up()
    shown.rest()
    assert shown.page.evaluate("scaleseg.rule().weights") == pytest.approx([1, 0, 0], abs=1e-6)
    assert _percents(shown, "#sliders .number") == [100, 0, 0]
    assert _apart(shown.labels(), shown.mask(fusion="weights", weights="1,0,0")) <= TIES


def test_weights_keep_their_sum_whatever_is_moved(viewer: Callable[..., Viewer]) -> None:
    page = viewer().page
    generator = np.random.default_rng(0)
    for weights in ([1, 0, 0], [0.2, 0.3, 0.5], generator.dirichlet([1] * 5).tolist()):
        for index, value in ((0, 0.0), (1, 1.0), (2, 0.37)):
            moved = page.evaluate("(given) => scaleseg.moved(...given)", [weights, index, value])
            assert sum(moved) == pytest.approx(1)
            assert min(moved) >= 0
            assert moved[index] == pytest.approx(value)


def test_everything_can_be_done_with_the_keyboard_alone(viewer: Callable[..., Viewer]) -> None:
    pytest.importorskip("skimage")
    shown = viewer()
    _tab_to(shown, "document.activeElement.title.startsWith('coffee')")
    shown.page.keyboard.press("Enter")
    shown.rest()
    reached = set()
    shown.page.evaluate("document.activeElement.blur()")
    for _ in range(60):
        shown.page.keyboard.press("Tab")
        reached |= set(
            shown.page.evaluate("(({ id, name, className }) => [id, name, className])(document.activeElement)")
        )
    assert reached >= {"canvas", "model", "other", "file", "opacity", "view", "fusion", "hand-0", "hand-2", "refine"}
    assert reached >= {"chip", "only", "save"}
    shown.page.focus("#canvas")
    shown.page.keyboard.press("Home")
    shown.page.keyboard.press("PageUp")
    shown.page.keyboard.press("Shift+ArrowRight")
    shown.page.keyboard.press("ArrowDown")
    assert _place(shown.rest()) == (10, 1)
    shown.page.wait_for_selector("#live:has-text('Row 10, column 1:')", state="attached")
    assert "scale 0.75 weighs" in shown.page.text_content("#live")


def test_moving_the_mouse_tells_a_screen_reader_nothing(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    shown.page.wait_for_selector("#live:has-text('Found ')", state="attached")
    box = shown.page.locator("#canvas").bounding_box()
    shown.page.evaluate("document.getElementById('live').textContent = 'untouched'")
    shown.page.mouse.move(box["x"] + 10, box["y"] + 10, steps=5)
    shown.page.mouse.move(box["x"] + 40, box["y"] + 50, steps=5)
    shown.page.wait_for_timeout(700)  # longer than the page waits before it speaks
    assert shown.page.text_content("#live") == "untouched"


def test_every_control_has_a_name_and_the_canvas_a_text(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    unnamed = shown.page.evaluate(
        """[...document.querySelectorAll("input, select, button, a[href]")].filter((element) => {
          const label = element.labels?.[0]?.textContent || element.getAttribute("aria-label") || element.textContent;
          return !label.trim();
        }).map((element) => element.outerHTML)"""
    )
    assert unnamed == []
    assert "with its classes: " in shown.page.get_attribute("#canvas", "aria-label")
    assert shown.page.locator("main").count() == shown.page.locator("h1").count() == 1


def test_text_has_contrast_in_light_and_dark(viewer: Callable[..., Viewer]) -> None:
    page = viewer().page
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        _text_has_contrast(page, scheme)


def _text_has_contrast(page: Any, scheme: str) -> None:
    names = ("--paper", "--card", "--ink", "--soft", "--accent", "--on-accent", "--warn", "--warn-card", "--edge")
    read = "names => names.map((name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim())"
    colours = dict(zip(names, page.evaluate(read, list(names)), strict=True))
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 25)"
    assert dark == (scheme == "dark")
    for text, ground in (
        ("--ink", "--paper"), ("--ink", "--card"), ("--soft", "--paper"), ("--soft", "--card"), ("--accent", "--paper"),
        ("--on-accent", "--accent"), ("--warn", "--warn-card"),
    ):  # fmt: skip
        assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert _contrast(colours["--edge"], colours["--card"]) >= 3


def test_no_width_needs_scrolling_sideways_and_nothing_is_cut_off(viewer: Callable[..., Viewer]) -> None:
    shown = viewer(LONG, viewport={"width": 320, "height": 740}, has_touch=True)
    assert _too_wide(shown, 320) == []
    shown.give()
    shown.page.select_option("#other", "tiny")
    for width in (320, 360, 768, 1440):
        shown.page.set_viewport_size({"width": width, "height": 740})
        assert _too_wide(shown.rest(), width) == []


def test_a_tap_names_the_pixel_and_it_stays(viewer: Callable[..., Viewer]) -> None:
    shown = viewer(viewport={"width": 360, "height": 740}, has_touch=True).give()
    box = shown.page.locator("#canvas").bounding_box()
    shown.page.touchscreen.tap(box["x"] + box["width"] * 50.5 / 123, box["y"] + box["height"] * 20.5 / 90)
    assert _place(shown.rest()) == (20, 50)
    shown.page.touchscreen.tap(5, 5)
    assert _place(shown.rest()) == (20, 50)


def test_a_class_is_hidden_and_shown_alone_by_its_buttons(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    shown.page.fill("#opacity", "100")
    labels = shown.rest().labels()
    ids = [index for index in np.unique(labels) if index]
    hidden, alone = CLASSES[ids[0]], CLASSES[ids[1]]
    shown.page.click(f"button.chip:has-text('{hidden}')")
    shown.rest()
    assert shown.page.get_attribute(f"button.chip:has-text('{hidden}')", "aria-pressed") == "false"
    assert np.array_equal(_inside(shown.painted(), labels, ids[0]), _inside(PHOTO, labels, ids[0]))
    shown.page.click(f"button[aria-label='Show {alone} only']")
    shown.rest()
    colour = shown.client.get("/v1/models").json()["models"][0]["colours"][ids[1]]
    assert np.array_equal(np.unique(_inside(shown.painted(), labels, ids[1]), axis=0), [colour])
    shown.page.click("#show-all")
    assert not np.array_equal(_inside(shown.rest().painted(), labels, ids[0]), _inside(PHOTO, labels, ids[0]))


def test_without_opacity_the_photograph_is_seen(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    shown.page.fill("#opacity", "0")
    assert np.array_equal(shown.rest().painted(), PHOTO)
    shown.page.fill("#opacity", "60")
    shown.check("view", "photo")
    assert np.array_equal(shown.painted(), PHOTO)


def test_the_overlay_and_the_weight_maps_are_drawn_as_the_server_draws_them(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    overlay = np.asarray(Image.open(io.BytesIO(shown.ask(output="overlay").content)), np.int16)
    assert np.quantile(np.abs(shown.painted() - overlay), 0.99) <= 1  # the browser rounds the blend in its own way
    maps = np.asarray(Image.open(io.BytesIO(shown.ask(output="weights").content)), np.int16)
    labels = shown.mask()
    for index in range(3):
        shown.check("view", f"weight-{index}")
        inside = ~_borders(labels)
        drawn = maps[:, 123 * index : 123 * (index + 1)]
        assert np.abs(shown.painted().astype(np.int16) - drawn)[inside].max() <= 2


def test_what_one_scale_alone_says_is_shown_large(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    shown.page.fill("#opacity", "100")
    shown.check("view", "alone-2")
    pixel = (45, 20)
    said = shown.ask(output="json", pixel="45,20").json()["pixels"][0]["per_scale"][2]["label"]
    labels = np.array(shown.page.evaluate("Array.from(scaleseg.alone(2))")).reshape(90, 123)
    assert CLASSES[labels[pixel]] == said
    colours = np.array(shown.client.get("/v1/models").json()["models"][0]["colours"], np.uint8)
    shows = ~_borders(labels) & (labels > 0)
    assert np.array_equal(shown.painted()[shows], colours[labels][shows])


def test_a_refinement_is_the_servers_with_the_fusion_chosen(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    for kind in ("trained", "weights"):
        query = shown.rule(kind)
        shown.page.select_option("#refine", "domain")
        shown.rest()
        assert np.array_equal(shown.labels(), shown.mask(refine="domain", **query))
        assert "refined" in shown.text("#pixel-note")
        shown.page.select_option("#refine", "none")
        assert _apart(shown.rest().labels(), shown.mask(**query)) <= TIES


def test_weights_that_change_are_refined_again_once_they_rest(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    shown.page.select_option("#refine", "domain")
    shown.rest()
    shown.page.focus("#hand-1")
    for _ in range(4):
        shown.page.keyboard.press("PageUp")
    assert shown.page.evaluate("scaleseg.state.refined === null")
    shown.rest()
    weights = ",".join(f"{weight:.6f}" for weight in shown.page.evaluate("scaleseg.rule().weights"))
    assert np.array_equal(shown.labels(), shown.mask(refine="domain", fusion="weights", weights=weights))


def test_two_models_are_compared_by_the_names_of_their_classes(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    shown.page.select_option("#other", "second")
    shown.rest()
    first, second = np.array(CLASSES)[shown.mask()], np.array(OTHERS)[shown.mask(model="second")]
    differ = float(shown.text("#differ").split(" differ on ")[1].split(" %")[0])
    assert differ == pytest.approx(100 * (first != second).mean(), abs=0.3)
    assert shown.page.is_visible("#canvas-other")
    shown.page.fill("#opacity", "100")
    labels = shown.rest().mask(model="second")
    colours = np.array(shown.client.get("/v1/models").json()["models"][0]["colours"])
    for name in {"ring", "disc"} & set(second.flat):
        drawn = _inside(shown.painted("#canvas-other"), labels, OTHERS.index(name))
        assert np.array_equal(np.unique(drawn, axis=0), [colours[CLASSES.index(name)]])
    listed = shown.text("#legend")
    assert all(name in listed for name in {*first.flat, *second.flat})
    assert ("star" in second) == ("star none · " in shown.text("#legend").replace("\n", " "))
    shown.check("compare", "differences")
    hatched = np.abs(shown.painted().astype(int) - [230, 97, 0]).sum(axis=2) < 9
    assert hatched.any()
    assert (first != second)[hatched].mean() > 0.99
    shown.check("compare", "swipe")
    shown.page.fill("#split", "0")
    assert np.array_equal(shown.rest().painted()[:, 10:], shown.painted("#canvas-other")[:, 10:])
    shown.page.select_option("#other", "")
    shown.rest()
    assert not shown.page.is_visible("#compare")


def test_a_class_that_is_hidden_is_hidden_in_both_models(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    shown.page.select_option("#other", "second")
    labels = shown.rest().mask(model="second")
    name = next(
        name for name in ("disc", "ring") if OTHERS.index(name) in labels and CLASSES.index(name) in shown.labels()
    )
    shown.page.click(f"button.chip:has-text('{name}')")
    shown.rest()
    hidden = OTHERS.index(name)
    assert np.array_equal(_inside(shown.painted("#canvas-other"), labels, hidden), _inside(PHOTO, labels, hidden))


def test_a_dragged_divider_moves_and_the_pixel_stays(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    shown.page.select_option("#other", "second")
    shown.rest()
    shown.check("compare", "swipe")
    place, box = _place(shown), shown.page.locator("#canvas").bounding_box()
    shown.page.mouse.move(box["x"] + box["width"] / 2 + 2, box["y"] + 30)
    shown.page.mouse.down()
    shown.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 30, steps=3)
    shown.page.mouse.up()
    shown.page.mouse.move(1, 1)
    shown.rest()
    assert shown.page.input_value("#split") == "25"
    assert _place(shown) == place


def test_what_is_saved_is_the_servers_file_with_the_fusion_chosen(
    viewer: Callable[..., Viewer], tmp_path: Path
) -> None:
    shown = viewer().give(name="my garden.jpeg")
    query = shown.rule("weights")
    for output in ("mask", "overlay", "weights"):
        with shown.page.expect_download() as waiting:
            shown.page.click(f"button[data-output={output}]")
        waiting.value.save_as(tmp_path / "saved.png")
        assert waiting.value.suggested_filename == f"my garden-{output}.png"
        saved = Image.open(tmp_path / "saved.png")
        asked = Image.open(io.BytesIO(shown.ask(output=output, **query).content))
        assert saved.mode == asked.mode
        assert np.array_equal(np.asarray(saved), np.asarray(asked))


def test_a_wrong_file_is_answered_with_the_servers_sentence(viewer: Callable[..., Viewer], seen: Seen) -> None:
    seen.allowed.append("status of 415")
    shown = viewer().give(b"no picture", "notes.txt")
    assert shown.text("#error").startswith("notes.txt is no image that can be read; give JPEG, PNG")
    assert shown.page.get_attribute("#error", "role") == "alert"
    shown.give()
    assert not shown.page.is_visible("#error")


def test_a_file_that_is_too_large_is_not_sent_at_all(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give(b"0" * 4_000_001, "huge.jpg")
    assert (
        shown.text("#error") == "huge.jpg has 4,000,001 bytes; the server takes at most 4,000,000: give a smaller file."
    )


def test_a_busy_server_is_asked_again_after_the_time_it_names(viewer: Callable[..., Viewer], seen: Seen) -> None:
    seen.allowed.append("status of 503")
    shown = viewer()
    answers = iter(
        [{"status": 503, "headers": {"Retry-After": "1"}, "json": {"error": "the queue is full; come again"}}]
    )

    def busy_once(route: Any) -> None:
        answer = next(answers, None)
        route.fulfill(**answer) if answer else route.continue_()

    shown.page.route("**/v1/segment*", busy_once)
    shown.give(rest=False)
    shown.page.wait_for_selector("#status:has-text('The server is busy; asking again in 1 s')")
    assert _apart(shown.rest().labels(), shown.mask()) <= TIES
    assert not shown.page.is_visible("#error")


def test_a_server_that_does_not_answer_is_named(viewer: Callable[..., Viewer], seen: Seen) -> None:
    seen.allowed.append("net::ERR")
    shown = viewer()
    shown.page.route("**/v1/segment*", lambda route: route.abort())
    shown.give()
    assert shown.text("#error") == "The server does not answer; see whether it still runs."
    shown.page.unroute_all()
    shown.page.evaluate(
        """() => {
          const cut = new ReadableStream({ start: (control) => control.error(new TypeError("network error")) });
          window.fetch = async () => new Response(cut);
        }"""
    )
    shown.give()
    assert shown.text("#error") == "The server does not answer; see whether it still runs."


def test_a_token_is_asked_for_and_kept_nowhere(visit: Callable[..., Any], seen: Seen) -> None:
    seen.allowed.append("status of 401")
    with serving({"tiny": random_model(CLASSES, (1.0, 0.5), seed=1)}, Settings(token="open sesame")) as (client, _):
        page = visit(str(client.base_url))
        shown = Viewer(page, client).rest()
        assert "a token is needed" in shown.text("#error")
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#error:has-text('not the one')")
        shown.give(name="early.png")  # kept until it may be sent
        page.fill("#token", "open sesame")
        page.keyboard.press("Enter")
        page.wait_for_selector("#token-form", state="hidden")
        assert "early.png, 123 x 90 pixels, segmented by tiny" in shown.rest().text("#status")
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


def test_a_large_photograph_is_shown_small_and_its_numbers_are_of_its_own_pixels(viewer: Callable[..., Viewer]) -> None:
    large = photo(100, 3000, seed=5)
    shown = viewer("second").give(encoded(large, "JPEG"), "large.jpg")
    size = shown.page.evaluate("scaleseg.size()")
    assert size == [33, 1000]
    mask = shown.mask(model="second")
    rows = ((np.arange(33) + 0.5) * 100 / 33).astype(int)
    columns = ((np.arange(1000) + 0.5) * 3).astype(int)
    assert _apart(shown.labels(), mask[np.ix_(rows, columns)]) <= TIES
    said = shown.ask(model="second", output="json", pixel="99,2999").json()
    shown.page.focus("#canvas")
    for key in ("End", "PageDown"):
        shown.page.keyboard.press(key)
    assert _place(shown.rest()) == (99, 2999)
    assert _percents(shown, ".weight .number") == pytest.approx(
        [100 * w for w in said["pixels"][0]["weights"]], abs=0.0501
    )
    shares = shown.page.evaluate("Array.from(scaleseg.state.shares)")
    assert {name: shares[OTHERS.index(name)] for name in said["shares"]} == pytest.approx(said["shares"], abs=1e-4)
    assert shown.page.evaluate("scaleseg.state.means") == pytest.approx(said["mean_weights"], abs=1e-3)


def test_where_it_is_slow_few_places_are_drawn_while_weights_move_and_all_when_they_rest(
    viewer: Callable[..., Viewer],
) -> None:
    shown = viewer().give(encoded(photo(60, 400, seed=6)))
    assert shown.page.evaluate("scaleseg.size()") == [60, 400]
    moved = """async (weights) => {
      scaleseg.state.slow = true;
      scaleseg.setWeights(weights);
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      const { rows, columns } = scaleseg.state.places;
      return [scaleseg.size(), Array.from(rows), Array.from(columns), Array.from(scaleseg.labels())];
    }"""
    size, rows, columns, labels = shown.page.evaluate(moved, list(BY_HAND))
    mask = shown.mask(fusion="weights", weights=",".join(map(str, BY_HAND)))
    assert size == [54, 360]
    assert _apart(np.reshape(labels, size), mask[np.ix_(rows, columns)]) <= TIES
    assert _apart(shown.rest().labels(), mask) <= TIES


def test_a_photograph_that_lies_on_its_side_stands_as_the_server_sees_it(viewer: Callable[..., Viewer]) -> None:
    content, exif = io.BytesIO(), Image.Exif()
    exif[0x112] = 6
    Image.fromarray(PHOTO).save(content, "JPEG", quality=95, exif=exif)
    shown = viewer().give(content.getvalue(), "turned.jpg")
    assert "90 x 123 pixels" in shown.text("#status")
    assert shown.labels().shape == (123, 90)
    assert _apart(shown.labels(), shown.mask()) <= TIES
    shown.check("view", "photo")
    assert np.abs(shown.painted().astype(int) - np.rot90(PHOTO, -1)).mean() < 4


def test_what_only_the_server_can_decode_is_drawn_on_white(viewer: Callable[..., Viewer]) -> None:
    content = io.BytesIO()
    Image.fromarray(PHOTO).save(content, "TIFF")
    shown = viewer().give(content.getvalue(), "scan.tif")
    assert "drawn on white" in shown.text("#status")
    assert _apart(shown.labels(), shown.mask()) <= TIES
    shown.check("view", "photo")
    assert (shown.painted() == 255).all()


def test_the_smallest_and_thinnest_pictures_are_shown(viewer: Callable[..., Viewer]) -> None:
    shown = viewer()
    for rows, columns in ((1, 1), (1, 3000), (2500, 2)):
        shown.give(encoded(photo(rows, columns)))
        assert f"{columns} x {rows} pixels, segmented" in shown.text("#status")
        assert 0 <= _place(shown)[0] < rows
        assert 0 <= _place(shown)[1] < columns
        assert shown.page.locator("#views canvas").first.bounding_box()["height"] < 200, (rows, columns)


def test_what_is_chosen_last_counts_while_the_server_still_works(viewer: Callable[..., Viewer]) -> None:
    shown = viewer()
    for name, choose, wanted in (
        ("never.png", lambda: shown.give(name="first.png"), "first.png, 123 x 90 pixels, segmented by tiny"),
        (
            "next.png",
            lambda: shown.page.select_option("#model", "single"),
            "next.png, 123 x 90 pixels, segmented by single",
        ),
    ):
        _hold_one_answer(shown)
        with shown.page.expect_request("**/v1/segment*"):
            shown.give(name=name, rest=False)
        choose()
        assert wanted in shown.rest().text("#status")
    assert _apart(shown.labels(), shown.mask(model="single")) <= TIES


def test_a_model_that_fails_leaves_what_is_shown_and_its_name_in_the_menu(
    viewer: Callable[..., Viewer], seen: Seen
) -> None:
    seen.allowed.append("status of 504")
    shown = viewer().give()
    shown.page.select_option("#other", "single")
    labels = shown.rest().labels()
    answer = {"status": 504, "json": {"error": "the answer took longer than 60 s"}}
    shown.page.route("**/v1/segment*", lambda route: route.fulfill(**answer))
    shown.page.select_option("#model", "single")
    assert shown.rest().text("#error") == "the answer took longer than 60 s."
    assert [shown.page.input_value("#model"), shown.page.input_value("#other")] == ["tiny", "single"]
    assert np.array_equal(shown.labels(), labels)


def test_pictures_that_are_shown_no_more_are_let_go(viewer: Callable[..., Viewer], seen: Seen) -> None:
    seen.allowed.append("status of 415")
    shown = viewer()
    shown.page.evaluate(
        """() => {
          const make = window.createImageBitmap, close = ImageBitmap.prototype.close;
          window.alive = new Set();
          window.createImageBitmap = async (...given) => {
            const bitmap = await make(...given);
            window.alive.add(bitmap);
            return bitmap;
          };
          ImageBitmap.prototype.close = function () { window.alive.delete(this); close.call(this); };
        }"""
    )
    shown.give(encoded(photo(8, 1200))).give()
    _hold_one_answer(shown)
    with shown.page.expect_request("**/v1/segment*"):
        shown.give(name="never.png", rest=False)
    shown.give(name="last.png")
    shown.give(GIF, "refused.gif")
    assert shown.page.is_visible("#error")
    assert shown.page.evaluate("[...window.alive].every((one) => one === scaleseg.state.photo.bitmap)")
    assert shown.page.evaluate("window.alive.size") == 1


def test_names_of_classes_are_text_and_never_markup(viewer: Callable[..., Viewer]) -> None:
    shown = viewer(LONG).give()
    assert shown.page.locator("#work img, #work b, #work script").count() == 0
    labels = shown.labels()
    for index in np.unique(labels):
        assert HOSTILE[index] in shown.page.text_content("#legend")
    shown.page.select_option("#model", "tiny")
    shown.page.select_option("#other", LONG)
    shown.rest()
    assert shown.page.locator("#work img, #work b, #work script").count() == 0


def test_class_0_of_a_second_model_has_no_colour_in_the_legend_either(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    shown.page.select_option("#other", "voc-animals-lite")
    square = shown.rest().page.locator("#legend .still:has-text('background') .swatch")
    assert square.evaluate("one => getComputedStyle(one).backgroundColor") == "rgba(0, 0, 0, 0)"


def test_where_the_system_sets_the_colours_what_is_chosen_is_seen(viewer: Callable[..., Viewer]) -> None:
    shown = viewer(forced_colors="active").give()
    shown.check("view", "weight-1")
    style = "([name, key]) => getComputedStyle(document.querySelector(name))[key]"
    chosen, other = "input[value=weight-1] + canvas", "input[value=photo] + canvas"
    assert shown.page.evaluate(style, [chosen, "outlineStyle"]) == "solid"
    assert shown.page.evaluate(style, [other, "outlineStyle"]) == "none"
    assert "gradient" in shown.page.evaluate(style, ["#ramp div", "backgroundImage"])
    assert shown.page.evaluate(style, [".cross", "forcedColorAdjust"]) == "none"


def test_every_script_says_what_it_is_for_and_is_short() -> None:
    scripts = [item for item in resources.files("scaleseg.server").joinpath("static").iterdir() if ".js" in item.name]
    for script in scripts:
        lines = script.read_text().splitlines()
        assert lines[0].startswith("// ") and len(lines) <= 250, script.name
    assert len(scripts) > 5


def test_a_model_of_one_scale_has_nothing_to_fuse(viewer: Callable[..., Viewer]) -> None:
    shown = viewer("single").give()
    assert not shown.page.is_visible("#hand")
    assert "nothing to fuse" in shown.text("#fusion-note")
    assert _apart(shown.labels(), shown.mask(model="single")) <= TIES


def test_the_cross_hair_starts_where_the_scales_contradict_each_other(viewer: Callable[..., Viewer]) -> None:
    shown = viewer().give()
    assert "contradict" in shown.text("#pixel-note")
    assert len({text.split()[0] for text in _texts(shown, "#pixel-scales td:last-child")}) > 1


def test_the_pages_bilinear_is_pytorchs(viewer: Callable[..., Viewer]) -> None:
    page = viewer().page
    torch.manual_seed(0)
    cases = [((5, 7), (33, 49)), ((5, 7), (9, 13)), ((9, 9), (4, 3)), ((1, 3), (8, 1)), ((6, 4), (6, 4))]
    for (cells, size), align in itertools.product(cases, (True, False)):
        maps = torch.randn(3, *cells)
        wanted = F.interpolate(maps[None], size=size, mode="bilinear", align_corners=align)[0]
        given = {"values": maps.flatten().tolist(), "cells": cells, "size": size, "align": align}
        values, labels = page.evaluate(RESIZE, given)
        assert np.array(values).reshape(*size, 3) == pytest.approx(wanted.permute(1, 2, 0).numpy(), abs=1e-5)
        assert np.array_equal(np.array(labels).reshape(size), wanted.argmax(dim=0).numpy())


def _hand_over(shown: Viewer, kind: str, *names: str) -> None:
    """Drops or pastes PHOTO under several names; without any, a text."""
    shown.page.evaluate(
        """([kind, text, names]) => {
          const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
          const transfer = new DataTransfer();
          for (const name of names) transfer.items.add(new File([bytes], name, { type: "image/png" }));
          if (names.length === 0) transfer.setData("text/plain", "a word");
          const event = kind === "drop"
            ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
          document.body.dispatchEvent(event);
        }""",
        [kind, base64.b64encode(PNG).decode(), names],
    )
    shown.rest()


def _hold_one_answer(shown: Viewer) -> None:
    """The next request for a photograph never gets an answer."""
    shown.page.route("**/v1/segment*", lambda route: None, times=1)


def _too_wide(shown: Viewer, width: int) -> list[str]:
    """What is wider than the page, or than the box that cuts it off."""
    return shown.page.evaluate(
        """(width) => {
          const boxes = "body:not(.working) #samples button, #views span, #stages canvas, #legend li, header select";
          const cut = [...document.querySelectorAll(boxes)]
            .filter((one) => one.scrollWidth > one.clientWidth + 1 || one.getBoundingClientRect().right > width);
          const page = document.documentElement;
          return [...(page.scrollWidth > width ? [page] : []), ...cut].map((one) => one.outerHTML.slice(0, 80));
        }""",
        width,
    )


def _apart(first: np.ndarray, second: np.ndarray) -> float:
    assert first.shape == second.shape
    return float((first != second).mean())


def _texts(shown: Viewer, selector: str) -> list[str]:
    return [text.replace("\u00a0", " ") for text in shown.page.locator(selector).all_inner_texts()]


def _percents(shown: Viewer, selector: str, *, skip_empty: bool = False) -> list[float]:
    texts = [text for text in _texts(shown, selector) if text or not skip_empty]
    return [float(text.replace("mean ", "").removesuffix(" %")) for text in texts]


def _place(shown: Viewer) -> tuple[int, int]:
    _, row, _, column = shown.text("#pixel-place").replace(",", "").split()
    return int(row), int(column)


def _tab_to(shown: Viewer, condition: str) -> None:
    for _ in range(30):
        shown.page.keyboard.press("Tab")
        if shown.page.evaluate(condition):
            return
    raise AssertionError(f"Tab never came to {condition}")


def _borders(labels: np.ndarray) -> np.ndarray:
    """Pixels with another class to the left or above: they are drawn white."""
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    return edge


def _inside(picture: np.ndarray, labels: np.ndarray, class_id: int) -> np.ndarray:
    """The pixels of a class whose neighbours are of the same: no border is drawn there."""
    return picture[(labels == class_id) & ~_borders(labels)]


def _contrast(first: str, second: str) -> float:
    """WCAG 2's ratio of two colours in hexadecimal."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    pairs = [digit * 2 for digit in digits] if len(digits) == 3 else [digits[index : index + 2] for index in (0, 2, 4)]
    values = [int(pair, 16) / 255 for pair in pairs]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

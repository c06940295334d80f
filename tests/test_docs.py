"""The documentation site: it builds without a warning, asks nothing of the network, and says what the code says."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WRITTEN = (
    "index.md", "getting-started.md", "concepts.md", "refinement.md", "performance.md", "many-images.md", "deploy.md",
    "faq.md", "many-processes.md", "reproducing.md", "results.md", "insight.md", "serving.md",
)  # fmt: skip
"""Pages that people write; cli.md, api.md, settings.md and recipes.md are generated."""


class Page(HTMLParser):
    """What a built page points at, and what can be pointed at in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.ids: set[str] = set()
        self.policies: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(str(given["id"]))
        if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy":
            self.policies.append(str(given["content"]))
        if tag == "img":
            self.images.append(given)
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        if tag != "a":  # scripts, styles, icons, fonts, pictures, frames, preloads
            self.fetched += [
                str(given[name]) for name in ("src", "href", "data", "poster", "action") if given.get(name)
            ]
            self.fetched += [item.split()[0] for item in (given.get("srcset") or "").split(",") if item.strip()]
            self.fetched += addresses(given.get("style") or "")


def addresses(style: str) -> list[str]:
    """What a style sheet fetches."""
    found = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", style)
    return [one or other for one, other in found]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; strict, so that the builder's own warnings are errors."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(DOCS, folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def built(site: Path) -> dict[Path, Page]:
    """Each page, parsed."""
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """docs/generate.py."""
    return script("generate")


def script(name: str) -> ModuleType:
    """A script that lies beside the pages."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    if str(DOCS) not in sys.path:
        sys.path.append(str(DOCS))  # where it finds its neighbours
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_every_page_of_the_folder_is_in_the_site_and_in_its_navigation(built: dict[Path, Page]) -> None:
    there = {path.name for path in built}
    wanted = {f"{path.stem}.html" for path in DOCS.glob("*.md")}
    assert wanted <= there
    linked = {urlsplit(link).path.removeprefix("./") for link in built_page(built, "index.html").links}
    assert wanted - {"index.html"} <= linked


def test_no_page_fetches_anything_from_another_host(built: dict[Path, Page]) -> None:
    outside = {(path.name, url) for path, page in built.items() for url in page.fetched if is_outside(url)}
    assert outside == set()


def test_no_style_sheet_fetches_anything_from_another_host(site: Path) -> None:
    sheets = list(site.rglob("*.css"))
    texts = [path.read_text(encoding="utf-8") for path in sheets]
    for path in site.rglob("*.html"):
        texts += re.findall(r"<style[^>]*>(.*?)</style>", path.read_text(encoding="utf-8"), re.DOTALL)
    assert sheets
    assert [url for text in texts for url in addresses(text) if is_outside(url)] == []


def test_every_page_forbids_its_scripts_to_fetch_from_another_host(site: Path, built: dict[Path, Page]) -> None:
    for path, page in built.items():
        assert page.policies == ["default-src 'self' file: data: blob: 'unsafe-inline'"], path.name
        text = path.read_text(encoding="utf-8")
        assert text.index("Content-Security-Policy") < text.index("<script"), path.name


def test_no_internal_link_and_no_anchor_is_broken(site: Path, built: dict[Path, Page]) -> None:
    broken = []
    for path, page in built.items():
        for link in page.links + page.fetched:
            parts = urlsplit(link)
            if is_outside(link) or parts.scheme:
                continue
            base = site if link.startswith("/") else path.parent
            target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            lost = parts.fragment and target in built and unquote(parts.fragment) not in built[target].ids
            if not target.is_file() or lost:
                broken.append((path.name, link))
    assert broken == []


def test_every_picture_says_in_words_what_it_shows(built: dict[Path, Page]) -> None:
    shown = [image for page in built.values() for image in page.images]
    assert len(shown) >= 7
    assert all(len(image.get("alt") or "") > 20 for image in shown)


def test_pictures_stay_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (DOCS / "images").iterdir()}
    assert {name: size for name, size in sizes.items() if size > 300_000} == {}


@pytest.mark.parametrize("name", ["cli.md", "api.md", "settings.md", "recipes.md"])
def test_the_reference_is_what_the_code_says_now(generator: ModuleType, name: str) -> None:
    committed = (DOCS / name).read_text(encoding="utf-8")
    assert committed == generator.pages()[name], "run: python docs/generate.py"


def test_every_table_and_chart_of_results_is_what_the_result_files_say() -> None:
    for path, text in script("results").pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python docs/results.py"


@pytest.mark.parametrize(
    ("intervals", "answer"),
    [
        ([(1, 2), (3, 4)], "**Yes.** Both intervals lie above 0."),
        ([(1, 2), (-1, 4)], "**In 1 of 2.** Of the intervals 1 lies above 0 and 1 lies on both sides of 0."),
        ([(-1, 2)], "**Cannot be told.** The one interval lies on both sides of 0."),
        ([(-2, -1), (-1, 1)], "**In 0 of 2.** Of the intervals 1 lies below 0 and 1 lies on both sides of 0."),
        ([(-2, -1)], "**No, the other way round.** The one interval lies below 0."),
        ([(-2, -1), (1, 2)], "**In 1 of 2.** Of the intervals 1 lies above 0 and 1 lies below 0."),
    ],
)
def test_an_answer_is_what_the_intervals_allow(intervals: list[tuple[float, float]], answer: str) -> None:
    verdict = script("result_tables")._verdict
    assert verdict([{"low": low, "high": high} for low, high in intervals]) == answer
    turned = verdict([{"low": -high, "high": -low} for low, high in intervals], "below")
    assert turned.partition(".")[0] == answer.partition(".")[0]


def test_a_page_without_the_section_is_refused() -> None:
    with pytest.raises(ValueError, match="has no section 'deep'"):
        script("results").with_section("# A page\n", "deep", "")


def test_every_setting_has_a_meaning(generator: ModuleType) -> None:
    rows = [line.strip("| ").split(" | ") for line in generator.settings_page().splitlines() if line.startswith("| `")]
    silent = [row[0] for row in rows if len(row) < 3 or not row[2].strip()]
    assert len(rows) > 40
    assert silent == [], "say it in a comment behind the key in config.py"


def test_every_public_name_is_in_the_python_reference(generator: ModuleType) -> None:
    import scaleseg

    headings = re.findall(r"^### scaleseg\.(\w+)$", generator.api_page(), re.MULTILINE)
    assert set(headings) == set(scaleseg.__all__) - {"__version__"}


def commands() -> Iterator[tuple[str, list[str]]]:
    """(page, words) of every scaleseg command in the pages that people write, and in the README."""
    for path in (*(DOCS / name for name in WRITTEN), ROOT / "README.md"):
        for block in re.findall(r"^```bash\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["scaleseg"]:
                    yield path.name, words[1:]


def test_every_command_in_the_pages_is_one_that_the_command_line_takes() -> None:
    from typer.main import get_command

    from scaleseg.cli.app import app
    from scaleseg.recipes import load_recipe, override

    seen = 0
    for page, words in commands():
        command, name, left = get_command(app), "scaleseg", words
        while hasattr(command, "commands"):
            assert left and left[0] in command.commands, (page, words)
            command, name, left = command.commands[left[0]], left[0], left[1:]
        given = command.make_context(name, list(left)).params
        settings = [item for item in given.get("overrides") or [] if not item.startswith("data=")]
        recipe = given.get("recipe")
        if recipe and not recipe.endswith(".yaml"):
            load_recipe(recipe, settings)
        else:
            override({}, settings)
        seen += 1
    assert seen > 10


def snippets(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_snippet(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the snippet leaves behind when it runs in `folder`."""
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(code, "snippet", "exec"), names)
    return names


def test_the_colour_snippet_makes_ids_of_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (13, 17))
    table = np.zeros((256, 3), np.uint8)
    table[[0, 1, 2, 255]] = [(0, 0, 0), (64, 0, 0), (64, 0, 128), (224, 224, 192)]
    (tmp_path / "pets" / "masks").mkdir(parents=True)
    (tmp_path / "pets" / "colour-masks").mkdir()
    Image.fromarray(table[ids]).save(tmp_path / "pets" / "colour-masks" / "a.png")
    run_snippet(snippets("faq.md")[0], tmp_path, monkeypatch)
    assert (np.array(Image.open(tmp_path / "pets" / "masks" / "a.png")) == ids).all()


def test_the_labelme_snippet_draws_polygons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    square = {"label": "dog", "points": [[2, 3], [9, 3], [9, 7], [2, 7]]}
    drawn = {"imageWidth": 12, "imageHeight": 10, "shapes": [square]}
    for name in ("masks", "labelme"):
        (tmp_path / "pets" / name).mkdir(parents=True)
    (tmp_path / "pets" / "labelme" / "a.json").write_text(json.dumps(drawn))
    run_snippet(snippets("faq.md")[1], tmp_path, monkeypatch)
    expected = np.zeros((10, 12), np.uint8)
    expected[3:8, 2:10] = 2
    assert (np.array(Image.open(tmp_path / "pets" / "masks" / "a.png")) == expected).all()


def test_the_coco_snippet_draws_small_objects_upon_large_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = [4, 4, 6, 4, 6, 6, 4, 6], [1, 1, 10, 1, 10, 8, 1, 8]
    coco = {
        "categories": [{"id": 17}, {"id": 18}],
        "images": [{"id": 5, "file_name": "a.jpg", "width": 12, "height": 10}],
        "annotations": [
            {"image_id": 5, "category_id": 18, "area": 9, "iscrowd": 0, "segmentation": [small]},
            {"image_id": 5, "category_id": 17, "area": 80, "iscrowd": 0, "segmentation": [large]},
            {"image_id": 5, "category_id": 18, "area": 99, "iscrowd": 1, "segmentation": {"counts": []}},
        ],
    }
    (tmp_path / "pets" / "masks").mkdir(parents=True)
    (tmp_path / "pets" / "instances.json").write_text(json.dumps(coco))
    run_snippet(snippets("faq.md")[2], tmp_path, monkeypatch)
    expected = Image.new("L", (12, 10), 0)
    ImageDraw.Draw(expected).polygon(large, fill=1)
    ImageDraw.Draw(expected).polygon(small, fill=2)
    assert (np.array(Image.open(tmp_path / "pets" / "masks" / "a.png")) == np.array(expected)).all()


@pytest.mark.parametrize("page", ["index.md", "concepts.md", "refinement.md", "performance.md"])
def test_the_snippets_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    for code in snippets(page):
        run_snippet(code, tmp_path, monkeypatch)
    assert len(list(tmp_path.glob("*.png"))) == 1


@pytest.mark.parametrize(
    ("page", "source", "said"),
    [
        ("getting-started.md", "getting-started.json", "mIoU {mIoU:.2f} %   mAcc {mAcc:.2f} %   aAcc {aAcc:.2f} %"),
        ("concepts.md", "voc-animals-lite.json", "| **{mIoU:.1f} %** | {1:.1f} % | {0.75:.1f} % | {0.5:.1f} % |"),
        ("concepts.md", "shapes-attention.json", "attention reaches {mIoU:.1f} %"),
        ("concepts.md", "shapes-average.json", "the average {mIoU:.1f} %"),
        ("concepts.md", "shapes-single.json", "scale 1 alone {mIoU:.1f} %"),
    ],
)
def test_figures_are_those_of_the_files_that_they_name(page: str, source: str, said: str) -> None:
    measured = json.loads((DOCS / "results" / source).read_text(encoding="utf-8"))
    text = (DOCS / page).read_text(encoding="utf-8")
    fractions = {key: measured[key] for key in ("mIoU", "mAcc", "aAcc")} | measured["per_scale"]
    for key, value in fractions.items():
        said = re.sub(rf"\{{{re.escape(key)}:(\.\df)\}}", lambda found, v=value: format(100 * v, found[1]), said)
    assert f"results/{source}" in text
    assert said in text


def is_outside(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.netloc) or parts.scheme in ("http", "https", "ftp", "ws", "wss")


def built_page(built: dict[Path, Page], name: str) -> Page:
    return next(page for path, page in built.items() if path.name == name)

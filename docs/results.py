"""Write into the pages what result files say: python docs/results.py

`docs/results/` holds what the commands wrote that are named there. `tests/test_docs.py` holds the pages against this.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from result_chart import curves, gains
from result_model import card_section, deep_section, steps_section
from result_tables import (
    Results,
    answers,
    camvid,
    classes,
    costs,
    fusion_rate,
    grid,
    headline,
    hours,
    in_short,
    rates,
    sizes,
)

__all__ = ["CHARTS", "SECTIONS", "main", "pages", "with_section"]

DOCS = Path(__file__).parent
RESULTS = DOCS / "results"
HOURS = DOCS.parent / "benchmarks" / "results" / "expected_hours.json"
CARD = DOCS.parent / "src" / "scaleseg" / "bundled" / "voc-animals-lite" / "README.md"


LOGS = (
    ("voc-animals-lite (bundled)", RESULTS / "voc-animals-lite-training.jsonl", 8, 2),
    ("its edge map", RESULTS / "voc-animals-lite-edges-training.jsonl", 4, 1),
)
"""Runs of which the log alone is kept: name, log, batch, and the most threads that it had."""


def main() -> None:
    """Bring every page and chart up to date."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


def pages() -> dict[Path, str]:
    """Every page and chart as it should be."""
    written: dict[Path, str] = {}
    for path, name, section in SECTIONS:
        page = written[path] if path in written else path.read_text(encoding="utf-8")
        written[path] = with_section(page, name, section())
    return written | {DOCS / "images" / name: chart() for name, chart in CHARTS.items()}


def with_section(page: str, name: str, content: str) -> str:
    """The page with what stands between its two marks replaced."""
    marks = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    if not all(mark in page for mark in marks):
        raise ValueError(f"the page has no section {name!r}; expected {marks[0].strip()} and {marks[1]}")
    return re.sub(f"(?s){marks[0]}.*?{marks[1]}", lambda _: f"{marks[0]}{content}{marks[1]}", page)


def _read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def _animals() -> Results:
    return Results(RESULTS / "voc-animals-lite0")


def _camvid() -> Results:
    return Results(RESULTS / "camvid-lite0")


def _fusion_rate() -> str:
    compared = (_read(f"camvid-val-{name}.json") for name in ("attention", "attention-fusion-rate", "fusion-rates"))
    return fusion_rate(_read("camvid-lite0-fusion-rate/attention-3-es.json"), *compared)


def _deep() -> Any:
    return _read("voc-animals-lite-deep.json")


SECTIONS: tuple[tuple[Path, str, Callable[[], str]], ...] = (
    (DOCS / "insight.md", "deep", lambda: deep_section(_deep())),
    (CARD, "figures", lambda: card_section(_deep(), _read("refinement.json"))),
    (DOCS.parent / "README.md", "headline", lambda: headline(_animals())),
    (DOCS / "results.md", "grid", lambda: grid(_animals())),
    (DOCS / "results.md", "short", lambda: in_short(_animals())),
    (DOCS / "results.md", "answers", lambda: answers(_animals())),
    (DOCS / "results.md", "rates", lambda: rates(_animals())),
    (DOCS / "results.md", "sizes", lambda: sizes(_animals())),
    (DOCS / "results.md", "classes", lambda: classes(_animals())),
    (DOCS / "results.md", "camvid", lambda: camvid(_camvid(), _read("camvid-published.json"))),
    (DOCS / "results.md", "fusion-rate", _fusion_rate),
    (DOCS / "results.md", "bundled", lambda: card_section(_deep(), _read("refinement.json"))),
    (DOCS / "results.md", "steps", lambda: steps_section(_animals(), _read("voc-animals-lite-steps.json"))),
    (DOCS / "reproducing.md", "hours", lambda: hours(json.loads(HOURS.read_text(encoding="utf-8")))),
    (DOCS / "results.md", "costs", lambda: costs(_animals(), _camvid(), LOGS)),
)
"""Page, name of the section, and what belongs there."""

CHARTS: dict[str, Callable[[], str]] = {
    "results-gains.svg": lambda: gains(_animals()),
    "results-curves.svg": lambda: curves(_animals()),
}


if __name__ == "__main__":
    main()

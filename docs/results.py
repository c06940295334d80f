"""Write into the pages what result files say: python docs/results.py

`docs/results/*.json` were written by the commands that they name. `tests/test_docs.py` holds the pages against this.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaleseg import Analysis
from scaleseg.analysis.comparison import gain

__all__ = ["deep_section", "main", "with_section"]

DOCS = Path(__file__).parent


def main() -> None:
    """Bring every page up to date."""
    page = DOCS / "insight.md"
    page.write_text(with_section(page.read_text(encoding="utf-8"), "deep", deep_section()), encoding="utf-8")


def with_section(page: str, name: str, content: str) -> str:
    """The page with what stands between its two marks replaced."""
    marks = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    if not all(mark in page for mark in marks):
        raise ValueError(f"the page has no section {name!r}; expected {marks[0].strip()} and {marks[1]}")
    return re.sub(f"(?s){marks[0]}.*?{marks[1]}", lambda _: f"{marks[0]}{content}{marks[1]}", page)


def deep_section() -> str:
    """What `evaluate --deep` says of the bundled model."""
    document = json.loads((DOCS / "results" / "voc-animals-lite-deep.json").read_text(encoding="utf-8"))
    found, analysis = document["analysis"], Analysis.from_dict(document)
    use, scales = found["scale_use"], found["scales"]
    fusions = _table(
        ("the same scores, merged by", "mIoU %", "95 % interval"),
        [(name, _percent(one["value"]), _interval(one)) for name, one in found["fusions"].items()],
    )
    heads = (
        "object's share",
        "objects",
        "IoU %",
        "95 % interval",
        "found %",
        *(f"scale {scale:g}" for scale in scales),
    )
    sizes = _table(heads, [_size(one) for one in found["sizes"]])
    zones = _table(
        ("mean weight in % on", *(f"scale {scale:g}" for scale in scales)),
        [(name, *(f"{100 * weight:.0f}" for weight in weights)) for name, weights in use["zones"].items()],
    )
    low, high = use["interval"]
    correlation = f"{use['correlation']:.2f} (95 % interval {low:.2f} to {high:.2f}; {use['objects']:,} objects)"
    boundary = found["boundary_IoU"]
    return (
        f"{fusions}\n"
        f"The model's own fusion less the others, in points of mIoU on the same photographs (paired 95 % interval): less the "
        f"average {_gain(analysis, 'average')}, less the maximum {_gain(analysis, 'max')}, less the oracle "
        f"{_gain(analysis, 'oracle')}.\n\n"
        f"{sizes}\n"
        "The last three columns are the mean weight of each scale, in percent, over the objects of that size. "
        f"Spearman's correlation between an object's share and its mean scale is **{correlation}**.\n\n"
        f"{zones}\n"
        f"Boundary IoU {_percent(boundary['value'])} % ({_interval(boundary)}); calibration error (ECE) "
        f"{_percent(found['calibration']['ece'])} points.\n"
    )


def _gain(analysis: Analysis, other: str) -> str:
    """Points of mIoU between the model's own fusion and another, with the interval of their difference."""
    value, low, high = (100 * figure for figure in gain(analysis, other).difference)
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def _size(one: dict[str, Any]) -> tuple[str, ...]:
    score = one["IoU"]
    weights = (f"{100 * weight:.0f}" for weight in one["weights"])
    share = f"{100 * one['low']:g} to {100 * one['high']:g} %"
    return share, str(one["objects"]), _percent(score["value"]), _interval(score), _percent(one["found"]), *weights


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def _interval(one: dict[str, float]) -> str:
    return f"{_percent(one['low'])} to {_percent(one['high'])}"


if __name__ == "__main__":
    main()

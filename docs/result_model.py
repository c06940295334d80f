"""What result files say of the bundled model; see results.py."""

from collections.abc import Sequence
from typing import Any

from result_tables import Results, interval, percent, table

from scaleseg import Analysis
from scaleseg.analysis.comparison import gain

__all__ = ["card_section", "deep_section", "steps_section"]


def deep_section(document: dict[str, Any]) -> str:
    """What `evaluate --deep` says of it."""
    found, analysis = document["analysis"], Analysis.from_dict(document)
    use, scales = found["scale_use"], found["scales"]
    fusions = table(
        ("the same scores, merged by", "mIoU %", "95 % interval"),
        [(name, percent(one["value"]), interval(one)) for name, one in found["fusions"].items()],
    )
    heads = (
        "object's share",
        "objects",
        "IoU %",
        "95 % interval",
        "found %",
        *(f"scale {scale:g}" for scale in scales),
    )
    sizes = table(heads, [_size(one) for one in found["sizes"]])
    zones = table(
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
        f"Boundary IoU {percent(boundary['value'])} % ({interval(boundary)}); calibration error (ECE) "
        f"{percent(found['calibration']['ece'])} points.\n"
    )


def _gain(analysis: Analysis, other: str) -> str:
    """Points of mIoU between the model's own fusion and another, with the interval of their difference."""
    value, low, high = (100 * figure for figure in gain(analysis, other).difference)
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def _size(one: dict[str, Any]) -> tuple[str, ...]:
    score = one["IoU"]
    weights = (f"{100 * weight:.0f}" for weight in one["weights"])
    return _share(one), str(one["objects"]), percent(score["value"]), interval(score), percent(one["found"]), *weights


def card_section(document: dict[str, Any], refinement: dict[str, Any]) -> str:
    """What its model card says: fusions, refinements, classes and sizes, with intervals."""
    found = document["analysis"]
    fusions = [(name, percent(one["value"], 1), interval(one, 1)) for name, one in found["fusions"].items()]
    named = {
        "fused": "merged by attention",
        "average": "the same scores, averaged",
        "max": "the same scores, their maximum",
    }
    refined = [
        (
            f"merged by attention, `--refine {name}`",
            percent(one["mIoU"], 1),
            " to ".join(percent(end, 1) for end in one["interval"]),
        )
        for name, one in refinement["kinds"].items()
        if name != "none"
    ]
    classes = [(name, percent(one["value"], 1), interval(one, 1)) for name, one in found["IoU"].items()]
    heads = ("share of the photograph", "objects", "IoU %", "95 % interval", "found %")
    sizes = [
        (
            _share(one),
            str(one["objects"]),
            percent(one["IoU"]["value"], 1),
            interval(one["IoU"], 1),
            percent(one["found"], 1),
        )
        for one in found["sizes"]
    ]
    boundary = found["boundary_IoU"]
    merged = [(named.get(name, f"{name} alone"), *row) for name, *row in fusions if name != "oracle"]
    return (
        table((f"on voc-animals val ({document['images']} photographs)", "mIoU %", "95 % interval"), [*merged, *refined])
        + "\n" + table(("class", "IoU %", "95 % interval"), classes)
        + "\n" + table(heads, sizes)
        + f"\nBoundary IoU {percent(boundary['value'], 1)} % ({interval(boundary, 1)}); calibration error (ECE) "
        f"{percent(found['calibration']['ece'])} points.\n"
    )  # fmt: skip


def steps_section(animals: Results, tried: Sequence[dict[str, Any]]) -> str:
    """What each step brought, on the development split: from two cells of the experiment to what benchmarks/development.py
    measured."""
    rows = [(f"cell `{name}`", animals.cells[name]["dev"][-1]["mIoU"]) for name in ("baseline", "attention-3-es")]
    rows += [(one["step"], one["mIoU"]) for one in tried]
    return table(("model", "dev mIoU %"), [(name, percent(value, 1)) for name, value in rows])


def _share(one: dict[str, Any]) -> str:
    """A bin of object sizes."""
    return f"{100 * one['low']:g} to {100 * one['high']:g} %"

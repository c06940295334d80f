"""Tables and answers of results.md, and the hours of reproducing.md, from what the benchmarks wrote; see results.py."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from scaleseg.ablate.cells import FUSIONS
from scaleseg.ablate.paper import find

__all__ = [
    "ORDER",
    "Results",
    "answers",
    "camvid",
    "classes",
    "costs",
    "fusion_rate",
    "grid",
    "headline",
    "hours",
    "in_short",
    "interval",
    "percent",
    "points",
    "rates",
    "sizes",
    "table",
]

ORDER = (
    "baseline",
    *(f"{fusion}-{column}" for column in ("3-es", "3", "2-es", "2") for fusion in ("attention", "max", "average")),
)
"""Cells from the paper's best kind down."""


PAPER = find("voc", "imagenet")
"""Its Table 3, on PASCAL VOC."""


class Results:
    """What one run of benchmarks/real_results.py came to, by the names of its files."""

    def __init__(self, folder: Path) -> None:
        documents = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
        pairs = documents.pop("differences", [])
        self.cells: dict[str, dict[str, Any]] = documents
        self.pairs: dict[tuple[str, str], dict[str, Any]] = {(one["of"], one["less"]): one for one in pairs}
        self.differences = {pair: one["mIoU"]["difference"] for pair, one in self.pairs.items()}

    def in_order(self) -> list[tuple[str, dict[str, Any]]]:
        """Finished cells: the paper's best kind first, then what the paper's table does not have."""
        return [(name, self.cells[name]) for name in dict.fromkeys((*ORDER, *self.cells)) if name in self.cells]


def grid(results: Results) -> str:
    """Every cell: mIoU, gain over one scale, the paper's gain, where the losses ended, and what it took."""
    rows = []
    for name, cell in results.in_order():
        score, gain = cell["val"]["analysis"]["mIoU"], results.differences.get((name, "baseline"))
        rows.append((
            name, f"{percent(score['value'])} ({interval(score, 1)})", points(gain) if gain else "",
            f"{PAPER.gains()[name]:+.2f}" if name in PAPER.gains() else "", percent(cell["dev"][-1]["mIoU"]),
            f"{minutes(cell):.0f}", f"{cell['training']['images_per_s']:.1f}",
        ))  # fmt: skip
    heads = (
        "cell", "val mIoU % (95 % interval)", "points over one scale", "the paper's", "dev mIoU %", "minutes", "images/s",
    )  # fmt: skip
    return table(heads, rows) + _missing(results)


def minutes(cell: dict[str, Any]) -> float:
    """Of training: all crops at the median speed, so that the hours for which a run lay still do not count."""
    return float(cell["training"]["steps"] * cell["settings"]["train.batch"] / cell["training"]["images_per_s"] / 60)


def headline(results: Results) -> str:
    """The cells that matter most, against one scale at the rate that suits it."""
    rows = [
        (label, percent(results.cells[name]["val"]["mIoU"], 1), points(gain) if gain else "")
        for name, label in (
            ("baseline-rate", "one scale, at the rate that suits it"), ("baseline", "one scale, at the rate of those below"),
            ("average-3-es", "three scales, averaged"), ("max-3-es", "three scales, their maximum"),
            ("attention-3-es", "**three scales, attention**"),
        )
        for gain in [results.differences.get((name, "baseline-rate"))]
    ]  # fmt: skip
    heads = ("lite0 on voc-animals, a loss on every scale", "mIoU % on val", "points over the first (95 % interval)")
    return table(heads, rows)


def sizes(results: Results) -> str:
    """IoU of the objects of each size, for every cell."""
    bins = [one for one in results.cells["baseline"]["val"]["analysis"]["sizes"] if one["objects"]]
    heads = ("cell", *(f"{100 * one['low']:g} to {100 * one['high']:g} % ({one['objects']})" for one in bins))
    rows = [
        (name, *(percent(one["IoU"]["value"], 1) for one in cell["val"]["analysis"]["sizes"] if one["objects"]))
        for name, cell in results.in_order()
    ]
    return table(heads, rows)


def classes(results: Results) -> str:
    """IoU of every class, for every cell."""
    names = list(results.cells["baseline"]["val"]["IoU"])
    rows = [(cell, *(percent(one["val"]["IoU"][name], 1) for name in names)) for cell, one in results.in_order()]
    return table(("cell", *names), rows)


def answers(results: Results) -> str:
    """The questions, each with yes or no and the differences that say so."""
    cells, columns = [name for name in ORDER if name != "baseline"], ("3-es", "3", "2-es", "2")
    own, alone = ([name for name in cells if name.endswith("-es") is each] for each in (True, False))
    suited = [f"{fusion}-3-rate" for fusion in FUSIONS]
    ahead = [(f"attention-{column}", f"{fusion}-{column}") for column in columns for fusion in ("max", "average")]
    with_own, with_one = ([pair for pair in ahead if pair[0].endswith("-es") is each] for each in (True, False))
    helps = [(f"{fusion}-{count}-es", f"{fusion}-{count}") for count in (3, 2) for fusion in FUSIONS]
    beyond = [(f"{fusion}-3-es", f"{fusion}-3-rate") for fusion in FUSIONS]
    hurt = [(f"{fusion}-3", f"{fusion}-2") for fusion in ("attention", "average")]
    third = [(f"{fusion}-3-es", f"{fusion}-2-es") for fusion in FUSIONS]
    return "\n".join([
        _question(results, "Do several scales beat one, all at 0.0003?", [(name, "baseline") for name in cells]),
        _question(
            results, "With a loss on every scale, do several scales beat one at 0.001?", [(name, "baseline-rate") for name in own]
        ),
        _question(
            results, "With one loss, all at 0.001, does attention at three scales beat one scale?",
            [(name, "baseline-rate") for name in suited],
        ),
        _question(
            results, "With one loss at 0.0003, do several scales beat one at 0.001, the better rate for it?",
            [(name, "baseline-rate") for name in alone],
        ),
        _question(results, "With a loss on every scale, does attention beat max and average?", with_own),
        _question(results, "With one loss at 0.0003, does attention beat max and average?", with_one),
        _question(results, "Does a loss on every scale (extra supervision) help, all at 0.0003?", helps),
        _question(
            results, "Is extra supervision at 0.0003 better than one loss at 0.001, for attention at three scales?", beyond
        ),
        _coarse(results),
        _question(results, "All at 0.0003, without extra supervision, does a third scale help max?", [("max-3", "max-2")]),
        _question(
            results, "All at 0.0003, without extra supervision, does a third scale hurt attention and average?", hurt, yes="below"
        ),
        _question(results, "All at 0.0003, with extra supervision, does a third scale help?", third),
    ])  # fmt: skip


def in_short(results: Results) -> str:
    """Every question and its answer, in a line."""
    found = re.findall(r"(?m)^### (.+)\n\n(\*\*[^*]+\*\*[^.]*\.|Not run\.)", answers(results))
    return "".join(f"- {question} {answer}\n" for question, answer in found)


def rates(results: Results) -> str:
    """What is left of extra supervision's gain where one loss has a higher rate, and which classes what is left lies in."""
    steps = (
        ("extra supervision less none, both at 0.0003", "attention-3-es", "attention-3"),
        ("none: at 0.001 less at 0.0003", "attention-3-rate", "attention-3"),
        ("left: extra supervision at 0.0003 less none at 0.001", "attention-3-es", "attention-3-rate"),
    )
    parts = [
        (
            name, points(results.differences[one, other]),
            f"{100 * (results.cells[one]['dev'][-1]['mIoU'] - results.cells[other]['dev'][-1]['mIoU']):+.1f}",
            points(results.pairs[one, other]["boundary_IoU"]["difference"]),
        )
        for name, one, other in steps
    ]  # fmt: skip
    pairs = (("attention-3-es", "attention-3-rate"), ("attention-3-rate", "baseline-rate"))
    by_class = [
        (name, *(points(results.pairs[pair]["IoU"][name]["difference"]) for pair in pairs))
        for name in results.pairs[pairs[0]]["IoU"]
    ]
    heads = ("attention at three scales", "val mIoU", "dev mIoU", "val boundary IoU")
    classes = ("IoU of", *(f"{one} less {other}" for one, other in pairs))
    return f"{table(heads, parts)}\n{table(classes, by_class)}\n{_by_one_class(results)}"


def _by_one_class(results: Results) -> str:
    """How much of what each cell with a loss on every scale gains over one scale at 0.001 is one class: where it is lowest."""
    least = results.cells["baseline-rate"]["val"]["IoU"]
    worst = min(least, key=lambda name: float(least[name]))
    parts = []
    for name in (name for name in ORDER if name.endswith("-es") and name in results.cells):
        found = results.cells[name]["val"]["IoU"]
        gains = {one: 100 * (found[one] - least[one]) for one in least}
        others = [gain for one, gain in gains.items() if one != worst]
        parts.append(
            f"{name} {gains[worst] / sum(gains.values()):.0%} and {sum(others) / len(others):+.1f}".replace("%", " %")
        )
    return (
        f"The class that one scale at 0.001 finds worst is {worst} ({percent(least[worst], 1)} %). Its share of the gains over "
        f"that scale, and the gain of the other {len(others)} classes' mean: {', '.join(parts)}.\n"
    )


def _question(results: Results, question: str, pairs: Sequence[tuple[str, str]], yes: str = "above") -> str:
    """Its answer over those pairs that were run; `yes` is the side of 0 that affirms."""
    known = [(pair, results.differences[pair]) for pair in pairs if pair in results.differences]
    if not known:
        return f"### {question}\n\nNot run.\n"
    rows = [
        (
            f"{one} less {other}",
            points(gain),
            _in_paper(one, other),
            points(results.pairs[one, other]["boundary_IoU"]["difference"]),
        )
        for (one, other), gain in known
    ]
    heads = ("cells", "points of mIoU (paired 95 % interval)", "paper, VOC val", "points of boundary IoU")
    verdict = _verdict([gain for _, gain in known], yes, [row[0] for row in rows])
    return f"### {question}\n\n{verdict}\n\n{table(heads, rows)}"


def _in_paper(one: str, other: str) -> str:
    """The same difference in the paper's Table 3."""
    known = one in PAPER.figures and other in PAPER.figures
    return f"{PAPER.figures[one] - PAPER.figures[other]:+.2f}" if known else ""


def _verdict(gains: Sequence[dict[str, float]], yes: str = "above", names: Sequence[str] = ()) -> str:
    """Yes or no where all intervals lie on one side of zero; else in how many they do, and in which."""
    sides = ["above" if one["low"] > 0 else "below" if one["high"] < 0 else "on both sides of" for one in gains]
    order = (yes, "below" if yes == "above" else "above", "on both sides of")
    counts = {side: sides.count(side) for side in order if side in sides}
    if len(counts) == 1:
        answer = dict(zip(order, ("Yes", "No, the other way round", "Cannot be told"), strict=True))[sides[0]]
        who = {1: "The one interval lies", 2: "Both intervals lie"}.get(len(gains), f"All {len(gains)} intervals lie")
        return f"**{answer}.** {who} {sides[0]} 0."
    which = {side: [name for name, at in zip(names, sides, strict=False) if at == side] for side in counts}
    told = [
        f"{count} {'lie' if count > 1 else 'lies'} {side} 0" + (f" ({', '.join(which[side])})" if names else "")
        for side, count in counts.items()
    ]
    return f"**In {counts.get(yes, 0)} of {len(gains)}.** Of the intervals {' and '.join(told)}."


def _coarse(results: Results) -> str:
    """Spearman's correlation between an object's size and the mean scale that it was seen at."""
    found = [
        (name, cell["val"]["analysis"])
        for name, cell in results.in_order()
        if name.startswith(("attention", "max")) and cell["val"]["analysis"]["scale_use"]
    ]
    title = "### Does attention turn to coarser scales as objects grow?\n\n"
    if not found:
        return title + "Not run.\n"
    rows = []
    for name, analysis in found:
        use, sizes = analysis["scale_use"], [one for one in analysis["sizes"] if one["objects"]]
        low, high = use["interval"]
        weights = sizes[0]["weights"], sizes[-1]["weights"], use["zones"]["background"]
        shares = (" / ".join(f"{100 * weight:.0f}" for weight in each) for each in weights)
        rows.append((name, f"{use['correlation']:+.2f} ({low:+.2f} to {high:+.2f})", *shares))
    intervals = [
        dict(zip(("low", "high"), one["scale_use"]["interval"], strict=True)) for name, one in found if name[0] == "a"
    ]
    heads = (
        "cell",
        "Spearman of size and mean scale (95 % interval)",
        "smallest objects",
        "largest objects",
        "background",
    )
    return (
        f"{title}{_verdict(intervals, 'below')} (Attention's; below 0 means: the larger the object, the smaller the scale "
        "that it is seen at.) The last three columns are the mean weight of each scale in percent, the whole first; for max, "
        f"the share of pixels at which that scale has the winning score.\n\n{table(heads, rows)}"
    )


def _missing(results: Results) -> str:
    left = [name for name in ORDER if name not in results.cells]
    return f"\nNot run: {', '.join(left)}.\n" if left else ""


def camvid(results: Results, published: Iterable[dict[str, Any]]) -> str:
    """Ours on the test split, and what others printed."""
    if not results.cells:
        return "Not run yet.\n"
    rows = []
    for name, cell in results.in_order():
        score = cell["val"]["analysis"]["mIoU"]
        rows.append(
            (
                f"lite0, {name}",
                f"**{percent(score['value'], 1)}** ({interval(score, 1)})",
                "the 367",
                "480 x 360",
                "here",
            )
        )
    for one in published:
        source = f"[{one['source']}]({one['link']})"
        rows.append((one["network"], f"{one['mIoU']:.1f}", one["trained_on"], one["size"], source))
    heads = ("network", "test mIoU % (95 % interval)", "trained on", "photographs of", "from")
    gain = results.differences["attention-3-es", "baseline"]
    return (
        f"{table(heads, rows)}\nAttention at three scales less one: {points(gain)} points of mIoU (paired 95 % interval). "
        f"{_merged_otherwise(results.cells['attention-3-es']['val']['analysis'])}\n\n{classes(results)}"
    )


def _merged_otherwise(analysis: dict[str, Any]) -> str:
    """Two sentences: the mIoU of a cell's own scores by other rules, and how much of the weight each of its scales has."""
    fusions = ", ".join(
        f"{name} {percent(one['value'], 1)}" for name, one in analysis["fusions"].items() if name != "fused"
    )
    zones, first = analysis["scale_use"]["zones"], next(iter(analysis["IoU"]))
    named = {"background": first, "object": "other classes", "boundary": "outlines"}
    shares = {zone: " / ".join(percent(weight, 1) for weight in each) for zone, each in zones.items()}
    weights = ", ".join(f"{share} on pixels of {named[zone]}" for zone, share in shares.items())
    return f"Its scores merged otherwise, mIoU in percent: {fusions}. The mean weights of its scales, in percent: {weights}."


def fusion_rate(cell: dict[str, Any], before: dict[str, Any], after: dict[str, Any], gain: dict[str, Any]) -> str:
    """CamVid's val: attention as in the table and with a slower head (`cell`), each compared with the baseline there, and
    one with the other."""
    runs = (("attention-3-es, as above", before), ("attention-3-es with `train.fusion_lr=0.2`", after))
    score = (percent(before["mIoU"]["first"], 1), "", percent(before["boundary_IoU"]["first"], 1), "")
    rows = [("baseline, as above", *score)]
    for name, one in runs:
        figures = (one[measure] for measure in ("mIoU", "boundary_IoU"))
        columns = [text for each in figures for text in (percent(each["second"], 1), points(each["difference"]))]
        rows.append((name, *columns))
    heads = ("on val (101 photographs)", "mIoU %", "points over baseline", "boundary IoU %", "points over baseline")
    use, told = cell["val"]["analysis"]["scale_use"], _merged_otherwise(cell["val"]["analysis"])
    low, high = use["interval"]
    return (
        f"{table(heads, rows)}\nThe slower head less the other: {points(gain['mIoU']['difference'])} points of mIoU. "
        f"Its weights by size of object: Spearman {use['correlation']:+.2f} ({low:+.2f} to {high:+.2f}). {told}\n"
    )


def costs(animals: Results, streets: Results, logs: Iterable[tuple[str, Path, int, int]]) -> str:
    """What each model took to train, measuring left out; of a run known by its log: its name, the log, batch and threads."""
    runs = [
        (f"{data}: {name}", one["training"]["steps"], minutes(one) / 60, one["training"]["threads"])
        for data, results in (("voc-animals", animals), ("CamVid", streets))
        for name, one in results.in_order()
    ]
    runs += [(name, *_log(path, batch), threads) for name, path, batch, threads in logs]
    rows = [
        (name, f"{steps:,}", f"{hours:.2f}", str(threads), f"{hours * threads:.2f}")
        for name, steps, hours, threads in runs
    ]
    total = sum(hours * threads for _, _, hours, threads in runs)
    return table(("model", "steps", "hours", "threads", "core hours"), [*rows, ("all", "", "", "", f"{total:.1f}")])


def _log(path: Path, batch: int) -> tuple[int, float]:
    """Steps of a training log, and hours at its median speed."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    timed = [line for line in lines if "images_per_s" in line]
    steps = int(timed[-1]["step"])
    return steps, steps * batch / median(line["images_per_s"] for line in timed) / 3600


def hours(document: dict[str, Any]) -> str:
    """What each cell of the paper's Table 3 takes on machines whose speed is known, and on one that sustains 20 TFLOP/s."""
    runs, speeds = document["runs"], document["tflops"]
    rates = (speeds["Tesla K40"], 20.0, speeds["here"])

    def row(name: str, each: str, pflop: float) -> tuple[str, ...]:
        k40, gpu, cpu = (1000 * pflop / rate / 3600 for rate in rates)
        return name, each, f"{pflop:.0f}", f"{k40:.1f}", f"{gpu:.1f}", f"{cpu / 24:.1f}"

    alike: dict[tuple[float, float], list[str]] = {}
    for name in sorted(runs, key=lambda name: float(runs[name]["pflop"])):
        alike.setdefault((runs[name]["gflop_a_crop"], runs[name]["pflop"]), []).append(name)
    rows = [row(", ".join(names), f"{crop:.0f}", pflop) for (crop, pflop), names in alike.items()]
    total = row("all 14", "", sum(one["pflop"] for one in runs.values()))
    here = document["here"]
    heads = (
        "cell", "GFLOP a crop", "PFLOP in all", f"hours, K40 at {rates[0]:.2f} TFLOP/s", "hours at 20 TFLOP/s",
        f"days, {here['threads']} cores of {here['cpu']}, {here['precision']}, {rates[2]:.2f} TFLOP/s",
    )  # fmt: skip
    return table(heads, [*rows, total])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; the first column is text, the others are figures."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def points(gain: dict[str, float]) -> str:
    """A difference in points, with its interval."""
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * gain[key] for key in ("value", "low", "high")))


def percent(fraction: float, digits: int = 2) -> str:
    """As the pages write it."""
    return f"{100 * fraction:.{digits}f}"


def interval(one: dict[str, float], digits: int = 2) -> str:
    """Its two ends, in percent."""
    return f"{percent(one['low'], digits)} to {percent(one['high'], digits)}"

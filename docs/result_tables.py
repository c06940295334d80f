"""Tables and answers of results.md, from the files under docs/results/; see results.py."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scaleseg.ablate.cells import FUSIONS
from scaleseg.ablate.paper import find

__all__ = [
    "ORDER",
    "Results",
    "answers",
    "camvid",
    "costs",
    "grid",
    "headline",
    "hours",
    "interval",
    "percent",
    "points",
    "sizes",
    "table",
]

ORDER = (
    "baseline",
    *(f"{fusion}-{column}" for column in ("3-es", "3", "2-es", "2") for fusion in ("attention", "max", "average")),
)
"""Cells from the paper's best kind down."""


class Results:
    """What one run of benchmarks/real_results.py came to, seed 0."""

    def __init__(self, folder: Path) -> None:
        documents = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
        self.cells: dict[str, dict[str, Any]] = {
            one["cell"]["name"]: one for one in documents if isinstance(one, dict) and not one["cell"]["seed"]
        }
        pairs = json.loads((folder / "differences.json").read_text(encoding="utf-8")) if self.cells else []
        self.differences = {(one["of"], one["less"]): one["mIoU"]["difference"] for one in pairs}

    def in_order(self) -> list[tuple[str, dict[str, Any]]]:
        """Finished cells."""
        return [(name, self.cells[name]) for name in ORDER if name in self.cells]


def grid(results: Results) -> str:
    """Every cell: mIoU, gain over one scale, the paper's gain, where the losses ended, and what it took."""
    paper = find("voc", "imagenet")
    theirs = {} if paper is None else paper.gains()
    rows = []
    for name, cell in results.in_order():
        training, score = cell["training"], cell["val"]["analysis"]["mIoU"]
        gain = results.differences.get((name, "baseline"))
        rows.append((
            name, percent(score["value"]), interval(score), "" if gain is None else points(gain),
            f"{theirs[name]:+.2f}" if name in theirs else "", percent(cell["dev"][-1]["mIoU"]) if cell["dev"] else "",
            f"{training['seconds'] / 60:.0f}", f"{training['images_per_s']:.1f}",
        ))  # fmt: skip
    heads = (
        "cell", "val mIoU %", "95 % interval", "points over one scale", "the paper's, on VOC", "dev mIoU %", "minutes",
        "images/s",
    )  # fmt: skip
    return table(heads, rows) + _missing(results)


def headline(results: Results) -> str:
    """The four cells that matter most, in two lines."""
    rows = [
        (label, percent(results.cells[name]["val"]["mIoU"], 1), points(gain) if gain else "")
        for name, label in (
            ("baseline", "one scale"), ("average-3-es", "three scales, averaged"), ("max-3-es", "three scales, their maximum"),
            ("attention-3-es", "**three scales, attention**"),
        )
        for gain in [results.differences.get((name, "baseline"))]
    ]  # fmt: skip
    return table(
        ("lite0 on voc-animals, a loss on every scale", "mIoU % on val", "points over one scale (95 % interval)"), rows
    )


def sizes(results: Results) -> str:
    """IoU of the objects of each size, for every cell."""
    bins = [one for one in results.cells["baseline"]["val"]["analysis"]["sizes"] if one["objects"]]
    heads = ("cell", *(f"{100 * one['low']:g} to {100 * one['high']:g} % ({one['objects']})" for one in bins))
    rows = [
        (name, *(percent(one["IoU"]["value"], 1) for one in cell["val"]["analysis"]["sizes"] if one["objects"]))
        for name, cell in results.in_order()
    ]
    return table(heads, rows)


def answers(results: Results) -> str:
    """The questions, each with yes or no and the differences that say so."""
    cells = [name for name in ORDER if name in results.cells]
    columns = ("3-es", "3", "2-es", "2")
    several = [(name, "baseline") for name in cells[1:]]
    attention = [(f"attention-{column}", f"{fusion}-{column}") for column in columns for fusion in ("max", "average")]
    own = [(f"{fusion}-{count}-es", f"{fusion}-{count}") for count in (3, 2) for fusion in FUSIONS]
    third = [(f"{fusion}-3", f"{fusion}-2") for fusion in ("max", "average", "attention")]
    third_own = [(f"{fusion}-3-es", f"{fusion}-2-es") for fusion in ("max", "average", "attention")]
    return "\n".join([
        _question(results, "Do several scales beat one?", several),
        _question(results, "Does attention beat max and average?", attention),
        _question(results, "Does a loss on every scale (extra supervision) help?", own),
        _coarse(results),
        _question(results, "Does a third scale help without extra supervision? (In the paper it helps max alone.)", third),
        _question(results, "And with it?", third_own),
    ])  # fmt: skip


def _question(results: Results, question: str, pairs: Sequence[tuple[str, str]]) -> str:
    paper = find("voc", "imagenet")
    figures = {} if paper is None else paper.figures
    known = [(pair, results.differences[pair]) for pair in pairs if pair in results.differences]
    rows = [
        (f"{one} less {other}", points(gain), f"{figures[one] - figures[other]:+.2f}" if one in figures else "")
        for (one, other), gain in known
    ]
    if not rows:
        return f"### {question}\n\nNot run.\n"
    heads = ("points of mIoU", "here (paired 95 % interval)", "paper, VOC val")
    return f"### {question}\n\n{_verdict([gain for _, gain in known])}\n\n{table(heads, rows)}"


def _verdict(gains: Sequence[dict[str, float]], yes: str = "above", no: str = "below") -> str:
    """Yes or no, by how many of the intervals lie on one side of zero; `yes` is the side that affirms."""
    sides = ["above" if one["low"] > 0 else "below" if one["high"] < 0 else "on both sides of" for one in gains]
    counts = {side: sides.count(side) for side in (yes, no, "on both sides of") if side in sides}
    if yes in counts:
        answer = "Both ways" if no in counts else "Yes" if len(counts) == 1 else "Yes, where it can be told"
    elif no in counts:
        answer = "No, the other way round" + ("" if len(counts) == 1 else ", where it can be told")
    else:
        answer = "Cannot be told"
    if len(counts) == 1:
        return f"**{answer}.** {f'All {len(gains)} intervals lie' if len(gains) > 1 else 'The interval lies'} {sides[0]} 0."
    told = [f"{count} {'lie' if count > 1 else 'lies'} {side} 0" for side, count in counts.items()]
    return f"**{answer}.** Of {len(gains)} intervals " + " and ".join(told) + "."


def _coarse(results: Results) -> str:
    """Spearman's correlation between an object's size and the mean scale that it was seen at."""
    found = [
        (name, cell["val"]["analysis"])
        for name, cell in results.in_order()
        if name.startswith("attention") and cell["val"]["analysis"]["scale_use"]
    ]
    rows = []
    for name, analysis in found:
        use, sizes = analysis["scale_use"], analysis["sizes"]
        low, high = use["interval"]
        coarse = ", ".join(f"{100 * one['weights'][-1]:.0f}" for one in sizes if one["objects"])
        rows.append((name, f"{use['correlation']:+.2f} ({low:+.2f} to {high:+.2f})", coarse))
    intervals = [dict(zip(("low", "high"), analysis["scale_use"]["interval"], strict=True)) for _, analysis in found]
    heads = (
        "cell",
        "Spearman of size and mean scale (95 % interval)",
        "weight of scale 0.5 in %, smallest to largest objects",
    )
    title = "### Does attention look at the coarse scale for large objects?\n\n"
    if not rows:
        return title + "Not run.\n"
    why = "Below 0 means: the larger the object, the smaller the scale that it is seen at."
    return f"{title}{_verdict(intervals, 'below', 'above')} {why}\n\n{table(heads, rows)}"


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
    classes = [
        (name, *(percent(cell["val"]["IoU"][name], 1) for _, cell in results.in_order()))
        for name in results.cells["baseline"]["val"]["IoU"]
    ]
    gain = results.differences["attention-3-es", "baseline"]
    return (
        f"{table(heads, rows)}\nAttention at three scales less one: {points(gain)} points of mIoU (paired 95 % interval).\n\n"
        + table(("class, IoU %", *(name for name, _ in results.in_order())), classes)
    )


def costs(animals: Results, streets: Results, logs: Iterable[tuple[str, Path, int, int]]) -> str:
    """What each model took to train, measuring left out; of a run known by its log: its name, the log, batch and threads."""
    runs = [
        (f"{data}: {name}", one["training"]["steps"], one["training"]["seconds"], one["training"]["threads"])
        for data, results in (("voc-animals", animals), ("CamVid", streets))
        for name, one in results.in_order()
    ]
    runs += [(name, *_log(path, batch), threads) for name, path, batch, threads in logs]
    rows = [
        (name, f"{steps:,}", f"{seconds / 3600:.2f}", str(threads), f"{seconds * threads / 3600:.2f}")
        for name, steps, seconds, threads in runs
    ]
    total = sum(seconds * threads for _, _, seconds, threads in runs) / 3600
    heads = ("model", "steps", "hours", "threads", "core hours")
    return table(heads, [*rows, ("all", "", "", "", f"{total:.1f}")])


def _log(path: Path, batch: int) -> tuple[int, float]:
    """Steps and seconds of a training log."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    timed = [(line["step"], line["images_per_s"]) for line in lines if "images_per_s" in line]
    before = [0, *(step for step, _ in timed)]
    return timed[-1][0], sum(batch * (step - last) / speed for (step, speed), last in zip(timed, before, strict=False))


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
    """A difference in points of mIoU with its interval."""
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * gain[key] for key in ("value", "low", "high")))


def percent(fraction: float, digits: int = 2) -> str:
    """As the pages write it."""
    return f"{100 * fraction:.{digits}f}"


def interval(one: dict[str, float], digits: int = 2) -> str:
    """Its two ends, in percent."""
    return f"{percent(one['low'], digits)} to {percent(one['high'], digits)}"

"""A report on labelled photographs: every figure of a deep evaluation, and a gallery with labels and errors."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from scaleseg.analysis import FEWEST, Analysis, ImageScore, analyze, read
from scaleseg.config import DataConfig
from scaleseg.datasets import Dataset, open_evaluation
from scaleseg.devices import explained
from scaleseg.errors import UserError
from scaleseg.report.figures import Figure, figures
from scaleseg.report.gallery import Shown, choose, show
from scaleseg.report.headlines import headlines
from scaleseg.report.history import curves
from scaleseg.report.page import Group, Page
from scaleseg.report.wish import Bar, Opened, facts, footer
from scaleseg.report.words import between, listed, percent, photographs
from scaleseg.segmentation import segment

__all__ = ["measured_page", "on_labels"]


def on_labels(opened: Opened, say: Callable[[str], None], bar: Bar) -> Page:
    """The page on the data that `evaluate` would measure."""
    found = open_evaluation(opened.config.data)
    say(f"{found.note}; {opened.how}")
    analysis = _analysis(opened, found.dataset, bar)
    sections = choose(analysis.images, several=len(analysis.scales) > 1)
    wanted = sorted({index for section in sections for index in section.indices})
    shown, left_out = _shown(opened, found.dataset, analysis, wanted, say, bar)
    _check_pictures(opened, analysis, shown)
    data = f"{photographs(len(analysis.images))} of {_data(opened.config.data)}"
    return measured_page(
        opened.name,
        analysis,
        shown,
        facts=facts(opened),
        data=data,
        training=curves(opened.history) if opened.history else [],
        notes=_notes(opened, found.note, left_out),
        footer=footer(opened.wish.command, f"{opened.name}: {facts(opened)}", data, opened.how),
    )


def measured_page(
    name: str,
    analysis: Analysis,
    shown: dict[int, Shown],
    *,
    facts: str,
    data: str,
    training: Sequence[Figure] = (),
    notes: Sequence[str] = (),
    footer: Sequence[tuple[str, str]] = (),
) -> Page:
    """The page on what was measured and segmented already; `shown` are photographs by their index."""
    sections = choose(analysis.images, several=len(analysis.scales) > 1)
    sections = [part._replace(indices=tuple(index for index in part.indices if index in shown)) for part in sections]
    placed = {index: shown[index] for part in sections for index in part.indices}
    drawn = figures(analysis)
    scales = [figure for figure in drawn if figure.key in SCALES]
    groups = [Group("training", "Training", training), Group("quality", "Quality", _without(drawn, scales))]
    groups.append(Group("scales", "Scales", scales))
    return Page(
        title=f"How well {name} sees",
        lede=_lede(analysis, data),
        facts=facts,
        model=name,
        scales=analysis.scales,
        num_classes=len(analysis.classes),
        shown=placed,
        sections=[section for section in sections if section.indices],
        headlines=headlines(analysis),
        groups=[group for group in groups if group.figures],
        notes=notes,
        footer=footer,
    )


SCALES = ("fusions", "scale-by-size", "zones", "scale-by-class")
"""Charts that are about scales."""


def _without(drawn: Sequence[Figure], others: Sequence[Figure]) -> list[Figure]:
    keys = {figure.key for figure in others}
    return [figure for figure in drawn if figure.key not in keys]


def _lede(analysis: Analysis, data: str) -> str:
    interval = f" (95 % interval {between(analysis.mIoU)})" if len(analysis.images) >= FEWEST else ""
    told = f"On {data}, mIoU is {percent(analysis.mIoU.value)}{interval}."
    if len(analysis.scales) > 1:
        scales = listed([f"{scale:g}" for scale in analysis.scales])
        told += f" The model looks at scales {scales}; in each weight map, bright is where it believes that scale."
    return told


def _analysis(opened: Opened, dataset: Dataset, bar: Bar) -> Analysis:
    if opened.wish.analysis is not None:
        return _fitting(_read(opened.wish.analysis, str(opened.sharpen or "none")), opened, dataset)
    with bar("measuring", len(dataset)) as advance:
        return analyze(
            opened.model,
            dataset,
            refine=opened.sharpen,
            max_memory=opened.wish.max_memory,
            progress=lambda done, total: advance(),
        )


def _read(path: Path, refine: str) -> Analysis:
    try:
        found, document = read(path)
    except UserError as error:
        raise UserError(f"--analysis {error}") from error
    theirs = document.get("refine", refine)
    if theirs != refine:
        raise UserError(f"--analysis {path} was measured with --refine {theirs}, but it is {refine} now; give the same")
    return found


def _fitting(analysis: Analysis, opened: Opened, dataset: Dataset) -> Analysis:
    """The analysis itself, if it is of these classes, scales and photographs."""
    photos = tuple((image.index, image.name) for image in analysis.images)
    for what, theirs, ours in (
        ("classes", analysis.classes, opened.model.classes),
        ("scales", analysis.scales, opened.model.scales),
        ("photographs", photos, tuple(enumerate(dataset.names))),
    ):
        if theirs != ours:
            raise UserError(
                f"--analysis {opened.wish.analysis} is of other {what} than the model and the data ({len(theirs)} there, "
                f"{len(ours)} here); give the model and the data.val that it was measured with"
            )
    return analysis


def _check_pictures(opened: Opened, analysis: Analysis, shown: dict[int, Shown]) -> None:
    """UserError where the figures of `--analysis` are not of what the pictures show: another model, or --flip."""
    if opened.wish.analysis is None or not shown:
        return
    apart = []
    for index, photo in shown.items():
        hits = sum(hits for hits, _ in analysis.images[index].tallies["fused"].values())
        width, height = photo.size
        apart.append(abs(hits / (width * height) - (photo.shares.right if photo.shares else 0.0)))
    if np.mean(apart) > CLOSE:
        raise UserError(
            f"--analysis {opened.wish.analysis} is not of this model as it is run now: the shares of right pixels in the "
            f"gallery's photographs differ by {percent(float(np.mean(apart)))} on average; give the same checkpoint, and "
            "figures measured without --flip"
        )


CLOSE = 0.005
"""Mean share of pixels by which another device or engine may differ."""


def _shown(
    opened: Opened, dataset: Dataset, analysis: Analysis, wanted: Sequence[int], say: Callable[[str], None], bar: Bar
) -> tuple[dict[int, Shown], list[str]]:
    """The photographs of the gallery, and the names of those that can no longer be read."""
    scores = {image.index: image for image in analysis.images}
    shown, left_out = {}, []
    with bar("segmenting the gallery", len(wanted)) as advance:
        for index in wanted:
            try:
                shown[index] = _one(opened, dataset, scores[index])
            except UserError as error:
                left_out.append(scores[index].name)
                say(f"left out of the gallery: {error}")
            advance()
    return shown, left_out


def _one(opened: Opened, dataset: Dataset, score: ImageScore) -> Shown:
    image, labels = dataset[score.index]
    device = opened.model.mean.device
    with explained(device, f"give --max-memory to work in tiles, shrink {score.name}, or choose another --device"):
        result = segment(
            opened.model, image, precision="float32", refine=opened.sharpen, max_memory=opened.wish.max_memory
        )
        return show(score.name, result, labels=labels.numpy().astype(np.uint8), note=result.note, score=score.mIoU)


def _data(data: DataConfig) -> str:
    """What was measured on, without folders."""
    value = data.val
    items = [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else []
    names = [Path(item).name for item in items if isinstance(item, str)]
    split = "the development split" if value is None else "val"
    return listed(names) if names else f"{data.dataset}, {split}"


def _notes(opened: Opened, flatters: str, left_out: Sequence[str]) -> list[str]:
    notes = [f"{flatters[0].upper()}{flatters[1:]}."] if opened.config.data.val is None else []
    if opened.sharpen and len(opened.model.scales) > 1:
        notes.append(
            "Only what the model's own fusion gives is refined: what it differs in from single scales, average and max is "
            "due to both, fusion and refinement."
        )
    if left_out:
        notes.append(f"Not in the gallery, for they could not be read again: {', '.join(left_out)}.")
    return notes

"""Which scale was believed where, of photographs without labels: by what the model itself takes their parts for."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from scaleseg.report.charts import Stack, stacks
from scaleseg.report.figures import PER_CHART, Figure
from scaleseg.report.gallery import Shown
from scaleseg.report.words import exact, listed, rough

__all__ = ["NOTEWORTHY", "scale_use", "sentence"]

NOTEWORTHY = 0.01
"""The sentence leaves out classes that cover less of every photograph: a few stray pixels say nothing."""


def sentence(shown: Sequence[Shown], scales: Sequence[float]) -> str:
    """What to look at: for each scale, the class on which it weighs most."""
    if len(scales) == 1:
        return f"This model looks at one scale, {scales[0]:g}: there is no other to believe."
    names, means = _means_by_class(shown, NOTEWORTHY)
    if np.ptp(means, axis=1).max() < 0.005:
        return f"Here no scale stands out: on every class each weighs {rough(1 / len(scales))} on average."
    if len(names) == 1:
        weights = [f"scale {scale:g} weighs {rough(weight)}" for scale, weight in zip(scales, means[0], strict=True)]
        return f"Here the model sees {names[0]} alone; on average {listed(weights)}."
    best = means.argmax(axis=0)
    first, *others = (
        (f"scale {scale:g}", f"on {names[best[i]]}", rough(means[best[i], i])) for i, scale in enumerate(scales)
    )
    told = [f"{first[0]} is believed most {first[1]} ({first[2]} on average)"]
    return f"Here {listed([*told, *(f'{scale} {where} ({weight})' for scale, where, weight in others)])}."


def scale_use(shown: Sequence[Shown], scales: Sequence[float]) -> list[Figure]:
    """Mean weights by class; nothing for one scale."""
    if len(scales) == 1:
        return []
    names, means = _means_by_class(shown, 0.0)
    title, called = "Which scale is believed on which class", [f"scale {scale:g}" for scale in scales]
    rows = [Stack(name, tuple(weights)) for name, weights in zip(names, means.tolist(), strict=True)]
    drawn = tuple(
        stacks(rows[start : start + PER_CHART], called, f"{title}: mean weight of each scale in percent")
        for start in range(0, len(rows), PER_CHART)
    )
    table = tuple((row.label, *map(exact, row.parts)) for row in rows)
    told = f"Mean weights over the pixels that the model takes for each class, in {len(shown):,} "
    told += "photograph." if len(shown) == 1 else "photographs."
    return [Figure("scale-by-class", title, told, drawn, ("", *(f"{name} %" for name in called)), table)]


def _means_by_class(shown: Sequence[Shown], least: float) -> tuple[list[str], Float[np.ndarray, "classes scales"]]:
    """Names, and each scale's mean weight there over all photographs; every photograph counts the same."""
    shares: dict[str, float] = {}
    sums: dict[str, np.ndarray] = {}
    for photo in shown:
        for row in photo.classes:
            if row.weights and (row.share >= least or row is photo.classes[0]):
                shares[row.name] = shares.get(row.name, 0.0) + row.share
                sums[row.name] = sums.get(row.name, 0.0) + row.share * np.array(row.weights)
    return list(shares), np.stack([sums[name] / shares[name] for name in shares])

"""The model's own fusion against another way to merge the same scores, on the same photographs."""

import numpy as np

from scaleseg.analysis import Analysis, Estimate
from scaleseg.analysis.tables import fusion_table
from scaleseg.metrics import interval, mean_ratio, sums_of_draws
from scaleseg.report.words import points, signed_points

__all__ = ["LEAST", "gain", "side_by_side"]

LEAST = 5
"""Below so many photographs or objects, intervals are too narrow to be believed, and nothing is said to be better."""


def gain(analysis: Analysis, other: str) -> Estimate:
    """mIoU of `fused` less that of another of `Analysis.fusions`; each draw takes the same photographs of both."""
    tables = [fusion_table(analysis.images, name, analysis.classes) for name in ("fused", other)]
    whole = [float(mean_ratio(*(part.sum(axis=0, keepdims=True) for part in table))[0]) for table in tables]
    drawn = [np.asarray(mean_ratio(*sums)) for sums in sums_of_draws(tables)]
    return Estimate(whole[0] - whole[1], *interval(drawn[0] - drawn[1]))


def side_by_side(analysis: Analysis, other: str, name: str) -> str:
    """Which of the two is better, in a sentence, if the interval of the difference lies on one side of 0."""
    found = gain(analysis, other)
    if len(analysis.images) < LEAST:
        return f"These are too few photographs to tell whether the model's own fusion or {name} is better."
    if not any(found):
        return f"The model's own fusion and {name} give the same on these photographs."
    by = f"by {points(found.value)} (95 % interval of the difference: {_range(found)})"
    if found.low > 0:
        return f"The model's own fusion is better than {name}, {by}."
    if found.high < 0:
        return f"The model's own fusion is worse than {name}, {by}."
    return (
        f"The model's own fusion and {name} differ by {points(found.value)}; the interval of the difference, "
        f"{_range(found)}, holds 0: these photographs do not tell which is better."
    )


def _range(found: Estimate) -> str:
    return f"{signed_points(found.low)} to {signed_points(found.high)}"

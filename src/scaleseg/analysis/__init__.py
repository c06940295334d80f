"""Why a model is as good as it is: one pass over labelled photographs that asks more than `evaluation` does."""

from scaleseg.analysis.comparison import Comparison, Difference, compare, gain
from scaleseg.analysis.contract import (
    CRUMB,
    FEWEST,
    SIZES,
    TRIMAP_WIDTHS,
    Analysis,
    Calibration,
    CalibrationBin,
    Estimate,
    ImageScore,
    ObjectSize,
    Read,
    ScaleUse,
    read,
)
from scaleseg.analysis.summary import analyze

__all__ = [
    "CRUMB",
    "FEWEST",
    "SIZES",
    "TRIMAP_WIDTHS",
    "Analysis",
    "Calibration",
    "CalibrationBin",
    "Comparison",
    "Difference",
    "Estimate",
    "ImageScore",
    "ObjectSize",
    "Read",
    "ScaleUse",
    "analyze",
    "compare",
    "gain",
    "read",
]

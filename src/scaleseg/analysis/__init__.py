"""Why a model is as good as it is: one pass over labelled photographs that asks more than `evaluation` does."""

from scaleseg.analysis.comparison import Comparison, Difference, compare
from scaleseg.analysis.contract import (
    CRUMB,
    SIZES,
    TRIMAP_WIDTHS,
    Analysis,
    Calibration,
    CalibrationBin,
    Estimate,
    ImageScore,
    ObjectSize,
    ScaleUse,
)
from scaleseg.analysis.summary import analyze

__all__ = [
    "CRUMB",
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
    "ScaleUse",
    "analyze",
    "compare",
]

"""What is measured of labels and predictions, one file a measure; void never counts in any of them.

- confusion: hits and misses of a whole dataset, mIoU and its kin;
- resampling: how far a figure would move with other photographs of the same kind;
- borders: pixels near the labels' borders, the trimap curve, boundary IoU;
- objects: connected components of a class, and how well each was found;
- calibration: how far a probability can be believed;
- scale_use: which scale was believed where, and whether it goes with the size of objects.
"""

from scaleseg.metrics.borders import TRIMAP, Trimap, border_distance, boundary_tally, near_borders
from scaleseg.metrics.calibration import Reliability
from scaleseg.metrics.confusion import Confusion, Metrics, hits_and_unions, mean_ratio, miou, ratio, tally
from scaleseg.metrics.objects import Found, find_objects, scipy_part
from scaleseg.metrics.resampling import bootstrap, bootstrap_difference, interval, sums_of_draws
from scaleseg.metrics.scale_use import GroupMeans, division, spearman, spearman_interval, sums_by_group

__all__ = [
    "TRIMAP",
    "Confusion",
    "Found",
    "GroupMeans",
    "Metrics",
    "Reliability",
    "Trimap",
    "bootstrap",
    "bootstrap_difference",
    "border_distance",
    "boundary_tally",
    "division",
    "find_objects",
    "hits_and_unions",
    "interval",
    "mean_ratio",
    "miou",
    "near_borders",
    "ratio",
    "scipy_part",
    "spearman",
    "spearman_interval",
    "sums_by_group",
    "sums_of_draws",
    "tally",
]

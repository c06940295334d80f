"""Segmenting many files with many workers, on one machine or a cluster: Ray Data deals them out, one model a worker.

Workers write the files; this process alone keeps the record in the output folder, so that a run that was stopped goes on.
"""

from scaleseg.distributed.inputs import find_inputs
from scaleseg.distributed.predict import Totals, segment_distributed

__all__ = ["Totals", "find_inputs", "segment_distributed"]

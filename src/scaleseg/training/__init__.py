"""Training: `train(config, folder)` runs to the end, is interrupted and goes on, to the same bits."""

from scaleseg.training.loop import train
from scaleseg.training.processes import speaks

__all__ = ["speaks", "train"]

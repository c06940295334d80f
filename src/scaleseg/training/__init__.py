"""Training: `train(config, folder)` runs to the end, is interrupted and goes on, to the same bits."""

from scaleseg.training.loop import train
from scaleseg.training.processes import speaks
from scaleseg.training.signals import Interrupted

__all__ = ["Interrupted", "speaks", "train"]

"""Training: `train(config, folder)` runs to the end, is interrupted and goes on, to the same bits."""

from scaleseg.training.loop import Interrupted, train

__all__ = ["Interrupted", "train"]

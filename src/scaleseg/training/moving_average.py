"""A moving average of the parameters: what is measured and saved in their place with `train.ema`.

Steps of SGD jump around a good place; their average lies nearer to it (Polyak and Juditsky, 1992).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["MovingAverage"]


class MovingAverage:
    """The average of a model's parameters and statistics: each step `average = decay * average + (1 - decay) * now`.

    At first it follows faster, with (1 + step) / (10 + step) for `decay` as long as that is less: the random values of
    the start are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self._average: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in what the parameters are after `step` steps."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, now in self._numbers().items():
            if name not in self._average:
                self._average[name] = now.clone()
            self._average[name].lerp_(now, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with its average for parameters; nothing changes before the first `update`."""
        learned = self.learned()
        self._write(self._average)
        try:
            yield
        finally:
            self._write(learned)

    def learned(self) -> dict[str, Tensor]:
        """A copy of the parameters as the optimiser left them: what a checkpoint needs beside the average."""
        return {name: tensor.clone() for name, tensor in self._numbers().items()}

    def restore(self, learned: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint: the model holds the average, `learned` what the optimiser left."""
        self._average = self.learned()
        self._write(learned)

    def _numbers(self) -> dict[str, Tensor]:
        state = self._model.state_dict()
        return {name: tensor.detach() for name, tensor in state.items() if tensor.is_floating_point()}

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        numbers = self._numbers()
        for name, value in values.items():
            numbers[name].copy_(value)

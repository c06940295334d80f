"""Varying a training pair: random scale, random crop, mirror, colour; every choice drawn from the sample's own generator."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor

from scaleseg.geometry import IGNORE, resize_labels, resize_photo

__all__ = ["Augment", "sample_generator"]

MEAN_COLOUR = (123, 117, 104)
"""What a crop is padded with: the Caffe mean, rounded, so that padding is about zero after normalisation."""


@dataclass(frozen=True)
class Augment:
    """A square crop of `crop` pixels, padded at the bottom and the right with the mean colour and void."""

    crop: int
    mirror: bool = True
    random_scale: tuple[float, ...] = ()
    colour_jitter: float = 0.0

    def __call__(
        self, image: UInt8[Tensor, "3 _ _"], labels: Int64[Tensor, "_ _"], generator: torch.Generator
    ) -> tuple[UInt8[Tensor, "3 crop crop"], Int64[Tensor, "crop crop"]]:
        """The pair, varied; the same generator state gives the same result whatever was drawn elsewhere."""
        scale, top, left, flip, *colour = torch.rand(7, generator=generator).tolist()
        if self.random_scale:
            low, high = self.random_scale
            factor = low + (high - low) * scale
            size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[2] * factor)))
            image = resize_photo(image, size)
            labels = resize_labels(labels[None], size, align_corners=False)[0]
        image, labels = self._cropped(image, labels, top, left)
        if self.mirror and flip < 0.5:
            image, labels = image.flip(-1), labels.flip(-1)
        return self._coloured(image, colour), labels

    def _cropped(self, image: Tensor, labels: Tensor, top: float, left: float) -> tuple[Tensor, Tensor]:
        rows, columns = labels.shape
        y = int(top * (max(rows - self.crop, 0) + 1))
        x = int(left * (max(columns - self.crop, 0) + 1))
        image = image[:, y : y + self.crop, x : x + self.crop]
        labels = labels[y : y + self.crop, x : x + self.crop]
        below, right = self.crop - labels.shape[0], self.crop - labels.shape[1]
        if below or right:
            canvas = torch.tensor(MEAN_COLOUR, dtype=torch.uint8)[:, None, None].repeat(1, self.crop, self.crop)
            canvas[:, : image.shape[1], : image.shape[2]] = image
            image, labels = canvas, F.pad(labels, (0, right, 0, below), value=IGNORE)
        return image, labels

    def _coloured(self, image: Tensor, draws: list[float]) -> Tensor:
        """Brightness, contrast and saturation, each by a factor within 1 +- `colour_jitter`."""
        if not self.colour_jitter:
            return image.contiguous()
        bright, contrast, saturation = (1 + self.colour_jitter * (2 * draw - 1) for draw in draws)
        values = image.float() * bright
        grey = values.mean(dim=0, keepdim=True)
        values = grey + (values - grey) * saturation
        mean = grey.mean()
        return (mean + (values - mean) * contrast).round().clamp(0, 255).to(torch.uint8)


def sample_generator(seed: int, epoch: int, index: int) -> torch.Generator:
    """A generator of one sample's own: the number of workers and their order change nothing."""
    mixed = (seed * 0x9E3779B97F4A7C15 + epoch * 0xBF58476D1CE4E5B9 + index * 0x94D049BB133111EB) % 2**63
    return torch.Generator().manual_seed(mixed)

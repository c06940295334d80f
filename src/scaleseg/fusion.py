"""Fusing the score maps of several scales: a fusion is a rule for weights (paper, section 3.2).

Weights are non-negative and sum to one over scales; the weighted sum itself (Eq. 1) is in model.py. A fusion meets the
scales one after another: `embed` keeps what it needs of one scale's features, `weights` decides at the end.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scaleseg.errors import choose

__all__ = ["FUSIONS", "Attention", "Average", "Fusion", "Max", "create_fusion"]


class Fusion(nn.Module, ABC):
    """A rule for the weights of the scales."""

    def embed(self, features: Float[Tensor, "n features h w"], index: int) -> Tensor | None:
        """What to keep of the features of scale number `index`, brought to the fused grid; None = nothing."""
        return None

    @abstractmethod
    def weights(
        self, embedded: Sequence[Tensor | None], scores: Float[Tensor, "n scales classes h w"]
    ) -> Float[Tensor, "n scales _ h w"]:
        """Weights that sum to one over scales; their class axis is 1 (shared by all classes) or `classes`."""


class Average(Fusion):
    """Every scale counts the same: 1/S."""

    def weights(
        self, embedded: Sequence[Tensor | None], scores: Float[Tensor, "n scales classes h w"]
    ) -> Float[Tensor, "n scales _ h w"]:
        return torch.full_like(scores[:, :, :1], 1 / scores.shape[1])


class Max(Fusion):
    """Per class and pixel, the scale with the highest score counts alone: `torch.max`, in value and in gradient."""

    def weights(
        self, embedded: Sequence[Tensor | None], scores: Float[Tensor, "n scales classes h w"]
    ) -> Float[Tensor, "n scales _ h w"]:
        winner = scores.detach().max(dim=1, keepdim=True).indices
        return torch.zeros_like(scores).scatter_(1, winner, 1.0)


class Attention(Fusion):
    """Softmax over scales of a small head that sees the features of all scales at once (Eq. 2).

    3x3 convolution of the concatenated features, `width` wide, ReLU, dropout, 1x1 convolution to one logit a scale. A
    convolution of a concatenation is a sum of convolutions, so `embed` does each scale's part and drops the features.
    The last layer starts at zero: training starts from the average.

    The paper's other designs (section 4.1): `kernel` 1 makes the first convolution 1x1; with `layers` 1 it is the only
    one and gives the logits itself.
    """

    def __init__(
        self,
        num_scales: int,
        num_features: int,
        *,
        width: int = 512,
        dropout: float = 0.5,
        kernel: int = 3,
        layers: int = 2,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.hidden = nn.Conv2d(
            num_features * num_scales, width if layers == 2 else num_scales, kernel, padding=kernel // 2
        )
        self.logits = nn.Conv2d(width, num_scales, 1) if layers == 2 else None
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.hidden.weight, std=0.01)
        for layer in (self.hidden, self.logits or self.hidden):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_((self.logits or self.hidden).weight)

    def embed(self, features: Float[Tensor, "n features h w"], index: int) -> Float[Tensor, "n width h w"]:
        part = self.hidden.weight[:, index * self.num_features : (index + 1) * self.num_features]
        bias = self.hidden.bias if index == 0 else None
        return F.conv2d(features, part, bias, padding=self.hidden.kernel_size[0] // 2)

    def weights(
        self, embedded: Sequence[Tensor | None], scores: Float[Tensor, "n scales classes h w"]
    ) -> Float[Tensor, "n scales _ h w"]:
        parts = [part for part in embedded if part is not None]
        hidden = sum(parts[1:], start=parts[0])
        attention_logits = hidden if self.logits is None else self.logits(self.dropout(F.relu(hidden)))
        return F.softmax(attention_logits.float(), dim=1).unsqueeze(2)  # in bf16 they would not sum to one


FUSIONS: dict[str, type[Fusion]] = {"average": Average, "max": Max, "attention": Attention}


def create_fusion(
    name: str,
    num_scales: int,
    num_features: int,
    width: int = 512,
    dropout: float = 0.5,
    kernel: int = 3,
    layers: int = 2,
) -> Fusion:
    """A fusion by name; all settings are attention's."""
    kind = FUSIONS[choose("fusion", name, FUSIONS)]
    if kind is Attention:
        return Attention(num_scales, num_features, width=width, dropout=dropout, kernel=kernel, layers=layers)
    return kind()

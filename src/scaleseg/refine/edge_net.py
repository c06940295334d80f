"""EdgeNet: an edge map learned from a segmenter's inner maps, for the domain transform (arXiv 1511.03328).

One 1x1 convolution over the maps brought to the image's size and put side by side, and ReLU. No label says where an edge is:
it learns from the segmentation loss after the filter. Which maps the authors took, and their settings, could not be read; see
the segmenters' `taps`.
"""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scaleseg.geometry import Grid

__all__ = ["EdgeNet"]


class EdgeNet(nn.Module):
    """Edges of an image, 0 or more, from named inner maps; `channels` are the maps' widths.

    The convolution is computed on each map's own grid, and its one channel enlarged: both are linear, so that is the same, and
    wide maps at the image's size need never exist.
    """

    def __init__(self, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.names = tuple(channels)
        self.parts = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in channels.values())
        self.bias = nn.Parameter(torch.full((1,), 0.1))  # alive behind ReLU, and a filter that already smooths
        for part in self.parts:
            nn.init.normal_(part.weight, std=0.001)  # type: ignore[arg-type]

    def forward(self, taps: Mapping[str, Float[Tensor, "n _ _ _"]], grid: Grid) -> Float[Tensor, "n H W"]:
        """In float32, also where the maps are not."""
        device = self.bias.device.type
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            maps = [
                grid.to_image(_on_image(part(taps[name].to(self.bias.dtype)), grid))
                for name, part in zip(self.names, self.parts, strict=True)
            ]
            return torch.relu(torch.stack(maps).sum(dim=0) + self.bias)[:, 0]


def _on_image(maps: Float[Tensor, "n 1 h w"], grid: Grid) -> Float[Tensor, "n 1 h w"]:
    """Where the padding begins the network sees an edge that is none: the last cells before it are repeated over it."""
    for axis, image, padded in zip((2, 3), grid.image, grid.padded, strict=True):
        if torch.compiler.is_compiling() or padded > image:  # what is exported serves every size, and asks for none
            cells = maps.shape[axis]
            is_padded = (2 * padded - image - 1) // padded  # 1 or 0
            last = cells - 1 - is_padded * (cells + 1 - cells * image // padded)
            maps = maps.index_select(axis, torch.arange(cells, device=maps.device).clamp(max=last).clamp(min=0))
    return maps

"""One shared network on several scales of an image, merged by a fusion (paper, section 3; Fig. 2b "share-net").

Images are RGB in [0, 1], of any size; the model normalises, pads, resizes and merges itself.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scaleseg.config import ModelConfig, RefineConfig
from scaleseg.errors import UserError
from scaleseg.fusion import Fusion, create_fusion
from scaleseg.geometry import Grid, Size, pad, resize
from scaleseg.refine import EdgeNet
from scaleseg.segmenters import Normalization, Segmenter, create_segmenter, list_segmenters

__all__ = ["Prediction", "ScaleAware", "create_model", "list_models", "list_segmenters"]


class Prediction(NamedTuple):
    """What the model says, in training and evaluation alike."""

    scores: Float[Tensor, "n classes h w"]
    """Merged over scales, before softmax, on the finest scale's grid."""
    scale_weights: Float[Tensor, "n scales _ h w"]
    """Sum to one over scales; the third axis is 1 where classes share them, else `classes`."""
    per_scale: tuple[Float[Tensor, "n classes _ _"], ...]
    """Each scale's own scores, each on its own grid."""
    grid: Grid
    """How all of these lie on the image."""
    edges: Float[Tensor, "n H W"] | None = None
    """At the image's size, 0 or more: the learned edge map of a model that has one."""

    def at(self, size: Size | None = None) -> Float[Tensor, "n classes H W"]:
        """The merged scores at the image's own size, or at another (rows, columns) of the whole image."""
        scores = self.grid.to_image(self.scores)
        return scores if size is None else resize(scores, size, align_corners=self.grid.align_corners)


class ScaleAware(nn.Module):
    """A segmenter applied to several scales, and a fusion. Buffers hold the normalisation that its parameters expect.

    `settings` say how `create_model` builds such a model again, without parameters; None where it was built by hand.
    `refine` are the settings of refinement that were found to suit these parameters.
    """

    mean: Tensor
    std: Tensor
    order: Tensor

    def __init__(
        self,
        segmenter: Segmenter,
        fusion: Fusion,
        scales: Sequence[float],
        classes: Sequence[str],
        settings: ModelConfig | None = None,
        *,
        edge_net: EdgeNet | None = None,
        refine: RefineConfig | None = None,
    ) -> None:
        super().__init__()
        _check_scales(scales)
        self.segmenter = segmenter
        self.fusion = fusion
        self.scales = tuple(float(scale) for scale in scales)
        self.classes = tuple(classes)
        self.settings = settings
        self.edge_net = edge_net
        self.checkpointing = False
        """In training: keep nothing of a scale but its results, and compute it again in the backward pass."""
        self.refine = refine or RefineConfig()
        self._set_normalization(segmenter.normalization)

    def grid(self, size: Size) -> Grid:
        """The grids of an image of `size` (rows, columns)."""
        return Grid(size, self.scales, self.segmenter.output_stride, self.segmenter.align_corners)

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Prediction:
        grid = self.grid((images.shape[-2], images.shape[-1]))
        padded = pad(self.normalize(images), grid.padded)
        per_scale: list[Tensor] = []
        embedded: list[Tensor | None] = []
        edges = None
        for index, scale in enumerate(self.scales):
            scores, kept, found = self._look(padded, index, scale, grid)
            per_scale.append(scores)
            embedded.append(kept)
            edges = edges if found is None else found
        return self.fuse(per_scale, embedded, grid)._replace(edges=edges)

    def fuse(self, per_scale: Sequence[Tensor], embedded: Sequence[Tensor | None], grid: Grid) -> Prediction:
        """Eq. 1: at every pixel, the sum over scales of weight times score."""
        scores = torch.stack([self._merged(scores, grid) for scores in per_scale], dim=1)
        scale_weights = self.fusion.weights(embedded, scores)
        return Prediction((scale_weights * scores).sum(dim=1), scale_weights, tuple(per_scale), grid)

    def normalize(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 3 H W"]:
        """RGB in [0, 1] as the segmenter's parameters expect it."""
        return ((images - self.mean) / self.std)[:, self.order]

    def fresh(self) -> list[str]:
        """Names of the parameters that are not pretrained: the segmenter's fresh ones, all of the fusion's and the edge map's."""
        parts = [self.fusion, *([] if self.edge_net is None else [self.edge_net])]
        own = {id(parameter) for parameter in self.segmenter.fresh()}
        own |= {id(parameter) for part in parts for parameter in part.parameters()}
        return [name for name, parameter in self.named_parameters() if id(parameter) in own]

    def _look(
        self, padded: Tensor, index: int, scale: float, grid: Grid
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """One scale's scores, what the fusion keeps of it, and edges; its features and taps are gone before the next scale."""
        tapped = self.edge_net is not None and scale == max(self.scales)
        network = self.segmenter.tapped if tapped else self.segmenter
        resized = resize(padded, grid.input_size(scale), align_corners=grid.align_corners)
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        dense = checkpoint(network, resized, use_reentrant=False) if again else network(resized)
        edges = self.edge_net(dense.taps, grid) if tapped and self.edge_net is not None else None
        return dense.scores, self.fusion.embed(self._merged(dense.features, grid), index), edges

    def _merged(self, maps: Tensor, grid: Grid) -> Tensor:
        return resize(maps, grid.fused, align_corners=grid.align_corners)

    def _set_normalization(self, normalization: Normalization) -> None:
        order = [2, 1, 0] if normalization.bgr else [0, 1, 2]
        self.register_buffer("mean", torch.tensor(normalization.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(normalization.std)[:, None, None])
        self.register_buffer("order", torch.tensor(order))


def list_models() -> tuple[str, ...]:
    """Names that `create_model` takes: the segmenters; each goes with every fusion and any scales."""
    return list_segmenters()


def create_model(
    segmenter: str,
    *,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    fusion: str = "attention",
    scales: Sequence[float] = (1.0, 0.75, 0.5),
    pretrained: str,
    attention_width: int = 512,
    attention_dropout: float = 0.5,
    attention_kernel: int = 3,
    attention_layers: int = 2,
    edge_net: bool = False,
    options: dict[str, Any] | None = None,
    refine: RefineConfig | None = None,
) -> ScaleAware:
    """A model by names. `pretrained` is a path, `imagenet` or `none`: parameters are never random by accident.

    Give `classes` (their names) or `num_classes` (they are then called "0", "1", ...).
    `options` are the segmenter's own settings, such as `{"output_stride": 8}` of lite0 or `{"pool5a": True}` of largefov.
    `edge_net` adds an edge map to learn, for the domain transform; `refine` are the settings of refinements.
    """
    if isinstance(classes, str):
        raise UserError(f"classes is {classes!r}, one text; give a list of names, such as [{classes!r}]")
    names = tuple(classes) if classes is not None else tuple(str(index) for index in range(num_classes or 0))
    if not 0 < len(names) <= 255 or num_classes not in (None, len(names)):
        given = (
            f"num_classes is {num_classes}, and {len(names)} are named" if classes else f"num_classes is {num_classes}"
        )
        raise UserError(f"{given}; give from 1 to 255 classes, by number or by name")
    _check_scales(scales)
    network = create_segmenter(segmenter, len(names), options)
    if pretrained != "none":
        network.load_pretrained(pretrained)
    head = (attention_width, attention_dropout, attention_kernel, attention_layers)
    rule = create_fusion(fusion, len(scales), network.num_features, *head)
    settings = ModelConfig(
        segmenter, fusion, tuple(map(float, scales)), "none", *head, edge_net, deepcopy(options or {})
    )
    edges = _edge_net(network, segmenter) if edge_net else None
    return ScaleAware(network, rule, scales, names, settings, edge_net=edges, refine=refine)


def _edge_net(network: Segmenter, name: str) -> EdgeNet:
    if not network.taps:
        raise UserError(
            f"model.edge_net is true, but {name} has no inner maps that lie on the image; choose another segmenter, such as "
            "largefov or lite0"
        )
    return EdgeNet(network.taps)


def _check_scales(scales: Sequence[float]) -> None:
    if not scales or not all(0 < scale < float("inf") for scale in scales):
        raise UserError(f"scales are {list(scales)}; give one or more numbers above 0")

"""Which network a .caffemodel is: its layers, each once, with the names that they have here."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from scaleseg.caffe.names import is_classifier, layer_name, split_scale
from scaleseg.caffe.net import Layer, Net
from scaleseg.errors import UserError

__all__ = ["Network"]

IMAGENET = 1000
"""Scores of whole pictures, not of pixels."""


@dataclass(frozen=True)
class Network:
    """The layers that have parameters, and what the whole is."""

    path: Path
    net: Net
    layers: dict[str, Layer]
    """By Caffe's name without the scale."""
    ours: dict[str, str | None]
    """What each of them is here; None if that is not known."""
    given: frozenset[str]
    """Those of which the caller says what they are."""
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, net: Net, names: Mapping[str, str], path: Path) -> "Network":
        """`names` say what a layer is (`-`: leave it out), before what is known of released networks."""
        layers, ours = dict[str, Layer](), dict[str, str | None]()
        given, left_out = set[str](), list[str]()
        for layer in (layer for layer in net.layers if layer.blobs):
            base, _ = split_scale(layer.name)
            key = layer.name if layer.name in names else base
            if key in names:
                given |= {key, base}
            if names.get(key) == "-":
                left_out.append(layer.name)
                continue
            _check_copy(layers.setdefault(base, layer), layer, path)
            ours.setdefault(base, names.get(key) or layer_name(base))
        _check_used(names, given, net, path)
        return cls(path, net, layers, ours, frozenset(given), tuple(left_out))._without_classifier()

    @property
    def segmenter(self) -> str:
        """The file of `segmenters` that has such layers; of VGG-16 alone, LargeFOV, which starts from it."""
        known = [name for name in self.ours.values() if name]
        if any(name.startswith(("trunk.layer", "trunk.bn1", "aspp.")) for name in known):
            return "resnet101"
        return "msc" if any(name.endswith("_ms") for name in known) else "largefov"

    @property
    def complete(self) -> bool:
        """Whether it has scores of pixels; else it is a start for training."""
        names = set(self.ours.values())
        return bool({"fc8", "aspp.0", "fusion.hidden"} & names) or self.segmenter == "msc"

    @property
    def has_attention(self) -> bool:
        return "fusion.hidden" in self.ours.values()

    @property
    def scales(self) -> tuple[float, ...]:
        """Those that its layers are named after, the largest first; (1.0,) if none is."""
        return tuple(sorted({1.0} | {split_scale(layer.name)[1] for layer in self.net.layers}, reverse=True))

    @property
    def merged_by(self) -> str:
        """`max` or `average`: how scales are merged where there is no attention.

        An Eltwise layer called fc_fusion or fc8_fusion does it. DeepLab v2's takes the maximum; so is a network understood
        that was saved without the layers that have no parameters.
        """
        fusions = [layer for layer in self.net.layers if layer.kind == "Eltwise" and "fusion" in layer.name]
        return "max" if all(layer.takes_maximum for layer in fusions) else "average"

    def shape(self, ours: str) -> tuple[int, ...]:
        """Of the weights of the layer that is `ours` here; () if there is none."""
        layer = self._layer(ours)
        return layer.blobs[0].shape if layer else ()

    def outputs(self, ours: str) -> int:
        """How many outputs that layer has; 0 if there is none."""
        layer, shape = self._layer(ours), self.shape(ours)
        if not layer or not shape:
            return 0
        # outputs x inputs, which Caffe V1 writes as 1 x 1 x outputs x inputs
        return shape[-2] if layer.kind == "InnerProduct" and len(shape) > 1 else shape[0]

    def _layer(self, ours: str) -> Layer | None:
        return next((self.layers[name] for name, own in self.ours.items() if own == ours), None)

    def _without_classifier(self) -> "Network":
        """Less the scores of whole pictures; of a start for training, less all that scores."""
        dropped = [name for name, own in self.ours.items() if own == "fc8" and self.outputs("fc8") == IMAGENET]
        rest = self._without(dropped)
        return rest if rest.complete else rest._without([name for name in rest.layers if is_classifier(name)])

    def _without(self, names: list[str]) -> "Network":
        names = [name for name in names if name not in self.given]
        layers = {name: layer for name, layer in self.layers.items() if name not in names}
        ours = {name: own for name, own in self.ours.items() if name not in names}
        left_out = (*self.left_out, *(self.layers[name].name for name in names))
        return Network(self.path, self.net, layers, ours, self.given, left_out)


def _check_copy(first: Layer, layer: Layer, path: Path) -> None:
    """Copies of a shared layer, at other scales or in other phases, hold the same bits."""
    same = len(first.blobs) == len(layer.blobs) and all(
        one.shape == other.shape and np.array_equal(one.view(np.uint32), other.view(np.uint32))
        for one, other in zip(first.blobs, layer.blobs, strict=True)
    )
    if not same:
        raise UserError(
            f"{path}: the layers {first.name!r} and {layer.name!r} should share their parameters, and differ; "
            "leave one out with --map NAME=-"
        )


def _check_used(names: Mapping[str, str], used: set[str], net: Net, path: Path) -> None:
    for name in names.keys() - used:
        near = get_close_matches(name, [layer.name for layer in net.layers if layer.blobs], n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "look at the names in its .prototxt"
        raise UserError(f"--map {name}=...: {path} has no layer {name!r} with parameters; {hint}")

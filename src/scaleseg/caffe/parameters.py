"""Caffe's blobs as our parameters: every blob has a place and every parameter a blob, or it is an error."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from math import isfinite, prod
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaleseg.caffe.network import Network
from scaleseg.errors import UserError

__all__ = ["tensors"]

PARTS = {"BatchNorm": ("running_mean", "running_var", "factor"), "Scale": ("weight", "bias")}
"""What the blobs of a layer are; those of any other kind are weight and bias."""

EPSILON = 1e-5
"""Added to the variance, in Caffe and in PyTorch; a network with another one would be another network here."""


class _Blob(NamedTuple):
    numbers: NDArray[np.float32]
    theirs: str
    """Caffe's name of its layer."""


def tensors(network: Network, shapes: Mapping[str, tuple[int, ...]], title: str) -> Iterator[tuple[str, Tensor]]:
    """The parameters `shapes` names, float32, copied one at a time; UserError, before the first, if any does not fit.

    Caffe's BatchNorm holds sums of means and variances and what to divide them by (batch_norm_layer.cpp); its gamma and
    beta are a layer of their own, called Scale.
    """
    blobs, unknown = _blobs(network, {name.rpartition(".")[0] for name in shapes}, title)
    surplus = [f"{blob.theirs} ({name.rpartition('.')[2]})" for name, blob in blobs.items() if name not in shapes]
    surplus = [*unknown, *(name for name in surplus if not name.endswith("(factor)"))]
    missing = [name for name in shapes if name not in blobs]
    if surplus or missing:
        raise UserError(
            f"{network.path} as {title}: unknown layers with parameters: {_few(surplus)}; without parameters remain: "
            f"{_few(missing)}; say what a layer is with --map THEIRS=OURS, leave one out with --map THEIRS=-"
        )
    for name, shape in shapes.items():
        if not _fits(blobs[name].numbers.shape, shape):
            numbers, theirs = blobs[name]
            raise UserError(f"{network.path}: {theirs} has {numbers.shape} for {name}; {title} has {shape}")
    for name, shape in shapes.items():
        yield name, _tensor(network, blobs, name).view(shape)


def _tensor(network: Network, blobs: Mapping[str, _Blob], name: str) -> Tensor:
    layer, _, part = name.rpartition(".")
    tensor = torch.from_numpy(np.array(blobs[name].numbers))
    if part in ("running_mean", "running_var") and f"{layer}.factor" in blobs:
        factor = blobs[f"{layer}.factor"].numbers.flatten()
        tensor *= 1 / float(factor[0]) if factor[0] else 0.0
    low, high = (float(end) for end in torch.aminmax(tensor))  # NaN is both; and no copy is made, as isfinite would
    if not (isfinite(low) and isfinite(high)) or (part == "running_var" and low < 0):
        raise UserError(
            f"{network.path}: {blobs[name].theirs} holds NaN, infinity or a negative variance; fetch the file again"
        )
    return tensor


def _blobs(network: Network, accepted: set[str], title: str) -> tuple[dict[str, _Blob], list[str]]:
    """Every blob by our name of it, and the names of the layers that have no place here."""
    blobs: dict[str, _Blob] = {}
    unknown: list[str] = []
    for theirs, layer in network.layers.items():
        ours = network.ours[theirs]
        if ours is None or ours not in accepted:
            _check_given(network, theirs, accepted, title)
            unknown.append(_printable(layer.name))
            continue
        parts = PARTS.get(layer.kind, ("weight", "bias"))
        if len(layer.blobs) > len(parts):
            raise UserError(f"{network.path}: {theirs!r} has {len(layer.blobs)} blobs; {', '.join(parts)} are known")
        if abs(layer.epsilon - EPSILON) > EPSILON / 1000:
            raise UserError(
                f"{network.path}: {theirs!r} adds {layer.epsilon:g} to the variance; {title} adds {EPSILON:g}"
            )
        for part, numbers in zip(parts, layer.blobs, strict=False):
            first = blobs.setdefault(f"{ours}.{part}", _Blob(numbers, _printable(theirs)))
            if first.numbers is not numbers:
                raise UserError(
                    f"{network.path}: {first.theirs!r} and {theirs!r} both are {ours}; leave one out with --map NAME=-"
                )
    return blobs, unknown


def _check_given(network: Network, theirs: str, accepted: set[str], title: str) -> None:
    ours = network.ours[theirs]
    if ours is not None and theirs in network.given:
        near = get_close_matches(ours, accepted, n=3) or sorted(accepted)[:6]
        raise UserError(
            f"--map {theirs}={ours}: {title} has no layer {ours!r}; choose for example {', '.join(near)}, or - to leave "
            "it out"
        )


def _fits(found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Equal but for axes of length 1; the inputs of a fully connected layer are the taps of a convolution in a row."""
    flat = (expected[0], prod(expected[1:]))
    return _longer(found) in (_longer(expected), _longer(flat))


def _longer(shape: tuple[int, ...]) -> list[int]:
    return [axis for axis in shape if axis > 1]


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _few(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") if names else "none"

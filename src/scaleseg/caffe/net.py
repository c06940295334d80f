"""The layers of a .caffemodel and their parameters: a NetParameter of caffe.proto, in Caffe's three formats.

V0 and V1 (until 2014) list `layers` (field 2), V2 lists `layer` (field 100). The parameters ("blobs") are views of the
mapped file: half a gigabyte of VGG-16 costs no memory before somebody copies it.
"""

import mmap
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaleseg.caffe.wire import BYTES, FIXED32, FIXED64, VARINT, Budget, Field, Malformed, fields, varints
from scaleseg.errors import UserError

__all__ = ["Layer", "Net", "read"]

LONGEST_NAME = 256
MOST_AXES = 32
"""Caffe's own bound (blob.hpp)."""

V1_KINDS = {
    3: "Concat",
    4: "Convolution",
    14: "InnerProduct",
    17: "Pooling",
    18: "ReLU",
    25: "Eltwise",
    39: "Deconvolution",
}
V0_KINDS = {"conv": "Convolution", "innerproduct": "InnerProduct", "pool": "Pooling", "relu": "ReLU"}


@dataclass(frozen=True)
class Layer:
    """A layer as Caffe wrote it."""

    name: str
    kind: str
    """In the spelling of V2, such as Convolution; kinds of V1 that do not matter here are numbers."""
    blobs: tuple[NDArray[np.float32], ...] = ()
    takes_maximum: bool = False
    """Of an Eltwise layer: the largest of its inputs; else their sum."""
    epsilon: float = 1e-5
    """Of a BatchNorm layer: what is added to the variance."""


@dataclass(frozen=True)
class Net:
    """The layers in their order."""

    version: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class _Format:
    """Where a layer's message has what."""

    version: str
    name: int
    kind: int
    blobs: int
    eltwise: int | None = None
    norm: int | None = None


_V0 = _Format("V0", name=1, kind=2, blobs=50)
_V1 = _Format("V1", name=4, kind=5, blobs=6, eltwise=24)
_V2 = _Format("V2", name=1, kind=2, blobs=7, eltwise=110, norm=139)


def read(path: str | Path) -> Net:
    """The network of a .caffemodel; UserError if it is none, is cut short, or claims more than it has."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{str(path)!r} is not a file; give a .caffemodel")
    try:
        with path.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise UserError(f"{path} cannot be read ({error}); give a .caffemodel") from error
    try:
        net = _net(content)
    except Malformed as error:
        raise UserError(f"{path} is no .caffemodel, or is damaged: {error}; {_advice(content)}") from error
    if not any(layer.blobs for layer in net.layers):
        raise UserError(f"{path} holds no parameters; {_advice(content)}")
    return net


def _advice(content: memoryview) -> str:
    start = bytes(content[:512])
    if start.startswith(b"\x89HDF"):
        return "it is HDF5: let Caffe save it with snapshot_format BINARYPROTO"
    if start.decode("utf-8", "replace").isprintable() or (b"layer" in start and b"{" in start):
        return "it is text: a .prototxt describes a network, its parameters are in a .caffemodel"
    return "fetch it again, or give a file that Caffe wrote"


def _net(content: memoryview) -> Net:
    budget = Budget()
    layers: list[Layer] = []
    version = "V2"
    for field in fields(content, budget):
        if field.number == 100:
            layers.append(_layer(_message(field), budget, _V2))
        elif field.number == 2:
            version, layer = _old_layer(_message(field), budget)
            layers.append(layer)
    return Net(version, tuple(layers))


def _old_layer(message: memoryview, budget: Budget) -> tuple[str, Layer]:
    """A layer of V1; or of V0, where it is wrapped (field 1) together with its connections."""
    inner = next((_message(field) for field in fields(message, budget) if field.number == 1), None)
    if inner is None:
        return "V1", _layer(message, budget, _V1)
    return "V0", _layer(inner, budget, _V0)


def _layer(message: memoryview, budget: Budget, form: _Format) -> Layer:
    name, kind, takes_maximum, epsilon = "", "", False, 1e-5
    blobs: list[NDArray[np.float32]] = []
    for field in fields(message, budget):
        if field.number == form.name:
            name = _text(field)
        elif field.number == form.kind:
            kind = _kind(field)
        elif field.number == form.blobs:
            blobs.append(_blob(_message(field), budget, name))
        elif field.number == form.eltwise:
            takes_maximum = any((inner.number, inner.value) == (1, 2) for inner in fields(_message(field), budget))
        elif field.number == form.norm:
            epsilon = _epsilon(_message(field), budget)
    return Layer(name, kind, tuple(blobs), takes_maximum, epsilon)


def _epsilon(message: memoryview, budget: Budget) -> float:
    found = [_block(field, FIXED32) for field in fields(message, budget) if field.number == 3]
    return float(np.frombuffer(found[-1], "<f4")[-1]) if found and len(found[-1]) >= 4 else 1e-5


def _kind(field: Field) -> str:
    if isinstance(field.value, int):
        return V1_KINDS.get(field.value, str(field.value))
    return V0_KINDS.get(_text(field), _text(field))


def _blob(message: memoryview, budget: Budget, layer: str) -> NDArray[np.float32]:
    """The numbers of a BlobProto in their shape; gradients ("diff") are passed over."""
    legacy: dict[int, int] = {}
    shape: list[int] | None = None
    single: list[memoryview] = []
    double: list[memoryview] = []
    for field in fields(message, budget):
        if field.number in (1, 2, 3, 4):
            legacy[field.number] = _number(field)
        elif field.number == 5:
            single.append(_block(field, FIXED32))
        elif field.number == 7:
            shape = _shape(_message(field), budget)
        elif field.number == 8:
            double.append(_block(field, FIXED64))
    axes = [legacy.get(axis, 1) for axis in (1, 2, 3, 4)] if shape is None else shape
    numbers = _floats(double, "<f8", layer) if double else _floats(single, "<f4", layer)
    if any(axis < 1 for axis in axes) or prod(axes) != len(numbers):
        raise Malformed(f"layer {layer!r} has a blob of shape {axes!s:.80} with {len(numbers)} numbers")
    return numbers.reshape(axes)


def _floats(blocks: list[memoryview], kind: str, layer: str) -> NDArray[np.float32]:
    if any(len(block) % np.dtype(kind).itemsize for block in blocks):
        raise Malformed(f"layer {layer!r} has a blob that ends within a number")
    arrays: list[NDArray[Any]] = [np.frombuffer(block, kind) for block in blocks if len(block)]
    joined = arrays[0] if len(arrays) == 1 else np.concatenate([np.empty(0, kind), *arrays])
    with np.errstate(all="ignore"):  # what does not fit becomes infinity, which the importer refuses
        return joined.astype(np.float32, copy=False)


def _shape(message: memoryview, budget: Budget) -> list[int]:
    axes: list[int] = []
    for field in fields(message, budget):
        if field.number == 1:
            axes += [field.value] if isinstance(field.value, int) else varints(field.value, MOST_AXES)
        if len(axes) > MOST_AXES:
            raise Malformed(f"a blob has more than {MOST_AXES} axes")
    return axes


def _message(field: Field) -> memoryview:
    return _block(field, BYTES)


def _block(field: Field, single: int) -> memoryview:
    """Bytes, or the values of kind `single` that stand for them unpacked."""
    if isinstance(field.value, int) or field.kind not in (BYTES, single):
        raise Malformed(f"field {field.number} is of wire type {field.kind}")
    return field.value


def _number(field: Field) -> int:
    if not isinstance(field.value, int):
        raise Malformed(f"field {field.number} is of wire type {field.kind}, a number (type {VARINT}) is expected")
    return field.value


def _text(field: Field) -> str:
    text = _message(field)
    if len(text) > LONGEST_NAME:
        raise Malformed(f"a name is {len(text)} bytes long")
    return bytes(text).decode("utf-8", "backslashreplace")

"""MATLAB's files of version 5 (`save` without options, or -v7), as far as SBD and PASCAL-Part need them: read strictly.

Other readers trust the sizes that a file states, and a file of 240 kB that nests cells in cells ends their process. Here
a matrix lies within its parent, at most 12 deep, and no more than `MAX_BYTES` are unpacked. Format: "MAT-File Format",
The MathWorks, chapter 1.
"""

import struct
import zlib
from collections.abc import Iterator
from math import prod
from typing import Any, Literal

import numpy as np

from scaleseg.errors import UserError

__all__ = ["as_records", "as_text", "read_mat"]

MAX_BYTES = 500_000_000
"""What a file may unpack to."""
DEEPEST = 12
MOST = 500_000
"""Data elements; a photograph of fifty people has a few thousand."""

_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""numpy's names for the number types of a data element."""
_MATRIX, _COMPRESSED, _CELL, _STRUCT, _CHAR, _NUMBERS = 14, 15, 1, 2, 4, range(6, 16)


def read_mat(content: bytes, label: str) -> dict[str, Any]:
    """The variables: arrays, text, lists of a struct's or a cell array's elements (in MATLAB's order); None for others.

    UserError names the file as `label` if it is damaged or of another version.
    """
    if content[:20].startswith(b"MATLAB 7.3") or content[:8] == b"\x89HDF\r\n\x1a\n":
        raise UserError(f"{label} is a MATLAB file of version 7.3; the official archive holds version 5")
    if len(content) < 128 or content[126:128] not in (b"IM", b"MI"):
        raise UserError(f"{label} is no MATLAB file; give the official archive, unchanged")
    try:
        return dict(_Reader("<" if content[126:128] == b"IM" else ">").variables(memoryview(content)[128:]))
    except (ValueError, TypeError, IndexError, KeyError, struct.error, zlib.error, MemoryError, OverflowError) as error:
        raise UserError(f"{label} cannot be read ({error}); it is damaged or cut short") from error


def as_records(value: Any) -> list[dict[str, Any]]:
    """A struct array's elements; none for what is no struct, as MATLAB saves an empty one as a plain []."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def as_text(value: Any) -> str:
    """A char array; "" for anything else."""
    return value if isinstance(value, str) else ""


class _Reader:
    """One file's byte order, and how much of it was unpacked and seen."""

    def __init__(self, order: Literal["<", ">"]) -> None:
        self.order = order
        self.unpacked = self.seen = 0

    def variables(self, data: memoryview) -> Iterator[tuple[str, Any]]:
        for kind, payload in self.elements(data):
            if kind == _COMPRESSED:
                inner = zlib.decompressobj()
                plain = inner.decompress(payload, MAX_BYTES - self.unpacked + 1)
                self.unpacked += len(plain)
                if self.unpacked > MAX_BYTES or not inner.eof:
                    raise ValueError("a variable is cut short, or unpacks to too much")
                for inner_kind, inner_payload in self.elements(memoryview(plain)):
                    if inner_kind == _MATRIX:
                        yield self.matrix(inner_payload, 1)
            elif kind == _MATRIX:
                yield self.matrix(payload, 1)

    def elements(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Type and content of each data element, by its 8-byte tag; short ones lie in the tag itself."""
        place = 0
        while place < len(data):
            first, size = struct.unpack_from(self.order + "II", data, place)
            if first >> 16:
                first, size, begin = first & 0xFFFF, first >> 16, place + 4
                place += 8
            else:
                begin = place + 8
                place = begin + (size if first == _COMPRESSED else -(-size // 8) * 8)
            if begin + size > len(data) or (begin + size > place):
                raise ValueError("an element is longer than what holds it")
            self.seen += 1
            if self.seen > MOST:
                raise ValueError(f"it has more than {MOST:,} elements")
            yield first, data[begin : begin + size]

    def matrix(self, data: memoryview, depth: int) -> tuple[str, Any]:
        """Name and value."""
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        if not len(data):
            return "", np.zeros((0, 0))
        parts = list(self.elements(data))
        flags, dims, name = parts[0][1], self.numbers(*parts[1]), bytes(parts[2][1]).decode("latin-1")
        kind, shape = struct.unpack_from(self.order + "I", flags)[0] & 0xFF, [int(side) for side in dims]
        if len(shape) < 2 or min(shape) < 0:
            raise ValueError(f"an array has the sides {shape}")
        if kind == _CELL:
            return name, self.inner(parts[3:], prod(shape), depth)
        if kind == _STRUCT:
            return name, self.records(parts[3:], prod(shape), depth)
        if kind == _CHAR:
            return name, "".join(map(chr, self.numbers(*parts[3])[:1000].tolist())) if prod(shape) else ""
        if kind in _NUMBERS:
            return name, self.numbers(*parts[3]).reshape(shape, order="F")
        return name, None  # sparse arrays and objects: nothing here needs them

    def inner(self, parts: list[tuple[int, memoryview]], count: int, depth: int) -> list[Any]:
        if len(parts) != count or any(kind != _MATRIX for kind, _ in parts):
            raise ValueError(f"an array of {count} elements holds {len(parts)}")
        return [self.matrix(payload, depth + 1)[1] for _, payload in parts]

    def records(self, parts: list[tuple[int, memoryview]], count: int, depth: int) -> list[dict[str, Any]]:
        width, names = int(self.numbers(*parts[0])[0]), bytes(parts[1][1])
        if not 0 < width <= 64 or len(names) % width:
            raise ValueError(f"field names are {width} long")
        starts = range(0, len(names), width)
        fields = [names[start : start + width].split(b"\0")[0].decode("latin-1") for start in starts]
        values = self.inner(parts[2:], count * len(fields), depth) if fields else []
        rows = [values[start : start + len(fields)] for start in range(0, len(values), max(1, len(fields)))]
        return [dict(zip(fields, row, strict=True)) for row in rows]

    def numbers(self, kind: int, payload: memoryview) -> np.ndarray:
        stored = _STORED.get(kind, "u1" if kind == 16 else "u2" if kind == 17 else "")  # 16, 17: UTF-8 and UTF-16 text
        if not stored:
            raise ValueError(f"an element of type {kind} holds no numbers")
        return np.frombuffer(payload, np.dtype(stored).newbyteorder(self.order))

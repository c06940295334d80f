"""The wire format of protocol buffers, read within bounds and without generated code (protobuf.dev, "Encoding").

A message is a sequence of fields: a tag (number of the field, kind of its value), then the value. Nothing here follows
a length beyond the message, and nothing recurses: who wants a message inside asks for its fields. Groups, which no
Caffe file has, are refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["BYTES", "FIXED32", "FIXED64", "VARINT", "Budget", "Field", "Malformed", "fields", "varints"]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SIZES = {FIXED32: 4, FIXED64: 8}


class Malformed(ValueError):
    """Not the wire format, or not within the bounds; the message says what is wrong, as part of a sentence."""


class Field(NamedTuple):
    """A value and whose it is."""

    number: int
    kind: int
    value: int | memoryview
    """A number if `kind` is VARINT; else its bytes, of neighbouring fixed-size values of one field all together."""


@dataclass
class Budget:
    """How many fields may still be read in a file: a bound of time, and of what is kept of each field."""

    left: int = 50_000
    """The largest released network, ResNet-101 at three scales, has about 15,000."""


def fields(message: memoryview, budget: Budget) -> Iterator[Field]:
    """The fields of a message in their order; Malformed where it is cut short or no message at all."""
    position = 0
    while position < len(message):
        budget.left -= 1
        if budget.left < 0:
            raise Malformed("it has more fields than any network")
        start = position
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise Malformed(f"a field has the number {number}")
        if kind == VARINT:
            value, position = _varint(message, position)
            yield Field(number, kind, value)
        elif kind == BYTES:
            size, position = _varint(message, position)
            yield Field(number, kind, _slice(message, position, size))
            position += size
        elif kind in SIZES:
            block, position = _neighbours(message, start, position, SIZES[kind])
            yield Field(number, kind, block)
        else:
            raise Malformed(f"a field is of wire type {kind}")


def varints(block: memoryview, limit: int) -> list[int]:
    """Packed numbers; Malformed if there are more than `limit`."""
    numbers: list[int] = []
    position = 0
    while position < len(block):
        if len(numbers) == limit:
            raise Malformed(f"a list has more than {limit} numbers")
        number, position = _varint(block, position)
        numbers.append(number)
    return numbers


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number of up to 64 bits, seven a byte, the lowest first; and the position behind it."""
    value = 0
    for index, byte in enumerate(message[position : position + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >= 1 << 64:
                raise Malformed("a number has more than 64 bits")
            return value, position + index + 1
    raise Malformed("a number is longer than ten bytes" if position + 10 <= len(message) else "it ends within a number")


def _slice(message: memoryview, position: int, size: int) -> memoryview:
    if size > len(message) - position:
        raise Malformed(f"{size} bytes are announced where {len(message) - position} are left")
    return message[position : position + size]


def _neighbours(message: memoryview, start: int, position: int, size: int) -> tuple[memoryview, int]:
    """Values that follow each other, each behind its own tag ("unpacked"), as one block; and the position behind them.

    Old writers did so with millions of values, far too many to look at one by one in Python.
    """
    first = _slice(message, position, size)
    tag, step = message[start:position], position + size - start
    if message[start + step : start + step + len(tag)] != tag:
        return first, start + step
    count, window = 1, 16
    while True:
        rows = _rows(message, start + count * step, step, window)
        same = (rows[:, : len(tag)] == np.frombuffer(tag, np.uint8)).all(axis=1)
        found = len(rows) if same.all() else int(same.argmin())
        count += found
        if found < window:
            break
        window *= 2  # so that the sum of all windows stays within twice the block
    block = _rows(message, start, step, count)[:, len(tag) :].tobytes()
    return memoryview(block), start + count * step


def _rows(message: memoryview, start: int, step: int, most: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    count = min(most, (len(message) - start) // step)
    return np.frombuffer(message[start : start + count * step], np.uint8).reshape(count, step)

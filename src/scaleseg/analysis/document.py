"""Records as JSON and back: what their annotations say is what is read, and nothing else passes."""

import dataclasses
import math
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

__all__ = ["decode", "encode"]


def encode(value: Any) -> Any:
    """Dataclasses and NamedTuples as objects by field, tuples as lists; ValueError for a number that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a figure is {value}; expected a finite number")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        return {name: encode(item) for name, item in value._asdict().items()}
    if isinstance(value, dict):
        return {name: encode(item) for name, item in value.items()}
    return [encode(item) for item in value] if isinstance(value, list | tuple) else value


def decode(kind: Any, value: Any, where: str = "") -> Any:
    """The record of this type that `encode` made the value of; ValueError, which says where, if it is none.

    Types are dataclasses, NamedTuples, `dict[str, X]`, `tuple[X, ...]`, `tuple[X, Y]`, `X | None`, str, int and float.
    """
    origin, inside = get_origin(kind), get_args(kind)
    if origin is UnionType:
        (other,) = (item for item in inside if item is not NoneType)
        return None if value is None else decode(other, value, where)
    if origin is dict and isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: decode(inside[1], item, f"{where}.{name}") for name, item in value.items()}
    if origin is tuple and isinstance(value, list):
        return _tuple(inside, value, where)
    if origin is None and kind in (str, int, float):
        return _plain(kind, value, where)
    if origin is None and isinstance(value, dict):
        return _record(kind, value, where)
    raise _wrong(where, value)


def _record(kind: Any, value: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    optional = set(getattr(kind, "_field_defaults", {}))
    missing = [name for name in hints if name not in value and name not in optional]
    if missing:
        raise ValueError(f"{where.lstrip('.') or 'it'} lacks {', '.join(missing[:3])}")
    return kind(**{name: decode(hints[name], value[name], f"{where}.{name}") for name in hints if name in value})


def _tuple(inside: tuple[Any, ...], value: Sequence[Any], where: str) -> tuple[Any, ...]:
    kinds = [inside[0]] * len(value) if inside[1:] == (Ellipsis,) else inside
    if len(kinds) != len(value):
        raise ValueError(f"{where.lstrip('.')} has {len(value)} items; expected {len(kinds)}")
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(decode(kind, item, f"{where}.{place}") for place, (kind, item) in pairs)


def _plain(kind: Any, value: Any, where: str) -> Any:
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or isinstance(value, bool) or not (kind is str or abs(value) < LARGEST):
        raise _wrong(where, value)
    return kind(value)


LARGEST = 2**63
"""JSON has whole numbers that no array can hold."""


def _wrong(where: str, value: Any) -> ValueError:
    shown = repr(value) if isinstance(value, str | int | float | NoneType) else type(value).__name__
    return ValueError(f"{where.lstrip('.') or 'it'} is {shown[:60]}")

"""What a request asks for: its query, checked word by word."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scaleseg.errors import UserError, choose
from scaleseg.server.models import Served
from scaleseg.server.refusal import Refusal, shown

__all__ = ["FUSIONS", "MOST_PIXELS", "OUTPUTS", "Asked", "read_query"]

OUTPUTS = ("mask", "overlay", "weights", "json", "npz", "safetensors")
FUSIONS = ("trained", "average", "max", "weights")
PARAMETERS = ("model", "output", "fusion", "weights", "refine", "pixel")

MOST_PIXELS = 100
"""That one request may ask about."""

_PIXEL = re.compile(r"(\d{1,6}),(\d{1,6})", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,9})?|\.\d{1,9}", re.ASCII)


@dataclass(frozen=True)
class Asked:
    """A query that can be answered, once the image is known."""

    model: Served
    output: str = "mask"
    fusion: str = "trained"
    weights: tuple[float, ...] = ()
    """One a scale, summing to 1, for the fusion `weights`."""
    refine: str = "none"
    pixels: tuple[tuple[int, int], ...] = ()
    """(row, column)"""


def read_query(pairs: Iterable[tuple[str, str]], models: Mapping[str, Served]) -> Asked:
    """The query's parameters, percent signs already decoded; Refusal for what is unknown, said twice, or no number."""
    given = _gathered(pairs)
    name = _one(given, "model", next(iter(models)))
    if name not in models:
        raise Refusal(404, _chosen("model", name, models))
    model = models[name]
    output = _choice(given, "output", OUTPUTS)
    fusion = _choice(given, "fusion", FUSIONS)
    refine = _choice(given, "refine", model.refinements)
    return Asked(model, output, fusion, _weights(given, fusion, model), refine, _pixels(given, output))


def _gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in PARAMETERS:
            raise Refusal(400, _chosen("a parameter", name, PARAMETERS))
        given.setdefault(name, []).append(value)
    for name, values in given.items():
        if len(values) > 1 and name != "pixel":
            raise Refusal(400, f"{name} is given {len(values)} times; give it once")
    return given


def _one(given: Mapping[str, list[str]], name: str, default: str) -> str:
    return given.get(name, [default])[0]


def _choice(given: Mapping[str, list[str]], name: str, accepted: Sequence[str]) -> str:
    value = _one(given, name, accepted[0])
    if value not in accepted:
        raise Refusal(400, _chosen(name, value, accepted))
    return value


def _chosen(what: str, given: str, accepted: Iterable[str]) -> str:
    """The sentence that says what could have been chosen."""
    try:
        choose(what, shown(given), accepted)
    except UserError as error:
        return str(error)
    return f"{what} is {shown(given)!r}; leave out what cannot be seen"  # equal but for what is not printable


def _weights(given: Mapping[str, list[str]], fusion: str, model: Served) -> tuple[float, ...]:
    if fusion != "weights":
        if "weights" in given:
            raise Refusal(400, f"weights are given, and fusion is {fusion}; give fusion=weights, or leave weights out")
        return ()
    scales = model.network.scales
    parts = _one(given, "weights", "").split(",")
    example = ",".join(["0.5", "0.3", "0.2"][: len(scales)] or ["1"])
    if len(parts) != len(scales) or not all(_NUMBER.fullmatch(part) for part in parts):
        raise Refusal(
            400,
            f"weights are {shown(','.join(parts))!r}; give {len(scales)} numbers of 0 or more by comma, one a scale, such as "
            f"{example}",
        )
    numbers = [float(part) for part in parts]
    if not sum(numbers) > 0:
        raise Refusal(400, "weights are all 0; give at least one number above 0")
    return tuple(number / sum(numbers) for number in numbers)


def _pixels(given: Mapping[str, list[str]], output: str) -> tuple[tuple[int, int], ...]:
    texts = given.get("pixel", [])
    if texts and output != "json":
        raise Refusal(400, f"pixel is given, and output is {output}; give output=json, or leave pixel out")
    if len(texts) > MOST_PIXELS:
        raise Refusal(400, f"pixel is given {len(texts)} times; give it at most {MOST_PIXELS} times")
    found = []
    for text in texts:
        match = _PIXEL.fullmatch(text)
        if match is None:
            raise Refusal(400, f"pixel is {shown(text)!r}; give a row and a column from 0, such as 120,64")
        found.append((int(match[1]), int(match[2])))
    return tuple(found)

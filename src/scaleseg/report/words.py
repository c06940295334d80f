"""Figures as text: percent with one decimal, intervals, lists; and names without the folders of this machine."""

import re
from collections.abc import Callable, Sequence
from pathlib import PurePath
from unicodedata import east_asian_width

from scaleseg.analysis import Estimate

__all__ = [
    "between",
    "cut",
    "exact",
    "listed",
    "percent",
    "photographs",
    "plain",
    "points",
    "rough",
    "signed",
    "signed_points",
    "text_width",
    "without_folders",
]

SPACE = "\u00a0"
"""Between a figure and its unit: a line never breaks there."""


def percent(fraction: float) -> str:
    """`61.2 %`."""
    return f"{100 * fraction:.1f}{SPACE}%"


def rough(fraction: float) -> str:
    """`61 %`; `<1 %` for what is there but would be 0."""
    return f"<1{SPACE}%" if 0 < fraction < 0.005 else f"{100 * fraction:.0f}{SPACE}%"


def exact(fraction: float | None) -> str:
    """`61.23`, for tables whose heading says percent; a dash where there is none."""
    return "\u2013" if fraction is None else f"{100 * fraction:.2f}"


def points(difference: float) -> str:
    """`3.1 points`, of a difference of fractions, without its sign."""
    return f"{100 * abs(difference):.1f}{SPACE}points"


def signed(value: float) -> str:
    """`+0.31`, with a true minus sign."""
    return f"{value:+.2f}".replace("-", MINUS)


def signed_points(difference: float) -> str:
    """`+3.1`, in points."""
    return f"{100 * difference:+.1f}".replace("-", MINUS)


MINUS = "\u2212"


def between(estimate: Estimate) -> str:
    """`58.9 to 63.4 %`."""
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}{SPACE}%"


def photographs(count: int) -> str:
    """`1 photograph`, `240 photographs`."""
    return f"{count:,} {'photograph' if count == 1 else 'photographs'}"


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def plain(text: str) -> str:
    """Text with its control characters spelled out: a file's name may turn the order of letters, or be no text at all."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 but tab and line feed, C1, separators, marks that turn the order of letters, and what is left of undecodable names."""


def without_folders(word: str) -> str:
    """A word of a command line with its paths cut to their last part: pages are for handing on."""
    key, equals, value = word.rpartition("=")
    return f"{key}{equals}{PurePath(value).name}" if "/" in value else word


def cut(name: str, room: float) -> str:
    """Without its middle where it is too wide: names of classes differ at their ends."""
    letters, short = len(name), name
    while letters > 2 and text_width(short) > room:
        letters -= 1
        half = letters // 2
        short = f"{name[:half]}\u2026{name[len(name) - (letters - half) + 1 :]}"
    return short


def text_width(text: str) -> float:
    """At most so wide is a text at 13 pixels in the broadest of usual fonts (DejaVu Sans)."""
    return sum(next(wide for kind, wide in _LETTERS if kind(letter)) for letter in text)


_LETTERS: tuple[tuple[Callable[[str], bool], float], ...] = (
    (lambda letter: letter in "fijlrt.,:;'|!()[] \u00a0", 5.4),
    (lambda letter: letter in "mwMW@%\u2026" or east_asian_width(letter) in "WF", 13.4),
    (str.isupper, 10.2),
    (lambda letter: True, 8.4),
)

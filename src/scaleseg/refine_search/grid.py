"""Which settings are tried: half, one and twice of each, then closer and closer around the best, as DeepLab's authors did.

What DeepLab v1 fixed is fixed here too: the smoothness kernel and the rounds of mean field.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from scaleseg.config import RefineConfig
from scaleseg.errors import UserError, choose
from scaleseg.refine import create_refine

__all__ = ["FIXED", "SEARCHED", "around", "check_start", "describe", "most", "of_kind", "values"]

SEARCHED: dict[str, dict[str, tuple[float, float]]] = {
    "crf": {"bi_w": (0.1, 100.0), "bi_xy_std": (1.0, 1000.0), "bi_rgb_std": (0.5, 255.0)},
    "domain": {"sigma_s": (1.0, 2000.0), "sigma_r": (0.005, 10.0)},
    "domain-learned": {"learned_sigma_s": (1.0, 2000.0), "learned_sigma_r": (0.005, 100.0)},
}
"""By name of the refinement, what is searched for, and how far."""

FIXED = {
    "crf": ("pos_w", "pos_xy_std", "crf_iterations", "crf_max_pixels"),
    "domain": ("iterations", "min_weight"),
    "domain-learned": ("iterations", "min_weight"),
}
"""What else the refinement goes by: as it is in the checkpoint, or given."""


def of_kind(settings: RefineConfig, kind: str) -> RefineConfig:
    """The settings of one refinement, all others at their defaults; UserError for one that has none or is out of range."""
    choose("--refine", kind, SEARCHED)
    create_refine(kind, settings)
    own = {name: float(getattr(settings, name)) for name in SEARCHED[kind]}
    return replace(RefineConfig(), **{name: getattr(settings, name) for name in FIXED[kind]}, **own)  # type: ignore[arg-type]


def check_start(start: RefineConfig, kind: str) -> None:
    """UserError where half and twice are no other values."""
    for name in SEARCHED[kind]:
        if getattr(start, name) <= 0:
            raise UserError(
                f"refine.{name} is {getattr(start, name):g}, and half and twice of that are the same; give a value to begin "
                f"at, such as refine.{name}={getattr(RefineConfig(), name):g}"
            )


def around(centre: RefineConfig, kind: str, number: int) -> list[RefineConfig]:
    """The grid of round `number`, counted from 1, the centre first: each step is a factor of 2, sqrt(2), 2^(1/4), ..."""
    factor = 2.0 ** (1 / 2 ** (number - 1))
    axes = [_values(getattr(centre, name), factor, limits) for name, limits in SEARCHED[kind].items()]
    grid = [replace(centre, **dict(zip(SEARCHED[kind], point, strict=True))) for point in product(*axes)]  # type: ignore[arg-type]
    return list(dict.fromkeys([centre, *grid]))


def most(kind: str, rounds: int) -> list[int]:
    """At most so many new settings in each round: the best so far is there already."""
    whole: int = 3 ** len(SEARCHED[kind])
    return [whole, *[whole - 1] * (rounds - 1)]


def values(settings: RefineConfig, kind: str, *, fixed: bool = True) -> dict[str, float]:
    """One refinement's settings by name."""
    names: Sequence[str] = (*SEARCHED[kind], *(FIXED[kind] if fixed else ()))
    return {name: getattr(settings, name) for name in names}


def describe(settings: RefineConfig, kind: str) -> str:
    """What is searched for, as key=value."""
    return " ".join(f"{name}={value:g}" for name, value in values(settings, kind, fixed=False).items())


def _values(centre: float, factor: float, limits: tuple[float, float]) -> list[float]:
    """Three digits are enough: sqrt(2) is 1.41, and the same value is not met again as another one."""
    lowest, highest = limits
    below, above = (float(f"{value:.3g}") for value in (centre / factor, centre * factor))
    return sorted({min(max(below, lowest), centre), centre, max(min(above, highest), centre)})

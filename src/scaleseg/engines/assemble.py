"""Engines put together as a user asks for them: which one, in which numbers, with scales left out, with the mirror image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import UInt8
from torch import Tensor

from scaleseg.engines.contract import Engine
from scaleseg.engines.converted import cache_folder
from scaleseg.engines.create import create_engine
from scaleseg.engines.flipped import Flipped
from scaleseg.engines.skipping import Skipping
from scaleseg.errors import UserError
from scaleseg.model import ScaleAware

__all__ = ["Plan", "assemble"]


@dataclass(frozen=True)
class Plan:
    """What computes: an engine and its precision by name (`create_engine`), a threshold of `Skipping`, the mirror image too."""

    engine: str = "torch"
    precision: str = "auto"
    skip: float | None = None
    flip: bool = False


def assemble(
    model: ScaleAware,
    plan: Plan,
    *,
    calibration: Sequence[UInt8[Tensor, "3 _ _"]] | None = None,
    say: Callable[[str], None] | None = None,
) -> Engine:
    """The engine of a plan, converted models kept in the user's cache; UserError for parts that exclude each other.

    `say` hears what the engine `auto` chose.
    """
    if plan.skip is None:
        cache = None if plan.engine == "torch" else cache_folder()
        engine = create_engine(
            plan.engine, model, precision=plan.precision, calibration=calibration, cache=cache, say=say
        )
    elif not 0 <= plan.skip <= 1:
        raise UserError(f"--skip is {plan.skip:g}; give a threshold from 0 (skip nothing) to 1, such as 0.02")
    elif plan.engine != "torch":
        raise UserError(f"--skip decides in PyTorch, but --engine is {plan.engine}; give one of them")
    else:
        engine = Skipping(model, plan.skip, plan.precision)
    return Flipped(engine, model) if plan.flip else engine

"""The options that say what computes, which several verbs share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from scaleseg.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from scaleseg.engines import Engine, Plan
    from scaleseg.model import ScaleAware

__all__ = [
    "Calibration",
    "Device",
    "EngineName",
    "Flip",
    "MaxMemory",
    "Precision",
    "Refinement",
    "Skip",
    "build",
    "bytes_of",
    "check",
]

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[
    str, typer.Option(help="float32, bf16, int8 (engine openvino) or auto (bf16 where it was measured to help).")
]
Refinement = Annotated[
    str, typer.Option(help="none, crf, domain, or domain-learned: sharper edges, after the network.")
]
EngineName = Annotated[
    str, typer.Option("--engine", help="torch, onnx, openvino, or auto: what scaleseg benchmark measured as fastest.")
]
Calibration = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="int8: photographs to set its ranges by, never those that are reported on.",
        show_default=False,
    ),
]
Skip = Annotated[
    float | None,
    typer.Option(
        metavar="THRESHOLD", help="Leave out scales that matter less than this, such as 0.02.", show_default=False
    ),
]
Flip = Annotated[bool, typer.Option("--flip", help="Look at the mirror image too, and average: twice the time.")]
MaxMemory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Work in tiles where an image would take more, such as 4GB.", show_default=False),
]

CALIBRATING = 100
"""Photographs that int8 looks at, at most, evenly spaced."""


def build(
    model: "ScaleAware", plan: "Plan", *, calibration: str | None = None, refine: str = "none", save: Sequence[str] = ()
) -> "Engine":
    """What computes, as the options say; UserError for options that exclude each other."""
    from scaleseg.cli.output import say
    from scaleseg.engines import assemble

    check(plan, calibration=calibration, refine=refine, save=save)
    return assemble(model, plan, calibration=_photographs(calibration) if calibration else None, say=say)


def check(plan: "Plan", *, calibration: str | None = None, refine: str = "none", save: Sequence[str] = ()) -> None:
    """UserError for options that exclude each other."""
    if plan.skip is not None and (refine == "domain-learned" or "edges" in save):
        raise UserError("--skip may leave out the finest scale, which learned edges need; give one of them")
    if calibration is not None and plan.precision != "int8":
        raise UserError(
            f"--calibration is for --precision int8, and the precision is {plan.precision}; give int8, or leave it out"
        )


def bytes_of(max_memory: str | None) -> int | None:
    """`--max-memory` in bytes."""
    from scaleseg.engines import parse_bytes

    return None if max_memory is None else parse_bytes(max_memory)


def _photographs(calibration: str) -> list["Tensor"]:
    from scaleseg.batch import expand
    from scaleseg.images import read

    paths = [path for path, _ in expand(calibration)]
    if not paths:
        raise UserError(f"--calibration is {calibration}, where no photographs are; give a folder, a file or a glob")
    return [read(path) for path in paths[:: -(-len(paths) // CALIBRATING)]]

"""Which photographs settings are chosen on: the development split, and never, but by the user's own word, the reported one."""

from collections.abc import Sequence
from typing import NamedTuple

from scaleseg.config import Config
from scaleseg.datasets import Subset, open_evaluation, open_training
from scaleseg.errors import UserError

__all__ = ["Photographs", "choose_photographs"]


class Photographs(NamedTuple):
    """Some photographs, and a sentence that says which."""

    dataset: Subset
    note: str


def choose_photographs(config: Config, overrides: Sequence[str], images: int) -> Photographs:
    """`images` of them, evenly spaced over the development split.

    `data.val` in `overrides`, without `data.train`, means these instead; the note then says what that costs.
    """
    if images < 1:
        raise UserError(f"--images is {images}; give 1 or more")
    given = {item.partition("=")[0] for item in overrides}
    if "data.val" in given and not given & {"data", "data.train"}:
        whole, note = open_evaluation(config.data)
        note += ": settings are chosen on these, so figures on these photographs are no longer independent"
    else:
        splits = open_training(config.data)
        if splits.dev is None:
            raise UserError(
                "data.dev is 0, so there is no development split to choose settings on; give data.dev=LIST of photographs that "
                "were not trained on, or data.val=PATH (figures on those are then no longer independent)"
            )
        whole, note = splits.dev, f"the development split: {splits.note}"
    count = min(images, len(whole))
    chosen = [(2 * index + 1) * len(whole) // (2 * count) for index in range(count)]
    return Photographs(Subset(whole, chosen), f"{count} of {note}" if count < len(whole) else note)

"""The models that a server has: loaded once, under names that say nothing of where they lie."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from scaleseg.checkpoint import list_bundled
from scaleseg.engines import Engine, choose_side
from scaleseg.images import palette
from scaleseg.model import ScaleAware
from scaleseg.refine import REFINEMENTS
from scaleseg.server.refusal import shown

__all__ = ["Served", "name_models", "warm_up"]

WARM = 65
"""Rows and columns of the image that a model sees before anybody asks."""

LARGE = (2000, 2000)
"""Rows and columns of an image that must fit into the memory that is allowed, in tiles if need be."""


@dataclass(frozen=True, eq=False)
class Served:
    """A model, what computes it, and its name."""

    name: str
    network: ScaleAware
    engine: Engine

    @property
    def refinements(self) -> tuple[str, ...]:
        """Those that this model can do."""
        return tuple(name for name in REFINEMENTS if name != "domain-learned" or self.network.edge_net is not None)

    @property
    def per_class(self) -> bool:
        """Whether the trained fusion has weights of their own for each class."""
        return bool(self.network.settings and self.network.settings.fusion == "max")

    def describe(self) -> dict[str, object]:
        """What `/v1/models` says of it."""
        settings = self.network.settings
        return {
            "name": self.name,
            "classes": list(self.network.classes),
            "colours": palette(len(self.network.classes))[: len(self.network.classes)].tolist(),
            "scales": list(self.network.scales),
            "fusion": settings.fusion if settings else type(self.network.fusion).__name__.lower(),
            "refinements": list(self.refinements),
            "weights_per_class": self.per_class,
        }


def name_models(checkpoints: Sequence[str]) -> list[str]:
    """A name for each: the bundled or Hub name, of a folder the last part, the last two for `best` and the like.

    Where two would have the same, they are numbered.
    """
    names = [_name(given) for given in checkpoints]
    shared = {name for name, count in Counter(names).items() if count > 1}
    taken: Counter[str] = Counter()
    unique: list[str] = []
    for name in names:
        taken[name] += 1
        chosen = f"{name}-{taken[name]}" if name in shared else name
        while chosen in unique:
            chosen += "'"
        unique.append(chosen)
    return unique


def warm_up(model: Served, max_memory: int | None = None) -> None:
    """What is done once is done now, not for the first client: one small image, and how much memory tiles take."""
    model.engine(torch.zeros(3, WARM, WARM, dtype=torch.uint8))
    if max_memory is not None:
        choose_side(model.network, LARGE, max_memory, model.engine.precision)


def _name(given: str) -> str:
    path = Path(given)
    if given in list_bundled() or not path.exists():  # a Hub id, org/name
        return shown(given)
    parts = path.resolve().parts
    short = parts[-1:] if parts[-1] not in ("best", "last") and not parts[-1].startswith("step-") else parts[-2:]
    if path.is_symlink():  # best and last point at checkpoints/step-N
        short = Path(given).absolute().parts[-2:]
    return shown("/".join(short))

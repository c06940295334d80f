"""What a dataset promises, whichever it is."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Int64, UInt8
from torch import Tensor

from scaleseg.errors import UserError

__all__ = ["Dataset", "Subset", "check_sizes"]


@runtime_checkable
class Dataset(Protocol):
    """Photographs with labels, by index."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a class id is a place in here."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """A name for each pair, for messages and output files."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Int64[Tensor, "H W"]]:
        """RGB, and class ids with 255 = void; UserError names a file that cannot be used."""
        ...


def check_sizes(mask: str, labels: Sequence[int], image: Sequence[int]) -> None:
    """UserError unless a mask, called `mask`, has as many (rows, columns) as its photograph."""
    if tuple(labels) != tuple(image):
        raise UserError(
            f"{mask} is {labels[1]} x {labels[0]}, its photograph {image[1]} x {image[0]}; they must be of one size"
        )


class Subset:
    """Some of a dataset's pairs."""

    def __init__(self, whole: Dataset, indices: Sequence[int]) -> None:
        self.whole = whole
        self.indices = list(indices)
        self.names = [whole.names[index] for index in self.indices]

    @property
    def classes(self) -> tuple[str, ...]:
        """The whole dataset's."""
        return self.whole.classes

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Int64[Tensor, "H W"]]:
        return self.whole[self.indices[index]]

"""What a refinement promises: probabilities in, probabilities out, sharper where the photograph has edges."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

from scaleseg.geometry import Size

__all__ = ["Refine", "check"]


@runtime_checkable
class Refine(Protocol):
    """A refinement of one image's probabilities; it never sees files or labels."""

    def __call__(
        self,
        probabilities: Float[Tensor, "classes H W"],
        image: UInt8[Tensor, "3 _ _"],
        edges: Float[Tensor, "_ _"] | None = None,
    ) -> Float[Tensor, "classes H W"]: ...

    def note(self, size: Size) -> str:
        """What an image of (rows, columns) does not get in full, in words for the user; '' if nothing."""
        ...


def check(
    probabilities: Float[Tensor, "classes H W"],
    image: UInt8[Tensor, "3 _ _"],
    edges: Float[Tensor, "_ _"] | None = None,
) -> None:
    """ValueError unless these are distributions over classes at each pixel of this image, and edges of it, none below 0."""
    for name, size in (("image", image.shape[1:]), ("edges", None if edges is None else edges.shape)):
        if size is not None and size != probabilities.shape[1:]:
            raise ValueError(
                f"probabilities are {tuple(probabilities.shape[1:])}, their {name} {tuple(size)}; "
                "all are (rows, columns) of the same image"
            )
    if edges is not None and not bool((edges >= 0).all()):
        raise ValueError("edges hold values below 0, or NaN")
    total = probabilities.sum(dim=0)
    if bool(((total - 1).abs() <= 1e-3).all()) and bool(probabilities.amin() >= 0):
        return  # NaN and infinity would have shown in the sum
    if not bool(probabilities.isfinite().all()):
        raise ValueError("probabilities hold NaN or infinity")
    raise ValueError(
        f"probabilities sum to {float(total.min()):.3g} to {float(total.max()):.3g} over classes; expected 1, none "
        "below 0: apply softmax to scores first"
    )

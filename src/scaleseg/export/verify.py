"""Whether an exported model says what the model says: run in its own runtime, on images of several sizes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from scaleseg.engines.converted import unreported
from scaleseg.engines.graph import ImageGraph, smallest
from scaleseg.export.formats import Format
from scaleseg.geometry import Size, resize_photo
from scaleseg.images import read
from scaleseg.model import ScaleAware
from scaleseg.samples import samples

__all__ = ["TOLERANCE", "Difference", "Verified", "verify_export"]

TOLERANCE = {"float32": 1e-4, "float16": 2e-2}
"""The largest score error that passes, as a part of the scores' range (docs/decisions.md has what was measured)."""

WEIGHTS = 1e-2
"""The mean error of scale weights that passes; the mean, for max fusion flips whole pixels where two scales tie."""

CROPPED = {"astronaut": (0, 0), "chelsea": (-37, -50), "coffee": (-151, -1)}
"""By how many pixels the free photographs are: a large even one, odd sides, a wide one."""

Run = Callable[[UInt8[np.ndarray, "n 3 H W"]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Difference:
    """Between the two on one batch."""

    name: str
    size: Size
    batch: int
    error: float
    """The largest of a score, as a part of the scores' range."""
    weights: float
    """The mean of a scale weight."""
    agreement: float
    """The share of pixels with the same label."""


@dataclass(frozen=True)
class Verified:
    """All of them, and whether they pass."""

    differences: tuple[Difference, ...]
    tolerance: float

    @property
    def error(self) -> float:
        """The largest."""
        return max(one.error for one in self.differences)

    @property
    def agreement(self) -> float:
        """The share of equal labels over all pixels."""
        pixels = [one.batch * one.size[0] * one.size[1] for one in self.differences]
        return float(np.average([one.agreement for one in self.differences], weights=pixels))

    @property
    def passed(self) -> bool:
        """False too where a number is none (NaN)."""
        return all(one.error <= self.tolerance and one.weights <= WEIGHTS for one in self.differences)


def verify_export(
    model: ScaleAware,
    path: Path,
    kind: Format,
    *,
    images: Sequence[Path] = (),
    tolerance: float = TOLERANCE["float32"],
    report: Callable[[Difference], None] = lambda one: None,
) -> Verified:
    """Compare what lies at `path` with the model in PyTorch, float32, on `images`, one by one and the first mirrored too.

    Without images: on drawn ones of odd and even sizes, and on scikit-image's photographs where it is installed.
    """
    run, graph = RUNS[kind.name](path), ImageGraph(model, labels=True)
    found = []
    for name, batch in _batches(images, smallest(model)):
        found.append(_difference(name, batch, graph, run))
        report(found[-1])
    return Verified(tuple(found), tolerance)


def _difference(name: str, batch: UInt8[Tensor, "n 3 H W"], graph: ImageGraph, run: Run) -> Difference:
    with torch.inference_mode():
        scores, weights, labels = (maps.numpy() for maps in graph(batch))
    found = run(batch.numpy())
    found_labels = found[2] if len(found) > 2 else found[0].argmax(axis=1)
    return Difference(
        name,
        (batch.shape[2], batch.shape[3]),
        len(batch),
        float(np.abs(found[0] - scores).max() / max(np.ptp(scores), 1e-30)),
        float(np.abs(found[1] - weights).mean()),
        float((found_labels == labels).mean()),
    )


def _batches(images: Sequence[Path], least: int) -> Iterator[tuple[str, UInt8[Tensor, "n 3 H W"]]]:
    photos = [(path.name, read(path)) for path in images] if images else [*_drawn(least), *_photographs()]
    for index, (name, pixels) in enumerate(photos):
        photo = resize_photo(pixels, (max(least, pixels.shape[1]), max(least, pixels.shape[2])))
        yield name, photo[None]
        if index == 0:
            yield f"{name}, and mirrored", torch.stack([photo, photo.flip(2)])


def _drawn(least: int) -> Iterator[tuple[str, UInt8[Tensor, "3 H W"]]]:
    """Blots of colour, always the same."""
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((97, 130), (least, least + 33), (129, 65), (64, 192), (150, 201)):
        size = max(least, rows), max(least, columns)
        coarse = torch.randint(
            0, 256, (3, 2 + size[0] // 12, 2 + size[1] // 12), generator=generator, dtype=torch.uint8
        )
        yield "drawn", resize_photo(coarse, size)


def _photographs() -> Iterator[tuple[str, UInt8[Tensor, "3 H W"]]]:
    for name, path in (samples() or {}).items():
        photo, (rows, columns) = read(path), CROPPED[name]
        yield name, photo[:, : photo.shape[1] + rows, : photo.shape[2] + columns]


def _pt2(path: Path) -> Run:
    program = torch.export.load(path).module()

    def run(images: UInt8[np.ndarray, "n 3 H W"]) -> Sequence[np.ndarray]:
        with torch.inference_mode():
            return [maps.numpy() for maps in program(torch.from_numpy(images))]

    return run


def _onnx(path: Path) -> Run:
    with unreported():
        import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


def _openvino(path: Path) -> Run:
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # its own choice may be bf16
    compiled = openvino.compile_model(path / "model.xml", "CPU", exact)
    return lambda images: list(compiled(images).values())


RUNS: dict[str, Callable[[Path], Run]] = {"pt2": _pt2, "onnx": _onnx, "openvino": _openvino}
"""What runs a format, by its name."""

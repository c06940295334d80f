"""Measuring a model on labelled photographs: each at its own resolution, one at a time, one confusion matrix over all."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from torch import Tensor
from torch.utils.data import DataLoader

from scaleseg.datasets import Dataset
from scaleseg.errors import UserError, as_raised
from scaleseg.metrics import Confusion, Metrics
from scaleseg.model import ScaleAware
from scaleseg.segmentation import predict

__all__ = ["evaluate"]


def evaluate(
    model: ScaleAware,
    dataset: Dataset,
    *,
    precision: str = "float32",
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Metrics:
    """mIoU and its kin, with the mIoU of each scale's own scores beside the merged. Published figures use float32."""
    if len(dataset.classes) != len(model.classes):
        raise UserError(
            f"the model has {len(model.classes)} classes ({', '.join(model.classes[:8])}), the data "
            f"{len(dataset.classes)} ({', '.join(dataset.classes[:8])}); they must be the same"
        )
    if tuple(dataset.classes) != model.classes and sorted(dataset.classes) == sorted(model.classes):
        raise UserError(
            f"the data's classes are in another order ({', '.join(dataset.classes[:8])}) than the model's "
            f"({', '.join(model.classes[:8])}); give data.classes in the model's order, with data.label_map"
        )
    fused = Confusion(len(model.classes))
    scales = [Confusion(len(model.classes)) for _ in model.scales]
    for done, (image, labels) in enumerate(_pairs(dataset, workers), start=1):
        prediction = predict(model, image, precision=precision)
        truth = labels.numpy()
        fused.add(truth, prediction.at()[0].argmax(dim=0).cpu().numpy())
        for confusion, scores in zip(scales, prediction.per_scale, strict=True):
            confusion.add(truth, prediction.grid.to_image(scores)[0].argmax(dim=0).cpu().numpy())
        if progress:
            progress(done, len(dataset))
    each = {f"{scale:g}": c.metrics(model.classes).mIoU for scale, c in zip(model.scales, scales, strict=True)}
    return replace(fused.metrics(model.classes), per_scale=each)


def _pairs(dataset: Dataset, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs in order, read ahead by `workers` processes."""
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(dataset, batch_size=None, num_workers=workers)  # type: ignore[arg-type]
    try:
        yield from loader
    except UserError as error:
        raise as_raised(error) from None

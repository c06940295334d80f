"""Training batches as one endless, seeded stream of samples that can be entered at any step."""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from scaleseg.config import Config
from scaleseg.datasets import Dataset
from scaleseg.devices import out_of_reach, worker_start
from scaleseg.errors import UserError, as_raised
from scaleseg.transforms import Augment, sample_generator

__all__ = ["Batch", "Stream", "batches"]


class Batch(NamedTuple):
    """One step's images (uint8, n x 3 x crop x crop), labels (n x crop x crop) and the photographs' names."""

    images: Tensor
    labels: Tensor
    names: list[str]


class Stream(Sampler[tuple[int, int]]):
    """(epoch, index) of every sample from step `start` to step `stop`: each epoch is a permutation drawn from the seed.

    `share` is the part of each batch that this process works on; the stream of all of them is the same for any number.
    """

    def __init__(self, size: int, seed: int, batch: int, start: int, stop: int, share: slice = slice(None)) -> None:
        self.size, self.seed, self.batch = size, seed, batch
        self.steps = range(start, stop)
        self.places = range(batch)[share]

    def __len__(self) -> int:
        return len(self.steps) * len(self.places)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        drawn, order = -1, [0]
        for step in self.steps:
            for place in self.places:
                epoch, index = divmod(step * self.batch + place, self.size)
                if epoch != drawn:
                    drawn, order = epoch, self._permutation(epoch)
                yield epoch, order[index]

    def _permutation(self, epoch: int) -> list[int]:
        order: list[int] = torch.randperm(self.size, generator=sample_generator(self.seed, epoch, -1)).tolist()
        return order


class _Varied:
    """A dataset whose key is (epoch, index): both seed the variation."""

    def __init__(self, dataset: Dataset, augment: Augment, seed: int) -> None:
        self.dataset, self.augment, self.seed = dataset, augment, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, str]:
        epoch, index = key
        image, labels = self.dataset[index]
        varied = self.augment(image, labels, sample_generator(self.seed, epoch, index))
        return *varied, self.dataset.names[index]


def batches(dataset: Dataset, config: Config, start: int, share: slice = slice(None)) -> Iterator[Batch]:
    """The batches of steps `start` to `train.steps`; of each the `share` that is this process's."""
    data, settings = config.data, config.train
    augment = Augment(data.crop, data.mirror, data.random_scale, data.colour_jitter)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores: the user's choice
        loader: DataLoader[Batch] = DataLoader(
            _Varied(dataset, augment, settings.seed),  # type: ignore[arg-type]
            batch_size=len(range(settings.batch)[share]),
            sampler=Stream(len(dataset), settings.seed, settings.batch, start, settings.steps, share),
            num_workers=data.workers,
            worker_init_fn=out_of_reach if data.workers else None,
            collate_fn=_collate,
            multiprocessing_context=worker_start(data.workers),
            prefetch_factor=2 if data.workers else None,
        )
        stream = iter(loader)
    try:
        yield from stream
    except UserError as error:
        raise as_raised(error) from None


def _collate(samples: list[tuple[Tensor, Tensor, str]]) -> Batch:
    images, labels, names = zip(*samples, strict=True)
    return Batch(torch.stack(images), torch.stack(labels), list(names))

"""What refinement needs of one image, kept in a file: the network runs once, however many settings are tried.

The merged scores lie on their own small grid, and nothing is rounded. A file knows whether it is whole: by a hash of all it
holds, in its metadata.
"""

import json
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int64, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from scaleseg import atomic
from scaleseg.geometry import Grid
from scaleseg.model import Prediction

__all__ = ["Damaged", "Stored", "read", "write"]


class Damaged(Exception):
    """A file of the cache that is not there, or not as it was written."""


class Stored(NamedTuple):
    """One image."""

    image: UInt8[Tensor, "3 H W"]
    labels: UInt8[Tensor, "H W"]
    prediction: Prediction
    """Without scale weights, and without each scale's own scores."""


def write(path: Path, image: UInt8[Tensor, "3 H W"], labels: Int64[Tensor, "H W"], prediction: Prediction) -> None:
    """Keep it, in one step."""
    tensors = {"image": image, "labels": labels.to(torch.uint8), "scores": prediction.scores[0]}  # ids are 0 to 255
    if prediction.edges is not None:
        tensors["edges"] = prediction.edges[0]
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    grid = json.dumps(asdict(prediction.grid))
    atomic.write(path, save(tensors, {"grid": grid, "hash": _hash(tensors, grid)}))


def read(path: Path) -> Stored:
    """What was kept; raises Damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise Damaged(f"{path} cannot be read ({error})") from error
    if about.get("hash") != _hash(tensors, about.get("grid", "")):
        raise Damaged(f"{path} is not as it was written")
    plain = json.loads(about["grid"])
    grid = Grid(
        (plain["image"][0], plain["image"][1]), tuple(plain["scales"]), plain["output_stride"], plain["align_corners"]
    )
    scores = tensors["scores"][None]
    edges = tensors["edges"][None] if "edges" in tensors else None
    prediction = Prediction(scores, scores.new_ones(1, 1, 1, 1), (), grid, edges)
    return Stored(tensors["image"], tensors["labels"], prediction)


def _hash(tensors: dict[str, Tensor], grid: str) -> str:
    made = blake2b(grid.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        made.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        made.update(tensor.numpy().tobytes())
    return made.hexdigest()

"""High-dimensional Gaussian filtering in linear time: the permutohedral lattice (Adams, Baek and Davis, Eurographics 2010).

Values at points are spread to the corners of the simplex around each point (splat), blurred along the lattice's axes, and
read back (slice). Splat and slice are products with a sparse matrix of d+1 entries a point, which `embedding_bag` computes
for all columns of values at once, on a CPU or a GPU; nothing is compiled.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["Lattice"]

MULTIPLIERS = (
    0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F,
    0xE7037ED1A0B428DB,
)  # fmt: skip
"""Odd, without pattern: a lattice point's key is the sum of coordinate times multiplier, modulo 2^64."""


class Lattice:
    """The lattice of a set of points; calling it filters values at these points with a Gaussian of standard deviation 1.

    Keys are 64 bits and linear in the coordinates, so a neighbour's key is a sum; that two of a million lattice points
    share one has a probability of about 1e-7.
    """

    def __init__(self, points: Float[Tensor, "dimensions points"]) -> None:
        dimensions, count = points.shape
        if not 0 < dimensions <= len(MULTIPLIERS):
            raise ValueError(f"points have {dimensions} dimensions; expected 1 to {len(MULTIPLIERS)}")
        multipliers = torch.tensor([_signed(value) for value in MULTIPLIERS[:dimensions]], device=points.device)
        corners, weights = _simplex(points)
        keys, found = torch.unique(_keys(*corners, multipliers).t().reshape(-1), return_inverse=True)
        self.count = len(keys)
        self.corners = found.view(count, dimensions + 1).int()
        self.weights = weights.t().contiguous()
        order = torch.argsort(found, stable=True)
        self.sources = (order // (dimensions + 1)).int()
        self.shares = self.weights.view(-1)[order]
        self.starts = torch.bincount(found, minlength=self.count).cumsum(0).roll(1).int()
        self.starts[0] = 0
        self.neighbours = _neighbours(keys, multipliers)
        self.scale = 1 / (1 + 2.0**-dimensions)

    def __call__(self, values: Float[Tensor, "points columns"]) -> Float[Tensor, "points columns"]:
        """The filtered values, not normalised: divide by the filtered ones, or as the caller sees fit."""
        at = values.new_zeros(self.count + 1, values.shape[1])  # the last row stands for neighbours that are not there
        at[:-1] = F.embedding_bag(self.sources, values, self.starts, mode="sum", per_sample_weights=self.shares)
        for pairs in self.neighbours:
            at[:-1].add_(F.embedding_bag(pairs, at, mode="sum"), alpha=0.5)
        at *= self.scale
        return F.embedding_bag(self.corners, at, mode="sum", per_sample_weights=self.weights)


def _simplex(points: Float[Tensor, "d n"]) -> tuple[tuple[Tensor, Tensor], Float[Tensor, "corners n"]]:
    """The simplex that holds each point: its remainder-0 corner in units of d+1 and each axis's rank, and the weights."""
    dimensions = len(points)
    elevated = _elevated(points)
    scaled = elevated / (dimensions + 1)
    up, down = scaled.ceil(), scaled.floor()
    nearest = torch.where(up - scaled < scaled - down, up, down)
    offset = elevated - nearest * (dimensions + 1)
    rank = torch.zeros_like(offset, dtype=torch.int64)
    for one in range(dimensions):
        for other in range(one + 1, dimensions + 1):
            smaller = (offset[one] < offset[other]).long()
            rank[one] += smaller
            rank[other] += 1 - smaller
    rank += nearest.sum(dim=0).round().long()  # bring the corner onto the plane through the origin
    shift = (rank < 0).long() - (rank > dimensions).long()
    rank += (dimensions + 1) * shift
    corner = nearest.long() + shift
    share = scaled - corner
    weights = torch.zeros(dimensions + 2, points.shape[1], dtype=points.dtype, device=points.device)
    weights.scatter_add_(0, dimensions - rank, share).scatter_add_(0, dimensions + 1 - rank, -share)
    weights[0] += 1 + weights[dimensions + 1]
    return (corner, rank), weights[: dimensions + 1]


def _elevated(points: Float[Tensor, "d n"]) -> Float[Tensor, "axes n"]:
    """The points on the plane of d+1 coordinates that sum to zero, scaled so that the blur has deviation 1."""
    dimensions = len(points)
    inverse = (2 / 3) ** 0.5 * (dimensions + 1)
    scales = torch.tensor([inverse / ((i + 1) * (i + 2)) ** 0.5 for i in range(dimensions)])
    scaled = points * scales.to(points)[:, None]
    rows, below = [], torch.zeros_like(points[0])
    for index in range(dimensions, 0, -1):
        rows.append(below - index * scaled[index - 1])
        below = below + scaled[index - 1]
    return torch.stack([below, *reversed(rows)])


def _keys(corner: Tensor, rank: Tensor, multipliers: Int64[Tensor, "d"]) -> Int64[Tensor, "corners n"]:
    """The key of each corner. Corner k adds k to each coordinate, and takes d+1 from those of rank above d - k."""
    axes = len(corner)
    by_rank = torch.zeros_like(rank)
    factors = torch.cat([multipliers, multipliers.new_zeros(1)])  # the last coordinate follows from the others
    by_rank.scatter_add_(0, rank, factors[:, None].expand_as(rank))
    keys = torch.empty_like(rank)
    keys[0] = (corner * axes * factors[:, None]).sum(dim=0)
    taken, step = torch.zeros_like(keys[0]), multipliers.sum()
    for index in range(1, axes):
        taken = taken + by_rank[axes - index]
        keys[index] = keys[0] + index * step - axes * taken
    return keys


def _neighbours(keys: Int64[Tensor, "lattice"], multipliers: Int64[Tensor, "d"]) -> list[Tensor]:
    """Along each axis, the places of both neighbours of each lattice point; a place behind the last where there is none."""
    axes, step = len(multipliers) + 1, multipliers.sum()
    places = []
    for factor in [*multipliers, multipliers.new_zeros(())]:
        pair = []
        for sign in (1, -1):
            wanted = keys + sign * (axes * factor - step)
            place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            pair.append(torch.where(keys[place] == wanted, place, len(keys)))
        places.append(torch.stack(pair, dim=1).int())
    return places


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value

"""Refinements by the names that `--refine` takes, with the settings of a recipe or a checkpoint."""

from scaleseg.config import RefineConfig
from scaleseg.errors import choose
from scaleseg.refine.contract import Refine
from scaleseg.refine.densecrf import DenseCRF
from scaleseg.refine.domain_transform import DomainTransform

__all__ = ["REFINEMENTS", "create_refine", "learned_filter"]

REFINEMENTS = ("none", "crf", "domain", "domain-learned")
"""The fully connected CRF; the domain transform guided by the photograph, and by edges that the model learned."""


def create_refine(name: str, settings: RefineConfig | None = None) -> Refine | None:
    """A refinement by name; None for `none`. UserError for another name and for settings out of range."""
    given = settings or RefineConfig()
    if choose("--refine", name, REFINEMENTS) == "none":
        return None
    if name == "crf":
        return DenseCRF(
            given.bi_w, given.bi_xy_std, given.bi_rgb_std, given.pos_w, given.pos_xy_std,
            given.crf_iterations, given.crf_max_pixels,
        )  # fmt: skip
    if name == "domain":
        return DomainTransform(given.sigma_s, given.sigma_r, given.iterations, given.min_weight)
    return learned_filter(given)


def learned_filter(settings: RefineConfig) -> DomainTransform:
    """The domain transform behind a learned edge map, in training and after it."""
    return DomainTransform(
        settings.learned_sigma_s, settings.learned_sigma_r, settings.iterations, settings.min_weight, learned=True
    )

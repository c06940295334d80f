"""Sharper edges: what is done to one image's probabilities before the label is chosen (paper, section 4.2: CRF and DT rows).

`DenseCRF` is DeepLab's fully connected CRF, `DomainTransform` a recursive filter that stops at edges, the photograph's or
those of an `EdgeNet`. Both take probabilities and the photograph and return probabilities; `create_refine` makes them by name.
"""

from scaleseg.refine.choose import REFINEMENTS, create_refine, learned_filter
from scaleseg.refine.contract import Refine
from scaleseg.refine.densecrf import PUBLISHED, DenseCRF
from scaleseg.refine.domain_transform import DomainTransform, domain_transform
from scaleseg.refine.edge_net import EdgeNet

__all__ = [
    "PUBLISHED",
    "REFINEMENTS",
    "DenseCRF",
    "DomainTransform",
    "EdgeNet",
    "Refine",
    "create_refine",
    "domain_transform",
    "learned_filter",
]

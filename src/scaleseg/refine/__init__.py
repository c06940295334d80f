"""Sharper edges: what is done to one image's probabilities before the label is chosen (paper, section 4.2: CRF and DT rows).

`DenseCRF` is DeepLab's fully connected CRF, `DomainTransform` a recursive filter that stops at edges. Both take
probabilities and the photograph and return probabilities.
"""

from scaleseg.refine.contract import Refine
from scaleseg.refine.densecrf import PUBLISHED, DenseCRF
from scaleseg.refine.domain_transform import DomainTransform, domain_transform

__all__ = ["PUBLISHED", "DenseCRF", "DomainTransform", "Refine", "domain_transform"]

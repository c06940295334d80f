"""How far a probability can be believed: of the pixels that a model calls 80 % sure, are 80 % right?"""

import numpy as np
from jaxtyping import Bool, Float, Float64

from scaleseg.metrics.confusion import ratio

__all__ = ["BINS", "Reliability"]

BINS = 15
"""As in Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4."""


class Reliability:
    """Pixels sorted by their highest probability into equal bins; bin m holds what is above m / BINS, up to (m + 1) / BINS."""

    def __init__(self) -> None:
        self.pixels, self.sure, self.right = (np.zeros(BINS) for _ in range(3))

    def add(self, confidence: Float[np.ndarray, " pixels"], right: Bool[np.ndarray, " pixels"]) -> None:
        """Count some pixels: their highest probability, and whether its class is the true one."""
        exact = confidence.astype(np.float64)
        place = np.clip(np.ceil(exact * BINS).astype(np.int64) - 1, 0, BINS - 1)
        self.pixels += np.bincount(place, minlength=BINS)
        self.sure += np.bincount(place, exact, minlength=BINS)
        self.right += np.bincount(place, right, minlength=BINS)

    @property
    def shares(self) -> Float64[np.ndarray, " bins"]:
        """Of all pixels; they add up to 1, or are all 0 before anything was added."""
        return np.asarray(self.pixels / max(1.0, self.pixels.sum()))

    @property
    def confidence(self) -> Float64[np.ndarray, " bins"]:
        """Mean highest probability; 0 in an empty bin."""
        return np.asarray(ratio(self.sure[None], self.pixels[None])[0])

    @property
    def accuracy(self) -> Float64[np.ndarray, " bins"]:
        """Share of pixels that are right; 0 in an empty bin."""
        return np.asarray(ratio(self.right[None], self.pixels[None])[0])

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean over pixels of their bin's distance between confidence and accuracy."""
        return float((self.shares * abs(self.confidence - self.accuracy)).sum())

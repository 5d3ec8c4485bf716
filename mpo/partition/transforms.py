"""What may be done to the scores of a set before the partition reads them (MPO tab. 8)."""

from __future__ import annotations

import hashlib
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mpo.errors import ConfigError


@dataclass(frozen=True)
class ScoreTransform:
    """Scale, then z-score within the set, then Gaussian noise; each is off by default.

    Attributes:
        scale: positive factor.
        zscore: subtract the set's mean and divide by its standard deviation (divisor K); equal scores become 0.
        noise_sigma: standard deviation of the noise, in units of the scores as they are by then.
        noise_seed: with the set's id it fixes the noise, whatever the order of the sets.

    Raises:
        ConfigError: ``scale`` not positive, ``noise_sigma`` negative, or either not finite.
    """

    scale: float = 1.0
    zscore: bool = False
    noise_sigma: float = 0.0
    noise_seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(f"scale is {self.scale}", "data.score.scale", "give a positive factor")
        if not (math.isfinite(self.noise_sigma) and self.noise_sigma >= 0):
            raise ConfigError(f"noise_sigma is {self.noise_sigma}", "data.score.noise_sigma", "give 0 or more")

    def __call__(self, scores: Sequence[float], set_id: str) -> list[float]:
        """Transformed scores of the set with this id, in the order of ``scores``."""
        result = [self.scale * score for score in scores]
        if self.zscore:
            result = _zscores(result)
        if self.noise_sigma > 0:
            digest = hashlib.sha256(f"{self.noise_seed}|{set_id}".encode()).digest()
            generator = random.Random(digest)
            result = [score + generator.gauss(0.0, self.noise_sigma) for score in result]
        return result


def _zscores(scores: Sequence[float]) -> list[float]:
    if len(set(scores)) < 2:
        return [0.0] * len(scores)
    mean, deviation = statistics.fmean(scores), statistics.pstdev(scores)
    return [(score - mean) / deviation for score in scores]

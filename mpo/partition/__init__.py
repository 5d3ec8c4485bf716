"""Scores of a response set to bins: 0 best, larger is worse, -1 dropped. Pure Python, no torch.

>>> Mean()([1.0, 5.0, 9.0])
[1, 1, 0]
"""

from __future__ import annotations

from mpo.partition.base import Partition, Shape, Similarities
from mpo.partition.chosen import BestVsChosen, BestVsLowest, BestVsSpread
from mpo.partition.clusters import BestVsClusters
from mpo.partition.ordered import Everything, KBin, Ranks
from mpo.partition.signal import no_signal_reason
from mpo.partition.transforms import ScoreTransform
from mpo.partition.two_way import BestVsRandom, BestVsRest, BestVsWorst, Given, Mean, Median, TopBottom, TrimmedMean

PARTITIONS: dict[str, type[Partition]] = {
    "mean": Mean,
    "median": Median,
    "trimmed_mean": TrimmedMean,
    "top_bottom": TopBottom,
    "best_vs_rest": BestVsRest,
    "best_vs_worst": BestVsWorst,
    "best_vs_random": BestVsRandom,
    "best_vs_lowest": BestVsLowest,
    "best_vs_spread": BestVsSpread,
    "best_vs_clusters": BestVsClusters,
    "k_bin": KBin,
    "ranks": Ranks,
    "given": Given,
    "everything": Everything,
}
"""Partitions by the name that configs and golden files use."""

__all__ = [
    "PARTITIONS",
    "BestVsChosen",
    "BestVsClusters",
    "BestVsLowest",
    "BestVsRandom",
    "BestVsRest",
    "BestVsSpread",
    "BestVsWorst",
    "Everything",
    "Given",
    "KBin",
    "Mean",
    "Median",
    "Partition",
    "Ranks",
    "ScoreTransform",
    "Shape",
    "Similarities",
    "TopBottom",
    "TrimmedMean",
    "no_signal_reason",
]

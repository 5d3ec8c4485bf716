"""Which sets make up which step. Stateless: a step's batch follows from the seed and the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BatchPlan:
    """The order of an epoch is a permutation drawn from (seed, epoch), cut into global batches; the last one of an
    epoch may be smaller.

    Args:
        indices: the sets to train on, by their position in the tokenised sets.
        global_batch: sets per step.
        seed: of the permutations.
    """

    indices: Sequence[int]
    global_batch: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch."""
        return -(-len(self.indices) // self.global_batch)

    def epoch(self, step: int) -> int:
        """The epoch that ``step`` (from 0) belongs to."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> list[int]:
        """The sets of ``step``'s global batch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.indices))
        start = position * self.global_batch
        return [self.indices[i] for i in order[start : start + self.global_batch]]

"""One window of a training on any device, without DeepSpeed."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from mpo.config.training import TrainConfig
from mpo.layout.batch import TokenBatch
from mpo.logprobs.mismatched import mismatched_pairs
from mpo.logprobs.reference import Reference
from mpo.losses import Loss
from mpo.policy.module import PolicyModule, ResponseLogps
from mpo.train.metrics import Sums
from mpo.train.window import Problem, run_window
from tests.distributed.world import Marks, TokenSets

SETS = TokenSets(6, answers_alone=True)


class Alone:
    """What a window asks of :class:`mpo.train.engine.Engine`, of a process alone and without a step."""

    group, groups, leads = 0, 1, True

    def __init__(self, policy: PolicyModule) -> None:
        self.policy, self.device, self.config, self.backwards = policy, policy.device, TrainConfig(), 0

    def __call__(self, batch: TokenBatch, *prompt_and_first: Any) -> ResponseLogps:
        return self.policy(batch.to(self.device), *prompt_and_first)

    def accumulate(self, last: bool) -> None:
        pass

    def backward(self, loss: Tensor) -> None:
        loss.backward()
        self.backwards += 1

    def sum(self, values: Tensor) -> Tensor:
        return values


def reference() -> Reference:
    """Of -1 nat for every token."""
    lengths = [[len(ids) for ids in SETS[i].response_ids] for i in range(len(SETS))]
    starts = np.cumsum([0, *(length for of_set in lengths for length in of_set)])
    first = np.cumsum([0, *map(len, lengths)])
    prompts = [SETS[i].prompt_ids.tobytes() for i in range(len(SETS))]
    pairs = mismatched_pairs(prompts, [len(of_set) for of_set in lengths], 0)
    tokens = -np.ones(starts[-1], dtype=np.float32)
    return Reference(tokens, starts, first, np.zeros(len(SETS), dtype=np.float32), pairs)


def window(policy: PolicyModule, loss: Loss, micro_tokens: int = 1000) -> tuple[Alone, Sums]:
    """Forward and backward of all sets."""
    policy.head.wants_square_sums = loss.needs_wpo_weights
    engine, sums = Alone(policy), Sums()
    problem = Problem(loss, SETS, Marks(SETS, loss), reference(), 2, micro_tokens, policy.shares_prefix)
    run_window(engine, problem, range(len(SETS)), sums, compare=loss.needs_reference)  # type: ignore[arg-type]
    return engine, sums

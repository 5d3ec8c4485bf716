"""Numbers of held-out sets against their definitions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mpo.evaluate.heldout import longer_wins, token_losses
from mpo.policy.load import make_policy


@dataclass(frozen=True)
class Tokens:
    id: str
    prompt_ids: np.ndarray
    response_ids: list[np.ndarray]

    @property
    def truncated(self) -> list[bool]:
        return [False] * len(self.response_ids)

    @property
    def uncounted(self) -> list[int]:
        return [0] * len(self.response_ids)


class Sets(list[Tokens]):
    fingerprint = "sets"
    max_tokens = 10


def test_token_losses_are_those_a_token_of_each_set() -> None:
    torch.manual_seed(0)
    lm = LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).eval()
    draw = np.random.default_rng(0)
    sets = Sets(
        Tokens(str(i), draw.integers(0, 50, 3).astype(np.int32), [draw.integers(0, 50, 2 + i).astype(np.int32)])
        for i in range(5)
    )
    expected = []
    for one in sets:
        ids = torch.from_numpy(np.concatenate([one.prompt_ids, one.response_ids[0]]).astype(np.int64))
        with torch.no_grad():
            logps = lm(ids[None]).logits[0].log_softmax(-1)
        expected.append(-float(logps[2:-1].gather(-1, ids[3:, None]).mean()))
    done: list[int] = []
    found = token_losses(make_policy(lm), sets, 2, 10**6, done.append)
    assert [found[i] for i in range(5)] == pytest.approx(expected, rel=1e-5)
    assert done == [2, 4, 5]


def test_longer_wins_counts_pairs_of_different_scores() -> None:
    class Assigned:
        def scores(self, i: int) -> list[float]:
            return [[3.0, 2.0, 1.0], [1.0, 1.0]][i]

        def bins(self, i: int) -> list[int]:
            return [0, 1, 1][: len(self.scores(i))]

    assert longer_wins([[9, 5, 7], [1, 2]], Assigned(), [0, 1]) == pytest.approx(2 / 3)
    assert longer_wins([[5, 5, 5], [1, 2]], Assigned(), [0]) == 0.5

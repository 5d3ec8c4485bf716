"""Random batches of ragged response sets."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from mpo.losses import Loss, LossInputs
from mpo.partition import PARTITIONS

MakeBatch = Callable[..., LossInputs]


def _make_batch(
    loss: Loss,
    sizes: Sequence[int] = (2, 4, 5),
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    spread: float = 8.0,
    scores: Sequence[Sequence[float]] | None = None,
    tokens: int = 3,
) -> LossInputs:
    """Sets of the given sizes, binned by the loss's own partition, padded with nan; ``spread`` of log-ratios: nats."""
    draw = random.Random(seed)
    width = max(sizes)
    partition = PARTITIONS[loss.default_partition]()
    nan = float("nan")
    rows: dict[str, list[list[Any]]] = {
        name: [] for name in ("policy", "reference", "lengths", "scores", "bins", "alignment")
    }
    for index, size in enumerate(sizes):
        lengths = [draw.randint(tokens, 60) for _ in range(size)]
        policy = [-length * draw.uniform(0.05, 3.0) for length in lengths]
        own = list(scores[index]) if scores else [round(draw.uniform(1, 10), 2) for _ in range(size)]
        pad = width - size
        rows["policy"].append(policy + [nan] * pad)
        rows["reference"].append([value + draw.gauss(0, spread) for value in policy] + [nan] * pad)
        rows["alignment"].append([value * 0.1 for value in policy] + [nan] * pad)
        rows["lengths"].append(lengths + [0] * pad)
        rows["scores"].append(own + [nan] * pad)
        rows["bins"].append(partition(own, draw=seed) + [-1] * pad)
    mask_BK = torch.tensor([[column < size for column in range(width)] for size in sizes])
    generator = torch.Generator().manual_seed(seed)
    token_shape = (*mask_BK.shape, tokens)
    token_mask_BKT = mask_BK[..., None] & (torch.arange(tokens) < torch.randint(1, tokens + 1, (*mask_BK.shape, 1)))
    policy_BKT = -3 * torch.rand(token_shape, generator=generator, dtype=torch.float64)
    reference_BKT = policy_BKT + spread / 16 * torch.randn(token_shape, generator=generator, dtype=torch.float64)
    return LossInputs(
        policy_logps_BK=torch.tensor(rows["policy"], dtype=dtype).requires_grad_(),
        reference_logps_BK=torch.tensor(rows["reference"], dtype=dtype),
        lengths_BK=torch.tensor(rows["lengths"], dtype=torch.long),
        scores_BK=torch.tensor(rows["scores"], dtype=torch.float64),
        bins_BK=torch.tensor(rows["bins"], dtype=torch.long),
        mask_BK=mask_BK,
        mismatched_log_ratio=torch.tensor(0.7, dtype=dtype),
        policy_token_logps_BKT=policy_BKT.to(dtype).masked_fill(~token_mask_BKT, nan).requires_grad_(),
        reference_token_logps_BKT=reference_BKT.to(dtype).masked_fill(~token_mask_BKT, nan),
        token_mask_BKT=token_mask_BKT,
        wpo_log_weights_BK=torch.tensor(rows["alignment"], dtype=dtype),
    )


@pytest.fixture
def make_batch() -> MakeBatch:
    """``make_batch(loss, sizes, seed, dtype, spread, scores, tokens)``."""
    return _make_batch

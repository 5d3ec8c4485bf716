"""Numbers of a step, as means over the global batch, and the file that they go to."""

from __future__ import annotations

import json
import math
import os
import resource
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mpo.failures.user_code import author, user_code
from mpo.losses import Loss, LossInputs, LossOutput
from mpo.losses.inputs import set_mean
from mpo.losses.metrics import k3
from mpo.train.engine import Engine

AS_IN_TRL = {
    "reward_accepted": "rewards/chosen",
    "reward_rejected": "rewards/rejected",
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
}
"""Names under which dashboards made for TRL look for the same numbers."""
RANKS = 16
"""Ranks by score that are reported one by one; worse ones are not."""


class Sums:
    """Sums and counts by name, added up over micro-batches, then over processes."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}
        self._by_rank: dict[str, Tensor] = {}

    def add(self, name: str, total: Tensor | float, count: Tensor | float = 1.0) -> None:
        """Add ``total`` over ``count`` things. Every process adds the same names, if only 0 over 0."""
        pair = torch.as_tensor(total, dtype=torch.float64), torch.as_tensor(count, dtype=torch.float64)
        before = self._sums.get(name)
        self._sums[name] = pair if before is None else (before[0] + pair[0], before[1] + pair[1])

    def add_sets(self, name: str, values_B: Tensor, keep_B: Tensor) -> None:
        """Add the kept sets' values; nan stands for a set without this number."""
        there_B = keep_B & ~values_B.isnan()
        self.add(name, torch.where(there_B, values_B, torch.zeros_like(values_B)).double().sum(), there_B.sum())

    def add_ranks(self, name: str, values_BK: Tensor, keep_B: Tensor) -> None:
        """Add the kept sets' values by rank, ``name/rank_0`` and so on; nan stands for a set without this rank.

        There are the same names in every process, whatever the K of its sets.
        """
        ranked_BK = values_BK[:, :RANKS].double()
        there_BK = keep_B[:, None] & ~ranked_BK.isnan()
        totals_K = torch.where(there_BK, ranked_BK, torch.zeros_like(ranked_BK)).sum(0)
        pairs_K2 = torch.stack([totals_K, there_BK.sum(0).double()], dim=-1)
        pairs_K2 = functional.pad(pairs_K2, (0, 0, 0, RANKS - len(pairs_K2)))
        before = self._by_rank.get(name)
        self._by_rank[name] = pairs_K2 if before is None else before + pairs_K2

    def clear(self) -> None:
        """Take everything back but the names, which all processes have."""
        self._sums = {name: (torch.zeros_like(one), torch.zeros_like(two)) for name, (one, two) in self._sums.items()}
        self._by_rank = {name: torch.zeros_like(pairs) for name, pairs in self._by_rank.items()}

    def reduce(self, engine: Engine) -> dict[str, tuple[float, float]]:
        """Sum and count of each name over all processes: the step's one wait for the device."""
        names, ranked = sorted(self._sums), sorted(self._by_rank)
        rows = [torch.stack([part.to(engine.device) for part in self._sums[name]]) for name in names]
        table = torch.cat([torch.stack(rows), *(self._by_rank[name] for name in ranked)])
        names += [f"{name}/rank_{rank}" for name in ranked for rank in range(RANKS)]
        return {name: (row[0], row[1]) for name, row in zip(names, engine.sum(table).tolist(), strict=True)}


def add_metrics(sums: Sums, loss: Loss, inputs: LossInputs, output: LossOutput) -> None:
    """Add what a micro-batch says of the policy: the loss's own numbers, by rank, divergence, lengths."""
    keep_B = output.keep_B
    for name, values_B in output.metrics.items():
        sums.add_sets(name, values_B, keep_B)
    with user_code(*author(loss.parts()), "loss"):
        by_rank = loss.rank_metrics(inputs)
    for name, values_BK in by_rank.items():
        sums.add_ranks(name.removesuffix("_rank_BK"), values_BK, keep_B)
    logps_BK = inputs.policy_logps_BK.detach()
    for name, side_BK in (("logps/chosen", inputs.bins_BK == 0), ("logps/rejected", inputs.bins_BK > 0)):
        mean_B = set_mean(logps_BK, side_BK)
        sums.add_sets(name, torch.where(side_BK.any(-1), mean_B, torch.full_like(mean_B, torch.nan)), keep_B)
    real_BK = inputs.mask_BK
    zeros_BK = torch.zeros_like(inputs.lengths_BK)
    sums.add("response_length", torch.where(real_BK, inputs.lengths_BK, zeros_BK).sum(), real_BK.sum())
    policy, reference, mask = inputs.policy_token_logps_BKT, inputs.reference_token_logps_BKT, inputs.token_mask_BKT
    if policy is not None and reference is not None and mask is not None:
        tokens_BKT = mask & real_BK.unsqueeze(-1)
        delta_BKT = torch.where(tokens_BKT, reference - policy.detach(), torch.zeros_like(reference)).double()
        sums.add("kl", k3(delta_BKT).sum(), tokens_BKT.sum())
        sums.add("abs_log_ratio", delta_BKT.abs().sum(), tokens_BKT.sum())


def peak_memory(device: torch.device) -> int:
    """Most bytes that this process has held: on the card, or resident where there is none."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_reserved(device: torch.device) -> int | None:
    """Most bytes that PyTorch's allocator has taken of the card: what it is above :func:`peak_memory` is lost to
    fragmentation. None where there is no card."""
    return int(torch.cuda.max_memory_reserved(device)) if device.type == "cuda" else None


class MetricsLog:
    """``metrics.jsonl``: one line per step, each step once. Only the first process writes.

    Args:
        path: the file.
        position: bytes to keep; what a stopped run wrote after its last checkpoint goes.
    """

    def __init__(self, path: Path, position: int) -> None:
        self._file = path.open("ab")
        self._file.truncate(position)

    def write(self, row: dict[str, Any]) -> None:
        """Append one step; numbers that aren't finite become null."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        self._file.write(json.dumps(finite).encode() + b"\n")
        self._file.flush()

    @property
    def position(self) -> int:
        """Bytes written, all of them on the disk."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        self._file.close()

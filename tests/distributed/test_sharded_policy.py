"""A frozen policy in shards gives what a whole one gives, to the last bit, whatever its processes have to forward."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed as dist

from mpo.evaluate.heldout import rank_heldout, token_losses
from mpo.logprobs.reference import Reference, compute_reference
from mpo.losses import MPO
from mpo.train.sharding import ShardedPolicy
from mpo.train.zero import init_process_group, sequence_shares
from tests.distributed.world import Marks, TokenSets, run_processes, tiny_policy

SETS = TokenSets(7)
"""One process of two has four of them."""
SMALL, LARGE = 18, 10**6
"""Token budgets: of the one most sets are forwarded in pieces."""


def measured(outs: dict[str, Path], environment: dict[str, str]) -> None:
    """The reference's log-probs and the rankings, under the two layouts and budgets."""
    os.environ |= environment
    torch.set_num_threads(1)
    init_process_group()
    rank, size = dist.get_rank(), dist.get_world_size()
    for name, out in outs.items():
        dtype = torch.bfloat16 if "bfloat16" in name else torch.float32
        whole = tiny_policy(dtype=dtype, rows="rows" in name)
        if "together" in name:
            whole.sequence = sequence_shares(size)
        policy = ShardedPolicy(whole) if name.startswith("shards") else whole
        for budget in (SMALL, LARGE):
            folder = out / str(budget)
            if rank == 0:
                folder.mkdir(parents=True)
            dist.barrier()
            compute_reference(policy, SETS, folder, 2, budget, rank, size, mismatched_seed=1)
            reference = Reference.load(folder, SETS)
            arguments = (MPO(), SETS, Marks(SETS, MPO()), range(len(SETS)), reference, 2, budget, lambda done: None)
            ranking = rank_heldout(policy, *arguments)  # type: ignore[arg-type]
            losses = token_losses(policy, SETS, 2, budget, lambda done: None)
            found = [ranking.accuracy.value, ranking.margin_by_set, ranking.kl_by_set, losses]
            (folder / f"found-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.parametrize("layout", ["", " rows", " bfloat16"])
def test_shards_give_what_a_whole_policy_gives(layout: str, tmp_path: Path) -> None:
    outs = {f"{kind}{layout}": tmp_path / kind for kind in ("whole", "shards")}
    assert run_processes(measured, outs, 2) == [0, 0]
    assert run_processes(measured, {f"whole{layout}": tmp_path / "alone"}, 1) == [0]
    for budget in (SMALL, LARGE):
        alone, whole, shards = (tmp_path / kind / str(budget) for kind in ("alone", "whole", "shards"))
        for name in ("logps.npy", "mismatched.npy"):
            assert np.array_equal(np.load(whole / name), np.load(shards / name))
        texts = [(folder / f"found-{rank}.json").read_text() for folder in (whole, shards) for rank in (0, 1)]
        assert len(set(texts)) == 1
        one, two = json.loads((alone / "found-0.json").read_text()), json.loads(texts[0])
        assert one[0] == two[0]
        if not layout:  # sets have other company in two processes, which moves roundings
            for a, b in zip(one[1:], two[1:], strict=True):
                assert a == pytest.approx(b, rel=1e-4, abs=1e-5)


def test_processes_that_forward_together_give_what_one_gives(tmp_path: Path) -> None:
    """Each of them does all sets; the first one writes."""
    outs = {f"{kind} together": tmp_path / kind for kind in ("whole", "shards")}
    assert run_processes(measured, outs, 2) == [0, 0]
    assert run_processes(measured, {"whole": tmp_path / "alone"}, 1) == [0]
    for kind in outs.values():
        for budget in (SMALL, LARGE):
            alone, together = tmp_path / "alone" / str(budget), kind / str(budget)
            for name in ("logps.npy", "mismatched.npy"):
                np.testing.assert_allclose(np.load(together / name), np.load(alone / name), rtol=1e-5, atol=1e-5)
            one, two, three = (
                json.loads(file.read_text()) for file in [alone / "found-0.json", *together.glob("found-*")]
            )
            assert two == three
            for a, b in zip(one[1:], two[1:], strict=True):
                assert a == pytest.approx(b, rel=1e-4, abs=1e-5)

"""Order of the sets, shares, optimizer groups, schedule, metrics file, fingerprints."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpo.config.training import Offload, Precision, Schedule, TrainConfig
from mpo.layout.packing import SetSize, micro_batches, shares
from mpo.losses import DPO, MPO
from mpo.train.batches import BatchPlan
from mpo.train.fingerprint import fingerprint
from mpo.train.metrics import MetricsLog
from mpo.train.optimizer import build_optimizer, build_scheduler
from mpo.train.zero import deepspeed_config
from tests.distributed.world import TokenSets, tiny_policy


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 99))
def test_every_epoch_holds_every_set_once(count: int, global_batch: int, seed: int) -> None:
    plan = BatchPlan(range(100, 100 + count), global_batch, seed)
    for epoch in range(2):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        batches = [plan.batch(step) for step in steps]
        assert {plan.epoch(step) for step in steps} == {epoch}
        assert sorted(i for batch in batches for i in batch) == list(plan.indices)
        assert [len(batch) for batch in batches[:-1]] == [global_batch] * (len(batches) - 1)


def test_order_follows_seed_and_epoch_alone() -> None:
    plan = BatchPlan(range(50), 50, 3)
    assert plan.batch(1) == BatchPlan(range(50), 50, 3).batch(1)
    assert plan.batch(0) != plan.batch(1)
    assert plan.batch(0) != BatchPlan(range(50), 50, 4).batch(0)


SIZES = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 20), min_size=0, max_size=6)), min_size=1, max_size=20
)


def test_separate_rows_have_the_prompt_each_and_padding() -> None:
    one = TokenSets(1)[0]
    prompt, lengths = len(one.prompt_ids), [len(ids) for ids in one.response_ids]
    assert SetSize.of(one, True).tokens == prompt + sum(lengths)
    assert SetSize.of(one, False).tokens == len(lengths) * (prompt + max(lengths))
    assert SetSize.of(one, False, [0]).tokens == prompt + lengths[0]


def test_rows_of_a_micro_batch_are_all_as_long_as_its_longest() -> None:
    one_long = SetSize(0, {0: 71}, 71)
    many_short = SetSize(0, dict.fromkeys(range(10), 8), 8)
    whole, cut = micro_batches([0, 1, 2], {0: many_short, 1: one_long, 2: many_short}, 4, 170)
    assert whole == [[1], [0, 2]] and not cut  # together 781 tokens would be computed


def test_a_prompt_above_the_budget_without_responses_has_no_pieces() -> None:
    assert micro_batches([0, 1], {0: SetSize(50, {}), 1: SetSize(50, {3: 7})}, 4, 20) == ([], [[(1, [3])]])


@given(SIZES, st.integers(1, 5), st.integers(1, 60), st.integers(1, 4))
def test_shares_hold_every_response_once_within_the_budget(
    drawn: list[tuple[int, list[int]]], micro: int, budget: int, world_size: int
) -> None:
    sizes = {i: SetSize(prompt, dict(enumerate(responses))) for i, (prompt, responses) in enumerate(drawn)}
    of_ranks = shares(list(sizes), sizes, micro, budget, world_size)
    assert len({(len(share.whole), *map(len, share.cut)) for share in of_ranks}) == 1
    seen: Counter[tuple[int, int]] = Counter()
    for share in of_ranks:
        for part in share.whole:
            assert len(part) <= micro and sum(sizes[i].tokens for i in part) <= budget
            seen.update((i, k) for i in part for k in sizes[i].responses)
        for pieces in share.cut:
            assert pieces and len({piece[0] for piece in pieces if piece}) <= 1
            for number, (i, responses) in enumerate(filter(None, pieces)):
                assert sizes[i].tokens > budget
                prompt = 0 if number else sizes[i].prompt  # the first piece has it
                tokens = prompt + sum(sizes[i].responses[k] for k in responses)
                assert tokens <= budget or len(responses) == 1
                seen.update((i, k) for k in responses)
    assert seen == Counter({(i, k): 1 for i, size in sizes.items() for k in size.responses})
    load = [
        sum(sizes[i].tokens for part in share.whole for i in part)
        + sum(sizes[i].tokens for i in {piece[0] for pieces in share.cut for piece in pieces if piece})
        for share in of_ranks
    ]
    assert max(load) - min(load) <= max(size.tokens for size in sizes.values())


def test_vectors_do_not_decay() -> None:
    policy = tiny_policy()
    optimizer = build_optimizer(policy, TrainConfig(weight_decay=0.1))
    decayed = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(policy.lm.named_parameters())
    assert decayed[id(named["model.norm.weight"])] == 0.0
    assert decayed[id(named["model.layers.0.mlp.up_proj.weight"])] == 0.1
    assert len(decayed) == len(named)


def test_schedule_warms_up_then_falls() -> None:
    config = TrainConfig(lr=1.0, warmup_ratio=0.2, schedule=Schedule.linear)
    optimizer = build_optimizer(tiny_policy(), config)
    scheduler = build_scheduler(optimizer, config, 10)
    rates = []
    for _ in range(10):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_metrics_of_steps_after_the_checkpoint_go(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    log.write({"step": 1, "loss": 0.5})
    position = log.position
    log.write({"step": 2, "loss": float("nan")})
    assert [json.loads(line) for line in path.read_text().splitlines()][1] == {"step": 2, "loss": None}
    log.close()
    with path.open("ab") as torn:
        torn.write(b'{"step": 3, "lo')
    log = MetricsLog(path, position)
    log.write({"step": 2, "loss": 0.25})
    log.close()
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [0.5, 0.25]


def test_fingerprint_sees_what_changes_a_run() -> None:
    config = TrainConfig()
    base = fingerprint(config, MPO(), "data", [0, 1], 0)
    assert base == fingerprint(TrainConfig(), MPO(), "data", [0, 1], 0)
    free = {"checkpoint_every": 7, "keep_checkpoints": 3, "profile": True}
    assert base == fingerprint(replace(config, **free), MPO(), "data", [0, 1], 0)
    others = [
        fingerprint(replace(config, lr=1e-3), MPO(), "data", [0, 1], 0),
        fingerprint(config, MPO(beta=0.5), "data", [0, 1], 0),
        fingerprint(config, DPO(), "data", [0, 1], 0),
        fingerprint(config, MPO(), "other", [0, 1], 0),
        fingerprint(config, MPO(), "data", [0, 2], 0),
        fingerprint(config, MPO(), "data", [0, 1], 1),
    ]
    assert len({base, *others}) == 7


def test_deepspeed_is_told_what_the_config_says() -> None:
    config = TrainConfig(zero_stage=3, precision=Precision.bf16, offload=Offload.parameters, clip=0.5)
    explained = deepspeed_config(config, 3, 10**9, 4096)
    assert explained["zero_optimization"]["stage"] == 3
    assert explained["zero_optimization"]["offload_param"]["device"] == "cpu"
    assert explained["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert explained["bf16"] == {"enabled": True, "immediate_grad_update": False}
    assert explained["data_types"] == {"grad_accum_dtype": "fp32"}
    assert explained["gradient_clipping"] == 0.5


def test_random_numbers_are_free_of_training() -> None:
    before = torch.get_rng_state()
    BatchPlan(range(10), 3, 0).batch(2)
    assert torch.equal(before, torch.get_rng_state())

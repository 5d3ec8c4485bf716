"""The CUDA path against the CPU's: attention, gradients, training, and a whole run on the card."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mpo.layout.batch import collate
from mpo.losses import LOSSES
from mpo.policy import attention
from mpo.policy.device_trial import prepare_for
from mpo.policy.head import ChunkedHead
from mpo.policy.layers import compiles_fused
from mpo.policy.load import make_policy
from mpo.policy.module import PolicyModule
from mpo.policy.shared_prefix import share_prefix
from mpo.track.trace_parts import (
    ATTENTION_BACKWARD,
    ATTENTION_FORWARD,
    HEAD_BACKWARD,
    HEAD_FORWARD,
    OPTIMIZER,
    PRODUCTS,
    WAITING,
)
from tests.distributed.world import curve, spawn, tiny_policy
from tests.end_to_end.conftest import CommandLine
from tests.end_to_end.runs import ROOT
from tests.families import FAMILIES, PIECES, in_pieces, large_set, logps_and_gradients, model
from tests.windows import Alone, window

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")]

BACK_ENDS: dict[str, attention.Backend] = {"flex": attention.FlexAttend, "dense": attention.DenseAttend}
HEADS_OF_SIXTEEN = {"head_dim": 16}
"""FlexAttention's kernels take heads of 16 numbers or more; narrower ones, as gpt_neox's here, are filled up."""


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [0, 1, 2])
def test_a_family_gives_the_log_probs_and_gradients_of_rows_on_a_cpu(
    family: str, back_end: str, checkpointing: int
) -> None:
    """float32 on both devices."""
    width = {} if family == "gpt_neox" else HEADS_OF_SIXTEEN  # whose config has none
    expected_BKT, expected = logps_and_gradients(PolicyModule(model(family, **width)))
    lm = model(family, **width)
    lm.set_attn_implementation(attention.NAME)
    policy = make_policy(lm.train(), checkpointing)
    policy = PolicyModule(policy.lm, BACK_ENDS[back_end]).cuda().train()
    logps_BKT, gradients = logps_and_gradients(policy)
    torch.testing.assert_close(logps_BKT, expected_BKT, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=5e-5, msg=name)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3_text"])
def test_a_set_in_pieces_gives_the_log_probs_and_gradients_of_rows_on_a_cpu(family: str) -> None:
    """FlexAttention with more keys than queries, backwards too, which no CPU can run."""
    expected_1KT, expected = logps_and_gradients(
        PolicyModule(model(family, **HEADS_OF_SIXTEEN)), collate([large_set()])
    )
    lm = model(family, **HEADS_OF_SIXTEEN)
    lm.set_attn_implementation(attention.NAME)
    logps_1KT, gradients = in_pieces(PolicyModule(lm, attention.FlexAttend).cuda(), large_set(), PIECES)
    torch.testing.assert_close(logps_1KT, expected_1KT, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=5e-5, msg=name)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_bfloat16_stays_near_float32(family: str) -> None:
    expected_BKT, _ = logps_and_gradients(PolicyModule(model(family, **HEADS_OF_SIXTEEN)))
    lm = model(family, **HEADS_OF_SIXTEEN).bfloat16()
    lm.set_attn_implementation(attention.NAME)
    logps_BKT, gradients = logps_and_gradients(PolicyModule(lm).cuda())
    assert logps_BKT.dtype == torch.float32
    torch.testing.assert_close(logps_BKT, expected_BKT, rtol=0.02, atol=0.05)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("softcap", [None, 30.0])
@pytest.mark.parametrize("bias", [False, True])
def test_the_heads_logits_are_not_rounded_to_bfloat16(softcap: float | None, bias: bool) -> None:
    """At a vocabulary of 128,256 rounded ones would be off by 0.03 nats."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(512, 128_256, bias=bias)
    torch.nn.init.normal_(linear.weight)
    hidden_ND = torch.randn(256, 512) * 6 / 512**0.5
    linear, hidden_ND = linear.bfloat16().cuda(), hidden_ND.bfloat16().cuda().requires_grad_()
    targets_N = torch.randint(128_256, (256,)).cuda()
    logps_N = ChunkedHead(linear, 1.0, softcap)(hidden_ND, targets_N).logps_N
    exact = [value.detach().double().requires_grad_() for value in (hidden_ND, *linear.parameters())]
    logits_NV = torch.nn.functional.linear(*exact)
    logits_NV = logits_NV if softcap is None else softcap * torch.tanh(logits_NV / softcap)
    expected_N = logits_NV.log_softmax(-1).gather(-1, targets_N[:, None])[:, 0]
    torch.testing.assert_close(logps_N.double(), expected_N, rtol=0.0, atol=1e-3)
    found = torch.autograd.grad(logps_N.sum(), [hidden_ND, *linear.parameters()])
    for one, other in zip(found, torch.autograd.grad(expected_N.sum(), exact), strict=True):
        assert float((one.double() - other).norm() / other.norm()) < 1e-2


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3_text", "gpt_oss"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_trial_finds_nothing_wrong(family: str, dtype: torch.dtype) -> None:
    lm = model(family, **HEADS_OF_SIXTEEN).to(dtype)
    calls = share_prefix(lm)
    policy = make_policy(lm)
    policy.attention_calls = calls
    lines: list[str] = []
    prepare_for(policy, torch.device("cuda"), None, lines.append)
    assert calls and lines == [] and policy.shares_prefix
    assert compiles_fused(policy) or family != "llama"


@pytest.mark.parametrize("loss", ["mpo", "kto", "wpo"])
@pytest.mark.parametrize("micro_tokens", [1000, 15])
def test_a_window_waits_for_the_card_once(loss: str, micro_tokens: int) -> None:
    policy = tiny_policy().cuda().train()
    window(policy, LOSSES[loss](), micro_tokens)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        _, sums = window(policy, LOSSES[loss](), micro_tokens)
        with pytest.raises(RuntimeError, match="synchroniz"):
            sums.reduce(Alone(policy))  # type: ignore[arg-type]
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_one_loss_curve_over_zero_stages_and_pieces(tmp_path: Path) -> None:
    def job(name: str, **config: object) -> dict[str, object]:
        settings = {"global_batch": 5, "lr": 3e-3, "warmup_ratio": 0.0, "epochs": 2, "max_steps": 8} | config
        return {"out": str(tmp_path / name), "loss_fields": {"beta": 0.1}, "config": settings}

    jobs = [job(f"zero{stage}", zero_stage=stage, micro_batch=4) for stage in (0, 2, 3)]
    jobs += [job("pieces", zero_stage=0, micro_batch=4, micro_tokens=18), job("one", zero_stage=0, micro_batch=1)]
    assert spawn(jobs) == [0]
    expected = torch.tensor(curve(tmp_path / "zero0"), dtype=torch.float64)
    for one in jobs[1:]:
        found = torch.tensor(curve(Path(str(one["out"]))), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA cards")
def test_one_loss_curve_on_two_cards(tmp_path: Path) -> None:
    """Rows for themselves and rows that both forward together, whole and in pieces."""

    def job(name: str, **config: object) -> dict[str, object]:
        settings = {"global_batch": 5, "lr": 3e-3, "warmup_ratio": 0.0, "epochs": 2, "max_steps": 8, "micro_batch": 4}
        return {"out": str(tmp_path / name), "loss_fields": {"beta": 0.1}, "config": settings | config}

    assert spawn([job("one", zero_stage=0)]) == [0]
    jobs = [job(f"zero{stage}", zero_stage=stage) for stage in (0, 2, 3)]
    jobs += [job(f"together{stage}", zero_stage=stage, sequence_parallel=2) for stage in (0, 2, 3)]
    jobs += [job("pieces", zero_stage=3, sequence_parallel=2, micro_tokens=9, activation_checkpointing=True)]
    assert spawn(jobs, 2) == [0, 0]
    expected = torch.tensor(curve(tmp_path / "one"), dtype=torch.float64)
    for one in jobs:
        found = torch.tensor(curve(Path(str(one["out"]))), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)


def test_a_whole_run_in_bfloat16(mpo: CommandLine) -> None:
    outcome = mpo.testbed("train.precision=bf16", "train.zero_stage=2", "train.profile=true")
    assert outcome.code == 0
    assert [row["step"] for row in outcome.metrics] == [1, 2, 3, 4]
    assert torch.cuda.get_device_name() in outcome.result["hardware"]
    assert all(row["memory_reserved_bytes"] >= row["memory_bytes"] > 0 for row in outcome.metrics)
    profile = outcome.result["profiles"]["train"]
    assert profile["device"] == "cuda" and sum(profile["shares"].values()) == pytest.approx(1)
    parts = {ATTENTION_FORWARD, ATTENTION_BACKWARD, HEAD_FORWARD, HEAD_BACKWARD, PRODUCTS, OPTIMIZER, WAITING["cuda"]}
    assert parts <= profile["shares"].keys()


def test_the_benchmarks_for_a_card_run_on_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.bench_gpu", "--small", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=550)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "bench.json").read_text())
    assert record["device"]["name"] == torch.cuda.get_device_name() and record["device"]["driver"]
    useful = next(part["result"]["rows"][0] for part in record["parts"] if part["name"] == "mfu_1b")
    assert useful["reserved_bytes"] >= useful["peak_bytes"] > 0 and 0 < useful["share"] < 1

"""What the device cannot do is found before anything is computed, and done another way with a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mpo.errors import ConfigError
from mpo.layout.batch import TokenBatch
from mpo.policy import attention, layers
from mpo.policy.attention import AttentionCall, DenseAttend, FlexAttend
from mpo.policy.compiled import compiled
from mpo.policy.device_trial import attention_fault, prepare_for
from mpo.policy.layers import compiles_fused
from mpo.policy.load import load_policy
from mpo.policy.module import PolicyModule
from tests.families import plain_logps, ragged_batch, saved

CPU = torch.device("cpu")


class Wrong(DenseAttend):
    """Right in the first block of tokens alone."""

    def __call__(self, *arguments: Any) -> Tensor:
        out_NHD = super().__call__(*arguments)
        return torch.cat([out_NHD[:128], out_NHD[128:] * 1.05])


class WrongBackwards(DenseAttend):
    """Right values, a gradient too small."""

    def __call__(self, query_NHD: Tensor, *arguments: Any) -> Tensor:
        return super().__call__(0.9 * query_NHD + 0.1 * query_NHD.detach(), *arguments)


def failing(batch: TokenBatch) -> DenseAttend:
    raise RuntimeError("No valid triton configs. OutOfMemoryError: out of resource: shared memory\nmore")


def policy_of(family: str, folder: Path) -> PolicyModule:
    saved(family, folder)
    return load_policy(str(folder)).train()


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3_text", "gpt_oss"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_back_end_that_agrees_is_kept(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    policy = policy_of(family, tmp_path).to(dtype)
    lines: list[str] = []
    prepare_for(policy, CPU, None, lines.append)
    assert lines == [] and policy.shares_prefix and not compiles_fused(policy)


def test_what_layers_ask_for_is_noted(tmp_path: Path) -> None:
    calls = policy_of("gemma2", tmp_path).attention_calls
    assert calls == {AttentionCall(4, 2, 8, 8, 256**-0.5, window, 0.5, False) for window in (4, None)}


@pytest.mark.parametrize(
    ("back_end", "reason"),
    [
        (Wrong, "is not what the dense mask gives"),
        (WrongBackwards, "is not what the dense mask gives"),
        (failing, "failed: No valid triton configs. OutOfMemoryError: out of resource: shared memory"),
        (FlexAttend, "failed: "),  # which has no backward on a CPU
    ],
)
def test_one_that_does_not_is_replaced_by_rows(
    back_end: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = saved("llama", tmp_path)
    policy = load_policy(str(tmp_path))
    monkeypatch.setitem(attention.DEFAULT, "cpu", back_end)
    lines: list[str] = []
    prepare_for(policy, CPU, None, lines.append)
    assert len(lines) == 1 and reason in lines[0] and "4 heads of 8 on 2" in lines[0]
    assert not policy.shares_prefix
    with torch.no_grad():
        found_BKT = policy(ragged_batch()).token_logps_BKT
    torch.testing.assert_close(found_BKT, plain_logps(lm, ragged_batch()), rtol=1e-5, atol=2e-5)


def test_random_numbers_stay() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    call = AttentionCall(4, 2, 8, 8, 0.3, None, None, True)
    assert attention_fault(DenseAttend, [call], CPU, torch.float32) is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("fault", ["fails", "differs"])
def test_a_compiler_that_does_not_work_is_not_used(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled_wrongly(function: Any) -> Any:
        if fault == "fails":
            raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")
        return lambda *arguments: torch.utils._pytree.tree_map(lambda each: each + 1, function(*arguments))

    policy = policy_of("llama", tmp_path)
    monkeypatch.setattr(layers, "compiled", compiled_wrongly)
    lines: list[str] = []
    prepare_for(policy, CPU, True, lines.append)
    reason = "torch.compile failed: Failed to find C compiler." if fault == "fails" else "normed differs when compiled"
    assert lines == [f"norms and gates are not compiled: {reason}"]
    monkeypatch.setattr(layers, "compiled", compiled)
    assert not compiles_fused(policy) and policy.shares_prefix


def test_rows_that_processes_cannot_share_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of("llama", tmp_path)
    prepare_for(policy, CPU, sequence_parallel=4)  # 4 heads on 2, which two processes each have
    with pytest.raises(ConfigError, match="3 processes cannot share 4 heads of attention") as caught:
        prepare_for(policy, CPU, sequence_parallel=3)
    assert caught.value.where == "train.sequence_parallel" and "divisor of 4" in str(caught.value)
    monkeypatch.setitem(attention.DEFAULT, "cpu", failing)
    with pytest.raises(ConfigError, match="2 heads of 8 on 1 failed"):  # what each of the two would compute
        prepare_for(policy, CPU, sequence_parallel=2)
    assert policy.shares_prefix


def test_rows_of_single_responses_are_not_shared(tmp_path: Path) -> None:
    policy = policy_of("granitemoehybrid", tmp_path)
    with pytest.raises(ConfigError, match="rows of their own"):
        prepare_for(policy, CPU, sequence_parallel=2)

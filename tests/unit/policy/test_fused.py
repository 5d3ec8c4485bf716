"""A library's head is taken where it says what ours does, and only there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mpo.policy.fused import agrees, fused_head
from mpo.policy.head import target_logps


def whole_logits(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, softcap: float | None
) -> Tensor:
    logits_NV = F.linear(hidden_ND, weight_VD, bias_V).float()
    logits_NV = logits_NV if softcap is None else torch.tanh(logits_NV / softcap) * softcap
    return logits_NV.log_softmax(-1).gather(-1, targets_N[:, None])[:, 0]


def unweighted(hidden_ND: Tensor, weight_VD: Tensor, *others: object) -> Tensor:
    """The right values, but one weight for the gradients of all tokens: what a mean over tokens would need."""
    logps_N = whole_logits(hidden_ND, weight_VD, *others)  # type: ignore[arg-type]
    return logps_N.detach() + logps_N.mean() - logps_N.mean().detach()


def failing(*_: object) -> Tensor:
    raise TypeError("another version's arguments")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("bias", [False, True])
def test_a_kernel_has_to_agree_in_values_and_gradients(dtype: torch.dtype, softcap: float | None, bias: bool) -> None:
    where = ("cpu", dtype, softcap, bias)
    assert agrees(whole_logits, target_logps, *where)
    assert not agrees(unweighted, target_logps, *where)
    with pytest.warns(UserWarning, match="the kernel failed: TypeError"):
        assert not agrees(failing, target_logps, *where)


def test_the_cpu_keeps_our_own_and_random_numbers_stay() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert fused_head(target_logps, "cpu", torch.float32, None, False) is target_logps
    assert agrees(target_logps, target_logps, "cpu", torch.float32, None, False)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bias", [False, True])
def test_ligers_kernel_agrees_in_tritons_interpreter(bias: bool) -> None:
    """Without a soft cap, which the interpreter does not know; tests/gpu has it."""
    pytest.importorskip("liger_kernel")
    pytest.importorskip("triton")
    program = (
        "import torch; from mpo.policy.fused import agrees, liger; from mpo.policy.head import target_logps; "
        f"print(agrees(liger, target_logps, 'cpu', torch.float32, None, {bias}))"
    )
    interpreted = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=interpreted, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr

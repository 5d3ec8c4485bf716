"""A bfloat16 model that computes in float32 for a while."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import PreTrainedModel

from mpo.policy.full_precision import in_float32
from tests.families import model


def logits(lm: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return lm(input_ids=torch.arange(12).reshape(1, 12) * 7 % 99, use_cache=False).logits


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "gpt_neox"])
def test_logits_are_those_of_the_widened_model(family: str) -> None:
    lm = model(family).bfloat16()
    expected, before = logits(copy.deepcopy(lm).float()), logits(lm)
    weights = {name: (value, value.data_ptr(), value.clone()) for name, value in lm.state_dict(keep_vars=True).items()}
    with in_float32(lm):
        found = logits(lm)
    assert found.dtype == torch.float32 and before.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for name, (tensor, at, value) in weights.items():
        assert tensor.data_ptr() == at and torch.equal(tensor, value), name
    assert torch.equal(logits(lm), before)


def test_after_a_failure_the_weights_are_the_old_ones() -> None:
    lm = model("llama").bfloat16()
    lm.model.layers[1].mlp.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), in_float32(lm):
        logits(lm)
    assert all(value.dtype == torch.bfloat16 for value in lm.state_dict().values())

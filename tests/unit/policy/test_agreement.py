"""What differs from the untouched model is refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from mpo.errors import ConfigError
from mpo.policy.agreement import check_causal, check_policy, fitting_extras, plain_logps
from mpo.policy.head import LogitExtras
from mpo.policy.module import PolicyModule
from mpo.policy.probe import probe
from tests.families import SMALL, model

LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}


@pytest.mark.parametrize(
    ("family", "more", "expected"),
    [
        ("llama", {}, LogitExtras(1.0, None)),
        ("granite", {"logits_scaling": 8.0}, LogitExtras(0.125, None)),
        ("hyperclovax", {"logits_scaling": 8.0}, LogitExtras(8.0, None)),
        ("minicpm3", {"dim_model_base": 16, **LATENT}, LogitExtras(0.5, None)),
        ("gemma2", {"head_dim": 8, "final_logit_softcapping": 30.0}, LogitExtras(1.0, 30.0)),
        ("cohere", {"logit_scale": 0.25}, LogitExtras(0.25, None)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_follows_the_head_is_seen_even_in_an_untrained_model(
    family: str, more: dict[str, float], expected: LogitExtras, dtype: torch.dtype
) -> None:
    """By ``logits_scaling`` families divide, multiply, or divide the head's input; small logits would show no cap."""
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SMALL, **more)).eval().to(dtype)
    assert fitting_extras(lm) == expected


def test_logits_that_are_changed_otherwise_are_refused() -> None:
    class Shifted(type(model("llama"))):  # type: ignore[misc]
        def forward(self, *args: object, **named: object) -> object:
            out = super().forward(*args, **named)
            out.logits = out.logits.abs()
            return out

    lm = Shifted(model("llama").config)
    with pytest.raises(ConfigError, match="model type llama changes its logits in a way that is not known here"):
        fitting_extras(lm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_policy_that_computes_something_else_is_refused(dtype: torch.dtype) -> None:
    lm = model("llama").to(dtype)
    for parameter in lm.parameters():
        nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    one = probe(lm.config)
    expected, policy = plain_logps(lm, one), PolicyModule(lm)
    check_policy(policy, one, expected, "sdpa")
    policy.head.scale = 1.3
    with pytest.raises(ConfigError, match="gives other log-probs here than in transformers"):
        check_policy(policy, one, expected, "sdpa")


def test_noise_in_checkpointed_layers_is_refused() -> None:
    """They alone are in training mode."""
    lm = model("llama")
    lm.gradient_checkpointing_enable()

    def noise(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        return output * torch.rand_like(output) if module.training else output

    lm.model.layers[0].register_forward_hook(noise)
    policy, one = PolicyModule(lm), probe(lm.config)
    with pytest.raises(ConfigError, match="gives other log-probs here"):
        check_policy(policy, one, plain_logps(lm, one), "sdpa")
    assert any(module.training for module in lm.modules())
    policy.eval()
    assert not any(module.training for module in lm.modules())


def test_an_encoder_is_refused_and_a_decoder_is_not() -> None:
    torch.manual_seed(0)
    for decodes in (True, False):
        lm = AutoModelForCausalLM.from_config(AutoConfig.for_model("bert", **SMALL, is_decoder=decodes)).eval()
        for parameter in lm.parameters():
            nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
        one = probe(lm.config)
        if decodes:
            check_causal(lm, one, plain_logps(lm, one))
        else:
            with pytest.raises(ConfigError, match="predicts a token from those after it"):
                check_causal(lm, one, plain_logps(lm, one))


def test_the_probe_has_no_special_tokens() -> None:
    config = AutoConfig.for_model("llama", **{**SMALL, "vocab_size": 4})
    ids = {int(i) for response in (probe(config).prompt_ids, *probe(config).response_ids) for i in response}
    assert ids == {3}  # 0, 1 and 2 are padding, beginning and end

"""What is said of routers: for every model that has some, and for no other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig

from mpo.policy.model_class import experts, router_note
from mpo.policy.module import PolicyModule
from tests.families import COMPOSITE, FAMILIES, GEMMA4, UNSHARED, config_of, logps_and_gradients, model
from tests.unit.policy.test_every_family import SIZES
from tests.unit.policy.test_shared_prefix import MIXTURES

WITH_EXPERTS = {"qwen3_moe", "gpt_oss", "phimoe", "llama4_text", "granitemoehybrid", "nemotron_h"}


@pytest.mark.parametrize("family", MIXTURES)
def test_every_mixture_of_experts_is_one(family: str) -> None:
    known = AutoConfig.for_model(family).to_dict()
    sizes: dict[str, Any] = {name: value for name, value in SIZES.items() if name in known}
    sizes |= {"num_experts": 4, "enable_moe_block": True} if family == "gemma4_text" else {}
    assert experts(AutoConfig.for_model(family, **sizes)) >= 4


@pytest.mark.parametrize("family", [*FAMILIES, *UNSHARED, *COMPOSITE])
def test_no_other_model_is(family: str) -> None:
    assert (experts(config_of(family)) > 0) == (family in WITH_EXPERTS) == (router_note(config_of(family)) is not None)


def test_what_is_left_out_is_said() -> None:
    assert router_note(config_of("qwen3_moe")) == (
        "routers choose among 4 experts a layer and are trained by the loss alone: no load-balancing loss is added "
        "(its router_aux_loss_coef 0.001 is not used)"
    )
    config = AutoConfig.for_model("gemma4_text", **GEMMA4, num_experts=4, top_k_experts=2, enable_moe_block=True)
    said = router_note(config)
    assert said is not None and said.endswith("no load-balancing loss is added")


def test_router_logits_that_a_config_asks_for_change_nothing() -> None:
    lm, asked = model("qwen3_moe"), model("qwen3_moe", output_router_logits=True, router_aux_loss_coef=10.0)
    logps_BKT, gradients = logps_and_gradients(PolicyModule(lm))
    again_BKT, found = logps_and_gradients(PolicyModule(asked))
    assert torch.equal(again_BKT, logps_BKT) and found.keys() == gradients.keys()
    assert all(torch.equal(found[name], gradient) for name, gradient in gradients.items())
    assert any("gate" in name and gradient.any() for name, gradient in gradients.items())  # the loss reaches routers

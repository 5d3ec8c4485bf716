"""No layer, every second one or all of them computed again: the same log-probs and gradients, to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from mpo.config.training import LoraConfig
from mpo.errors import ConfigError
from mpo.policy import attention
from mpo.policy.load import load_policy, make_policy
from mpo.policy.module import PolicyModule
from mpo.policy.recomputation import recompute_layers, recomputed
from tests.families import FAMILIES, PIECES, in_pieces, large_set, logps_and_gradients, model, saved

LAYERS = 5
EVERY = (0, 2, 3, 1)


def policy_of(family: str, every: int, lora: LoraConfig | None = None, shares_prefix: bool = True) -> PolicyModule:
    lm = model(family, num_hidden_layers=LAYERS)
    if shares_prefix:
        lm.set_attn_implementation(attention.NAME)
    policy = make_policy(lm, every, lora)
    torch.manual_seed(1)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)  # 0 at first, which would hide lora_A
    return policy.train()


def assert_same(found: list[tuple[Tensor, dict[str, Tensor]]]) -> None:
    (expected_BKT, expected), *others = found
    assert expected and all(float(gradient.abs().max()) > 0 for gradient in expected.values())
    for actual_BKT, actual in others:
        assert torch.equal(actual_BKT, expected_BKT) and actual.keys() == expected.keys()
        for name, gradient in expected.items():
            assert torch.equal(actual[name], gradient), name


def computed(policy: PolicyModule) -> tuple[list[int], list[int]]:
    """How often each layer's attention was computed in a step, and the layers that are to be computed again."""
    layers = policy.base.get_decoder().layers
    times = [0] * len(layers)
    for number, layer in enumerate(layers):

        def count(module: nn.Module, given: tuple[Tensor, ...], number: int = number) -> None:
            times[number] += 1

        layer.self_attn.o_proj.register_forward_pre_hook(count)
    logps_and_gradients(policy)
    return times, [number for number, layer in enumerate(layers) if layer.gradient_checkpointing]


@pytest.mark.parametrize(("every", "again"), [(0, []), (1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (9, [0])])
def test_every_nth_layer_is_computed_twice(every: int, again: list[int]) -> None:
    times, flagged = computed(policy_of("llama", every))
    assert flagged == again and times == [2 if number in again else 1 for number in range(LAYERS)]


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)], ids=["whole", "adapters"])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_and_gradients_are_the_same(family: str, lora: LoraConfig | None) -> None:
    assert_same([logps_and_gradients(policy_of(family, every, lora)) for every in EVERY])


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)], ids=["whole", "adapters"])
@pytest.mark.parametrize("keep", [0, 30])
def test_in_pieces_they_are_too(lora: LoraConfig | None, keep: int) -> None:
    """The prompt's keys and values go from piece to piece, and attention's outputs are kept or are not."""
    assert_same([in_pieces(policy_of("llama", every, lora), large_set(), PIECES, keep) for every in EVERY])


def test_rows_of_their_own_are_the_same() -> None:
    assert_same([logps_and_gradients(policy_of("llama", every, shares_prefix=False)) for every in EVERY])


def test_a_loaded_policy_keeps_the_mlps_product_in_no_layer(tmp_path: Path) -> None:
    """In layers that are computed again the product is no longer computed a third time."""
    saved("llama", tmp_path)  # two layers
    policy = load_policy(str(tmp_path), activation_checkpointing=2)
    forwards = [layer.mlp.forward.func.__name__ for layer in policy.base.get_decoder().layers]
    assert forwards == ["_mlp", "_mlp_without_product"]
    parts = recomputed(policy.base)
    first, second = policy.base.get_decoder().layers
    assert {first, first.mlp, first.mlp.down_proj} <= parts and not parts & {second, second.mlp, policy.base}


def test_an_image_encoders_layers_do_not_shift_the_text_models(tmp_path: Path) -> None:
    policy = load_policy(str(saved_source(tmp_path)), activation_checkpointing=2)
    assert [layer.gradient_checkpointing for layer in policy.base.get_decoder().layers] == [True, False]


def saved_source(folder: Path) -> Path:
    saved("gemma3", folder)  # one layer that looks at images, two of text
    return folder


class OfOld(nn.Module):
    """A layer that leaves it to its model to compute it again."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(2, 2)


def of_old() -> PreTrainedModel:
    """A model whose layers cannot be told apart by the mechanism: none is a GradientCheckpointingLayer."""
    config = OPTConfig(vocab_size=9, hidden_size=8, ffn_dim=8, num_hidden_layers=2, num_attention_heads=2,
                       word_embed_proj_dim=8, max_position_embeddings=8)  # fmt: skip
    lm = OPTForCausalLM(config)
    lm.model.decoder.layers = nn.ModuleList([OfOld(), OfOld()])
    assert not any(isinstance(module, GradientCheckpointingLayer) for module in lm.modules())
    return lm


def test_layers_without_a_switch_of_their_own_are_all_or_none() -> None:
    with pytest.raises(ConfigError, match="train.activation_checkpointing: .* some of its layers again; set it to 1"):
        recompute_layers(of_old(), 2)
    lm = of_old()
    recompute_layers(lm, 0)
    assert not lm.is_gradient_checkpointing and not recomputed(lm)
    recompute_layers(lm, 1)
    assert lm.is_gradient_checkpointing and {*lm.model.decoder.layers} <= recomputed(lm)

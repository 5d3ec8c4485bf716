"""Gradients of embedding and head that are added to sums in place, against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mpo.config.training import LoraConfig
from mpo.policy.cpu.vocabulary import sum_in_place
from mpo.policy.load import make_policy
from mpo.policy.shared_prefix import share_prefix
from tests.families import logps_and_gradients, model


class Sums:
    """A float32 tensor for every weight that asks for one."""

    def __init__(self) -> None:
        self.found: dict[nn.Parameter, Tensor] = {}

    def __call__(self, parameter: nn.Parameter) -> Tensor:
        return self.found.setdefault(parameter, torch.zeros_like(parameter, dtype=torch.float32))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_neox"])
def test_sums_hold_what_autograd_would(family: str, tied: bool) -> None:
    lm = model(family, tie_word_embeddings=tied)
    share_prefix(lm)
    policy = make_policy(lm)
    expected_logps, expected = logps_and_gradients(policy)
    sums = Sums()
    policy.sum_in_place(sums)
    policy.zero_grad()
    logps, found = logps_and_gradients(policy)
    assert torch.equal(logps, expected_logps)
    head, embedding = policy.head.weight, lm.get_input_embeddings().weight
    scaled = family == "gemma3_text"  # its embedding is of a class of its own
    assert set(sums.found) == ({head} if scaled else {head, embedding})
    assert (embedding.grad is None) is not scaled
    assert scaled or head.grad is None
    for name, parameter in policy.named_parameters():
        whole = found.get(name, torch.zeros_like(parameter)) + sums.found.get(parameter, 0.0)
        torch.testing.assert_close(whole, expected[name], rtol=1e-5, atol=1e-6)


def test_a_second_backward_adds_to_the_sums() -> None:
    policy, sums = make_policy(model("llama")), Sums()
    policy.sum_in_place(sums)
    logps_and_gradients(policy)
    once = {parameter: total.clone() for parameter, total in sums.found.items()}
    logps_and_gradients(policy)
    for parameter, total in sums.found.items():
        assert float(total.abs().max()) > 0
        torch.testing.assert_close(total, 2 * once[parameter])


def test_autograd_gets_its_gradients_back() -> None:
    policy = make_policy(model("llama"))
    _, expected = logps_and_gradients(policy)
    policy.zero_grad()
    policy.sum_in_place(Sums())
    policy.sum_in_place(None)
    _, found = logps_and_gradients(policy)
    assert found.keys() == expected.keys() and "lm.model.embed_tokens.weight" in found
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_frozen_weights_have_no_sum() -> None:
    policy, sums = make_policy(model("llama"), lora=LoraConfig(rank=2, alpha=4.0)), Sums()
    policy.sum_in_place(sums)
    _, found = logps_and_gradients(policy)
    assert not sums.found
    assert found and all("lora_" in name for name in found)


def test_padding_of_an_embedding_has_no_gradient() -> None:
    torch.manual_seed(0)
    embedding = nn.Embedding(5, 3, padding_idx=2)
    ids, weigh = torch.tensor([[2, 4, 4], [0, 2, 1]]), torch.randn(2, 3, 3)
    (embedding(ids) * weigh).sum().backward()
    total = torch.zeros(5, 3)
    sum_in_place(embedding, lambda: total)
    (embedding(ids) * weigh).sum().backward()
    torch.testing.assert_close(total, embedding.weight.grad)
    assert not total[2].any()

"""The chunked head against a plain log-softmax."""

from __future__ import annotations

import pytest
import torch

from mpo.policy import head


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("known", [False, True])
def test_head_is_log_softmax(
    bias: bool, scale: float, softcap: float | None, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", {"cpu": 20 * 4})
    monkeypatch.setattr(head, "VOCABULARY_AT_ONCE", {"cpu": 20})
    torch.manual_seed(0)
    linear = torch.nn.Linear(16, 50, bias=bias)
    hidden_ND, targets_N, weigh_N = torch.randn(11, 16).requires_grad_(), torch.randint(50, (11,)), torch.randn(11)
    leaves = [hidden_ND, *linear.parameters()]
    chunked = head.ChunkedHead(linear, scale, softcap)
    logps_N, normalisers_WN, none = chunked(hidden_ND, targets_N)
    assert none is None
    if known:
        logps_N = chunked(hidden_ND, targets_N, normalisers_WN).logps_N
    logits_NV = linear(hidden_ND) * scale
    logits_NV = logits_NV if softcap is None else softcap * torch.tanh(logits_NV / softcap)
    expected_N = logits_NV.log_softmax(-1).gather(-1, targets_N[:, None])[:, 0]
    torch.testing.assert_close(logps_N, torch.zeros(11) if known else expected_N)
    actual = torch.autograd.grad((logps_N * weigh_N).sum(), leaves)
    expected = torch.autograd.grad((expected_N * weigh_N).sum(), leaves)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_head_gives_the_probability_that_two_draws_agree(
    softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", {"cpu": 20 * 4})
    monkeypatch.setattr(head, "VOCABULARY_AT_ONCE", {"cpu": 20})
    torch.manual_seed(0)
    linear = torch.nn.Linear(16, 50)
    linear.bias.data[:20] -= 80.0  # a block without any probability
    hidden_ND, targets_N = torch.randn(11, 16).requires_grad_(), torch.randint(50, (11,))
    chunked = head.ChunkedHead(linear, 1.0, softcap)
    plain = chunked(hidden_ND, targets_N)
    chunked.wants_square_sums = True
    found = chunked(hidden_ND, targets_N)
    assert torch.equal(found.logps_N, plain.logps_N) and torch.equal(found.normalisers_WN, plain.normalisers_WN)
    logits_NV = linear(hidden_ND)
    logits_NV = logits_NV if softcap is None else softcap * torch.tanh(logits_NV / softcap)
    expected_N = logits_NV.softmax(-1).square().sum(-1).log().detach()
    assert found.square_sums_N is not None and not found.square_sums_N.requires_grad
    torch.testing.assert_close(found.square_sums_N, expected_N, rtol=1e-5, atol=1e-6)
    second = chunked(hidden_ND, targets_N, found.normalisers_WN)
    (one,) = torch.autograd.grad(found.logps_N.sum(), hidden_ND)
    (other,) = torch.autograd.grad(second.logps_N.sum(), hidden_ND)
    assert torch.equal(one, other) and torch.equal(one, torch.autograd.grad(plain.logps_N.sum(), hidden_ND)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_head_of_targets_that_are_next_to_impossible(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of the vocabulary that hold them have e^-60 or e^-300 of the probability."""
    monkeypatch.setattr(head, "VOCABULARY_AT_ONCE", {"cpu": 10})
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 30).to(dtype)
    linear.bias.data[:] = torch.tensor([0.0, -60.0, -300.0], dtype=dtype).repeat_interleave(10)
    hidden_ND, targets_N = torch.randn(9, 8).to(dtype).requires_grad_(), torch.arange(9) * 3 + 2
    leaves = [hidden_ND, *linear.parameters()]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected_N = (exact[0] @ exact[1].t() + exact[2]).log_softmax(-1).gather(-1, targets_N[:, None])[:, 0]
    logps_N = head.ChunkedHead(linear, 1.0, None)(hidden_ND, targets_N).logps_N
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(logps_N.double(), expected_N, rtol=tolerance, atol=tolerance)
    found, wanted = (
        torch.autograd.grad(logps.sum() * 1e-3, at) for logps, at in ((logps_N, leaves), (expected_N, exact))
    )
    for one, other in zip(found, wanted, strict=True):
        assert float((one.double() - other).norm() / other.norm()) < tolerance


def test_head_in_bfloat16_sums_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients are rounded once a product, not once a block: many small blocks lose no more than one large one."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(32, 512, bias=False).bfloat16()
    hidden_ND, targets_N = torch.randn(300, 32).bfloat16().requires_grad_(), torch.randint(512, (300,))
    exact = [hidden_ND.detach().double().requires_grad_(), linear.weight.detach().double().requires_grad_()]
    logps_N = (exact[0] @ exact[1].t()).log_softmax(-1).gather(-1, targets_N[:, None])[:, 0]
    expected = torch.autograd.grad(logps_N.sum(), exact)
    for logits, words in ((1 << 20, 512), (32 * 16, 32)):
        monkeypatch.setattr(head, "LOGITS_AT_ONCE", {"cpu": logits})
        monkeypatch.setattr(head, "VOCABULARY_AT_ONCE", {"cpu": words})
        values_N = head.ChunkedHead(linear, 1.0, None)(hidden_ND, targets_N).logps_N
        assert values_N.dtype == torch.float32
        torch.testing.assert_close(values_N.double(), logps_N, rtol=0.0, atol=1e-4)
        for one, other in zip(torch.autograd.grad(values_N.sum(), [hidden_ND, linear.weight]), expected, strict=True):
            assert one.dtype == torch.bfloat16
            assert float((one.double() - other).norm() / other.norm()) < 5e-3


def test_log_probs_of_a_large_vocabulary_in_bfloat16_are_not_rounded() -> None:
    """Rounded to bfloat16, logits of 128,256 entries cost up to 0.03 nats a token; what goes in is exact here."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(192, 128_256, bias=True)
    torch.nn.init.normal_(linear.weight)
    hidden_ND = (torch.randn(96, 192) * 6 / 192**0.5).bfloat16()
    linear = linear.bfloat16()
    exact_NV = torch.nn.functional.linear(hidden_ND.double(), linear.weight.double(), linear.bias.double())
    targets_N = torch.multinomial(exact_NV.softmax(-1), 1)[:, 0]
    expected_N = exact_NV.log_softmax(-1).gather(-1, targets_N[:, None])[:, 0]
    with torch.no_grad():
        logps_N = head.ChunkedHead(linear, 1.0, None)(hidden_ND, targets_N).logps_N
        rounded_N = linear(hidden_ND).float().log_softmax(-1).gather(-1, targets_N[:, None])[:, 0]
    assert float((logps_N - expected_N).abs().max()) < 1e-4
    assert float((rounded_N - expected_N).abs().max()) > 2e-2  # what the test is there for

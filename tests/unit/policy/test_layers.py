"""Norms and MLPs that keep their inputs alone say what the families' own say, and keep less."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from mpo.policy.layers import compile_fused, compiles_fused, fault_when_compiled, save_only_inputs
from tests.families import FAMILIES, VOCABULARY, model

PLAIN = {"gemma2", "gemma3_text", "gpt_neox"}
"""Families whose norms and MLPs are of another kind."""


def random_weights(family: str, dtype: torch.dtype) -> PreTrainedModel:
    """Norms' weights begin as 1, which would hide how they are multiplied."""
    lm = model(family)
    draw = torch.Generator().manual_seed(1)
    for parameter in lm.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=draw)
    return lm.to(dtype)


def logits_and_gradients(lm: PreTrainedModel) -> tuple[Tensor, dict[str, Tensor], int]:
    """Of some tokens; also the bytes that autograd keeps, each storage once."""
    ids_RT = torch.arange(24).reshape(2, 12) * 7 % VOCABULARY
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits_RTV = lm(input_ids=ids_RT, use_cache=False).logits
    lm.zero_grad()
    (logits_RTV.float() * torch.linspace(-1, 1, VOCABULARY)).sum().backward()
    gradients = {name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None}
    return logits_RTV.detach(), gradients, sum(kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_says_the_same_bits(family: str, dtype: torch.dtype) -> None:
    lm = random_weights(family, dtype)
    logits_RTV, gradients, kept = logits_and_gradients(lm)
    save_only_inputs(lm)
    again_RTV, found, less = logits_and_gradients(lm)
    assert torch.equal(again_RTV, logits_RTV)
    assert found.keys() == gradients.keys()
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=tolerance, atol=tolerance * float(gradient.abs().max()), msg=name
        )
    if family in PLAIN:
        assert less == kept and not any("forward" in module.__dict__ for module in lm.modules())
    elif family not in ("olmo2", "gpt_oss") or dtype == torch.float32:
        assert less < kept


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float32, marks=pytest.mark.slow)])
def test_compiled_they_differ_by_roundings(dtype: torch.dtype) -> None:
    lm = random_weights("llama", dtype)
    save_only_inputs(lm)
    logits_RTV, gradients, _ = logits_and_gradients(lm)
    save_only_inputs(plain := random_weights("llama", dtype))
    compile_fused(plain)
    fused_RTV, found, _ = logits_and_gradients(plain)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(fused_RTV, logits_RTV, rtol=tolerance, atol=tolerance * float(logits_RTV.abs().max()))
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=tolerance, atol=tolerance * float(gradient.abs().max()), msg=name
        )
    assert compiles_fused(plain) and not compiles_fused(lm)
    assert fault_when_compiled(torch.device("cpu"), dtype) is None


def test_gradients_of_a_norm_are_those_of_its_definition() -> None:
    lm = model("llama").double()
    save_only_inputs(lm)
    norm = next(module for module in lm.modules() if hasattr(module, "variance_epsilon"))
    norm.weight.data = torch.linspace(0.5, 2.0, 32, dtype=torch.float64)
    input_ND = torch.randn(5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights_ND = torch.randn(5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    by_hand_ND = norm.weight * input_ND * (input_ND.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()
    expected = torch.autograd.grad((by_hand_ND * weights_ND).sum(), [input_ND, norm.weight])
    actual = torch.autograd.grad((norm(input_ND) * weights_ND).sum(), [input_ND, norm.weight])
    for one, other in zip(actual, expected, strict=True):  # the norm itself is float32
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def gradients_and_kept_inputs(lm: nn.Module) -> tuple[dict[str, Tensor], int]:
    """Of some tokens; also how often autograd keeps what a ``down_proj`` is given."""
    inputs: list[Tensor] = []  # alive, so that nothing else gets their memory
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    for name, module in lm.named_modules():
        if name.endswith("down_proj"):
            module.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits_RTV = lm(input_ids=torch.arange(24).reshape(2, 12), use_cache=False).logits
    (logits_RTV * torch.linspace(-1, 1, VOCABULARY)).sum().backward()
    gradients = {name: p.grad for name, p in lm.named_parameters() if p.grad is not None}
    return gradients, sum(tensor.data_ptr() in kept for tensor in inputs)


@pytest.mark.parametrize("adapters", [False, True])
def test_the_product_is_computed_again_and_not_kept(adapters: bool) -> None:
    """Bit for bit; ``down_proj`` doesn't keep it, nor does one that holds adapters."""
    found = []
    for checkpointing in (True, False):  # layers made for checkpointing, which is off here, keep it
        lm: nn.Module = random_weights("llama", torch.float32)
        save_only_inputs(lm, recomputed=set(lm.modules()) if checkpointing else set())
        if adapters:
            torch.manual_seed(2)
            config = LoraConfig(r=2, target_modules=["down_proj"], lora_dropout=0.0, init_lora_weights=False)
            lm = get_peft_model(lm, config)  # type: ignore[arg-type]
        found.append(gradients_and_kept_inputs(lm))
    (expected, kept), (actual, not_kept) = found
    assert kept == 2 and not_kept == 0
    assert expected.keys() == actual.keys() and any("down_proj" in name for name in actual)
    assert all(torch.equal(actual[name], gradient) for name, gradient in expected.items())


def test_what_clamps_its_gate_keeps_its_forward() -> None:
    class Clamped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(8, 8) for _ in range(3))
            self.act_fn = nn.SiLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.down_proj(self.act_fn(self.gate_proj(x).clamp(max=50.0)) * self.up_proj(x))

    module = Clamped()
    save_only_inputs(module)
    assert "forward" not in module.__dict__


class Gated(nn.Module):
    """A norm with a gate beside its input, as hybrid families have it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(8)), 1e-6

    def forward(self, hidden_states: Tensor, gate: Tensor | None = None) -> Tensor:
        inverse = (hidden_states.float().pow(2).mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()
        normed = self.weight * (hidden_states * inverse)
        return normed if gate is None else normed * functional.silu(gate)


class Routed(nn.Module):
    """Looks like an MLP, and fails on a plain input."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("expert")


class Listed(nn.Module):
    """Looks like an MLP, and holds its maps in a list or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.ModuleList([nn.Linear(8, 8)]), nn.ModuleList([nn.Linear(8, 8)])
        self.down_proj = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("kind", [Gated, Routed, Listed])
def test_what_only_looks_like_one_keeps_its_forward(kind: type[nn.Module]) -> None:
    module = kind()
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    save_only_inputs(module)
    assert "forward" not in module.__dict__
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


def test_modules_of_one_class_that_differ_are_tried_each() -> None:
    class Mlp(nn.Module):
        def __init__(self, act: nn.Module, factor: float) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(8, 8) for _ in range(3))
            self.act_fn, self.factor = act, factor

        def forward(self, x: Tensor) -> Tensor:
            return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x)) * self.factor

    layers = nn.ModuleList([Mlp(nn.SiLU(), 1.0), Mlp(nn.GELU(), 1.0), Mlp(nn.SiLU(), 0.5), Mlp(nn.SiLU(), 1.0)])
    save_only_inputs(layers)
    assert ["forward" in layer.__dict__ for layer in layers] == [True, False, False, True]
    save_only_inputs(layers)  # a second time
    compile_fused(layers)
    assert ["forward" in layer.__dict__ for layer in layers] == [True, False, False, True]

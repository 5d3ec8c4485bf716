"""Heads of published reward models that transformers has no class for: each against its formula, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import batch_norm, selu
from transformers import Gemma2Config, LlamaConfig

from mpo.config.training import Precision
from mpo.errors import ConfigError, DataError, UserError
from mpo.score.checked import checked_scores
from mpo.score.reward_model import Head, RewardModel
from tests.unit.score import tiny

SIZE, ATTRIBUTES, QUANTILES, WIDTH = 16, 5, 3, 12
Weights = dict[str, torch.Tensor]
Formula = Callable[[Weights, torch.Tensor, torch.Tensor], torch.Tensor]
"""From the head's weights and the hidden states [D] at the last token and at the prompt's end, the score."""


def llama(**keys: Any) -> LlamaConfig:
    return LlamaConfig(vocab_size=320, max_position_embeddings=256, initializer_range=0.3, **tiny.SIZE, **keys)


def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Weights:
    weights = {f"{name}.weight": torch.randn(outputs, inputs) / inputs**0.5}
    return {**weights, **({f"{name}.bias": torch.randn(outputs)} if bias else {})}


def apply(weights: Weights, name: str, state: torch.Tensor) -> torch.Tensor:
    product = weights[f"{name}.weight"] @ state
    return product + weights[f"{name}.bias"] if f"{name}.bias" in weights else product


def gate(normalised: bool) -> Weights:
    """Two hidden layers; QRM's have no bias, and after each a BatchNorm, so that every third module has weights."""
    step, sizes = (3 if normalised else 1), (SIZE, WIDTH)
    weights = {"gating.logit_scale": torch.tensor([1.5])}
    for number, size in enumerate(sizes):
        weights |= linear(f"gating.layers.{number * step}", size, WIDTH, bias=not normalised)
        if normalised:
            norm = f"gating.layers.{number * 3 + 2}"
            weights |= {f"{norm}.weight": torch.rand(WIDTH) + 0.5, f"{norm}.bias": torch.randn(WIDTH)}
            weights |= {f"{norm}.running_mean": torch.randn(WIDTH), f"{norm}.running_var": torch.rand(WIDTH) + 0.5}
            weights |= {f"{norm}.num_batches_tracked": torch.tensor(7)}
    return weights | linear(f"gating.layers.{len(sizes) * step}", WIDTH, ATTRIBUTES)


def gate_weights(weights: Weights, state: torch.Tensor, normalised: bool) -> torch.Tensor:
    step = 3 if normalised else 1
    for number in range(2):
        state = apply(weights, f"gating.layers.{number * step}", state).clamp(min=0)
        if normalised:
            norm = f"gating.layers.{number * 3 + 2}"
            mean, variance, scale, shift = (
                weights[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
            )
            state = batch_norm(state[None], mean, variance, scale, shift)[0]
    logits = apply(weights, f"gating.layers.{2 * step}", state)
    return torch.softmax(logits / 4.0, dim=0) * weights["gating.logit_scale"]


def armorm(weights: Weights, last: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    rewards = (weights["regression_layer.weight"] @ last) @ weights["reward_transform_matrix"]
    return (gate_weights(weights, prompt, normalised=False) * rewards).sum()


def qrm(weights: Weights, last: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    quantiles = (weights["regression_layer.weight"] @ last).reshape(ATTRIBUTES, QUANTILES)
    rewards = quantiles.mean(dim=1) @ weights["reward_transform_matrix"]
    return (gate_weights(weights, prompt, normalised=True) * rewards).sum()


def inf_orm(weights: Weights, last: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    return apply(weights, "score.2", apply(weights, "score.0", last).clamp(min=0))[0]


def urm(weights: Weights, last: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    state = selu(apply(weights, "weights.fc.0", last))
    state = apply(weights, "weights.fc.4", selu(apply(weights, "weights.fc.2", state)))
    return ((weights["score.weight"] @ last)[0::2] * state).sum()  # each attribute's mean comes before its deviation


def grm(weights: Weights, last: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    return apply(weights, "v_head.summary.2", apply(weights, "v_head.summary.0", last).clamp(min=0))[0]


def grm_linear(weights: Weights, last: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    return apply(weights, "v_head.summary", last)[0]


def token_logit(weights: Weights, last: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    return weights["lm_head.weight"][0] @ last


GATE = {"num_objectives": ATTRIBUTES, "gating_temperature": 4, "gating_hidden_dim": WIDTH, "gating_n_hidden": 2}


def transform() -> Weights:
    return {"reward_transform_matrix": torch.eye(ATTRIBUTES) + 0.3 * torch.randn(ATTRIBUTES, ATTRIBUTES)}


def regression(outputs: int) -> Weights:
    return linear("regression_layer", SIZE, outputs, bias=False)


CASES: dict[str, tuple[Head, Any, Callable[[], Weights], Formula, dict[str, Any]]] = {
    "ArmoRM": (
        Head.armorm, llama(), lambda: {**regression(ATTRIBUTES), **transform(), **gate(False)}, armorm,
        {"architectures": ["LlamaForRewardModelWithGating"], **GATE},
    ),
    "QRM": (
        Head.qrm, llama(), lambda: {**regression(ATTRIBUTES * QUANTILES), **transform(), **gate(True)}, qrm,
        {"architectures": ["LlamaForRewardModelWithGating"], "num_quantiles": QUANTILES, **GATE},
    ),
    "INF-ORM": (
        Head.inf_orm, llama(), lambda: {**linear("score.0", SIZE, SIZE), **linear("score.2", SIZE, 1)}, inf_orm,
        {"architectures": ["INFORMForSequenceClassification"]},
    ),
    "URM": (
        Head.urm, llama(),
        lambda: {
            **linear("score", SIZE, 2 * ATTRIBUTES, bias=False), **linear("weights.fc.0", SIZE, SIZE),
            **linear("weights.fc.2", SIZE, SIZE), **linear("weights.fc.4", SIZE, ATTRIBUTES),
        },
        urm,
        {
            "architectures": ["LlamaForSequenceClassificationWithNormal_Weights"],
            "id2label": {str(i): f"LABEL_{i}" for i in range(2 * ATTRIBUTES)},
        },
    ),
    "GRM": (
        Head.grm, Gemma2Config(
            vocab_size=320, max_position_embeddings=256, initializer_range=0.3, head_dim=8, num_key_value_heads=1,
            **tiny.SIZE,
        ),
        lambda: {
            **linear("v_head.summary.0", SIZE, WIDTH), **linear("v_head.summary.2", WIDTH, 1),
            "lm_head.weight": torch.randn(320, SIZE),  # its training keeps it; the score does not use it
        },
        grm, {"architectures": ["GRewardModel"], "vhead_layer_type": "mlp", "vhead_num_neurons": WIDTH},
    ),
    "GRM, linear": (
        Head.grm, llama(), lambda: linear("v_head.summary", SIZE, 1), grm_linear,
        {"architectures": ["GRewardModel"], "vhead_layer_type": "linear"},
    ),
    "Nemotron": (
        Head.token_logit, llama(tie_word_embeddings=False), lambda: {"lm_head.weight": torch.randn(320, SIZE)},
        token_logit, {"architectures": ["LlamaForCausalLM"]},
    ),
}  # fmt: skip


def saved(folder: Path, name: str, **keys: Any) -> tuple[RewardModel, list[float], Weights]:
    """The tiny model as a scorer, its scores of the items by hand, and its head's weights."""
    head, shape, weights_of, formula, own = CASES[name]
    base, tokenizer = tiny.backbone(shape), tiny.tokenizer(folder)
    torch.manual_seed(3)
    weights = weights_of()
    tiny.save(folder, shape, {**tiny.named(base), **weights}, **{**own, **keys})
    expected = []
    for one in tiny.ITEMS:
        ids = tiny.text_ids(tokenizer, one)
        states = tiny.hidden(base, ids)
        ends = [i for i, token in enumerate(ids) if token == tokenizer.convert_tokens_to_ids(tiny.EOT)]
        expected.append(float(formula(weights, states[-1], states[ends[-2]])))  # the last but one ends the prompt
    return RewardModel(str(folder), head=head, precision=Precision.fp32, max_tokens=256), expected, weights


@pytest.mark.parametrize("name", CASES)
def test_a_head_gives_its_published_formula_alone_and_in_batches(tmp_path: Path, name: str) -> None:
    scorer, expected, _ = saved(tmp_path, name)
    scorer.check()
    assert checked_scores(scorer, tiny.ITEMS) == pytest.approx(expected, abs=1e-5)
    assert [scorer.score([one])[0] for one in tiny.ITEMS] == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.05  # the comparison is one of numbers that differ


@pytest.mark.parametrize("name", [name for name in CASES if name != "Nemotron"])
def test_heads_are_read_in_float32_beside_bfloat16_weights(tmp_path: Path, name: str) -> None:
    _, expected, weights = saved(tmp_path, name)
    scorer = RewardModel(str(tmp_path), head=CASES[name][0], precision=Precision.bf16, max_tokens=256)
    read = scorer._loaded.lm.state_dict()
    for key in weights.keys() & read.keys():
        assert torch.equal(read[key], weights[key]), key
    assert {value.dtype for key, value in read.items() if key.startswith("model.")} == {torch.bfloat16}
    spread = max(expected) - min(expected)
    assert scorer.score(tiny.ITEMS) == pytest.approx(expected, abs=max(0.3 * spread, 0.1))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("ArmoRM", "gating.logit_scale"),
        ("QRM", "gating.layers.2.running_mean"),
        ("INF-ORM", "score.2.bias"),
        ("URM", "weights.fc.4.weight"),
        ("GRM", "v_head.summary.0.weight"),
    ],
)
def test_a_head_without_one_of_its_weights_is_refused_by_name(tmp_path: Path, name: str, key: str) -> None:
    from safetensors.torch import load_file, save_file

    scorer, _, _ = saved(tmp_path, name)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[key]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=f"lacks the weight {key}"):
        scorer.score(tiny.ITEMS)


def test_another_head_than_the_checkpoints_is_refused_by_name(tmp_path: Path) -> None:
    saved(tmp_path, "ArmoRM", num_quantiles=QUANTILES)
    with pytest.raises(UserError, match=r"lacks weights gating\.layers\."):
        RewardModel(str(tmp_path), head=Head.qrm, precision=Precision.fp32, max_tokens=256).score(tiny.ITEMS)


def test_a_gate_whose_prompt_was_cut_off_is_one_line(tmp_path: Path) -> None:
    saved(tmp_path, "ArmoRM")
    scorer = RewardModel(str(tmp_path), head=Head.armorm, precision=Precision.fp32, max_tokens=16)
    with pytest.raises(DataError, match="score.max_tokens: the gate of the reward model finds no end of the prompt"):
        scorer.score([tiny.item("Throw it far away? " * 9)])


def test_a_token_logit_of_a_family_that_caps_its_logits_is_refused(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    tiny.tokenizer(tmp_path)
    shape = Gemma2Config(vocab_size=320, head_dim=8, num_key_value_heads=1, final_logit_softcapping=30.0, **tiny.SIZE)
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="score.path: model type gemma2 changes its logits, so that none"):
        RewardModel(str(tmp_path), head=Head.token_logit, precision=Precision.fp32).score(tiny.ITEMS)

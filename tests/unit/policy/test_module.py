"""Log-probs of a batch against one plain forward pass a response."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    CohereConfig,
    FalconH1Config,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)
from transformers.models.auto import AutoModelForCausalLM

from mpo.config.training import LoraConfig, Precision
from mpo.errors import ConfigError, DataError, UserError
from mpo.layout.batch import collate
from mpo.policy import head
from mpo.policy.load import load_policy, make_policy
from mpo.policy.module import PolicyModule

SIZE = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILIES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZE, num_key_value_heads=2),
    "qwen2 tied": Qwen2Config(**SIZE, num_key_value_heads=2, tie_word_embeddings=True, attention_dropout=0.5),
    "gemma2": Gemma2Config(**SIZE, num_key_value_heads=2, head_dim=8, sliding_window=4, final_logit_softcapping=3.0),
    "gemma3": Gemma3TextConfig(**SIZE, num_key_value_heads=2, head_dim=8, sliding_window=4),
    "gpt_neox": GPTNeoXConfig(**SIZE, hidden_dropout=0.5, attention_dropout=0.5),
    "cohere": CohereConfig(**SIZE, num_key_value_heads=2, logit_scale=0.25),
    "granite": GraniteConfig(**SIZE, num_key_value_heads=2, logits_scaling=4.0),
}


@dataclass(frozen=True)
class Tokens:
    id: str
    prompt_ids: np.ndarray
    response_ids: list[np.ndarray]


def ragged_sets(seed: int = 0) -> list[Tokens]:
    rng = np.random.default_rng(seed)

    def ids(longest: int) -> np.ndarray:
        return rng.integers(3, 128, rng.integers(1, longest + 1)).astype(np.int32)

    return [Tokens(f"set-{i}", ids(11), [ids(9) for _ in range(k)]) for i, k in enumerate((3, 1, 4))]


def random_model(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for parameter in lm.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)  # the default is too even to show a mistake
    return lm.eval()


def plain(lm: PreTrainedModel, prompt: np.ndarray, response: np.ndarray) -> Tensor:
    """Token log-probs from full logits of one unpadded sequence."""
    ids_1T = torch.from_numpy(np.concatenate([prompt, response])).long().unsqueeze(0)
    logps_TV = lm(input_ids=ids_1T).logits[0].float().log_softmax(-1)
    return logps_TV[len(prompt) - 1 : -1].gather(-1, ids_1T[0, len(prompt) :, None]).squeeze(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_agrees_with_one_forward_a_response(family: str, tmp_path: Path) -> None:
    lm = random_model(FAMILIES[family])
    lm.save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path))
    policy.train()  # dropout must be off here too
    sets = ragged_sets()
    logps = policy(collate(sets))
    assert logps.token_logps_BKT.dtype == torch.float32
    assert logps.token_logps_BKT.shape[:2] == (3, 4)
    for b, tokens in enumerate(sets):
        for k, response in enumerate(tokens.response_ids):
            expected = plain(lm, tokens.prompt_ids, response)
            torch.testing.assert_close(logps.token_logps_BKT[b, k, : len(response)], expected, rtol=0.0, atol=1e-5)
            torch.testing.assert_close(logps.logps_BK[b, k], expected.sum(), rtol=1e-6, atol=1e-5)
    lengths = [[len(r) for r in tokens.response_ids] + [0] * (4 - len(tokens.response_ids)) for tokens in sets]
    assert logps.lengths_BK.tolist() == lengths
    assert bool((logps.token_logps_BKT[~logps.token_mask_BKT] == 0).all())


def gradients(policy: PolicyModule, weigh: Tensor) -> dict[str, Tensor]:
    policy.zero_grad()
    (policy(collate(ragged_sets())).logps_BK * weigh).sum().backward()
    return {name: p.grad.clone() for name, p in policy.lm.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["llama", "qwen2 tied", "gemma2"])
def test_chunked_head_has_the_gradients_of_full_logits(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = random_model(FAMILIES[family])
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", {"cpu": 48 * 7})  # 7 positions and 48 words at a time, the last fewer
    monkeypatch.setattr(head, "VOCABULARY_AT_ONCE", {"cpu": 48})
    weigh = torch.linspace(-1, 1, 12).reshape(3, 4)
    chunked = gradients(make_policy(lm), weigh)
    lm.zero_grad()
    sets = ragged_sets()
    pairs = [(b, k) for b, tokens in enumerate(sets) for k in range(len(tokens.response_ids))]
    sum(weigh[b, k] * plain(lm, sets[b].prompt_ids, sets[b].response_ids[k]).sum() for b, k in pairs).backward()  # type: ignore[union-attr]
    assert chunked.keys() == {name for name, _ in lm.named_parameters()}
    for name, parameter in lm.named_parameters():
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(chunked[name], parameter.grad, rtol=0.0, atol=1e-5 * scale)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=4.0)], ids=["whole", "adapters"])
def test_activation_checkpointing_has_the_same_gradients(lora: LoraConfig | None) -> None:
    weigh = torch.linspace(-1, 1, 12).reshape(3, 4)
    found = []
    for checkpointing in (False, True):
        policy = make_policy(random_model(FAMILIES["llama"]), checkpointing, lora)
        torch.manual_seed(1)
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)  # 0 at first, which would hide lora_A
        policy.train()
        assert policy.base.is_gradient_checkpointing is checkpointing
        found.append(gradients(policy, weigh))
    assert found[0].keys() == found[1].keys()
    assert lora is None or all("lora_" in name for name in found[0])
    assert all(float(gradient.abs().max()) > 0 for gradient in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


def test_fresh_adapters_change_nothing() -> None:
    lm = random_model(FAMILIES["llama"])
    before = make_policy(lm)(collate(ragged_sets())).logps_BK.detach()
    policy = make_policy(lm, lora=LoraConfig(rank=2))
    torch.testing.assert_close(policy(collate(ragged_sets())).logps_BK, before)
    trainable = {name.split(".")[-3] for name, p in policy.named_parameters() if p.requires_grad}
    assert trainable == {"lora_A", "lora_B"} or trainable == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }


def test_only_kept_responses_are_forwarded() -> None:
    policy = make_policy(random_model(FAMILIES["llama"]))
    sets = ragged_sets()
    everything, some = policy(collate(sets)), policy(collate(sets, [[2], [], [0, 3]]))
    assert len(collate(sets, [[2], [], [0, 3]]).set_index_R) == 3
    for b, k in ((0, 2), (2, 0), (2, 3)):
        torch.testing.assert_close(some.logps_BK[b, k], everything.logps_BK[b, k])
    assert int((some.lengths_BK > 0).sum()) == 3


def test_empty_batch_still_reaches_every_parameter() -> None:
    policy = make_policy(random_model(FAMILIES["llama"]))
    logps = policy(collate([]))
    assert logps.token_logps_BKT.shape == (1, 1, 1)
    (0.0 * logps.logps_BK.sum()).backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) == 0 for p in policy.parameters())


def test_a_factor_after_the_head_is_read_from_the_config(tmp_path: Path) -> None:
    config = FalconH1Config(
        **SIZE, num_key_value_heads=2, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_state=8, mamba_d_head=8
    )
    config.mamba_chunk_size, config.lm_head_multiplier = 8, 0.1
    random_model(config).save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path))
    assert policy.head.scale == 0.1 and not policy.shares_prefix


@pytest.mark.parametrize(
    ("kind", "more", "reason"),
    [
        ("modernbert-decoder", {}, "gives other log-probs here than in transformers"),
        ("bert", {}, "predicts a token from those after it"),
        ("t5", {"d_kv": 8, "d_model": 32, "d_ff": 48}, "is not a causal language model"),
    ],
)
def test_families_that_would_not_be_themselves_are_refused(
    kind: str, more: dict[str, int], reason: str, tmp_path: Path
) -> None:
    config = AutoConfig.for_model(kind, **SIZE, **more)
    if kind == "t5":
        config.save_pretrained(tmp_path)
    else:
        random_model(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"model.path: model type {kind} {reason}.*; use a decoder-only") as refused:
        load_policy(str(tmp_path))
    assert len(str(refused.value)) < 400 and "\n" not in str(refused.value)


def test_user_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot load a model from") as nowhere:
        load_policy(str(tmp_path / "nowhere"))
    FAMILIES["llama"].save_pretrained(tmp_path)
    with pytest.raises(UserError, match="cannot load a model from") as no_weights:
        load_policy(str(tmp_path))
    assert all("\n" not in str(caught.value) for caught in (nowhere, no_weights))
    lm = random_model(FAMILIES["llama"])
    with pytest.raises(ConfigError, match="adapters don't fit the model"):
        make_policy(lm, lora=LoraConfig(target_modules=["input_layernorm"]))
    with pytest.raises(ConfigError, match="the head takes no adapter"):
        make_policy(lm, lora=LoraConfig(target_modules=["lm_head"]))
    with pytest.raises(ConfigError, match="the model has no 'q_prj'"):
        make_policy(lm, lora=LoraConfig(target_modules=["q_prj", "v_proj"]))
    with pytest.raises(DataError, match="set-9: the prompt has no tokens"):
        collate([Tokens("set-9", np.zeros(0, np.int32), [np.ones(1, np.int32)])])
    with pytest.raises(DataError, match="set-9: response 0 has no tokens"):
        collate([Tokens("set-9", np.ones(1, np.int32), [np.zeros(0, np.int32)])])


def test_bf16_weights_give_float32_logps(tmp_path: Path) -> None:
    lm = random_model(FAMILIES["llama"])
    lm.save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path), precision=Precision.bf16)
    assert policy.base.dtype == torch.bfloat16
    logps = policy(collate(ragged_sets()))
    exact = make_policy(lm)(collate(ragged_sets()))
    assert logps.token_logps_BKT.dtype == torch.float32
    error = (logps.token_logps_BKT - exact.token_logps_BKT).abs().max()
    assert 0 < float(error.detach()) < 0.5

"""Sampling: the right distribution, rows that end early, one result for one seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoTokenizer,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from mpo.config.schema import SampleConfig
from mpo.data.chat import special_tokens
from mpo.sample.decoder import decoder_of
from mpo.sample.hf import Sampled, _as_text, _batches, _continue, sample_responses
from mpo.testbed.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = Path(tmp_path_factory.mktemp("tokenizer"))
    build_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def recurrent_model(model: LlamaForCausalLM) -> Lfm2ForCausalLM:
    """Layers whose state can neither be repeated for more responses nor lose rows, beside attention."""
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=model.config.vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2,
        layer_types=["conv", "full_attention", "conv"],
    )  # fmt: skip
    return Lfm2ForCausalLM(config).eval()


PROMPTS = [[7, 8, 9], [10, 11, 12, 13, 14], [20]]


def draw(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, seed: int, **how: float) -> list[list[Sampled]]:
    config = SampleConfig(**{"n": 3, "max_new_tokens": 12, "batch": 6, **how})
    return sample_responses(model, tokenizer, PROMPTS, config, [3, 40, 41, 42, 43], seed, {}, lambda *batch: None)


def test_a_seed_fixes_the_responses(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    once = draw(model, tokenizer, 1)
    assert [len(row) for row in once] == [3, 3, 3]
    assert once == draw(model, tokenizer, 1)
    assert once != draw(model, tokenizer, 2)


def test_batches_drawn_before_are_not_drawn_again(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    config = SampleConfig(n=2, max_new_tokens=6, batch=2)
    seen: dict[int, list[list[Sampled]]] = {}

    def again(before: dict[int, list[list[Sampled]]]) -> list[list[Sampled]]:
        seen.clear()
        return sample_responses(
            model, tokenizer, PROMPTS, config, [3], 5, before, lambda number, made, done: seen.update({number: made})
        )

    whole = again({})
    assert sorted(seen) == [0, 1, 2] and [whole[1]] == seen[0]  # the longest prompt first
    assert again({0: seen[0], 2: seen[2]}) == whole
    assert sorted(seen) == [1]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 4), st.integers(20, 300))
def test_batches_hold_every_prompt_once_within_rows_and_tokens(lengths: list[int], n: int, tokens: int) -> None:
    config = SampleConfig(n=n, max_new_tokens=10, batch=12, batch_tokens=tokens)
    batches = _batches(lengths, config)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert [lengths[i] for batch in batches for i in batch] == sorted(lengths, reverse=True)
    for batch in batches:
        rows = len(batch) * n
        assert len(batch) == 1 or (rows <= 12 and rows * (lengths[batch[0]] + 10) <= tokens)


@pytest.mark.parametrize("family", ["attention", "recurrent"])
def test_nearly_greedy_equals_a_plain_loop_although_rows_end_at_different_times(
    request: pytest.FixtureRequest, family: str
) -> None:
    model = request.getfixturevalue("model" if family == "attention" else "recurrent_model")
    rows = [[5 + i, 50 + i, 9] if i % 2 else [60 + i] for i in range(8)]
    config = SampleConfig(n=2, temperature=1e-4, max_new_tokens=12)
    stops = torch.tensor([3, *range(40, 60)])
    found = _continue(model, decoder_of(model), rows, config, stops, torch.Generator().manual_seed(0))
    lengths = set()
    assert found[::2] == found[1::2]
    for row, tokens in zip(rows, found[::2], strict=True):
        ids, expected = list(row), []
        while len(expected) < 12:
            with torch.no_grad():
                expected.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            ids.append(expected[-1])
            if expected[-1] in stops.tolist():
                break
        assert tokens == expected
        lengths.add(len(tokens))
    assert len(lengths) > 1, "rows that end at different times are the point of this test"


def test_first_tokens_follow_the_model_at_a_temperature(model: LlamaForCausalLM) -> None:
    config = SampleConfig(n=20_000, temperature=0.8, max_new_tokens=1)
    found = _continue(model, decoder_of(model), [[7, 8]], config, torch.tensor([3]), torch.Generator().manual_seed(0))
    counts = torch.bincount(torch.tensor([tokens[0] for tokens in found]), minlength=model.config.vocab_size)
    with torch.no_grad():
        expected = (model(torch.tensor([[7, 8]])).logits[0, -1] / 0.8).softmax(-1)
    assert float((counts / 20_000 - expected).abs().sum()) / 2 < 0.03  # total variation


def test_top_p_leaves_the_tail_out(model: LlamaForCausalLM) -> None:
    config = SampleConfig(n=2000, temperature=1.0, top_p=0.3, max_new_tokens=1)
    found = _continue(model, decoder_of(model), [[7, 8]], config, torch.tensor([3]), torch.Generator().manual_seed(0))
    with torch.no_grad():
        probabilities = model(torch.tensor([[7, 8]])).logits[0, -1].softmax(-1).sort(descending=True)
    allowed = int((probabilities.values.cumsum(0) < 0.3).sum()) + 1
    assert {tokens[0] for tokens in found} <= set(probabilities.indices[:allowed].tolist())


def test_a_special_token_inside_a_response_is_named_but_not_the_one_that_ends_it(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    special = special_tokens(tokenizer)
    end = int(tokenizer.eos_token_id)
    name, inside = next((name, index) for name, index in special.items() if index != end)
    words = [index for index in range(len(tokenizer)) if index not in special.values()][:2]
    text = tokenizer.decode(words)
    assert _as_text(tokenizer, [*words, end], {end}) == Sampled(text, True)
    assert _as_text(tokenizer, [words[0], inside, words[1], end], {end}) == Sampled(text, True, name)
    assert _as_text(tokenizer, [*words, inside], {end}) == Sampled(text, False, name)


def test_a_response_that_hits_the_limit_is_not_finished(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    config = SampleConfig(n=4, max_new_tokens=2, batch=12)
    drawn = sample_responses(model, tokenizer, PROMPTS, config, [3], 0, {}, lambda *batch: None)
    assert any(not each.finished for row in drawn for each in row)
    assert all(len(each.text.split()) <= 2 for row in drawn for each in row)

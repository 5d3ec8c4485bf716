from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mpo.testbed.demonstrations import generate_demonstrations
from mpo.testbed.tokenizer import END, PAD, build_tokenizer
from mpo.testbed.world import VOCABULARY


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    # Beside a checkpoint, as a policy's folder has it: the model's type must not change the tokenizer.
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 111}), encoding="utf-8")
    loaded = AutoTokenizer.from_pretrained(folder)
    assert isinstance(loaded, PreTrainedTokenizerBase)
    return loaded


def ids_of(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], generate: bool) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_every_word_is_one_token(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer(" ".join(VOCABULARY))["input_ids"]
    assert len(ids) == len(set(ids)) == len(VOCABULARY)
    assert tokenizer.unk_token_id not in ids
    assert len(tokenizer) == 111


def test_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == (END, PAD, None)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer("elephant")["input_ids"] == [tokenizer.unk_token_id]


@given(words=st.lists(st.sampled_from(VOCABULARY), max_size=40))
def test_decoding_and_encoding_are_inverse(tokenizer: PreTrainedTokenizerBase, words: list[str]) -> None:
    text = " ".join(words)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer(tokenizer.decode(ids))["input_ids"] == ids


def test_decoding_can_leave_the_end_out(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer(f"the rose sees the bee . {END}")["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the rose sees the bee ."


@pytest.mark.parametrize("system", [None, "look"])
def test_prompt_ids_are_a_prefix_and_the_turn_ends_with_eos(
    tokenizer: PreTrainedTokenizerBase, system: str | None
) -> None:
    opening = [] if system is None else [{"role": "system", "content": system}]
    for prompt, response in generate_demonstrations(50, 0):
        turns = [*opening, {"role": "user", "content": prompt}]
        prompt_ids = ids_of(tokenizer, turns, generate=True)
        full_ids = ids_of(tokenizer, [*turns, {"role": "assistant", "content": response}], generate=False)
        assert full_ids[: len(prompt_ids)] == prompt_ids
        assert full_ids[len(prompt_ids) :] == [*tokenizer(response)["input_ids"], tokenizer.eos_token_id]
        assert tokenizer.unk_token_id not in full_ids


def test_the_conversation_so_far_is_a_prefix_of_the_next_turn(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [{"role": "user", "content": "so"}, {"role": "assistant", "content": "well ."}]
    longer = [*turns, {"role": "user", "content": "again"}]
    before, after = ids_of(tokenizer, turns, False), ids_of(tokenizer, longer, True)
    assert after[: len(before)] == before

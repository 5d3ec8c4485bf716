"""Small tokenizers, trained here, with the special tokens and BOS habits of the families that the templates serve."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mpo.data.tokenizer import load_template

TEXT = [
    "Hello there, how are you today?\n\nI am fine.\n\n\n1. one\n2. two  three",
    "user assistant system [INST] [/INST] <|user|> <|assistant|> <|system|> You are a helpful assistant.",
    "def f(x):\n    return x + 1\n\n\nnaïve café — 東京 🙂",
] * 4
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = {
    "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "zephyr": ["<s>", "</s>"],
    "mistral_inst": ["<s>", "</s>"],
    "mistral_v7": ["<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"],
    "chatml_qwen": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
}
EOS = {"llama3": "<|end_of_text|>", "chatml_qwen": "<|im_end|>"}
EOS |= dict.fromkeys(["zephyr", "mistral_inst", "mistral_v7"], "</s>")


@cache
def build(template: str, pieces: str) -> PreTrainedTokenizerBase:
    """``pieces``: ``bytes`` (byte-level) or ``words`` (Metaspace, as in SentencePiece models)."""
    special = SPECIAL[template]
    alphabet: list[str] = []
    bpe = Tokenizer(models.BPE(unk_token=None))
    if pieces == "bytes":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        words = pre_tokenizers.Split(Regex(LLAMA3_WORDS), behavior="isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        bpe.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
        bpe.decoder = decoders.ByteLevel()
    else:
        alphabet = ["\n", *(chr(code) for code in range(32, 127))]
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        bpe.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXT, trainer)
    bos = None if template == "chatml_qwen" else special[0]
    if bos is not None:  # the tokenizer adds BOS by itself, as the later Llama 3 ones do
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, bpe.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=bos, eos_token=EOS[template], clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = load_template(template)
    return tokenizer


@pytest.fixture
def make_tokenizer() -> Callable[[str, str], PreTrainedTokenizerBase]:
    return build

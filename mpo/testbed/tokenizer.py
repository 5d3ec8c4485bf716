"""The world's tokenizer: one token a word, saved in the form that transformers loads."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mpo.testbed.world import VOCABULARY

PAD, UNKNOWN, END = "<|pad|>", "<|unk|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")

# Every turn is closed by the end token, so a prompt's ids are a prefix of the ids of the whole conversation.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|> ' + message['content'] + ' <|end|> ' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|> ' }}{% endif %}"
)


def build_tokenizer(folder: Path) -> None:
    """Save the tokenizer into ``folder`` (made if absent): 111 tokens, ``<|end|>`` ends a turn and is the eos.

    Nothing is added around a text. Decoding joins words by blanks, so encoding a decoded text gives its ids back.
    """
    words = (PAD, UNKNOWN, END, *ROLES, *VOCABULARY)
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    tokenizer.save_pretrained(folder)

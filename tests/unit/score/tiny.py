"""Tiny reward models of the real architectures, with a tokenizer like Llama 3's, saved as the hub has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoModel, LlamaConfig, PreTrainedTokenizerFast

from mpo.data.tokenizer import load_template
from mpo.score import Item
from mpo.types import Message

BOS, EOT, PAD = "<|begin_of_text|>", "<|eot_id|>", "<|pad|>"
SPECIAL = [BOS, EOT, "<|start_header_id|>", "<|end_header_id|>", PAD]
TEXT = ["Name a use of a brick . Hold the door open ! Throw it far away ? user assistant system tool \n\n"]
SIZE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer(folder: Path, adds_bos: bool = True, **options: Any) -> PreTrainedTokenizerFast:
    """One that knows bytes and a few words, adds a BOS by itself, and has Llama 3's template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    if adds_bos:
        bpe.post_processor = TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bpe.token_to_id(BOS))]
        )
    named = {"bos_token": BOS, "eos_token": EOT, "pad_token": PAD, "additional_special_tokens": SPECIAL[2:4]}
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, **{**named, **options})
    made.chat_template = load_template("llama3")
    made.save_pretrained(folder)
    return made


def save(folder: Path, config: Any, weights: dict[str, torch.Tensor], **keys: Any) -> None:
    """Write weights and config.json with ``keys`` in it."""
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    config.save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def backbone(config: Any = None, seed: int = 0) -> Any:
    """A random model without a head, its weights large enough that scores differ clearly."""
    torch.manual_seed(seed)
    config = config or LlamaConfig(vocab_size=320, max_position_embeddings=256, initializer_range=0.3, **SIZE)
    return AutoModel.from_config(config).eval()


def named(base: Any, prefix: str = "model.") -> dict[str, torch.Tensor]:
    """The backbone's weights by the names that they have in a checkpoint."""
    return {f"{prefix}{name}": value for name, value in base.state_dict().items()}


def item(response: str, prompt: str = "Name a use of a brick.", system: str | None = None, **more: Any) -> Item:
    turns = [] if system is None else [Message("system", system)]
    return Item((*turns, Message("user", prompt)), Message("assistant", response), **more)


ITEMS = [
    item("Hold the door open."),
    item("Throw it!"),
    item("Throw it far away? Hold it. Name it. Hold the door open, and throw the brick far, far away."),
    item("No", "Open the door", system="Hold it."),
    Item(
        (Message("user", "Throw"), Message("assistant", "it"), Message("user", "far?")), Message("assistant", "away !")
    ),
]


def text_ids(made: PreTrainedTokenizerFast, one: Item) -> list[int]:
    """What the model reads, written by hand: Llama 3's format with one BOS."""
    turns = [*one.prompt, one.response]
    text = BOS + "".join(
        f"<|start_header_id|>{turn.role}<|end_header_id|>\n\n{turn.content.strip()}{EOT}" for turn in turns
    )
    return list(made(text, add_special_tokens=False)["input_ids"])


@torch.inference_mode()
def hidden(base: Any, ids: list[int]) -> torch.Tensor:
    """Hidden states [T, D] of one sequence, without padding."""
    return base(input_ids=torch.tensor([ids])).last_hidden_state[0]  # type: ignore[no-any-return]

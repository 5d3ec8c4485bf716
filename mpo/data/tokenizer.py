"""Tokenizers: load one, or train a small one on local text."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATES = Path(__file__).parent / "templates"
OF_THE_DATA = frozenset({"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"})
DATE = "strftime_now"
"""What templates call for today's date, and the argument that stands for it."""
PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"


def template_names() -> tuple[str, ...]:
    """The chat templates that come with mpo."""
    return tuple(sorted(path.stem for path in TEMPLATES.glob("*.jinja")))


def load_template(name: str) -> str:
    """A template by its name, or from a ``.jinja`` file; raises ``ConfigError`` where there is neither."""
    path = Path(name) if name.endswith(".jinja") else TEMPLATES / f"{name}.jinja"
    if name.endswith(".jinja") or name in template_names():
        try:
            return path.read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {path}: {error}", "model.chat_template", "give a .jinja file") from None
    close = difflib.get_close_matches(name, template_names(), n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    remedy = f"{hint}choose one of {', '.join(template_names())}, or a .jinja file"
    raise ConfigError(f"unknown chat template '{name}'", "model.chat_template", remedy)


def template_head(arguments: Mapping[str, Any]) -> str:
    """What is written before a chat template so that its arguments have these values.

    A text for ``strftime_now``, transformers' function of today's date, is what that gives, whatever it is asked for.

    Raises:
        ConfigError: a value that is no text, number, true or false; a name that is none, or is the data's.
    """
    lines = []
    for name, value in sorted(arguments.items()):
        key = f"model.template_arguments.{name}"
        if not name.isidentifier() or name in OF_THE_DATA:
            raise ConfigError("a template cannot be given this", key, "name an argument such as enable_thinking")
        if not isinstance(value, bool | int | float | str):
            raise ConfigError(f"{value!r} does not fit", key, "give text, a number, true or false")
        if name == DATE and not isinstance(value, str):
            raise ConfigError(f"{value!r} is no date", key, "give it as the template writes it: '26 Jul 2024', say")
        written = json.dumps(value, ensure_ascii=False)
        if name == DATE:
            lines.append(f"{{% macro {name}(form) %}}{{{{ {written} }}}}{{% endmacro +%}}")
        else:
            lines.append(f"{{% set {name} = {written} +%}}")
    return "".join(lines)


def _with_arguments(template: str, arguments: Mapping[str, Any]) -> str:
    head = template_head(arguments)
    if template.startswith(head):  # of a policy from a round before
        return template
    words = set(re.findall(r"\w+", template))
    for name in arguments:
        if name not in words:
            key = f"model.template_arguments.{name}"
            raise ConfigError("the chat template does not know it", key, "leave it out, or correct its name")
    return head + template


def load_tokenizer(
    path_or_name: str,
    chat_template: str | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
    template_arguments: Mapping[str, Any] | None = None,
) -> PreTrainedTokenizerBase:
    """A tokenizer from a folder or the hub, with its own chat template or the one given (its text).

    ``template_arguments`` are written into the template, so that a saved policy renders as it was trained.

    Raises ``ConfigError`` for a folder or name without a readable tokenizer, and for arguments that the template lacks.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path_or_name,
            trust_remote_code=trust_remote_code,
            revision=revision or "main",
            mistral_format=False,  # where mistral-common is installed it would take over, and it has no chat template
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        detail = (str(error).strip() or type(error).__name__).splitlines()[0]
        if Path(path_or_name).is_dir():
            what, remedy = f"no readable tokenizer in this folder: {detail}", "give a folder that save_pretrained wrote"
        else:
            what, remedy = f"no tokenizer of this name: {detail}", "check the name and the network, or give a folder"
        raise ConfigError(what, path_or_name, remedy) from None
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    if template_arguments:
        if not isinstance(tokenizer.chat_template, str):
            raise ConfigError(
                "the tokenizer has no chat template", "model.template_arguments", "name model.chat_template"
            )
        tokenizer.chat_template = _with_arguments(tokenizer.chat_template, template_arguments)
    return tokenizer


def vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the tokenizer's vocabulary, added tokens among it: equal where the same ids are the same tokens."""
    entries = sorted((index, token) for token, index in tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def train_tokenizer(texts: Iterable[str], vocab_size: int, out: Path) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE with the ``chatml`` template and save it as a folder; the same texts give the same files.

    EOS is end-of-turn, padding a token of its own, BOS there is none. The vocabulary may stay below ``vocab_size``
    where the texts are short. Raises ``ConfigError`` for a size that the bytes and special tokens alone exceed,
    ``DataError`` for no text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special, alphabet = [PAD, START, END], sorted(pre_tokenizers.ByteLevel.alphabet())
    smallest = len(special) + len(alphabet)
    if vocab_size < smallest:
        raise ConfigError(
            f"{vocab_size} tokens cannot hold all bytes", "model.scratch.vocab_size", f"give at least {smallest}"
        )
    seen = 0

    def counted() -> Iterable[str]:
        nonlocal seen
        for text in texts:
            seen += len(text)
            yield text

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        counted(),
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    if seen == 0:
        raise DataError("no text to train a tokenizer on", str(out), "give sources that hold text")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = load_template("chatml")
    tokenizer.save_pretrained(out)
    return tokenizer

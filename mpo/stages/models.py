"""Which model folder or hub name a stage is to load, whatever it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerBase

from mpo.cache.stage import File, Hub
from mpo.data.tokenizer import load_tokenizer
from mpo.errors import ConfigError

POLICY_FOLDER = "policy"
"""Name of the Hugging Face folder inside the directory of a stage that makes a policy."""

ADAPTER_FOLDER = "adapter"
"""The same of a folder with adapters alone, beside it."""

DATED = (
    "the chat template writes today's date into prompts, so that those of another day are others: "
    "model.template_arguments.strftime_now='26 Jul 2024', say, fixes it"
)
"""Said where :func:`mpo.data.chat.writes_date` finds so."""

Model = Path | File | Hub
"""Directory of a stage that made a policy, or a model from outside."""


def model_source(model: Model) -> tuple[str, str | None]:
    """(folder or hub name, revision) of a model."""
    if isinstance(model, Hub):
        return model.name, model.revision
    return (model.path if isinstance(model, File) else str(model / POLICY_FOLDER)), None


def embeddings(model: Model, trust_remote_code: bool) -> int:
    """How many token ids the model has an embedding for. Its ``config.json`` is read, no weights."""
    return int(_text_config(model, trust_remote_code).vocab_size)


def positions(model: Model, trust_remote_code: bool) -> int | None:
    """How many tokens a sequence of the model may have, where its ``config.json`` says so."""
    found = getattr(_text_config(model, trust_remote_code), "max_position_embeddings", None)
    return None if found is None else int(found)


def _text_config(model: Model, trust_remote_code: bool) -> Any:
    path, revision = model_source(model)
    return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code).get_text_config()


def check_ids(model: Model, trust_remote_code: bool, largest: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse token ids that the model has no embedding for.


    A tokenizer may know more ids than the model, as long as no text uses them.

    Args:
        largest: id that the stage's texts have.

    Raises:
        ConfigError: names both sizes.
    """
    known = embeddings(model, trust_remote_code)
    if largest >= known:
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} ids, and the texts use {largest}, but the model has embeddings for "
            f"{known}",
            "model.tokenizer",
            "use the model's own tokenizer, or resize_token_embeddings and save the model",
        )


def stage_tokenizer(
    model: Model,
    other: File | Hub | None,
    chat_template: str | None,
    trust_remote_code: bool,
    template_arguments: Mapping[str, Any],
) -> PreTrainedTokenizerBase:
    """The tokenizer of the model, or the ``other`` one that the configuration names instead; see
    :func:`mpo.data.tokenizer.load_tokenizer`."""
    path, revision = model_source(other or model)
    return load_tokenizer(path, chat_template, trust_remote_code, revision, template_arguments)

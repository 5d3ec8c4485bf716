"""Which model folder or hub name a stage is to load, whatever it came from."""

from __future__ import annotations

from transformers import AutoConfig, PreTrainedTokenizerBase

from mpo.data.tokenizer import load_tokenizer
from mpo.errors import ConfigError
from mpo.stages.context import StageContext

POLICY_FOLDER = "policy"
"""Name of the Hugging Face folder inside the directory of a stage that makes a policy."""


def model_source(context: StageContext, role: str = "policy") -> tuple[str, str | None]:
    """(folder or hub name, revision) of the model that the stage knows as ``role``."""
    if role in context.inputs:
        return str(context.inputs[role] / POLICY_FOLDER), None
    if role in context.files:
        return str(context.files[role]), None
    named = context.config[role]
    return named["path"], named["revision"]


def check_ids(context: StageContext, largest: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse token ids that the stage's model has no embedding for. Its ``config.json`` is read, no weights.

    A tokenizer may know more ids than the model, as long as no text uses them.

    Args:
        largest: id that the stage's texts have.

    Raises:
        ConfigError: names both sizes.
    """
    path, revision = model_source(context)
    config = AutoConfig.from_pretrained(
        path, revision=revision, trust_remote_code=context.config["trust_remote_code"]
    ).get_text_config()
    if largest >= config.vocab_size:
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} ids, and the texts use {largest}, but the model has embeddings for "
            f"{config.vocab_size}",
            "model.tokenizer",
            "use the model's own tokenizer, or resize_token_embeddings and save the model",
        )


def stage_tokenizer(context: StageContext) -> PreTrainedTokenizerBase:
    """The tokenizer of that model, or the one that the config names instead."""
    path, revision = model_source(context)
    config = context.config
    if "tokenizer" in context.files:
        path, revision = str(context.files["tokenizer"]), None
    elif config["tokenizer"] is not None:
        path, revision = config["tokenizer"], None
    return load_tokenizer(path, config["chat_template"], config["trust_remote_code"], revision)

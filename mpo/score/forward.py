"""A reward model loaded, and scores of token ids."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
from transformers.utils import logging as transformers_logging

from mpo.config.training import Precision
from mpo.data.chat import raw_ids
from mpo.data.tokenizer import load_tokenizer
from mpo.errors import ConfigError, DataError, UserError, first_line
from mpo.policy.model_class import attention_choice
from mpo.policy.pretrained import read_weights
from mpo.policy.weights import check_files, widen_when_read
from mpo.score.heads import OWN, HeadedModel, last_token
from mpo.score.inputs import find_last
from mpo.score.model_folder import Head

PROMPT_END = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
"""Llama 3's end of a prompt, where ArmoRM and QRM read their gate: [128009, 128006, 78191, 128007]. The blank line that
their own pattern has after it is left out: how it is split depends on the response."""

CHANGES_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Keys of configs whose models do not give head(hidden states) as it is."""


@dataclass
class LoadedModel:
    """A reward model on its device.

    Attributes:
        lm: the model with its head.
        tokenizer: with the chat template that it renders conversations by.
        prompt_end: ids that begin where a gated head reads the prompt; None for other heads.
        device: of the weights.
    """

    lm: Any
    tokenizer: PreTrainedTokenizerBase
    head: Head
    prompt_end: list[int] | None
    device: torch.device

    def scores(self, rows: Sequence[Sequence[int]], batch_tokens: int) -> list[float]:
        """Scores of rows of token ids, in their order.

        Args:
            batch_tokens: tokens of a batch, padding included; a longer row is a batch of its own.

        Raises:
            DataError: a gated head does not find the end of a row's prompt.
        """
        gates = [self._gate(row) for row in rows]
        found = [0.0] * len(rows)
        for batch in by_length([len(row) for row in rows], batch_tokens):
            ids_BT, mask_BT = padded_right([rows[i] for i in batch])
            gate_B = torch.tensor([gates[i] for i in batch], device=self.device)
            scores_B = self._forward(ids_BT.to(self.device), mask_BT.to(self.device), gate_B)
            for i, score in zip(batch, scores_B.tolist(), strict=True):
                found[i] = score
        return found

    @torch.inference_mode()
    def _forward(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, gate_B: torch.Tensor) -> torch.Tensor:
        base = getattr(self.lm, self.lm.base_model_prefix)
        hidden_BTD = base(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).last_hidden_state
        if isinstance(self.lm, HeadedModel):
            return self.lm.scores(hidden_BTD, mask_BT, gate_B)
        last_BD = last_token(hidden_BTD, mask_BT)
        if self.head is Head.token_logit:  # Nemotron's reward: the logit of token 0 after the whole conversation
            return last_BD @ self.lm.get_output_embeddings().weight[0].float()
        return self.lm.score(last_BD)[:, 0]  # type: ignore[no-any-return]

    def _gate(self, row: Sequence[int]) -> int:
        if self.prompt_end is None:
            return 0
        start = find_last(row, self.prompt_end)
        if start is None:
            what = "the gate of the reward model finds no end of the prompt (Llama 3's assistant header) in its input"
            raise DataError(what, "score.max_tokens", "raise it, so that prompts are not cut off, or use its template")
        return start

    def release(self) -> None:
        """Drop the model; GPU memory goes back to the device."""
        self.lm = None
        release_memory(self.device)


def by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, the longest first, of ``batch_tokens`` tokens at most, padding included."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded_right(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask [B, T]; what ids stand in the padding does not matter, as the mask alone is read."""
    longest = max(len(row) for row in rows)
    ids = [[*row, *[0] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def load_reward_model(
    path: str,
    revision: str | None,
    head: Head,
    precision: Precision,
    trust_remote_code: bool,
    chat_template: str | None,
) -> LoadedModel:
    """A reward model and its tokenizer, on the GPU if there is one.

    Raises:
        UserError: nothing loadable at ``path``, only pickles, weights that are missing or that its head does not use.
        ConfigError: the model is of another kind than ``head``, or there is no tokenizer.
    """
    config = read_config(path, revision, trust_remote_code)
    lm = load_weights(path, revision, precision, trust_remote_code, config, _class(config, head, trust_remote_code))
    tokenizer = load_tokenizer(path, chat_template, trust_remote_code, revision)
    if not isinstance(lm, HeadedModel) and head is Head.linear:
        if not isinstance(getattr(lm, "score", None), torch.nn.Module) or config.num_labels != 1:
            raise _other_kind(config, "has no head with one output at the last token")
        lm.score.float()
    if head is Head.token_logit and any(getattr(config, key, None) not in (None, 1) for key in CHANGES_LOGITS):
        raise _other_kind(config, "changes its logits, so that none of them is a score")
    prompt_end = raw_ids(tokenizer, [PROMPT_END])[0] if getattr(lm, "gated", False) else None
    device = compute_device()
    return LoadedModel(lm.to(device), tokenizer, head, prompt_end, device)


def read_config(path: str, revision: str | None, trust_remote_code: bool) -> Any:
    """The model's config; raises UserError where there is none."""
    transformers_logging.disable_progress_bar()  # stages show their own progress
    check_files(path)
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, StrictDataclassError) as error:
        raise _unloadable(path, error) from error
    widen_when_read(config)
    return config


def load_weights(
    path: str, revision: str | None, precision: Precision, trust_remote_code: bool, config: Any, loader: Any
) -> PreTrainedModel:
    """The model of class ``loader`` on the CPU in evaluation mode, all of its weights read from safetensors."""
    try:
        attention = attention_choice(config, AutoModelForCausalLM)
        return read_weights(path, revision, precision, trust_remote_code, config, loader, attention)
    except UserError:
        raise
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise _unloadable(path, error) from error


def compute_device() -> torch.device:
    """The GPU that this process was given, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def release_memory(device: torch.device) -> None:
    """Give what dropped models held back to the device, for the stages that come next."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _class(config: Any, head: Head, trust_remote_code: bool) -> Any:
    if head in OWN:
        return OWN[head]
    if head is Head.token_logit:
        return AutoModelForCausalLM
    remote = trust_remote_code and "AutoModelForSequenceClassification" in (getattr(config, "auto_map", None) or {})
    cls = None if remote else MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if cls is None:
        return AutoModelForSequenceClassification
    # A head that was saved in float32 is read as it is also where the rest is read in bfloat16.
    return type(cls.__name__, (cls,), {"_keep_in_fp32_modules_strict": ["score"], "__module__": cls.__module__})


def _other_kind(config: Any, what: str) -> ConfigError:
    return ConfigError(f"model type {config.model_type} {what}", "score.path", "name a reward model, or its score.head")


def _unloadable(path: str, error: BaseException) -> UserError:
    first = first_line(error)
    remedy = "give a folder with weights or a hub name"
    return UserError(f"cannot load a reward model from {path!r}: {first}", "score.path", remedy)

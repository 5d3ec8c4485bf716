"""An encoder, and unit vectors that stand for texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, PreTrainedTokenizerBase

from mpo.data.tokenizer import load_tokenizer
from mpo.errors import ConfigError, DataError, UserError, first_line
from mpo.policy.weights import check_files
from mpo.score.forward import by_length, compute_device, padded_right

WHERE, REMEDY = "partition.path", "give a folder with an encoder's weights, or a hub name"
BATCH_TOKENS = 16384
"""Tokens that are computed at once, padding included."""


@dataclass
class Encoder:
    """An encoder on its device; ``longest``: tokens that it reads at most, None where it has no limit."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    longest: int | None
    device: torch.device

    def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], set[int]]:
        """The last hidden states of each text, their mean over its tokens, scaled to length 1: float32 [N, D]. A text
        without tokens is the zero vector. And the indices of texts that were cut at ``longest``.

        Raises:
            ConfigError: the model has no embedding for a token of its tokenizer.
            DataError: a vector is not finite.
        """
        rows = [list(row) for row in self.tokenizer(list(texts), verbose=False)["input_ids"]]
        cut = {i for i, row in enumerate(rows) if self.longest is not None and len(row) > self.longest}
        for i in cut:
            rows[i] = list(self.tokenizer(texts[i], truncation=True, max_length=self.longest)["input_ids"])
        known = self.model.get_input_embeddings().num_embeddings
        largest = max((max(row, default=0) for row in rows), default=0)
        if largest >= known:
            what = f"its tokenizer gives id {largest}, but it has embeddings for {known}"
            raise ConfigError(what, WHERE, "save the encoder with its own tokenizer")
        vectors_ND = torch.zeros(len(rows), self.model.config.hidden_size)
        kept = [i for i, row in enumerate(rows) if row]
        for batch in by_length([len(rows[i]) for i in kept], BATCH_TOKENS):
            numbers = [kept[place] for place in batch]
            vectors_ND[numbers] = self._forward([rows[i] for i in numbers]).cpu()
        if not bool(vectors_ND.isfinite().all()):
            raise DataError("the encoder gives embeddings that are not finite", WHERE, "check its weights")
        return vectors_ND.numpy(), cut

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        ids_BT, mask_BT = (each.to(self.device) for each in padded_right(rows))
        hidden_BTD = self.model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state.float()
        mask_BT1 = mask_BT[..., None].float()
        mean_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
        return torch.nn.functional.normalize(mean_BD, dim=-1)


def load_encoder(path: str, revision: str | None) -> Encoder:
    """An encoder in float32 and its tokenizer, on the GPU if there is one.

    Raises:
        UserError: nothing loadable at ``path``, or weights other than those of a pooler are missing.
        ConfigError: the model has a decoder beside the encoder, or there is no tokenizer.
    """
    check_files(path)
    try:
        model, info = AutoModel.from_pretrained(
            path,
            revision=revision,
            dtype=torch.float32,
            use_safetensors=True,  # the older format is a pickle, which can run code
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        first = first_line(error)
        raise UserError(f"cannot load an encoder from {path!r}: {first}", WHERE, REMEDY) from error
    if missing := sorted(name for name in info["missing_keys"] if not name.startswith("pooler.")):
        what = f"'{path}' lacks {missing[0]} and {len(missing) - 1} other weights"
        raise UserError(what, WHERE, REMEDY)
    if model.config.is_encoder_decoder:
        raise ConfigError(f"model type {model.config.model_type} has a decoder too", WHERE, "name an encoder")
    tokenizer = load_tokenizer(path, revision=revision)
    device = compute_device()
    return Encoder(model.eval().to(device), tokenizer, _longest(model, tokenizer), device)


def _longest(model: Any, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Tokens that the model has positions for, and its tokenizer says that it reads."""
    limits = [] if tokenizer.model_max_length > 10**9 else [tokenizer.model_max_length]
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and positions > 0:
        table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)  # RoBERTa's kind counts positions from behind it
        limits.append(positions if padding is None else positions - padding - 1)
    return min(limits, default=None)

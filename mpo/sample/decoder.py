"""Logits of one next token after another, with what a family keeps of the tokens before: a cache, or nothing."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from mpo.policy.agreement import fitting_extras
from mpo.policy.full_precision import in_float32
from mpo.policy.head import LogitExtras
from mpo.policy.model_class import backbone
from mpo.policy.probe import probe

STEPS = 2
"""New tokens of the trial of a cache."""


class Decoder(Protocol):
    """Decoding of one batch.

    Attributes:
        flexible: whether rows may be repeated after the first step and taken out after any.
    """

    flexible: bool

    def __call__(self, ids_RT: Tensor, mask_RT: Tensor, positions_RT: Tensor) -> Tensor:
        """Logits ``[R,V]`` after the new tokens ``ids_RT``; the first call's are prompts, padded on the left.

        Args:
            mask_RT: of all tokens so far.
            positions_RT: of the new ones.
        """

    def repeat(self, times: int) -> None:
        """Each row so many times, side by side."""

    def select(self, rows: Tensor) -> None:
        """Go on with these rows only."""


def decoder_of(model: PreTrainedModel) -> Callable[[], Decoder]:
    """What makes a decoder for each batch.

    A cache of keys and values is transformers' own for every family. One that holds states of another kind, which
    padding or a missing argument could spoil, is tried on a few tokens; where it gives other logits than forward passes
    without it, or fails, all tokens are forwarded at each step.
    """
    cached = partial(_Cached, model)
    if not cached().unusual or _agrees(model, cached):
        return cached
    warnings.warn(
        f"the cache of model type {model.config.model_type} is not used: every new token forwards all before it",
        stacklevel=2,
    )
    return partial(_Uncached, model, fitting_extras(model))


class _Cached:
    def __init__(self, model: PreTrainedModel) -> None:
        self._model, self._cache = model, DynamicCache(config=model.config)
        takes = inspect.signature(model.forward).parameters
        layers = self._cache.layers
        recurrent = any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers)
        # A recurrent state in place of keys and values can neither be repeated nor lose rows.
        self.flexible = not recurrent and all(hasattr(layer, "batch_select_indices") for layer in layers)
        self._cache_name = "past_key_values" if "past_key_values" in takes else "cache_params"
        self._positions = "position_ids" in takes
        self._one: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        self.unusual = recurrent or not self.flexible or not {"past_key_values", "position_ids"} <= takes.keys()

    def __call__(self, ids_RT: Tensor, mask_RT: Tensor, positions_RT: Tensor) -> Tensor:
        positions = {"position_ids": positions_RT} if self._positions else {}
        more = {self._cache_name: self._cache, **positions, **self._one}
        logits_RNV: Tensor = self._model(input_ids=ids_RT, attention_mask=mask_RT, use_cache=True, **more).logits
        return logits_RNV[:, -1]

    def repeat(self, times: int) -> None:
        self._cache.batch_repeat_interleave(times)

    def select(self, rows: Tensor) -> None:
        self._cache.batch_select_indices(rows)


class _Uncached:
    flexible = True

    def __init__(self, model: PreTrainedModel, extras: LogitExtras) -> None:
        self._model, self._extras = model, extras
        self._tokens: list[list[int]] = []

    def __call__(self, ids_RT: Tensor, mask_RT: Tensor, positions_RT: Tensor) -> Tensor:
        new = [ids[-n:] for ids, n in zip(ids_RT.tolist(), self._lengths(ids_RT, mask_RT), strict=True)]
        self._tokens = [old + more for old, more in zip(self._tokens or [[] for _ in new], new, strict=True)]
        lengths_R = torch.tensor([len(tokens) for tokens in self._tokens], device=ids_RT.device)
        whole_RT = torch.zeros(len(new), int(lengths_R.max()), dtype=torch.long)
        for r, tokens in enumerate(self._tokens):  # padding on the right, which no token sees
            whole_RT[r, : len(tokens)] = torch.tensor(tokens)
        at_T = torch.arange(whole_RT.shape[1], device=ids_RT.device)
        hidden_RTD = backbone(self._model)(
            input_ids=whole_RT.to(ids_RT.device), attention_mask=(at_T < lengths_R[:, None]).long(), use_cache=False
        ).last_hidden_state
        head = self._model.get_output_embeddings()
        assert isinstance(head, nn.Module)
        rows_R = torch.arange(len(new), device=ids_RT.device)
        logits_RV: Tensor = head(hidden_RTD[rows_R, lengths_R - 1]).float() * self._extras.factor
        cap = self._extras.softcap
        return logits_RV if cap is None else (logits_RV / cap).tanh() * cap

    def _lengths(self, ids_RT: Tensor, mask_RT: Tensor) -> list[int]:
        if self._tokens:
            return [ids_RT.shape[1]] * len(ids_RT)
        return [int(n) for n in mask_RT.sum(-1)]

    def repeat(self, times: int) -> None:
        self._tokens = [list(tokens) for tokens in self._tokens for _ in range(times)]

    def select(self, rows: Tensor) -> None:
        self._tokens = [self._tokens[r] for r in rows.tolist()]


def _agrees(model: PreTrainedModel, cached: Callable[[], Decoder]) -> bool:
    """Whether a cache gives, after prompts of two lengths, the logits of forward passes without one; in float32."""
    one = probe(model.config)
    prompts = [[int(i) for i in ids] for ids in (one.response_ids[0], one.response_ids[0][:2])]
    new = [int(i) for i in one.prompt_ids]
    long, short = (len(prompt) for prompt in prompts)
    device = model.device
    ids_RT = torch.tensor([prompts[0], [0] * (long - short) + prompts[1]], device=device)
    mask_RT = torch.tensor([[1] * long, [0] * (long - short) + [1] * short], device=device)
    try:
        with in_float32(model), torch.no_grad():
            decoder = cached()
            for step in range(STEPS + 1):
                positions_RT = (mask_RT.cumsum(-1) - 1).clamp(min=0)[:, -ids_RT.shape[1] :]
                found_RV = decoder(ids_RT, mask_RT, positions_RT)
                for prompt, found_V in zip(prompts, found_RV, strict=True):
                    whole = torch.tensor([[*prompt, *new[:step]]], device=device)
                    wanted_V = model(input_ids=whole, use_cache=False).logits[0, -1]
                    if not torch.allclose(found_V.float(), wanted_V.float(), rtol=1e-3, atol=1e-3 * _spread(wanted_V)):
                        return False
                ids_RT = torch.full((2, 1), new[step], device=device)
                mask_RT = torch.cat([mask_RT, mask_RT.new_ones(2, 1)], dim=-1)
    except Exception:  # transformers' own of many kinds: an argument that is missing, a state that is not there
        return False
    return True


def _spread(logits_V: Tensor) -> float:
    return float(logits_V.max() - logits_V.min())

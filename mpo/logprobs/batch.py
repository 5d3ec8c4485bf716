"""The layout of a micro-batch: which tokens are forwarded in which rows. Nothing above this room knows rows exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mpo.errors import DataError


class PromptResponses(Protocol):
    """A tokenised prompt and its responses: int32 ids, no padding."""

    @property
    def id(self) -> str: ...
    @property
    def prompt_ids(self) -> np.ndarray: ...
    @property
    def response_ids(self) -> Sequence[np.ndarray]: ...


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """R right-padded rows, one a (set, response) pair, that make up B sets of up to K responses.

    Attributes:
        input_ids_RT: long; prompt, response, then padding (id 0, never read: attention is causal and masked).
        attention_mask_RT: long, 1 at prompt and response tokens.
        response_mask_RT: bool, True at response tokens.
        set_index_R: long, the row's set in 0..B-1.
        response_index_R: long, the row's column of the K axis: the response's own index in its set.
        sets: B.
        responses: K.
    """

    input_ids_RT: Tensor
    attention_mask_RT: Tensor
    response_mask_RT: Tensor
    set_index_R: Tensor
    response_index_R: Tensor
    sets: int
    responses: int

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on ``device``."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("sets", "responses")}
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})

    @property
    def tokens(self) -> int:
        """Tokens that are forwarded, padding left out."""
        return int(self.attention_mask_RT.sum())


def collate(sets: Sequence[PromptResponses], keep_responses: Sequence[Sequence[int]] | None = None) -> TokenBatch:
    """Lay out sets for one forward pass.

    Args:
        sets: the micro-batch. Empty for a process with nothing to do: then the batch is one dummy set with one
            response of one token, because every process has to take part in every collective of the forward pass.
        keep_responses: indices of the responses of each set that are forwarded; None: all.

    Raises:
        DataError: a set has an empty prompt, or an empty response is to be forwarded.
    """
    rows: list[tuple[int, int, np.ndarray, np.ndarray]] = []
    for b, tokens in enumerate(sets):
        if len(tokens.prompt_ids) == 0:
            raise DataError("the prompt has no tokens", tokens.id, "drop the set or use a chat template")
        for k in range(len(tokens.response_ids)) if keep_responses is None else keep_responses[b]:
            if len(tokens.response_ids[k]) == 0:
                raise DataError(f"response {k} has no tokens", tokens.id, "drop the response")
            rows.append((b, k, tokens.prompt_ids, tokens.response_ids[k]))
    sets_B = len(sets)
    responses_K = max((len(tokens.response_ids) for tokens in sets), default=1)
    if not rows:  # one token of prompt, one of response; the caller gives it no weight
        nothing = np.zeros(1, dtype=np.int32)
        rows, sets_B = [(0, 0, nothing, nothing)], max(sets_B, 1)
    longest = max(len(prompt) + len(response) for _, _, prompt, response in rows)
    input_ids_RT = np.zeros((len(rows), longest), dtype=np.int64)
    attention_mask_RT = np.zeros((len(rows), longest), dtype=np.int64)
    response_mask_RT = np.zeros((len(rows), longest), dtype=bool)
    for r, (_, _, prompt, response) in enumerate(rows):
        start, end = len(prompt), len(prompt) + len(response)
        input_ids_RT[r, :start] = prompt
        input_ids_RT[r, start:end] = response
        attention_mask_RT[r, :end] = 1
        response_mask_RT[r, start:end] = True
    return TokenBatch(
        input_ids_RT=torch.from_numpy(input_ids_RT),
        attention_mask_RT=torch.from_numpy(attention_mask_RT),
        response_mask_RT=torch.from_numpy(response_mask_RT),
        set_index_R=torch.tensor([row[0] for row in rows], dtype=torch.long),
        response_index_R=torch.tensor([row[1] for row in rows], dtype=torch.long),
        sets=sets_B,
        responses=responses_K,
    )

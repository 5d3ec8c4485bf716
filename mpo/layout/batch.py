"""The layout of a micro-batch: which token stands where. Nothing above this room knows how tokens are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mpo.errors import DataError

PROMPT = -1
"""In place of a response's number, of a prompt's own tokens."""


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
    """N tokens in one row, without padding: S prompts, each once, then R responses (design: prefix sharing, packing).

    A response's tokens follow its prompt's in position, wherever they stand in the row. Index tensors say where in
    the row a prompt's or response's tokens are; past its end they hold 0.

    Of a set that is forwarded in pieces all but the first skip the prompt: see :meth:`after_prompt`.

    What follows from lengths is here although it could be computed: the host knows it, and a device would have to be
    waited for to learn how many numbers there are.

    Attributes:
        input_ids_N: long.
        position_ids_N: long; a response's count on from its prompt's end.
        prompt_N: long, the prompt in 0..S-1 that a token belongs to or follows.
        response_N: long, its response in 0..R-1; PROMPT for a prompt's own tokens.
        prompt_index_SP: long, where in the row each prompt's tokens stand; P is the longest prompt.
        prompt_lengths_S: long.
        response_index_RT: long, the same for responses; T is the longest response.
        response_lengths_R: long.
        prompt_of_R: long, each response's prompt in 0..S-1.
        set_index_R: long, each response's set in 0..B-1.
        response_index_R: long, its column of the K axis: its own index in its set.
        response_M: long, of each of the M response tokens the response, in 0..R-1.
        step_M: long, and its place in it.
        sets: B.
        responses: K.
        longest: tokens of the longest response together with its prompt.
        skipped: tokens at the row's beginning that are not forwarded: a prompt, kept from another forward pass.
    """

    input_ids_N: Tensor
    position_ids_N: Tensor
    prompt_N: Tensor
    response_N: Tensor
    prompt_index_SP: Tensor
    prompt_lengths_S: Tensor
    response_index_RT: Tensor
    response_lengths_R: Tensor
    prompt_of_R: Tensor
    set_index_R: Tensor
    response_index_R: Tensor
    response_M: Tensor
    step_M: Tensor
    sets: int
    responses: int
    longest: int
    skipped: int = 0

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on ``device``, in one copy that the host does not wait for."""
        if torch.device(device) == self.input_ids_N.device:
            return self
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        together = to_device(torch.cat([value.flatten() for value in tensors.values()]), device)
        parts = together.split([value.numel() for value in tensors.values()])
        moved = {name: part.view(tensors[name].shape) for name, part in zip(tensors, parts, strict=True)}
        return replace(self, **moved)  # type: ignore[arg-type]

    @property
    def tokens(self) -> int:
        """N, those that are skipped included."""
        return len(self.input_ids_N)

    def after_prompt(self) -> TokenBatch:
        """The same row without the forward pass of its prompt, which is its only one."""
        return replace(self, skipped=int(self.prompt_lengths_S.item()))

    def filled(self, tokens: int) -> TokenBatch:
        """The same with one more prompt at the row's end, which nothing follows, to so many tokens in all."""
        missing = tokens - self.tokens
        if missing == 0:
            return self
        steps = torch.arange(missing, device=self.input_ids_N.device)
        wider = max(0, missing - self.prompt_index_SP.shape[1])
        prompt_index_SP = functional.pad(self.prompt_index_SP, (0, wider, 0, 1))
        prompt_index_SP[-1, :missing] = self.tokens + steps
        return replace(
            self,
            input_ids_N=functional.pad(self.input_ids_N, (0, missing)),
            position_ids_N=torch.cat([self.position_ids_N, steps]),
            prompt_N=functional.pad(self.prompt_N, (0, missing), value=len(self.prompt_lengths_S)),
            response_N=functional.pad(self.response_N, (0, missing), value=PROMPT),
            prompt_index_SP=prompt_index_SP,
            prompt_lengths_S=functional.pad(self.prompt_lengths_S, (0, 1), value=missing),
        )


def collate(sets: Sequence[PromptResponses], keep_responses: Sequence[Sequence[int]] | None = None) -> TokenBatch:
    """Lay out sets for one forward pass.

    Args:
        sets: the micro-batch. Empty for a process with nothing to do: then the batch is one dummy set with one
            response of one token, because every process has to take part in every collective of the forward pass.
        keep_responses: indices of the responses of each set that are forwarded; None: all.

    Raises:
        DataError: a set has an empty prompt, or an empty response is to be forwarded.
    """
    prompts: list[np.ndarray] = []
    rows: list[tuple[int, int, int, np.ndarray]] = []
    for b, tokens in enumerate(sets):
        if len(tokens.prompt_ids) == 0:
            raise DataError("the prompt has no tokens", tokens.id, "drop the set or use a chat template")
        kept = range(len(tokens.response_ids)) if keep_responses is None else keep_responses[b]
        for k in kept:
            if len(tokens.response_ids[k]) == 0:
                raise DataError(f"response {k} has no tokens", tokens.id, "drop the response")
            rows.append((len(prompts), b, k, tokens.response_ids[k]))
        if len(kept):
            prompts.append(tokens.prompt_ids)
    sets_B = len(sets)
    responses_K = max((len(tokens.response_ids) for tokens in sets), default=1)
    if not rows:  # one token of prompt, one of response; the caller gives it no weight
        nothing = np.zeros(1, dtype=np.int32)
        prompts, rows, sets_B = [nothing], [(0, 0, 0, nothing)], max(sets_B, 1)
    prompt_lengths = np.array([len(ids) for ids in prompts])
    response_lengths = np.array([len(ids) for _, _, _, ids in rows])
    prompt_of = np.array([row[0] for row in rows])
    of_prompts = np.repeat(np.arange(len(prompts)), prompt_lengths)
    response_M = np.repeat(np.arange(len(rows)), response_lengths)
    response_starts = len(of_prompts) + np.cumsum(response_lengths) - response_lengths
    positions = [np.arange(length) for length in prompt_lengths]
    positions += [prompt_lengths[p] + np.arange(n) for p, n in zip(prompt_of, response_lengths, strict=True)]
    return TokenBatch(
        input_ids_N=_long(np.concatenate([*prompts, *(ids for _, _, _, ids in rows)])),
        position_ids_N=_long(np.concatenate(positions)),
        prompt_N=_long(np.concatenate([of_prompts, prompt_of[response_M]])),
        response_N=_long(np.concatenate([np.full(len(of_prompts), PROMPT), response_M])),
        prompt_index_SP=_long(_spans(np.cumsum(prompt_lengths) - prompt_lengths, prompt_lengths)),
        prompt_lengths_S=_long(prompt_lengths),
        response_index_RT=_long(_spans(response_starts, response_lengths)),
        response_lengths_R=_long(response_lengths),
        prompt_of_R=_long(prompt_of),
        set_index_R=_long(np.array([row[1] for row in rows])),
        response_index_R=_long(np.array([row[2] for row in rows])),
        response_M=_long(response_M),
        step_M=_long(np.concatenate([np.arange(length) for length in response_lengths])),
        sets=sets_B,
        responses=responses_K,
        longest=int((prompt_lengths[prompt_of] + response_lengths).max()),
    )


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """``values`` of the CPU on ``device``, in a copy that the host does not wait for."""
    if torch.device(device).type == "cuda":
        values = values.pin_memory()  # of other memory the host waits for the copy
    return values.to(device, non_blocking=True)


def _spans(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, ... for each length, 0 past it."""
    steps = np.arange(int(lengths.max()))
    return np.where(steps < lengths[:, None], starts[:, None] + steps, 0)


def _long(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))

"""Who sees whom in a packed row: the rule, in one place, for the back ends that evaluate it token by token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mpo.layout.batch import TokenBatch

PROMPT = -1


@dataclass(frozen=True, eq=False)
class Visibility:
    """Marks of the N tokens of a row.

    Attributes:
        prompt_N: long, the prompt that a token belongs to or follows.
        response_N: long, its response; PROMPT for a prompt's own tokens.
        position_N: long.
    """

    prompt_N: Tensor
    response_N: Tensor
    position_N: Tensor

    @classmethod
    def of(cls, batch: TokenBatch) -> Visibility:
        """The marks of ``batch``, on its device."""
        device, prompts_S = batch.input_ids_N.device, batch.prompt_lengths_S
        real_SP = torch.arange(batch.prompt_index_SP.shape[1], device=device) < prompts_S[:, None]
        real_RT = torch.arange(batch.response_index_RT.shape[1], device=device) < batch.response_lengths_R[:, None]
        numbers_S1 = torch.arange(len(prompts_S), device=device)[:, None]
        numbers_R1 = torch.arange(len(real_RT), device=device)[:, None]
        prompt_N = torch.empty_like(batch.input_ids_N)
        prompt_N[batch.prompt_index_SP[real_SP]] = numbers_S1.expand_as(real_SP)[real_SP]
        prompt_N[batch.response_index_RT[real_RT]] = batch.prompt_of_R[:, None].expand_as(real_RT)[real_RT]
        response_N = torch.full_like(prompt_N, PROMPT)
        response_N[batch.response_index_RT[real_RT]] = numbers_R1.expand_as(real_RT)[real_RT]
        return cls(prompt_N, response_N, batch.position_ids_N)

    def sees(self, query: Tensor, key: Tensor, window: int | None) -> Tensor:
        """Whether the token at ``query`` attends to the one at ``key``: two index tensors that broadcast, to bool."""
        behind = self.position_N[query] - self.position_N[key]
        own = (self.response_N[key] == PROMPT) | (self.response_N[key] == self.response_N[query])
        seen = (self.prompt_N[query] == self.prompt_N[key]) & own & (behind >= 0)
        return seen if window is None else seen & (behind < window)

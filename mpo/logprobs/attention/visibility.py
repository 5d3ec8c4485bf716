"""Who sees whom in a packed row: the rule, in one place, for the back ends that evaluate it token by token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mpo.logprobs.batch import TokenBatch

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
        """The marks of ``batch``, on its device. Prompts stand first, then responses, each in order."""
        prompts_S, responses_R = batch.prompt_lengths_S, batch.response_lengths_R
        numbers_S = torch.arange(len(prompts_S), device=prompts_S.device)
        numbers_R = torch.arange(len(responses_R), device=prompts_S.device)
        of_responses = numbers_R.repeat_interleave(responses_R)
        prompt_N = torch.cat([numbers_S.repeat_interleave(prompts_S), batch.prompt_of_R[of_responses]])
        response_N = torch.cat([torch.full_like(prompt_N[: len(prompt_N) - len(of_responses)], PROMPT), of_responses])
        return cls(prompt_N, response_N, batch.position_ids_N)

    def sees(self, query: Tensor, key: Tensor, window: int | None) -> Tensor:
        """Whether the token at ``query`` attends to the one at ``key``: two index tensors that broadcast, to bool."""
        behind = self.position_N[query] - self.position_N[key]
        own = (self.response_N[key] == PROMPT) | (self.response_N[key] == self.response_N[query])
        seen = (self.prompt_N[query] == self.prompt_N[key]) & own & (behind >= 0)
        return seen if window is None else seen & (behind < window)

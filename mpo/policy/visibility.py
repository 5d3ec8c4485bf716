"""Who sees whom in a packed row: the rule, in one place, for the back ends that evaluate it token by token."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mpo.layout.batch import PROMPT, TokenBatch


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
        return cls(batch.prompt_N, batch.response_N, batch.position_ids_N)

    def sees(self, query: Tensor, key: Tensor, window: int | None) -> Tensor:
        """Whether the token at ``query`` attends to the one at ``key``: two index tensors that broadcast, to bool."""
        behind = self.position_N[query] - self.position_N[key]
        own = (self.response_N[key] == PROMPT) | (self.response_N[key] == self.response_N[query])
        seen = (self.prompt_N[query] == self.prompt_N[key]) & own & (behind >= 0)
        return seen if window is None else seen & (behind < window)

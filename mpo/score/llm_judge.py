"""An LLM as judge of single responses, in points. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mpo.errors import ConfigError
from mpo.score.base import Item
from mpo.score.judge import Judge
from mpo.score.judge_prompt import conversation_text, fill_prompt, response_text
from mpo.score.verdicts import points

ONE_DIGIT = 9
MOST = 1000


@dataclass(frozen=True)
class LLMJudge(Judge):
    """Asks for one whole number from ``lowest`` to ``highest`` for each response: one request a response.

    Where the server gives log-probs the score is the expectation over the scale's numbers at the place of the judge's
    own number, renormalised (the weighting of G-Eval, arXiv 2303.16634): it orders responses of the same number. That
    needs numbers of one token each, as single digits are in the usual tokenizers. Of a two-digit number some make two
    tokens, and the first of ``10`` could be mistaken for ``1``. So log-probs are asked for only on scales to 9, as the
    default 1 to 9; on larger ones the number itself is the score.
    """

    lowest: int = 1
    highest: int = ONE_DIGIT

    items_at_once: ClassVar[int] = 1024
    fields: ClassVar[tuple[str, ...]] = ("criteria", "conversation", "response", "lowest", "highest")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lowest < self.highest <= MOST:
            what = f"{self.lowest} to {self.highest} is no scale"
            raise ConfigError(what, "score.highest", f"give whole numbers from 0 to {MOST}, score.lowest the smaller")

    def score(self, items: Sequence[Item]) -> list[float]:
        """See :meth:`Scorer.score`; raises as :meth:`Judge.ask` does."""
        logprobs = self.top_logprobs > 0 and self.highest <= ONE_DIGIT
        form = f"Answer with one whole number from {self.lowest} to {self.highest} and nothing else."
        verdicts = self.ask([self._prompt(item) for item in items], points(self.lowest, self.highest), form, logprobs)
        for verdict in verdicts:
            self._counts.update(self.reasons(verdict, logprobs))
        return [verdict.value for verdict in verdicts]

    def _prompt(self, item: Item) -> str:
        return fill_prompt(
            self.prompt,
            {
                "criteria": self.criteria,
                "conversation": conversation_text(item.prompt, item.tools),
                "response": response_text(item.response),
                "lowest": str(self.lowest),
                "highest": str(self.highest),
            },
        )

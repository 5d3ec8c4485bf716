"""An LLM as judge of pairs of responses: a tournament within each set. No torch."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from mpo.errors import ConfigError
from mpo.score.base import Item
from mpo.score.judge import Judge
from mpo.score.judge_prompt import conversation_text, fill_prompt, response_text
from mpo.score.pair_judge import PairJudge
from mpo.score.verdicts import LETTERS, NoVerdict, Verdict

FORM = "Answer with one letter, A or B, or C if both are equally good, and nothing else."
ORDER_DECIDES = "wins or loses against another by the order in which the judge reads them"
FIRST_WINS, FLIPPED = "mean P(first response wins)", "pairs whose winner changes with the order"


@dataclass(frozen=True)
class LLMJudgePairwise(Judge, PairJudge):
    """Asks which of two responses is better, each pair in both orders: A or B, or C for equally good ones.

    The score of a response is its mean win probability over its opponents and both orders, so from 0 to 1; of a set's
    only response it is 0.5. Where the server gives log-probs the win probability of the response read first is
    (p(A) + p(C) / 2) / (p(A) + p(B) + p(C)) at the place of the judge's letter, otherwise the letter decides: 1, 0 or
    0.5. Equal responses are a tie without a question, and the same two texts are compared once. Scores tell something
    within one set only.

    K responses cost K (K - 1) requests. With ``opponents``, an even number n, each one meets n others (all, where there
    are fewer): the n / 2 before and after it in the set, first and last being neighbours. That is K n requests.

    Of all comparisons the mean probability that the first one wins (0.5 for a judge without position bias) and the
    share of pairs whose winner changes with the order are reported; responses in such a pair are counted as a warning.
    """

    opponents: int | None = None

    compares: ClassVar[bool] = True
    fields: ClassVar[tuple[str, ...]] = ("criteria", "conversation", "response_a", "response_b")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.opponents is not None and (self.opponents < 2 or self.opponents % 2):
            what = f"{self.opponents} opponents for each response"
            raise ConfigError(what, "score.opponents", "give an even number from 2 on, or null for all")

    def score(self, items: Sequence[Item]) -> list[float]:
        """See :meth:`Scorer.score`; ``items`` are the responses of one set. Raises as :meth:`Judge.ask` does."""
        texts = [response_text(item.response) for item in items]
        pairs = meetings(len(items), self.opponents)
        orders = [order for i, j in pairs for order in ((i, j), (j, i))]
        asked = list(dict.fromkeys((texts[i], texts[j]) for i, j in orders if texts[i] != texts[j]))
        logprobs = self.top_logprobs > 0
        prompts = [self.question(items[0], first, second) for first, second in asked]
        verdicts = dict(zip(asked, self.ask(prompts, LETTERS, FORM, logprobs) if asked else [], strict=True))
        self._report(texts, pairs, verdicts, logprobs)
        wins, met = [0.0] * len(items), [0] * len(items)
        for i, j in orders:
            verdict = verdicts.get((texts[i], texts[j]))
            first = 0.5 if verdict is None else verdict.value
            wins[i] += first
            wins[j] += 1 - first
            met[i] += 1
            met[j] += 1
        return [won / count if count else 0.5 for won, count in zip(wins, met, strict=True)]

    def decide(self, questions: Sequence[str]) -> Iterator[tuple[int, Verdict | NoVerdict]]:
        """See :meth:`PairJudge.decide`."""
        return self.verdicts_on(questions, LETTERS, FORM, self.top_logprobs > 0)

    @property
    def prompt_version(self) -> str:
        """See :attr:`PairJudge.prompt_version`."""
        return hashlib.sha256("\0".join((self.prompt, self.criteria, FORM)).encode()).hexdigest()[:8]

    def take_means(self) -> dict[str, tuple[float, int]]:
        """See :meth:`Scorer.take_means`."""
        found = dict(self._means)
        self._means.clear()
        return found

    def _report(
        self,
        texts: Sequence[str],
        pairs: Sequence[tuple[int, int]],
        verdicts: dict[tuple[str, str], Verdict],
        logprobs: bool,
    ) -> None:
        warned: set[tuple[str, int]] = set()
        for i, j in pairs:
            if texts[i] == texts[j]:
                continue
            there, back = verdicts[texts[i], texts[j]], verdicts[texts[j], texts[i]]
            flipped = (there.value - 0.5) * (back.value - 0.5) > 0  # the first one wins both times, or the second
            for reason in {*self.reasons(there, logprobs), *self.reasons(back, logprobs)}:
                warned |= {(reason, i), (reason, j)}
            if flipped:
                warned |= {(ORDER_DECIDES, i), (ORDER_DECIDES, j)}
            for what, value, number in ((FIRST_WINS, there.value + back.value, 2), (FLIPPED, float(flipped), 1)):
                before = self._means[what]
                self._means[what] = (before[0] + value, before[1] + number)
        self._counts.update(reason for reason, _ in warned)

    def question(self, item: Item, first: str, second: str) -> str:
        """See :meth:`PairJudge.question`."""
        return fill_prompt(
            self.prompt,
            {
                "criteria": self.criteria,
                "conversation": conversation_text(item.prompt, item.tools),
                "response_a": first,
                "response_b": second,
            },
        )

    @cached_property
    def _means(self) -> defaultdict[str, tuple[float, int]]:
        return defaultdict(lambda: (0.0, 0))


def meetings(count: int, opponents: int | None) -> list[tuple[int, int]]:
    """Which of ``count`` responses are compared, each pair once: every one with all others, or with the ``opponents``
    (an even number) nearest to it in a circle."""
    if opponents is None or opponents >= count - 1:
        return [(i, j) for i in range(count) for j in range(i + 1, count)]
    return [(i, (i + step) % count) for i in range(count) for step in range(1, opponents // 2 + 1)]

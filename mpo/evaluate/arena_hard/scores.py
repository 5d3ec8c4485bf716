"""Arena-Hard's two scores, which the versions of its tool define differently. No torch.

Both count a clear verdict (``A>>B``) three times. Of 2024: the win rate against the baseline of a Bradley-Terry fit to
all games with a verdict; where every game is against that one baseline, the fit's maximum likelihood is the mean of the
outcomes. 95 % interval of 100 bootstraps, seed 42. Of 2025: the mean of 100 bootstrap means over the games of questions
of which both games have a verdict, 5 and 95 % of them; the tool draws them unseeded, here they have a seed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mpo.evaluate.arena_hard.files import LABELS, Judgment, is_whole
from mpo.evaluate.estimates import share_of_pairs

ROUNDS, SEED = 100, 42


@dataclass(frozen=True)
class Score:
    """One definition's score in percent.

    Attributes:
        low, high: ends of the interval that the definition states.
        error: standard error with questions as independent draws, which the tool does not give: its intervals take the
            games, and each count of a clear verdict, as independent.
        questions: behind it.
        by_question: each one's own share of wins in percent, by its id.
    """

    value: float
    low: float
    high: float
    error: float
    questions: int
    by_question: dict[str, float]


def known(judgments: Iterable[Judgment]) -> tuple[list[Judgment], Counter[str]]:
    """Judgments without games whose label is none of the tool's, and the counts of such labels."""
    strange: Counter[str] = Counter()
    kept = []
    for one in judgments:
        strange.update(game.label for game in one.games if game.label is not None and game.label not in LABELS)
        games = tuple(game for game in one.games if game.label in LABELS)
        kept.append(Judgment(one.question_id, one.category, games, one.judge, one.baseline))
    return kept, strange


def score_of_2024(judgments: Sequence[Judgment]) -> Score | None:
    """Bradley-Terry win rate against the baseline; None without a verdict."""
    return _score([one for one in judgments if one.games], 2.5, point=True)


def score_of_2025(judgments: Sequence[Judgment]) -> Score | None:
    """Mean of bootstrapped means; None without a question that has two verdicts."""
    return _score([one for one in judgments if is_whole(one)], 5.0, point=False)


def _score(judgments: Sequence[Judgment], tail: float, point: bool) -> Score | None:
    outcomes: list[float] = []
    won: dict[str, float] = defaultdict(float)
    counted: dict[str, int] = defaultdict(int)
    for one in judgments:
        for game in one.games:
            share, times = LABELS[str(game.label)]
            share = 1 - share if game.baseline_first else share
            outcomes += [share] * times
            won[one.question_id] += share * times
            counted[one.question_id] += times
    if not outcomes:
        return None
    every = np.array(outcomes)
    draw = np.random.RandomState(SEED)
    means = np.array([draw.choice(every, len(every)).mean() for _ in range(ROUNDS)])
    low, high = (float(each) for each in np.percentile(means, [tail, 100 - tail]))
    value = float(every.mean() if point else means.mean())
    error = share_of_pairs(list(won.values()), list(counted.values())).standard_error
    by_question = {name: 100 * won[name] / counted[name] for name in won}
    return Score(100 * value, 100 * low, 100 * high, 100 * error, len(counted), by_question)

"""Asks a judge about pairs of answers, in both orders, or compares a reward model's scores. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpo.data.batches import batched
from mpo.errors import DataError, UserError, cut
from mpo.evaluate.judged_win_rate.pairs import Pair
from mpo.evaluate.kept_answers import KeptAnswers
from mpo.failures.user_code import user_code
from mpo.score.base import Item, Scorer
from mpo.score.checked import check_spread, scores_of_sets
from mpo.score.judge import LEAST_MASS
from mpo.score.pair_judge import PairJudge
from mpo.score.verdicts import NoVerdict, Verdict

PAIRS_AT_ONCE = 32
"""Pairs whose answers a reward model scores together."""
SHOWN = 150


@dataclass(frozen=True)
class Decision:
    """What a judge says of one pair, asked once.

    Attributes:
        win: 0..1, how far it prefers the policy's answer, the mean of both orders; None where one has no verdict.
        first: 0..1, the mean share of the win that went to the answer read first; None where nothing was asked.
        turned: whether its preference changed with the order; None likewise.
        details: further fields of the annotation.
    """

    win: float | None
    first: float | None
    turned: bool | None
    details: dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What a judge says of all pairs.

    Attributes:
        decisions: for each pair one each time that it was judged.
        warnings: a sentence each.
        details: who judges, fields of each annotation.
    """

    decisions: list[list[Decision]]
    warnings: list[str]
    details: dict[str, Any]


def ask_in_pairs(
    judge: PairJudge,
    source: str,
    pairs: Sequence[Pair],
    repeats: int,
    most_missing: float,
    folder: Path | None,
    on_progress: Callable[[int, int], None],
) -> Asked:
    """Every pair in both orders, ``repeats`` times; equal answers are a tie without a question.

    Args:
        source: the judge's module.
        most_missing: share of the questions that may stay without a verdict.
        folder: of kept verdicts.
        on_progress: called with how many questions are answered and how many there are.

    Raises:
        DataError: more questions have no verdict.
        UserError: the judge cannot be asked; what it has said is kept.
    """
    there = [_question(judge, pair, turned=False) for pair in pairs]
    back = [_question(judge, pair, turned=True) for pair in pairs]
    questions = dict.fromkeys(
        (text, repeat) for repeat in range(repeats) for both in zip(there, back, strict=True) for text in both if text
    )
    reasons: dict[tuple[str, int], str] = {}
    verdicts: dict[tuple[str, int], Verdict] = {}
    with KeptAnswers(folder, judge.asked_as) as kept:
        for each in questions:
            if (known := kept.get(*each)) is not None:
                verdicts[each] = Verdict(*known)
        waiting = [each for each in questions if each not in verdicts]
        try:
            with user_code(source, type(judge).__name__, "score"):
                for place, found in judge.decide([text for text, _ in waiting]) if waiting else ():
                    if isinstance(found, NoVerdict):
                        reasons[waiting[place]] = found.reason
                        if len(reasons) > most_missing * len(questions):
                            raise _too_many(reasons, len(questions), most_missing, found.error)
                    else:
                        text, repeat = waiting[place]
                        kept.add(text, [found.value, found.mass], repeat)
                        verdicts[waiting[place]] = found
                    on_progress(len(verdicts) + len(reasons), len(questions))
        except UserError as error:
            what = f"{error.what} ({len(verdicts)} of {len(questions)} verdicts are kept)"
            raise type(error)(what, error.where, error.remedy) from error
    decisions = [
        [_decision(a, b, repeat, verdicts, reasons) for repeat in range(repeats)]
        for a, b in zip(there, back, strict=True)
    ]
    missing = Counter(reasons.values())
    warnings = [f"{kept.damaged} kept verdicts are damaged; those were asked for again"] if kept.damaged else []
    warnings += [f"{count} of {len(questions)} questions have no verdict: {why}" for why, count in missing.items()]
    if unsure := sum(each.mass is not None and each.mass < LEAST_MASS for each in verdicts.values()):
        warnings.append(f"{unsure} of {len(questions)} verdicts have less than {LEAST_MASS} of its probability")
    details = {"judge": judge.judge_name, "prompt_version": judge.prompt_version}
    return Asked(decisions, warnings, details)


def compare_scores(scorer: Scorer, name: str, pairs: Sequence[Pair], on_progress: Callable[[int, int], None]) -> Asked:
    """The answer with the higher score wins, equal scores are a tie; raises as :func:`scores_of_sets` does."""
    scores: list[float] = []
    for some in batched(pairs, PAIRS_AT_ONCE):
        sets = [[Item(one.item.prompt, one.baseline, one.item.tools), one.item] for one in some]
        scores += scores_of_sets(scorer, sets)
        on_progress(len(scores) // 2, len(pairs))
    both = list(zip(scores[::2], scores[1::2], strict=True))
    differ = len({text for pair in pairs for text in pair.texts}) > 1
    same = None if scorer.compares else check_spread(scorer, name, scores, differ, "heldout")
    counted = [f"{reason}: {count} of {len(scores)} answers" for reason, count in scorer.take_warnings().items()]
    decisions = [[Decision(0.5 if a == b else float(b > a), None, None, {"score_1": a, "score_2": b})] for a, b in both]
    judge = str(getattr(scorer, "path", None) or scorer.source)
    return Asked(decisions, [*([same] if same else []), *counted], {"judge": judge})


def _question(judge: PairJudge, pair: Pair, turned: bool) -> str | None:
    baseline, policy = pair.texts
    if baseline == policy:
        return None
    return judge.question(pair.item, policy, baseline) if turned else judge.question(pair.item, baseline, policy)


def _decision(
    there: str | None,
    back: str | None,
    repeat: int,
    verdicts: dict[tuple[str, int], Verdict],
    reasons: dict[tuple[str, int], str],
) -> Decision:
    """From the verdicts with the baseline's answer first (``there``) and second."""
    if there is None or back is None:
        return Decision(0.5, None, None, {"repeat": repeat})
    one, two = verdicts.get((there, repeat)), verdicts.get((back, repeat))
    details = {
        "repeat": repeat,
        "preference_baseline_first": None if one is None else 2 - one.value,
        "preference_policy_first": None if two is None else 1 + two.value,
    }
    if one is None or two is None:
        why = [reasons[question] for question in ((there, repeat), (back, repeat)) if question in reasons]
        return Decision(None, None, None, {**details, "missing": why})
    turned = (one.value - 0.5) * (two.value - 0.5) > 0  # the first one wins both times, or the second
    return Decision((1 - one.value + two.value) / 2, (one.value + two.value) / 2, turned, details)


def _too_many(reasons: dict[tuple[str, int], str], questions: int, most: float, last: UserError) -> DataError:
    counts = "; ".join(f"{count}: {why}" for why, count in Counter(reasons.values()).most_common())
    what = f"{len(reasons)} of {questions} questions have no verdict, more than {most:.2g} of them ({counts})"
    return DataError(f"{what}; the last: {cut(last.what, SHOWN)}", "score", last.remedy)

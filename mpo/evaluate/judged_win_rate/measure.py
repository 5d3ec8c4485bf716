"""Win rates of the trained policy's answers to held-out prompts, as judges decide. No torch until it measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from mpo.cache.artifacts import write_json
from mpo.config.targets import OWN, TARGET, build, resolve
from mpo.errors import ConfigError
from mpo.evaluate.base import START, Evidence, Measure
from mpo.evaluate.judged_win_rate.asking import Asked, ask_in_pairs, compare_scores
from mpo.evaluate.judged_win_rate.pairs import Pair, pairs_of, read_answers
from mpo.evaluate.records import Findings
from mpo.plain import finite
from mpo.score.base import SCORE_NAME, Scorer
from mpo.score.checked import check_scorer, close_scorer, errors_of
from mpo.score.pair_judge import PairJudge

WHERE = "measure"


@dataclass(frozen=True)
class JudgedWinRate(Measure):
    """Raw and length-controlled win rate, position bias, missing verdicts, and how far several judges agree.

    A judge is a scorer. One that compares pairs (:class:`mpo.score.pair_judge.PairJudge`) reads each pair of answers in
    both orders; its verdict is the mean. Of any other the answer with the higher score wins.

    Args:
        judges: nodes of ``conf/score`` by the name that the judge has in results.
        baseline: file of answers to the same prompts in AlpacaEval's format; None: the starting policy's.
        repeats: how often a judge that compares pairs is asked; scores are computed once.
        most_missing: share of a judge's questions that may stay without a verdict.

    Raises:
        ConfigError: no judge, one with wrong options, a name or number out of range.
    """

    judges: dict[str, Any] = field(default_factory=dict)
    baseline: str | None = None
    repeats: int = 1
    most_missing: float = 0.05

    needs_samples: ClassVar[bool] = True
    files: ClassVar[frozenset[str]] = frozenset({"baseline"})

    def __post_init__(self) -> None:
        if not self.judges:
            remedy = f"add one of conf/score: +score@{WHERE}.judges.mine=skywork_v2"
            raise ConfigError("no judge", f"{WHERE}.judges", remedy)
        for name, node in self.judges.items():
            if not SCORE_NAME.fullmatch(name):
                raise ConfigError(f"'{name}' cannot name a judge", f"{WHERE}.judges", "use letters, digits, '_', '-'")
            if not isinstance(node, Mapping):
                raise ConfigError(f"{node!r} is no class with options", _key(name), f"give {_key(name)}.{TARGET}=…")
            if _is_own(node):  # others may be named where allow_targets is known
                self._judge(name, ())
        if self.repeats < 1:
            raise ConfigError(f"{self.repeats} is out of range", f"{WHERE}.repeats", "give 1 or more")
        if not 0 <= self.most_missing <= 1:
            raise ConfigError(f"{self.most_missing} is out of range", f"{WHERE}.most_missing", "give a share in [0, 1]")

    @property
    def models(self) -> dict[str, tuple[str, str | None]]:
        """See :attr:`Measure.models`."""
        return {
            name: (node["path"], node.get("revision"))
            for name, node in self.judges.items()
            if isinstance(node.get("path"), str) and node["path"] != "???"
        }

    @property
    def change_nothing(self) -> frozenset[str]:
        """See :attr:`Measure.change_nothing`: of each judge what changes no score."""
        keys = set()
        for name, node in self.judges.items():
            if _is_own(node):
                free = resolve(node, Scorer, (), _key(name)).change_no_score  # type: ignore[type-abstract]
                keys |= {f"judges.{name}.{option}" for option in free}
        return frozenset(keys)

    def check(self) -> None:
        """See :meth:`Measure.check`: what the judges themselves find wrong, and the file of answers."""
        for name, node in self.judges.items():
            if _is_own(node):
                judge = self._judge(name, ())
                with errors_of(_key(name)):
                    check_scorer(judge)
        if self.baseline is not None:
            read_answers(self.baseline)

    def measure(self, evidence: Evidence) -> Findings:
        """See :meth:`Measure.measure`; writes annotations in AlpacaEval's format, a file a temperature.

        Raises:
            DataError: too many questions have no verdict, or prompts no answer in the file.
            UserError: a judge cannot be loaded or asked; its verdicts so far are kept.
        """
        from mpo.evaluate.judged_win_rate.estimates import annotation_records, estimates, wins_by_prompt

        answers = None if self.baseline is None else read_answers(self.baseline)
        groups = [pairs_of(one, answers) for one in evidence.samples]
        every = [pair for group in groups for pair in group.pairs]
        asked = {name: self._ask(name, every, evidence) for name in self.judges}
        found, start = Findings(), 0
        for name, one in asked.items():
            for text in one.warnings:
                evidence.warn(f"{name}: {text}")
        for group in groups:
            end = start + len(group.pairs)
            part = {name: replace(one, decisions=one.decisions[start:end]) for name, one in asked.items()}
            records = annotation_records(group, part)
            if evidence.output is not None:
                write_json(evidence.output / f"annotations@{group.temperature:g}.json", finite(records))
            made = estimates(group, part, records, START if answers is None else answers.model)
            found.estimates.extend(made)
            found.by_prompt.extend(wins_by_prompt(group, part, made))
            start = end
        return found

    def _judge(self, name: str, allow: Sequence[str]) -> Scorer:
        with errors_of(_key(name)):
            return build(self.judges[name], Scorer, allow, "score")  # type: ignore[type-abstract]

    def _ask(self, name: str, pairs: Sequence[Pair], evidence: Evidence) -> Asked:
        def on_progress(done: int, total: int) -> None:
            evidence.on_progress(done, total, f"verdicts of {name}")

        judge = self._judge(name, evidence.allow_targets)
        with errors_of(_key(name)):
            try:
                if not isinstance(judge, PairJudge):
                    return compare_scores(judge, name, pairs, on_progress)
                options = (self.repeats, self.most_missing, evidence.verdicts, on_progress)
                return ask_in_pairs(judge, judge.source, pairs, *options)
            finally:
                close_scorer(judge)


def _key(name: str) -> str:
    return f"{WHERE}.judges.{name}"


def _is_own(node: Mapping[str, Any]) -> bool:
    return str(node.get(TARGET, "")).startswith(OWN)

"""How well a policy ranks held-out responses, or predicts them where there is one a set. No torch until it measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpo.evaluate.base import Evidence, Measure
from mpo.evaluate.prompts import prompt_keys
from mpo.evaluate.records import Baseline, Estimate, Findings, PromptValues

if TYPE_CHECKING:
    from mpo.evaluate.estimates import Mean
    from mpo.evaluate.heldout import HeldOut, Ranking
    from mpo.logprobs.reference import Reference

BEFORE = "before training"


@dataclass(frozen=True)
class HeldOutRanking(Measure):
    """Ranking accuracy, margin and divergence from the reference; the loss a token where sets have one response."""

    needs_models: ClassVar[bool] = True

    def measure(self, evidence: Evidence) -> Findings:
        """See :meth:`Measure.measure`."""
        held = evidence.heldout
        if held is None:
            return Findings()
        single = all(len(held.sets[i].response_ids) == 1 for i in range(len(held.sets)))
        return (_imitation if single else _ranking)(held, evidence.on_progress)


def _imitation(held: HeldOut, on_progress: Callable[[int, int, str], None]) -> Findings:
    from mpo.evaluate.estimates import mean_over_prompts
    from mpo.evaluate.heldout import token_losses

    def losses(which: str) -> dict[int, float]:
        return token_losses(
            held.load(which), held.sets, held.batch, held.micro_tokens,
            lambda done: on_progress(done, len(held.sets), "sets"),
        )  # fmt: skip

    by_set = losses("after")
    after, before = mean_over_prompts([*by_set.values()]), mean_over_prompts([*losses("before").values()])
    start = Baseline(BEFORE, before.value, before.standard_error)
    return _findings(held, [(_estimate("loss", after, "nats per token", (start,)), by_set)])


def _ranking(held: HeldOut, on_progress: Callable[[int, int, str], None]) -> Findings:
    from mpo.evaluate.heldout import longer_wins, rank_heldout

    indices = [i for i in range(len(held.sets)) if len(set(held.assignments.scores(i))) > 1]
    if not indices:
        return Findings()

    def rank(which: str, reference: Reference | None) -> Ranking:
        return rank_heldout(
            held.load(which), held.loss, held.sets, held.assignments, indices, reference, held.batch,
            held.micro_tokens, lambda done: on_progress(done, len(indices), "sets"),
        )  # fmt: skip

    ranking = rank("after", held.reference)
    # At policy = reference every implicit reward is the same: half of the pairs, by definition and without a forward.
    before = 0.5 if held.before_is_reference else rank("before", held.reference).accuracy.value
    lengths = [[len(each.text) for each in held.texts[held.sets[i].id].responses] for i in range(len(held.sets))]
    baselines = (
        Baseline(BEFORE, before),
        Baseline("longer response wins", longer_wins(lengths, held.assignments, indices)),
    )
    found = [
        (_estimate("ranking_accuracy", ranking.accuracy, f"of {ranking.pairs} pairs", baselines),
         ranking.accuracy_by_set),
        (_estimate("ranking_margin", ranking.margin), ranking.margin_by_set),
    ]  # fmt: skip
    if held.reference is not None:
        found.append((_estimate("reference_kl", ranking.kl, "nats per token"), ranking.kl_by_set))
    return _findings(held, found)


def _findings(held: HeldOut, found: list[tuple[Estimate, dict[int, float]]]) -> Findings:
    """Estimates, each with the values behind it by the index of the set."""
    keys = prompt_keys(held.texts[held.sets[i].id] for i in range(len(held.sets)))

    def by_prompt(estimate: Estimate, values: Mapping[int, float]) -> PromptValues:
        indices = sorted(values)
        return PromptValues.of(estimate, [keys[i] for i in indices], [values[i] for i in indices])

    return Findings([estimate for estimate, _ in found], by_prompt=[by_prompt(*each) for each in found])


def _estimate(metric: str, mean: Mean, unit: str = "", baselines: tuple[Baseline, ...] = ()) -> Estimate:
    return Estimate(metric, mean.value, mean.standard_error, mean.count, unit, baselines=baselines)

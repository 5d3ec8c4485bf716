"""Held-out ranking of the trained policy and, in the testbed, its samples against the starting policy's."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from mpo.cache.artifacts import write_json
from mpo.config.schema import Precision
from mpo.config.targets import build
from mpo.data.assignments import Assignments
from mpo.data.store import read_stored_sets
from mpo.data.tokens import TokenizedSets
from mpo.evaluate.estimates import Mean
from mpo.evaluate.heldout import Ranking, longer_wins, rank_heldout, token_loss
from mpo.evaluate.testbed import compare
from mpo.logprobs.reference import Reference
from mpo.losses import Loss
from mpo.policy.devices import join_group
from mpo.policy.load import load_policy
from mpo.policy.module import PolicyModule
from mpo.report.records import Baseline, Distribution, Estimate, SampleRow
from mpo.stages.context import EVALUATION_FILE, StageContext
from mpo.stages.models import model_source
from mpo.types import ResponseSet

SHOWN_SAMPLES = 8
START = "starting policy"


def run(context: StageContext) -> None:
    """Write ``evaluation.json``: estimates, distributions and a few samples."""
    estimates: dict[str, Estimate] = {}
    distributions: list[Distribution] = []
    samples: list[SampleRow] = []
    for temperature in context.config.get("temperatures", []):
        before = list(read_stored_sets(context.inputs[f"start@{temperature:g}"] / "heldout.parquet"))
        after = list(read_stored_sets(context.inputs[f"policy@{temperature:g}"] / "heldout.parquet"))
        if context.config["judged"]:
            estimates |= _sampled(before, after, temperature, context.config["seed"])
        if not samples:
            samples = _sample_rows(before, after)
            distributions = _distributions(before, after, temperature)
    if (context.inputs["prepare"] / "heldout").exists():
        sets = TokenizedSets.load(context.inputs["prepare"] / "heldout")
        single = all(len(sets[i].response_ids) == 1 for i in range(len(sets)))
        estimates |= _imitation(context, sets) if single else _ranking(context, sets)
    write_json(
        context.output / EVALUATION_FILE,
        {
            "estimates": {name: _finite(asdict(estimate)) for name, estimate in estimates.items()},
            "distributions": [asdict(one) for one in distributions],
            "samples": [asdict(one) for one in samples],
        },
    )


def _sampled(before: list[ResponseSet], after: list[ResponseSet], temperature: float, seed: int) -> dict[str, Estimate]:
    found = compare(before, after, seed)
    at = f"at T={temperature:g}"
    start = found["start_true_reward"]

    def against(mean: Mean, unit: str, *baselines: Baseline) -> Estimate:
        return Estimate(mean.value, mean.standard_error, unit, mean.count, baselines)

    half = Baseline("even", 0.5)
    return {
        f"true reward {at}": against(found["true_reward"], "of 10", Baseline(START, start.value, start.standard_error)),
        f"gain in true reward {at}": against(found["gain"], "of 10"),
        f"win rate {at}": against(found["win_rate"], "", half),
        f"length-controlled win rate {at}": against(found["lc_win_rate"], "", half),
        f"win rate by true reward {at}": against(found["true_win_rate"], "", half),
        f"response length {at}": against(
            found["length"], "words", Baseline(START, found["start_length"].value, found["start_length"].standard_error)
        ),
        f"start's within-prompt std {at}": against(found["within_prompt_std"], "of 10"),
    }


def _policy(context: StageContext, role: str) -> PolicyModule:
    path, revision = model_source(context, role)
    config = context.config
    policy = load_policy(
        path, revision, Precision[config["precision"]], config["trust_remote_code"], compile=config["compile"]
    )
    return policy.to(join_group())


def _imitation(context: StageContext, sets: TokenizedSets) -> dict[str, Estimate]:
    """How well held-out responses are predicted, where sets hold one each and nothing can be ranked."""
    progress, config = context.progress(), context.config

    def loss(role: str) -> Mean:
        return token_loss(
            _policy(context, role), sets, config["batch"], config["micro_tokens"],
            lambda done: progress.update(done, len(sets), "sets"),
        )  # fmt: skip

    after, before = loss("train"), loss("before")
    progress.close()
    start = Baseline("before training", before.value, before.standard_error)
    return {"held-out loss": Estimate(after.value, after.standard_error, "nats per token", after.count, (start,))}


def _ranking(context: StageContext, sets: TokenizedSets) -> dict[str, Estimate]:
    config = context.config
    assignments = Assignments.load(context.inputs["partition"] / "heldout")
    loss = build(config["loss"], Loss, config["allow_targets"], "loss")  # type: ignore[type-abstract]
    indices = [i for i in range(len(sets)) if len(set(assignments.scores(i))) > 1]
    if not indices:
        return {}
    reference = None
    if "reference" in context.inputs:
        reference = Reference.load(context.inputs["reference"] / "heldout", sets)
    progress = context.progress()

    def rank(role: str, held: Reference | None) -> Ranking:
        return rank_heldout(
            _policy(context, role), loss, sets, assignments, indices, held, config["batch"], config["micro_tokens"],
            lambda done: progress.update(done, len(indices), "sets"),
        )  # fmt: skip

    ranking = rank("train", reference)
    # At policy = reference every implicit reward is the same: half of the pairs, by definition and without a forward.
    before = 0.5 if config["before_is_reference"] else rank("before", reference).accuracy.value
    progress.close()
    accuracy = Estimate(
        ranking.accuracy.value,
        ranking.accuracy.standard_error,
        f"of {ranking.pairs} pairs",
        ranking.accuracy.count,
        (
            Baseline("before training", before),
            Baseline("longer response wins", longer_wins(_characters(context, sets), assignments, indices)),
        ),
    )
    estimates = {
        "held-out ranking accuracy": accuracy,
        "held-out margin": Estimate(ranking.margin.value, ranking.margin.standard_error, "", ranking.margin.count),
    }
    if reference is not None:
        estimates["held-out KL(reference || policy)"] = Estimate(
            ranking.kl.value, ranking.kl.standard_error, "nats per token", ranking.kl.count
        )
    return estimates


def _characters(context: StageContext, sets: TokenizedSets) -> list[list[int]]:
    """Length of each response's whole text, of the sets as they were before any was cut to fit."""
    stored = read_stored_sets(context.inputs["sets"] / "heldout.parquet")
    lengths = {one.id: [len(response.text) for response in one.responses] for one in stored}
    return [lengths[sets[i].id] for i in range(len(sets))]


def _sample_rows(before: list[ResponseSet], after: list[ResponseSet]) -> list[SampleRow]:
    return [
        SampleRow(
            a.prompt[-1].content, a.responses[0].text, b.responses[0].text, a.responses[0].score, b.responses[0].score
        )
        for a, b in list(zip(before, after, strict=True))[:SHOWN_SAMPLES]
    ]


def _distributions(before: list[ResponseSet], after: list[ResponseSet], temperature: float) -> list[Distribution]:
    def of(sets: list[ResponseSet], what: str) -> tuple[float, ...]:
        every = [response for one in sets for response in one.responses]
        if what == "score":
            return tuple(float(r.score) for r in every if r.score is not None)
        return tuple(float(len(r.text.split())) for r in every)

    return [
        Distribution(f"{name} at T={temperature:g}", unit, {START: of(before, what), "trained policy": of(after, what)})
        for name, unit, what in (("true reward", "points of 10", "score"), ("response length", "words", "length"))
        if of(before, what) and of(after, what)
    ]


def _finite(value: Any) -> Any:
    """The same with None for what JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

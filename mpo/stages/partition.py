"""Transform scores, sort each set's responses into bins, and say which sets carry no signal and why."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from mpo.artifacts import write_json
from mpo.config.schema import ScoreTransformConfig
from mpo.config.targets import build
from mpo.data.assignments import Assignments
from mpo.data.tokens import TokenizedSets
from mpo.errors import DataError
from mpo.partition import Partition, ScoreTransform, no_signal_reason
from mpo.stages.context import SUMMARY_FILE, StageContext, to_plain
from mpo.user_code import user_code


def run(context: StageContext) -> None:
    """Write ``train/`` and ``heldout/`` assignments.

    Raises:
        DataError: no training set carries a signal.
    """
    config = context.config
    partition = build(config["partition"], Partition, config["allow_targets"], "partition")  # type: ignore[type-abstract]
    noisy = ScoreTransform(**to_plain(context.section(ScoreTransformConfig, "transform")))
    clean = replace(noisy, noise_sigma=0.0)  # noise is what training has to bear, not what it is judged by
    facts = {}
    for split in ("train", "heldout"):
        folder = context.inputs["prepare"] / split
        if not folder.exists():
            continue
        sets = TokenizedSets.load(folder)
        transform = noisy if split == "train" else clean
        rows: list[tuple[list[float], list[int], str | None]] = []
        refused: list[DataError] = []
        for index in range(len(sets)):
            one = sets[index]
            if config["needs_scores"]:
                scores = transform([_known(score, one.id) for score in one.scores], one.id)
            else:  # an imitating loss: the best response, where there are scores
                scores = [0.0 if score is None else float(score) for score in one.scores]
            try:
                if split == "train" and config["score_range"] is not None:
                    _check_range(scores, config["score_range"])
                with user_code(type(partition).__module__, type(partition).__name__, "partition"):
                    bins = partition(scores, one.accepted, _draw(config["seed"], one.id))
            except DataError as error:  # neither sees whose scores and marks these are
                refused.append(DataError(error.what, error.where or f"set {one.id}", error.remedy))
                rows.append((scores, [-1] * len(scores), "refused_by_loss_or_partition"))
                continue
            reason = no_signal_reason(scores, bins, config["contrasts"], config["needs_sides"])
            rows.append((scores, bins, reason))
        if split == "train":  # held-out sets are ranked by their scores, whatever their bins
            _check_refused(refused, len(sets), config["max_skipped_share"])
        assignments = Assignments.build(rows)
        assignments.save(context.output / split)
        facts[split] = {"sets": len(rows), "usable": len(assignments.usable), "skipped": assignments.skipped}
        if split == "train" and not assignments.usable:
            reasons = ", ".join(f"{reason} {count}" for reason, count in assignments.skipped.items())
            remedy = "use a partition that leaves both sides filled, or other data"
            raise DataError(f"no training set carries a signal for this loss: {reasons}", "partition", remedy)
    write_json(context.output / SUMMARY_FILE, facts)


def _draw(seed: int, set_id: str) -> int:
    """The integer that a random choice in a set is made with: by seed and id, whatever the order of the sets."""
    return int.from_bytes(hashlib.blake2b(f"{seed}|{set_id}".encode(), digest_size=8).digest(), "big")


def _check_refused(refused: list[DataError], sets: int, max_share: float) -> None:
    if len(refused) > max_share * sets:
        first = refused[0]
        what = f"{first.what} ({len(refused)} of {sets} sets cannot be used)"
        raise DataError(what, first.where, f"{first.remedy}, or raise data.max_skipped_share")


def _check_range(scores: list[float], limits: list[float]) -> None:
    low, high = limits
    for score in scores:
        if not low <= score <= high:
            what = f"score {score:g} is outside the {low:g} to {high:g} that this loss is defined for"
            raise DataError(what, remedy="raise loss.score_max, or lower data.score.scale")


def _known(score: float | None, set_id: str) -> float:
    if score is None:
        raise DataError("a response has no score", set_id, "score it, or use loss=sft")
    return score

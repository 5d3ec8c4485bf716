"""Transform scores, sort each set's responses into bins, and say which sets carry no signal and why."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mpo.cache.stage import Nothing
from mpo.config.targets import build
from mpo.data.assignments import Assignments
from mpo.data.similarities import StoredSimilarities
from mpo.data.tokens import TokenizedSets
from mpo.errors import DataError
from mpo.failures.user_code import user_code
from mpo.partition import Partition, ScoreTransform, Similarities, no_signal_reason
from mpo.plain import to_plain
from mpo.stages.context import StageContext
from mpo.stages.nodes import partition
from mpo.stages.summary import Summary, counts


def run(context: StageContext[partition.Config, Nothing, partition.Inputs[Path]]) -> None:
    """Write ``train/`` and ``heldout/`` assignments.

    Raises:
        DataError: no training set carries a signal.
    """
    config = context.config
    binning = Binning(config)
    facts: dict[str, dict[str, int]] = {}
    skipped: dict[str, dict[str, int]] = {}
    for split in ("train", "heldout"):
        folder = context.inputs.prepare / split
        if not folder.exists():
            continue
        sets = TokenizedSets.load(folder)
        alike = None if context.inputs.embed is None else StoredSimilarities.load(context.inputs.embed / split)
        name = config.score if split == "train" else config.heldout_score
        rows: list[tuple[list[float], list[int], str | None]] = []
        refused: list[DataError] = []
        for index in range(len(sets)):
            one = sets[index]
            given = one.scores.get(name, [None] * len(one.response_ids))
            scores = binning.scores(one.id, given, split == "train")
            try:
                similarities = None if alike is None else alike.of(one.id)
                bins = binning.bins(one.id, scores, one.accepted, split == "train", similarities)
            except DataError as error:
                refused.append(error)
                rows.append((scores, [-1] * len(scores), "refused_by_loss_or_partition"))
                continue
            reason = no_signal_reason(scores, bins, config.contrasts, config.needs_sides)
            rows.append((scores, bins, reason))
        if split == "train":  # held-out sets are ranked by their scores, whatever their bins
            check_refused(refused, len(sets), config.max_skipped_share)
        assignments = Assignments.build(rows)
        assignments.save(context.output / split)
        facts[split] = {"sets": len(rows), "usable": len(assignments.usable)}
        skipped[split] = counts(assignments.skipped)
        if split == "train" and not assignments.usable:
            reasons = ", ".join(f"{reason} {count}" for reason, count in assignments.skipped.items())
            remedy = "use a partition that leaves both sides filled, or other data"
            raise DataError(f"no training set carries a signal for this loss: {reasons}", "partition", remedy)
    Summary(skipped=skipped, facts=facts).write(context.output)


class Binning:
    """The configured transform of scores, partition, and range of scores that the loss is defined for."""

    def __init__(self, config: partition.Config) -> None:
        self._config = config
        self._partition = build(config.partition, Partition, config.allow_targets, "partition")  # type: ignore[type-abstract]
        self._noisy = ScoreTransform(**to_plain(config.transform))
        # Noise applies to training scores only; held-out sets are judged by clean ones.
        self._clean = replace(self._noisy, noise_sigma=0.0)

    @property
    def may_refuse(self) -> bool:
        """Whether scores or marks of usable sets may be refused, so that looking at them early is worth it; where bins
        depend on embeddings, there are none early."""
        early = not self._partition.needs_embeddings
        return early and (self._config.score_range is not None or self._partition.reads_marks)

    def scores(self, set_id: str, given: Sequence[float | None], training: bool) -> list[float]:
        """A set's scores after the transform."""
        if not self._config.needs_scores:  # an imitating loss: the best response, where there are scores
            return [0.0 if score is None else float(score) for score in given]
        transform = self._noisy if training else self._clean
        return transform([_known(score, set_id) for score in given], set_id)

    def bins(
        self,
        set_id: str,
        scores: list[float],
        accepted: Sequence[bool | None],
        training: bool,
        similarities: Similarities | None = None,
    ) -> list[int]:
        """A set's bins; raises ``DataError``, with the set's id, for scores or marks that it is not defined for."""
        try:
            if training and self._config.score_range is not None:
                _check_range(scores, self._config.score_range)
            own = type(self._partition)
            with user_code(own.__module__, own.__name__, "partition"):
                return self._partition(scores, accepted, _draw(self._config.seed, set_id), similarities)
        except DataError as error:  # neither sees whose scores and marks these are
            raise DataError(error.what, error.where or f"set {set_id}", error.remedy) from error


def _draw(seed: int, set_id: str) -> int:
    """The integer that a random choice in a set is made with: by seed and id, whatever the order of the sets."""
    return int.from_bytes(hashlib.blake2b(f"{seed}|{set_id}".encode(), digest_size=8).digest(), "big")


def check_refused(refused: list[DataError], sets: int, max_share: float) -> None:
    """Raise the first of ``refused`` where it is more than ``max_share`` of the sets."""
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

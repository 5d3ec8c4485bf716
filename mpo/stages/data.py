"""Read response sets from a source, check every row, hold some prompts out: ``train.parquet``, ``heldout.parquet``."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpo.cache.artifacts import write_json
from mpo.data.problems import Problem, ProblemCounts, Reason
from mpo.data.sources import SourceSpec, read_sets, resolve_layout
from mpo.data.split import prompt_key, split_heldout, take_fraction
from mpo.data.store import copy_sets, read_stored_sets, write_sets
from mpo.errors import DataError
from mpo.stages.context import SUMMARY_FILE, StageContext
from mpo.stages.partition import Binning, check_refused
from mpo.types import ResponseSet

_SHOWN = 20
_NO_SIGNAL = (Reason.ONE_RESPONSE, Reason.EQUAL_SCORES)


class _Findings:
    """Problems of one read: counted, the first few kept, unusable sets apart from merely odd ones."""

    def __init__(self, fatal: set[Reason]) -> None:
        self.counts = ProblemCounts()
        self.first: list[Problem] = []
        self.first_without_signal: Problem | None = None
        self.fatal_ids: set[str] = set()
        self._fatal = fatal

    def __call__(self, problem: Problem) -> None:
        self.counts(problem)
        unusable = problem.severity == "error" or problem.reason_code in self._fatal
        if unusable and problem.severity == "warning":
            self.fatal_ids.add(problem.id)
        if unusable and len(self.first) < _SHOWN:
            self.first.append(problem)
        if problem.reason_code in _NO_SIGNAL and self.first_without_signal is None:
            self.first_without_signal = problem

    @property
    def shown(self) -> list[Problem]:
        """The first problems, and the first of each kind of warning."""
        warnings = [one for one in self.counts.first.values() if one.severity == "warning" and one not in self.first]
        return [*self.first, *warnings]

    @property
    def unusable(self) -> dict[str, int]:
        """Sets that cannot be used, by reason."""
        fatal = {reason: n for reason, n in self.counts.warnings.items() if reason in self._fatal}
        return {**self.counts.errors, **fatal}


def run(context: StageContext) -> None:
    """Write the sets of the source, split by prompt.

    Raises:
        DataError: nothing usable, too many unusable rows, or no set that the loss can learn from.
    """
    config, out = context.config, context.output
    fatal = {Reason.NO_SCORE} if config["needs_scores"] else set()
    findings, heldout_findings = _Findings(fatal), _Findings(fatal)
    whole = out / "all.parquet"
    keys = _read(context, "source", config["split"], findings, whole, config["limit"])
    _check(findings, len(keys), config)
    if "heldout_source" in context.files or "heldout_source" in config or config["heldout_split"]:
        role = "heldout_source" if "heldout_source" in {**context.files, **config} else "source"
        split = config["heldout_split"] or config["split"]
        read = _read(context, role, split, heldout_findings, out / "heldout.parquet", None)
        _check(heldout_findings, len(read), config)
        heldout_keys = set(read)
        train = [index for index, key in enumerate(keys) if key not in heldout_keys]
        heldout_count, shared = len(heldout_keys), len(keys) - len(train)
    else:
        parts = split_heldout(keys, config["heldout"], config["split_seed"])
        train, heldout_count, shared = list(parts.train), len(parts.heldout), 0
        copy_sets(whole, parts.heldout, out / "heldout.parquet")
    if not train:
        what = f"all {len(keys)} sets have a prompt that is held out, none is left to train on"
        raise DataError(what, _source(context, "source"), "hold out fewer, or another source")
    chosen = take_fraction([keys[index] for index in train], config["fraction"], config["split_seed"])
    copy_sets(whole, [train[position] for position in chosen], out / "train.parquet")
    if config.get("binning"):
        refused = _refused(out / "train.parquet", Binning(config["binning"]))
        check_refused(refused, len(chosen), config["max_skipped_share"])
    whole.unlink()
    write_json(
        out / SUMMARY_FILE,
        {
            "source": Path(_source(context, "source")).name,
            "sets": {"train": len(chosen), "heldout": heldout_count},
            "skipped": {"train": findings.unusable, "heldout": heldout_findings.unusable},
            "warnings": dict(_together(findings, heldout_findings)),
            "left_out_because_heldout": shared,
            "problems": [str(problem) for one in (findings, heldout_findings) for problem in one.shown],
        },
    )


def _together(*findings: _Findings) -> Counter[str]:
    """Warnings of all; those about a set's signal are left to the partition, which knows whether it matters."""
    total: Counter[str] = sum((one.counts.warnings for one in findings), Counter())
    return Counter({reason: n for reason, n in total.items() if reason not in (*_NO_SIGNAL, Reason.NO_SCORE)})


def _source(context: StageContext, role: str) -> str:
    return str(context.files[role]) if role in context.files else str(context.config[role])


def _read(context: StageContext, role: str, split: str, findings: _Findings, out: Path, limit: int | None) -> list[str]:
    """Store the usable sets in ``out``; returns their prompt keys."""
    config = context.config
    spec = SourceSpec(
        _source(context, "source"), config["layout"], config["split"], config["revision"], config["score_field"]
    )
    if role == "source":
        spec = replace(spec, split=split)
    else:  # another source: layout and revision are its own, the score is the same one where the layout is
        other = SourceSpec(_source(context, role), split=split)
        same = resolve_layout(other) == resolve_layout(spec)
        spec = replace(other, score_field=spec.score_field if same else None)
    keys: list[str] = []
    progress = context.progress()

    def usable() -> Iterator[ResponseSet]:
        for one in itertools.islice(read_sets(spec, findings), limit):
            if one.id in findings.fatal_ids:
                continue
            keys.append(prompt_key(one.prompt))
            progress.update(len(keys), limit or 0, "sets")
            yield one

    write_sets(out, usable())
    progress.close()
    return keys


def _check(findings: _Findings, usable: int, config: dict[str, Any]) -> None:
    skipped = sum(findings.unusable.values())
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(findings.unusable.items()))
    if skipped and (not usable or skipped > config["max_skipped_share"] * (skipped + usable)):
        worst = findings.first[0]
        remedy = "fix the data, or raise data.max_skipped_share" if usable else "fix the data"
        if worst.reason_code is Reason.NO_SCORE:
            remedy += "; data.score_field names another key of the scores, loss=sft needs none"
        raise DataError(
            f"{worst.reason_code}: {worst.message} ({skipped} of {skipped + usable} sets cannot be used: {reasons})",
            worst.where,
            remedy,
        )
    first = findings.first_without_signal
    count = sum(findings.counts.warnings[reason] for reason in _NO_SIGNAL)
    if config["contrasts"] and first is not None and count >= usable:
        raise DataError(
            f"{first.reason_code}: {first.message} (so with all {usable} sets)",
            first.where,
            "give sets with at least two responses of different scores, or use loss=sft",
        )


def _refused(path: Path, binning: Binning) -> list[DataError]:
    """What the loss or the partition will refuse of the sets, found before anything is tokenised."""
    refused: list[DataError] = []
    for one in read_stored_sets(path) if binning.may_refuse else ():
        try:
            scores = binning.scores(one.id, [each.score for each in one.responses], True)
            binning.bins(one.id, scores, [each.accepted for each in one.responses], True)
        except DataError as error:
            refused.append(error)
    return refused

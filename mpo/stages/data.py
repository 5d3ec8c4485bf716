"""Read response sets from a source, check every row, hold some prompts out: ``train.parquet``, ``heldout.parquet``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from mpo.cache.stage import File, Hub
from mpo.config.targets import build
from mpo.data.problems import Problem, ProblemCounts, Reason
from mpo.data.sources import LAYOUTS, Source, SourceSpec, resolve_layout
from mpo.data.sources.checked import checked_sets
from mpo.data.sources.recorded import Recorded
from mpo.data.split import prompt_key, split_heldout, take_fraction
from mpo.data.store import copy_sets, read_stored_sets, write_sets
from mpo.errors import DataError
from mpo.stages.context import StageContext
from mpo.stages.nodes import data
from mpo.stages.partition import Binning, check_refused
from mpo.stages.summary import Summary, counts
from mpo.types import ResponseSet

Context = StageContext[data.Config, data.Settings, data.Inputs[Path]]

IS_HELD_OUT = "prompt is held out"
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


def run(context: Context) -> None:
    """Write the sets of the source, split by prompt; its demonstrations are one split.

    Raises:
        DataError: nothing usable, too many unusable rows, or no set that the loss can learn from.
    """
    config, out, source = context.config, context.output, _source(context)
    if config.part is data.Part.demonstrations:
        count = write_sets(out / "train.parquet", source.read_demonstrations() or ())
        Summary(facts={"": {"source": source.name}, "train": {"sets": count}}).write(out)
        return
    if config.needs_responses and isinstance(source, Recorded):
        _check_responses(source)
    fatal = {Reason.NO_SCORE} if config.needs_scores else set()
    findings, heldout_findings = _Findings(fatal), _Findings(fatal)
    whole = out / "all.parquet"
    keys = _read(context, source, source.read_sets(config.rounds, findings), findings, whole, config.limit)
    _check(findings, len(keys), config)
    own_heldout = source.read_heldout(heldout_findings)
    if own_heldout is not None:
        read = _read(context, source, own_heldout, heldout_findings, out / "heldout.parquet", None)
        _check(heldout_findings, len(read), config)
        heldout_keys = set(read)
        train = [index for index, key in enumerate(keys) if key not in heldout_keys]
        heldout_count, shared = len(heldout_keys), len(keys) - len(train)
    else:
        parts = split_heldout(keys, config.heldout, config.split_seed)
        train, heldout_count, shared = list(parts.train), len(parts.heldout), 0
        copy_sets(whole, parts.heldout, out / "heldout.parquet")
    if not train:
        what = f"all {len(keys)} sets have a prompt that is held out, none is left to train on"
        raise DataError(what, source.name, "hold out fewer, or another source")
    chosen = take_fraction([keys[index] for index in train], config.fraction, config.split_seed)
    copy_sets(whole, [train[position] for position in chosen], out / "train.parquet")
    if context.settings.binning is not None:
        refused = _refused(out / "train.parquet", Binning(context.settings.binning))
        check_refused(refused, len(chosen), config.max_skipped_share)
    whole.unlink()
    skipped = {"train": counts(findings.unusable), "heldout": counts(heldout_findings.unusable)}
    if shared:
        skipped["train"][IS_HELD_OUT] = shared
    Summary(
        skipped=skipped,
        warnings={"train": counts(_warned(findings)), "heldout": counts(_warned(heldout_findings))},
        facts={"": {"source": source.name}, "train": {"sets": len(chosen)}, "heldout": {"sets": heldout_count}},
        problems=[str(problem) for one in (findings, heldout_findings) for problem in one.shown],
    ).write(out)


def _source(context: Context) -> Source:
    """The source, reading the files that the stage's fingerprint covers."""
    config, inputs = context.config, context.inputs
    if config.source is not None:
        return build(config.source, Source, config.allow_targets, "data.source")  # type: ignore[type-abstract]
    assert inputs.source is not None
    revision = inputs.source.revision if isinstance(inputs.source, Hub) else None
    spec = SourceSpec(_name(inputs.source), config.layout, config.split, revision, config.score_field)
    other = None if inputs.heldout_source is None else _name(inputs.heldout_source)
    return Recorded(spec, other, config.heldout_split)


def _check_responses(source: Recorded) -> None:
    layout = resolve_layout(source.spec)
    if not LAYOUTS[layout].gives_responses:
        found = (
            "as data.layout says" if source.spec.layout == layout else "for its first row has a prompt and no responses"
        )
        remedy = "regime=on_policy with model.path=FOLDER draws responses; or give the rows responses, or name a layout"
        raise DataError(f"prompts alone, {found}", source.name, remedy)


def _name(given: File | Hub) -> str:
    return given.path if isinstance(given, File) else given.name


def _warned(findings: _Findings) -> dict[str, int]:
    """Warnings but those about a set's signal: the partition knows whether it matters."""
    about_signal = (*_NO_SIGNAL, Reason.NO_SCORE)
    return {reason: n for reason, n in findings.counts.warnings.items() if reason not in about_signal}


def _read(
    context: Context, source: Source, given: Iterator[ResponseSet], findings: _Findings, out: Path, limit: int | None
) -> list[str]:
    """Store the usable sets in ``out``; returns their prompt keys."""
    keys: list[str] = []
    progress = context.progress()
    sets = given if isinstance(source, Recorded) else checked_sets(source, given, findings)

    def usable() -> Iterator[ResponseSet]:
        for one in itertools.islice(sets, limit):
            if one.id in findings.fatal_ids:
                continue
            keys.append(prompt_key(one.prompt))
            progress.update(len(keys), limit or 0, "sets")
            yield one

    write_sets(out, usable())
    progress.close()
    return keys


def _check(findings: _Findings, usable: int, config: data.Config) -> None:
    skipped = sum(findings.unusable.values())
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(findings.unusable.items()))
    if skipped and (not usable or skipped > config.max_skipped_share * (skipped + usable)):
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
    if config.contrasts and first is not None and count >= usable:
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

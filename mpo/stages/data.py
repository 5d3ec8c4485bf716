"""Read response sets from a source, check every row, hold some prompts out: ``train.parquet``, ``heldout.parquet``."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from mpo.cache.stage import File, Hub
from mpo.config.targets import build
from mpo.data.mixing import take_shares
from mpo.data.problems import Reason
from mpo.data.sources import LAYOUTS, Mixture, Source, SourceSpec, resolve_layout
from mpo.data.sources.checked import checked_sets
from mpo.data.sources.mixture import Rows
from mpo.data.sources.recorded import Recorded
from mpo.data.split import prompt_key, split_heldout, take_fraction
from mpo.data.store import copy_sets, read_stored_sets, write_sets
from mpo.errors import DataError
from mpo.stages.context import StageContext
from mpo.stages.findings import Findings
from mpo.stages.nodes import data
from mpo.stages.partition import Binning, check_refused
from mpo.stages.summary import Summary
from mpo.types import ResponseSet

AnyRows = TypeVar("AnyRows", bound=Rows)
Context = StageContext[data.Config, data.Settings, data.Inputs[Path]]

IS_HELD_OUT = "prompt is held out"
IN_EARLIER_PART = "prompt is in an earlier part"


@dataclass
class _Sets:
    """Of stored sets in order the prompt's key and the part, and of each part how many were not stored because an
    earlier one has their prompt."""

    keys: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    repeated: Counter[str] = field(default_factory=Counter)

    @property
    def usable(self) -> Counter[str]:
        """By part, stored or not."""
        return Counter(self.parts) + self.repeated

    def by_part(self, indices: Iterable[int]) -> Counter[str]:
        """How many of these stored sets each part has given."""
        return Counter(self.parts[index] for index in indices)


def run(context: Context) -> None:
    """Write the sets of the source, split by prompt; its demonstrations are one split.

    Raises:
        DataError: nothing usable, too many unusable rows, a part of a mixture that cannot give its share, or no set
            that the loss can learn from.
    """
    config, out, source = context.config, context.output, _source(context)
    if config.part is data.Part.demonstrations:
        count = write_sets(out / "train.parquet", source.read_demonstrations() or ())
        Summary(facts={"": {"source": source.name}, "train": {"sets": count}}).write(out)
        return
    sources = source.components()
    for name, one in sources.items():
        if config.needs_responses and isinstance(one, Recorded):
            _check_responses(one, name)
    fatal = {Reason.NO_SCORE} if config.needs_scores else set()
    findings = {name: Findings(fatal, name) for name in sources}
    heldout_findings = Findings(fatal)
    whole = out / "all.parquet"
    given = {name: (one, one.read_sets(config.rounds, findings[name])) for name, one in sources.items()}
    read = _read(context, given, findings, whole, config.limit)
    for name, found in findings.items():
        found.check(read.usable[name], config)
    own_heldout = source.read_heldout(heldout_findings)
    candidates: Sequence[int] = range(len(read.keys))
    heldout = None
    if own_heldout is not None:
        of_heldout = {"": (source, own_heldout)}
        heldout = _read(context, of_heldout, {"": heldout_findings}, out / "heldout.parquet", None)
        heldout_findings.check(len(heldout.keys), config)
        heldout_keys = set(heldout.keys)
        candidates = [index for index in candidates if read.keys[index] not in heldout_keys]
    shared = Counter(read.parts) - read.by_part(candidates)
    if isinstance(source, Mixture) and candidates:
        candidates = _mixed(source, read, candidates, config.split_seed)
    train = candidates
    if heldout is None:
        sides = split_heldout([read.keys[index] for index in candidates], config.heldout, config.split_seed)
        train = [candidates[position] for position in sides.train]
        copy_sets(whole, [candidates[position] for position in sides.heldout], out / "heldout.parquet")
    if not train:
        what = f"all {len(read.keys)} sets have a prompt that is held out, none is left to train on"
        raise DataError(what, source.name, "hold out fewer, or another source")
    fraction = take_fraction([read.keys[index] for index in train], config.fraction, config.split_seed)
    chosen = [train[position] for position in fraction]
    copy_sets(whole, chosen, out / "train.parquet")
    if context.settings.binning is not None:
        refused = _refused(out / "train.parquet", Binning(context.settings.binning))
        check_refused(refused, len(chosen), config.max_skipped_share)
    whole.unlink()
    skipped: dict[str, int] = {}
    for name, found in findings.items():
        left_out = {IN_EARLIER_PART: read.repeated[name], IS_HELD_OUT: shared[name]}
        skipped |= found.skipped | {found.label(reason): count for reason, count in left_out.items() if count}
    facts: dict[str, Any] = {"source": source.name}
    if isinstance(source, Mixture):
        facts[data.PARTS] = _facts(source, read, candidates, chosen)
    heldout_count = len(candidates) - len(train) if heldout is None else len(heldout.keys)
    every = [*findings.values(), heldout_findings]
    Summary(
        skipped={"train": skipped, "heldout": heldout_findings.skipped},
        warnings={
            "train": {label: n for one in findings.values() for label, n in one.warned.items()},
            "heldout": heldout_findings.warned,
        },
        facts={"": facts, "train": {"sets": len(chosen)}, "heldout": {"sets": heldout_count}},
        problems=[problem for one in every for problem in one.shown],
    ).write(out)


def _source(context: Context) -> Source:
    """The source, reading the files that the stage's fingerprint covers."""
    config, inputs = context.config, context.inputs
    if config.source is not None:
        return build(config.source, Source, config.allow_targets, "data.source")  # type: ignore[type-abstract]
    if config.parts:
        parts = {part.path: _from(part, inputs.parts[part.path]) for part in config.parts}
        rows = config.heldout_rows
        assert rows is None or inputs.heldout_source is not None
        return Mixture(parts, config.total, None if rows is None else _from(rows, inputs.heldout_source))
    assert inputs.source is not None
    revision = inputs.source.revision if isinstance(inputs.source, Hub) else None
    spec = SourceSpec(_name(inputs.source), config.layout, config.split, revision, config.score_field)
    other = None if inputs.heldout_source is None else _name(inputs.heldout_source)
    return Recorded(spec, other, config.heldout_split)


def _from(rows: AnyRows, given: File | Hub | None) -> AnyRows:
    """The same rows, of this file or hub set."""
    assert given is not None
    return replace(rows, path=_name(given), revision=given.revision if isinstance(given, Hub) else None)


def _check_responses(source: Recorded, part: str) -> None:
    layout = resolve_layout(source.spec)
    if not LAYOUTS[layout].gives_responses:
        key = f"data.source.parts.{part}.layout" if part else "data.layout"
        found = f"as {key} says" if source.spec.layout == layout else "for its first row has a prompt and no responses"
        remedy = "regime=on_policy with model.path=FOLDER draws responses; or give the rows responses, or name a layout"
        where = f"part '{part}' ({source.name})" if part else source.name
        raise DataError(f"prompts alone, {found}", where, remedy)


def _name(given: File | Hub) -> str:
    return given.path if isinstance(given, File) else given.name


def _read(
    context: Context,
    given: Mapping[str, tuple[Source, Iterator[ResponseSet]]],
    findings: Mapping[str, Findings],
    out: Path,
    limit: int | None,
) -> _Sets:
    """Store the usable sets in ``out``, source by source."""
    read = _Sets()
    part_of: dict[str, str] = {}
    progress = context.progress()

    def usable() -> Iterator[ResponseSet]:
        for name, (source, sets) in given.items():
            checked = sets if isinstance(source, Recorded | Mixture) else checked_sets(source, sets, findings[name])
            for one in itertools.islice(checked, limit):
                if one.id in findings[name].fatal_ids:
                    continue
                key = prompt_key(one.prompt)
                if part_of.setdefault(key, name) != name:
                    read.repeated[name] += 1
                    continue
                read.keys.append(key)
                read.parts.append(name)
                progress.update(len(read.keys), limit or 0, "sets")
                yield replace(one, id=f"{name}/{one.id}") if name else one

    write_sets(out, usable())
    progress.close()
    return read


def _mixed(source: Mixture, read: _Sets, candidates: Sequence[int], seed: int) -> list[int]:
    """Those of the ``candidates`` that are the parts' shares."""
    weights = {name: part.weight for name, part in source.parts.items()}
    parts, keys = ([of[index] for index in candidates] for of in (read.parts, read.keys))
    return [candidates[position] for position in take_shares(parts, keys, weights, source.total, seed)]


def _facts(source: Mixture, read: _Sets, taken: Sequence[int], chosen: Sequence[int]) -> dict[str, dict[str, float]]:
    """Of each part."""
    all_taken, trained = read.by_part(taken), read.by_part(chosen)
    return {
        name: {
            "weight": part.weight,
            "sets read": read.usable[name],
            "prompts in earlier parts": read.repeated[name],
            "taken": all_taken[name],
            "to train on": trained[name],
        }
        for name, part in source.parts.items()
    }


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

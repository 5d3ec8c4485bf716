"""The page of an experiment, in Markdown with one picture, and the page of all of them."""

from __future__ import annotations

import collections
import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpo.cache.artifacts import write_json, write_text
from mpo.experiments import figures, tables
from mpo.experiments.cells import WHOLE, Cell, axis_of
from mpo.experiments.measured import Numbers, collect, seconds_of_training
from mpo.experiments.spec import AtScale, Experiment, Kind, Scale, published
from mpo.experiments.statistics import Difference
from mpo.plain import finite
from mpo.report.markdown import table as markdown_table
from mpo.track.units import duration

SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class Shown:
    """One experiment's page: its name, Markdown below a heading, and the paper's orderings as they were found, and
    the runs that are missing."""

    name: str
    title: str
    text: str
    claims: list[tuple[str, Difference]]
    missing: Sequence[str]


def write_experiment(
    name: str, experiment: Experiment, scale_name: str, scale: Scale, cells: Sequence[Cell], units: int, runs: Path,
    out: Path,
) -> Shown:  # fmt: skip
    """Write ``out/NAME.{md,png,csv,tex}`` of what is measured so far; returns what the page of all shows."""
    title = f"{experiment.paper}: {experiment.title}"
    if experiment.kind is Kind.simulation:
        return _simulated(name, experiment, title, out)
    axis, at = axis_of(experiment, scale_name), experiment.scales.get(scale_name, AtScale())
    blocks = list(dict.fromkeys(cell.block for cell in cells)) or [WHOLE]
    values = axis.values if axis is not None else [""]
    numbers = collect(experiment, cells, scale.columns, axis.temperatures if axis is not None else (), runs)
    paper = published().get(experiment.published) if experiment.published is not None else None
    first = scale.columns[0]
    picture = out / f"{name}.png"
    claims = tables.claims(experiment, first, blocks, axis, numbers, at)
    parts, notes = [], [*experiment.notes, *at.notes]
    if experiment.kind is Kind.training:
        of_rows = {row: _metrics(cells, row, numbers) for row in experiment.rows}
        if any(of_rows.values()):
            draw = figures.draw_replications if experiment.each else figures.draw_training
            draw(experiment, of_rows, picture)
            parts.append(_image(name, title))
            notes += _unrecorded(experiment, of_rows)
    else:
        table = tables.measured_table(experiment, scale.columns, blocks, values, numbers, paper, units, at)
        parts.append(table.markdown())
        write_text(out / f"{name}.tex", table.latex())
        write_text(out / f"{name}.csv", tables.long_csv(experiment, scale.columns, blocks, values, numbers))
        if numbers.runs:
            if axis is not None:
                positions = seconds_of_training(numbers, cells) if axis.seconds else {}
                figures.draw_lines(experiment, first, blocks, axis, positions, numbers, picture)
            else:
                figures.draw_rows(experiment, first, blocks, numbers, paper, picture)
            parts.append(_image(name, title))
        other = tables.published_table(experiment, paper, blocks)
        if other is not None:
            parts.append(other.markdown())
    if claims:
        lines = [tables.claim_line(label, found, first.decimals) for label, found in claims]
        parts.append(f"Orderings of the paper, {first.label}, paired over replications:\n\n" + "\n".join(lines))
    if experiment.kind is not Kind.training:
        notes += _gaps(scale, numbers)
    parts += ["\n".join(f"- {' '.join(note.split())}" for note in notes)] if notes else []
    parts.append(_provenance(name, scale_name, cells, units, numbers))
    text = "\n\n".join(parts)
    write_text(out / f"{name}.md", f"# {title}\n\n{text}\n")
    return Shown(name, title, text, claims, [cell.label for cell in numbers.missing])


def _simulated(name: str, experiment: Experiment, title: str, out: Path) -> Shown:
    from mpo.simulate.__main__ import main as simulate

    assert experiment.simulation is not None
    folder = out / SIMULATED
    simulate([experiment.simulation, "--out", str(folder)])
    text = (folder / f"{experiment.simulation}.md").read_text()
    body = "\n".join(line for line in text.splitlines() if not line.startswith("# "))
    body = body.replace(f"]({experiment.simulation}.png)", f"]({SIMULATED}/{experiment.simulation}.png)").strip()
    if ".png)" not in body:
        body += f"\n\n![{title}]({SIMULATED}/{experiment.simulation}.png)"
    write_text(out / f"{name}.md", f"# {title}\n\n{body}\n")
    return Shown(name, title, body, [], [])


def _image(name: str, title: str) -> str:
    return f"![{title}]({name}.png)"


def _metrics(cells: Sequence[Cell], row: str, numbers: Numbers) -> list[list[dict[str, object]]]:
    """The last round's training records of each replication."""
    found = [numbers.runs[cell.key] for cell in cells if cell.row == row and cell.key in numbers.runs]
    return [report.metrics()[-1] for report in found]


def _unrecorded(
    experiment: Experiment, of_rows: Mapping[str, Sequence[Sequence[Mapping[str, object]]]]
) -> Iterator[str]:
    """Training metrics that finished runs have not recorded, and replications of different length."""
    for row, runs in of_rows.items():
        for pattern in experiment.metrics:
            if runs and not figures.matching(runs, pattern):
                yield f"{row}: {pattern} is not recorded by every finished run."
        lengths = sorted({len(records) for records in runs})
        if len(lengths) > 1:
            yield f"{row}: replications have {lengths[0]} to {lengths[-1]} steps; means end with the shortest."


def _gaps(scale: Scale, numbers: Numbers) -> Iterator[str]:
    """What finished runs did not measure, and what they measured more than once."""
    measured = {label for of_place in numbers.values.values() for label in of_place}
    nowhere = [column.label for column in scale.columns if column.label in numbers.lacking.keys() - measured]
    if nowhere:
        yield f"Measured in no finished run: {', '.join(nowhere)}."
    for label, count in numbers.lacking.items():
        if label in measured:
            yield f"{label} is missing, or not finite, at {count} places of finished runs."
    for label, key in numbers.chosen.items():
        yield f"Several estimates of a run are {label}: {key} is shown."


def _provenance(name: str, scale_name: str, cells: Sequence[Cell], units: int, numbers: Numbers) -> str:
    reports = list(numbers.runs.values())
    if not reports:
        return f"No run of {len({cell.key for cell in cells})} is finished."
    done = f"{len(reports)} of {len({cell.key for cell in cells})} runs"
    commits = collections.Counter(report.commit for report in reports)
    several = len(commits) > 1
    shown_commits = ", ".join(f"{one} ({count} runs)" if several else one for one, count in sorted(commits.items()))
    hardware = sorted({report.hardware for report in reports})
    seeds = sorted({report.seed for report in reports})
    versions = reports[-1].versions
    shown = ", ".join(f"{key} {versions[key]}" for key in ("mpo", "torch", "transformers", "vllm") if key in versions)
    command = f"make {name.replace('_', '-')} SCALE={scale_name}"
    created = max(report.created for report in reports)[:10]
    return (
        f"`{command}`: {done}, {_replications(units)}, seeds {', '.join(map(str, seeds))}; {shown}; "
        f"{'**several commits** ' if several else 'commit '}{shown_commits}; {'; '.join(hardware)}; {created}."
    )


def _replications(units: int) -> str:
    return "1 replication" if units == 1 else f"{units} replications"


def write_index(
    shown: Sequence[Shown], scale_name: str, scale: Scale, units: int, seconds: Sequence[float], out: Path
) -> Path:
    """``out/README.md``: every experiment on one page, with the orderings of the papers first.

    ``seconds``: of each finished run, in stages that it built and others then took from the cache.
    """
    held = {"holds": 0, "the other way round": 0, "not resolved": 0, "not measured often enough": 0}
    lines = []
    for one in shown:
        for label, found in one.claims:
            held[found.verdict] += 1
            resolves = f"{found.resolvable:.2f}" if found.n > 1 else tables.NOTHING
            lines.append([one.name, label, found.verdict, tables.difference_text(found, 2), resolves])
    said = ", ".join(f"{count} {verdict}" for verdict, count in held.items() if count)
    head = [
        f"# Tables and figures at {scale.title}",
        f"Written by `make tables SCALE={scale_name}` on {datetime.date.today()}, over {_replications(units)}. "
        f"{len(seconds)} runs: {duration(sum(seconds))}, if run one after another; stages from the cache not counted.",
        f"**What this scale can say.** {scale.says}",
        f"**What it cannot.** {scale.silent}",
        f"## Orderings of the papers\n\nOf {len(lines)}: {said}. Each is tested on its own at the 5 % level, by "
        "Student's t on paired differences; of so many, some would come out by chance. \"Resolves\" is the true "
        "difference that as many replications with the same spread find four times of five.",
        markdown_table(["experiment", "claim", "found", "difference", "resolves"], lines, left=3).rstrip(),
    ]  # fmt: skip
    body = [f"## {one.title}\n\n{one.text}" for one in shown]
    write_text(out / "README.md", "\n\n".join([*head, *body]) + "\n")
    write_json(
        out / "claims.json",
        finite([
            {"experiment": one.name, "claim": label, "found": found.verdict, "difference": found.mean,
             "standard_error": found.error, "low": found.low, "high": found.high, "n": found.n,
             "resolvable": found.resolvable}
            for one in shown for label, found in one.claims
        ]),
    )  # fmt: skip
    return out / "README.md"

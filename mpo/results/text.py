"""Results as lines of plain text. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mpo.errors import printable
from mpo.results.groups import Mean
from mpo.results.records import Run
from mpo.results.titles import title
from mpo.track.units import duration, number

if TYPE_CHECKING:
    from mpo.results.compare import Comparison, Sides
    from mpo.results.paired import Paired


def list_lines(means: Sequence[Mean]) -> Iterator[str]:
    """One a group and estimate."""
    rows = [["group", "estimate", "mean", "unit", "seeds"]]
    for each in means:
        over = "1 (± over prompts)" if len(each.seeds) == 1 else str(len(each.seeds))
        missing = f", no number of {len(each.missing)}" if each.missing else ""
        rows.append([each.group, title(each.about), number(each.value, each.standard_error), each.unit, over + missing])
    yield from aligned(rows)


def comparison_lines(found: Sequence[Comparison], sides: Sides) -> Iterator[str]:
    """A block an estimate."""
    starts = len({start for _, start in sides.common}) > 1
    for each in found:
        yield f"{title(each.about)}{f' ({each.unit})' if each.unit else ''}"
        rows = [["seed", *(["start"] if starts else []), "prompts", "A", "B", "A − B", "t-test p", "permutation p"]]
        for pair in each.pairs:
            own = [str(pair.seed), *([pair.start[:8]] if starts else [])]
            left = f" ({pair.left_out} left out)" if pair.left_out else ""
            if pair.test is None:
                rows.append([*own, "none", number(pair.a), number(pair.b), number(pair.a - pair.b), "–", "–"])
            else:
                test = pair.test
                shown = [number(pair.a), number(pair.b), number(test.mean, test.standard_error)]
                rows.append([*own, f"{test.n}{left}", *shown, _p(test.t_p), _p(test.sign_p)])
        yield from (f"  {line}" for line in aligned(rows))
        if len(each.pairs) > 1:
            yield f"  over {each.over_pairs.n} {'seeds and starts' if starts else 'seeds'}: {_tested(each.over_pairs)}"
        if each.over_prompts is not None:
            yield f"  over {each.over_prompts.n} prompts that all of them have: {_tested(each.over_prompts)}"
        yield ""
    what = "seeds and starting policies" if starts else "seeds"
    yield f"{what} in both: {len(sides.common)}, of {len(sides.a)} in A and {len(sides.b)} in B"
    yield from (f"note: {note}" for note in sides.notes)


def run_lines(run: Run) -> Iterator[str]:
    """All that is known of a run, but its estimates."""
    facts = {
        "run": run.id, "run key": run.run_key, "config key": run.config_key, "name": run.name, "seed": str(run.seed),
        "created": run.created, "built in": duration(run.seconds), "commit": run.commit or "an installed package",
        "hardware": run.hardware, "command": run.command, "note": run.note,
        "versions": ", ".join(f"{name} {version}" for name, version in run.versions.items()),
    }  # fmt: skip
    yield from aligned([[name, value] for name, value in facts.items() if value])
    yield "configuration"
    yield from (printable(line) for line in json.dumps(run.config, indent=1, ensure_ascii=False).splitlines())


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns, two blanks apart."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _tested(test: Paired) -> str:
    signs = f"{'all' if test.exact else 'random'} {test.patterns} sign patterns"
    shown = number(test.mean, test.standard_error)
    return f"{shown}, paired t-test p = {_p(test.t_p)}, permutation test p = {_p(test.sign_p)} ({signs})"


def _p(value: float) -> str:
    return "–" if not math.isfinite(value) else "< 0.0001" if value < 1e-4 else f"{value:.2g}"

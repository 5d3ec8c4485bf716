"""Several runs by one command, and the page that compares them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.end_to_end.conftest import CommandLine, Outcome

NO_SAMPLES = "evaluate.temperatures=[]"
"""Half of a member's time, and nothing of what several runs have in common."""


def test_members_are_compared_and_a_mistake_in_one_stops_no_other(
    first_run: Outcome, mpo: CommandLine, tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    members = mpo.smallest("loss=mpo,simpo", "seed=0,1", "model.reference=none", NO_SAMPLES, f"hydra.sweep.dir={sweep}")
    outcome = mpo("--multirun", *members, code=2)
    assert outcome.mistakes == 2 * [
        "mpo: error: model.reference: MPO needs a reference; leave it out, or choose a loss without, e.g. loss=simpo"
    ]
    assert "Traceback" not in outcome.err
    folders = sorted(path.parent for path in sweep.glob("*/result.json"))
    assert [folder.name for folder in folders] == ["2", "3"]
    assert str(sweep / "comparison.html") in outcome.err
    page = re.sub(r"<(script|style).*?</\1>", "", (sweep / "comparison.html").read_text(), flags=re.S)
    rows = [re.sub(r"<[^>]*>", " ", row) for row in re.findall(r"<tr.*?</tr>", page, flags=re.S)]
    over_seeds = next(row.split() for row in rows if "±" in row)
    assert over_seeds[0] == "2" and over_seeds[2] == "±", over_seeds  # seeds, mean of a measure
    assert [row.split()[:2] for row in rows if "simpo-" in row] == [[f"simpo-tiny-seed{n}", str(n)] for n in (0, 1)]
    commands = [json.loads((folder / "result.json").read_text())["command"] for folder in folders]
    assert [("loss=simpo" in command, "seed=0" in command) for command in commands] == [(True, True), (True, False)]


@pytest.mark.slow
def test_members_beside_each_other(first_run: Outcome, mpo: CommandLine, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    members = mpo.smallest("loss=dpo,mpo", "launcher=joblib", "dry_run=true", f"hydra.sweep.dir={sweep}")
    outcome = mpo(*members)
    assert "Traceback" not in outcome.err
    assert [f"mpo  {loss} · " in outcome.out for loss in ("dpo", "mpo")] == [True, True]

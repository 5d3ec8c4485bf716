"""Several runs by one command, and the page that compares them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.end_to_end.conftest import CommandLine, Outcome

NO_SAMPLES = "evaluate.temperatures=[]"
"""Half of a member's time, and nothing of what several runs have in common."""


def test_members_of_a_multirun_are_compared(first_run: Outcome, mpo: CommandLine, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    outcome = mpo("--multirun", *mpo.smallest("loss=dpo,mpo", "seed=0,1", NO_SAMPLES, f"hydra.sweep.dir={sweep}"))
    folders = sorted(path.parent for path in sweep.glob("*/result.json"))
    assert len(folders) == 4
    assert str(sweep / "comparison.html") in outcome.err
    page = re.sub(r"<(script|style).*?</\1>", "", (sweep / "comparison.html").read_text(), flags=re.S)
    rows = [re.sub(r"<[^>]*>", " ", row) for row in re.findall(r"<tr.*?</tr>", page, flags=re.S)]
    for loss in ("DPO", "MPO"):
        (over_seeds, *members) = [row.split() for row in rows if loss in row.split()]
        assert over_seeds[3] == "2" and over_seeds[5] == "±", over_seeds  # partition, loss, its parameter, seeds, means
        assert len(members) == 2
    commands = [json.loads((folder / "result.json").read_text())["command"] for folder in folders]
    assert [("loss=dpo" in command, "seed=0" in command) for command in commands] == [
        (True, True), (True, False), (False, True), (False, False)
    ]  # fmt: skip


def test_members_beside_each_other(first_run: Outcome, mpo: CommandLine, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    members = mpo.smallest("loss=dpo,mpo", "launcher=joblib", "dry_run=true", f"hydra.sweep.dir={sweep}")
    outcome = mpo(*members)
    assert "Traceback" not in outcome.err
    assert [f"mpo  {loss} · " in outcome.out for loss in ("dpo", "mpo")] == [True, True]


def test_a_mistake_in_one_member_stops_no_other(first_run: Outcome, mpo: CommandLine, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    members = mpo.smallest("loss=simpo,mpo,orpo", "model.reference=none", NO_SAMPLES, f"hydra.sweep.dir={sweep}")
    outcome = mpo("--multirun", *members, code=2)
    assert outcome.mistakes == [
        "mpo: error: model.reference: MPO needs a reference; leave it out, or choose a loss without, e.g. loss=simpo"
    ]
    assert "Traceback" not in outcome.err
    assert sorted(path.parent.name for path in sweep.glob("*/result.json")) == ["0", "2"]
    assert (sweep / "comparison.html").is_file()

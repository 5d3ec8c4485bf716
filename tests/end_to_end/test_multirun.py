"""Several runs by one command, and the page that compares them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.end_to_end.conftest import CommandLine, Outcome


def test_members_of_a_multirun_are_compared(first_run: Outcome, mpo: CommandLine, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    outcome = mpo("--multirun", *mpo.smallest("loss=dpo,mpo", "seed=0,1", f"hydra.sweep.dir={sweep}"))
    folders = sorted(path.parent for path in sweep.glob("*/result.json"))
    assert len(folders) == 4
    assert str(sweep / "comparison.html") in outcome.err
    page = re.sub(r"<(script|style).*?</\1>", "", (sweep / "comparison.html").read_text(), flags=re.S)
    rows = [re.sub(r"<[^>]*>", " ", row) for row in re.findall(r"<tr.*?</tr>", page, flags=re.S)]
    for loss in ("DPO", "MPO"):
        (over_seeds, *members) = [row.split() for row in rows if loss in row.split()]
        assert over_seeds[3] == "2" and over_seeds[5] == "±", over_seeds  # partition, loss, its parameter, seeds, means
        assert len(members) == 2

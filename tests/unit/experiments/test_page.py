from __future__ import annotations

import json
from pathlib import Path

from mpo.experiments.page import write_experiment, write_index
from mpo.experiments.spec import AtScale, Axis, Kind
from tests.unit.experiments.conftest import SCALE, Finish, cells, estimates, experiment


def test_nothing_finished(tmp_path: Path) -> None:
    of = experiment()
    shown = write_experiment("mine", of, "any", SCALE, cells(of), 3, tmp_path / "runs", tmp_path)
    text = (tmp_path / "mine.md").read_text()
    assert "No run of 6 is finished" in text and "not measured" in text and ".png" not in text
    assert len(shown.missing) == 6


def test_claims_without_a_verdict_are_plain_json(finish: Finish, tmp_path: Path) -> None:
    of = experiment(claims=["MPO > DPO", "MPO > Start"])
    for cell in cells(of, 1)[1:]:
        finish(cell, estimates(6.0))
    shown = write_experiment("mine", of, "any", SCALE, cells(of, 1), 1, tmp_path / "runs", tmp_path)
    page = write_index([shown], "any", SCALE, 1, [3000.0, 600.0], tmp_path).read_text()
    assert (
        "| mine | MPO > DPO | not measured often enough | – | – |" in page
        and "over 1 replication. 2 runs: 1 h 00 min" in page
    )
    first, second = json.loads((tmp_path / "claims.json").read_text())
    assert (first["n"], first["difference"]) == (0, None)
    assert (second["n"], second["difference"], second["low"]) == (1, 2.0, None)


def test_gaps_and_several_commits_are_said(finish: Finish, tmp_path: Path) -> None:
    of = experiment()
    for cell in cells(of, 2):
        finish(cell, estimates(6.0)[: 1 if cell.unit else 2], commit="old" if cell.unit else "new")
    write_experiment("mine", of, "any", SCALE, cells(of, 2), 2, tmp_path / "runs", tmp_path)
    text = (tmp_path / "mine.md").read_text()
    assert "- win rate % is missing, or not finite, at 2 places of finished runs." in text
    assert "**several commits** new (2 runs), old (2 runs)" in text
    assert (tmp_path / "mine.png").stat().st_size > 5000


def test_every_kind_is_drawn(finish: Finish, tmp_path: Path) -> None:
    """With long names and in blocks; axes on which there is nothing stay empty."""
    lines = experiment(
        kind=Kind.lines,
        axis=Axis(label="alpha", log=True, overrides={"0.001": ["train.lr=1"], "0.1": ["train.lr=2"]}),
        scales={"any": AtScale(blocks={"a block with a long name": [], "another": ["model=tiny"]})},
    )
    seconds = experiment(kind=Kind.lines, axis=Axis(label="epochs", seconds=True, overrides={"1": [], "2": ["x=2"]}))
    patterns = ["likelihood/rank_*", "loss", "nowhere"]
    drawn = {
        "lines": lines,
        "seconds": seconds,
        "training": experiment(kind=Kind.training, metrics=patterns, overrides=["y=1"]),
        "one": experiment(kind=Kind.training, metrics=["loss"], overrides=["y=2"]),
        "each": experiment(kind=Kind.training, metrics=["loss", "nowhere"], each=True, overrides=["y=3"]),
    }
    done = set()
    for name, of in drawn.items():
        for number, cell in enumerate(cells(of, 2)):
            if cell.key not in done:
                finish(cell, estimates(6.0 + number / 10), seconds=30.0, steps=20 + number)
            done.add(cell.key)
        write_experiment(name, of, "any", SCALE, cells(of, 2), 2, tmp_path / "runs", tmp_path)
        assert (tmp_path / f"{name}.png").stat().st_size > 5000, name
    text = (tmp_path / "training.md").read_text()
    assert "- DPO: nowhere is not recorded by every finished run." in text
    assert "- DPO: replications have 20 to 22 steps; means end with the shortest." in text

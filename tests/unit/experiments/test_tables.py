from __future__ import annotations

import csv
import io
from pathlib import Path

from mpo.experiments.cells import cells_of
from mpo.experiments.measured import Numbers, collect
from mpo.experiments.statistics import paired
from mpo.experiments.tables import Table, claim_line, claims, long_csv, measured_table, published_table
from tests.unit.experiments.conftest import REWARD, SCALE, WINS, AtScale, Finish, cells, estimates, experiment

PUBLISHED = {"columns": ["lc", "wr"], "a": {"DPO": [10.5, 9], "MPO": [12, 11]}, "b": {"DPO": [1, 2]}}
EMPTY = Numbers({}, {}, [], {}, {})


def test_a_mean_of_fewer_replications_says_so_and_differences_are_paired(finish: Finish, tmp_path: Path) -> None:
    of = experiment()
    for cell in cells(of)[:-1]:
        finish(cell, estimates(6.0 + cell.unit + (0.5 if cell.row == "MPO" else 0)))
    numbers = collect(of, cells(of), [REWARD, WINS], (), tmp_path / "runs")
    table = measured_table(of, [REWARD, WINS], [""], [""], numbers, None, 3, AtScale())
    start, dpo, mpo = table.rows
    assert start[1] == "4.00 ± 0.00"
    assert dpo == ["DPO", "7.00 ± 0.58", "70.0 ± 5.8", "7.00; 6.00 to 8.00", "-0.50 ± 0.00 (-0.50 to -0.50)"]
    assert mpo[1:] == ["7.00 ± 0.50 (of 2)", "70.0 ± 5.0 (of 2)", "7.00; 6.50 to 7.50", "–"]
    rows = list(csv.DictReader(io.StringIO(long_csv(of, [REWARD, WINS], [""], [""], numbers))))
    assert len(rows) == 16 and {row["replication"] for row in rows if row["row"] == "MPO"} == {"0", "1"}


def test_published_numbers_stand_beside_their_own_block() -> None:
    of = experiment()
    table = measured_table(of, [REWARD], ["a", "b"], [""], EMPTY, PUBLISHED, 1, AtScale())
    assert table.header[-2:] == ["published LC %", "published WR %"]
    assert {tuple(row[:2]): row[-2:] for row in table.rows} == {
        ("Start", "a"): ["–", "–"], ("DPO", "a"): ["10.5", "9"], ("MPO", "a"): ["12", "11"],
        ("Start", "b"): ["–", "–"], ("DPO", "b"): ["1", "2"], ("MPO", "b"): ["–", "–"],
    }  # fmt: skip
    assert published_table(of, PUBLISHED, ["a", "b"]) is None
    other = measured_table(of, [REWARD], [""], [""], EMPTY, PUBLISHED, 1, AtScale())
    assert other.header[-2:] == ["published LC %, a", "published LC %, b"]
    whole = published_table(of, PUBLISHED, [""])
    assert whole is not None and whole.rows == [["a DPO", "10.5", "9"], ["a MPO", "12", "11"], ["b DPO", "1", "2"]]


def test_a_block_may_have_some_rows_only() -> None:
    at = AtScale(blocks={"a": ["model=tiny"], "b": ["model=small"]}, only={"b": ["Start", "MPO"]},
                 rows={"MPO @ b": ["loss.beta=0.5"]})  # fmt: skip
    of = experiment(scales={"any": at})
    found = cells_of(of, "any", SCALE, 1, {})
    assert [(cell.block, cell.row) for cell in found] == [("a", "DPO"), ("a", "MPO"), ("b", "MPO")]
    assert ["loss.beta=0.5" in cell.overrides for cell in found] == [False, False, True]
    table = measured_table(of, [REWARD], ["a", "b"], [""], EMPTY, None, 1, at)
    assert [row[:2] for row in table.rows][3:] == [["Start", "b"], ["MPO", "b"]]
    assert [label for label, _ in claims(of, REWARD, ["a", "b"], None, EMPTY, at)] == ["MPO > DPO, a"]


def test_claims_are_sentences() -> None:
    base = dict.fromkeys(range(3), 0.0)
    assert claim_line("A > B", paired({}, base), 2) == "- A > B: not measured."
    once = claim_line("A > B", paired({0: 0.25}, base), 2)
    assert once == "- A > B: not measured often enough, +0.25 in one replication."
    several = claim_line("A > B", paired({unit: 1 + 0.01 * unit for unit in range(3)}, base), 2)
    assert several.startswith("- A > B: **holds**, +1.01 ± 0.01 (+0.99 to +1.03); 3 pairs with this spread resolve ")


def test_odd_characters_are_escaped() -> None:
    table = Table(["row", "LC %"], [["a|b $x_1$ {y} ~ ^ \\", "1.0 ± 0.1"]])
    assert "a\\|b" in table.markdown() and table.markdown().count("\n") == 2
    latex = table.latex()
    assert r"a$|$b \$x\_1\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}" in latex
    assert r"LC \% \\" in latex and r"1.0 $\pm$ 0.1 \\" in latex

from __future__ import annotations

import math
from pathlib import Path

from mpo.report.beside import Agreement, Beside, Panel, Value, agreement, figure, markdown, write_beside_page

ROWS = (
    Beside("DPO", Value(2.27, 0.02), Value(41.1, 1.38)),
    Beside("MPO <two bins>", Value(2.40, 0.03), Value(49.0, 1.52)),
    Beside("W-MPO", Value(2.41, 0.03), Value(52.1, 1.46), note="α 0.1"),
    Beside("SimPO", None, Value(44.7)),
    Beside("own", Value(2.10), None),
)
PANEL = Panel("Gain | win rate", "true reward, testbed", "LC win rate, %", "MPO, table 9", ROWS)


def test_pairs_that_are_too_close_stand_in_no_order() -> None:
    assert agreement(ROWS) == Agreement(same=2, reversed=0, too_close=1)
    assert str(agreement(ROWS)).startswith("Of 3 pairs: 2 in the published order, 0 reversed, 1 too close")
    turned = (
        Beside("a", Value(1.0), Value(2.0)),
        Beside("b", Value(2.0), Value(1.0)),
        Beside("c", Value(3.0), Value(1.0)),
    )
    assert agreement(turned) == Agreement(same=0, reversed=2, too_close=0)  # b and c are equal as published
    lost = (Beside("a", Value(math.nan), Value(2.0)), Beside("b", Value(2.0), Value(1.0)))
    assert agreement(lost) == Agreement(same=0, reversed=0, too_close=1)


def test_the_table_has_every_row_and_says_what_is_missing() -> None:
    lines = markdown(PANEL).splitlines()
    assert lines[0].startswith("Gain | win rate (MPO, table 9). Of 3 pairs")
    assert "| DPO | 2.270 ± 0.020 | 41.1 ± 1.4 |  |" in lines
    assert "| SimPO | – | 44.7 |  |" in lines and "| own | 2.1 | – |  |" in lines


def test_the_page_loads_nothing_and_escapes_what_it_is_given(tmp_path: Path) -> None:
    page = write_beside_page(tmp_path / "mpo.html", "A & B", "Micro scale.", [PANEL, PANEL], {"commit": "<abc>"})
    text = page.read_text()
    assert "MPO &lt;two bins&gt;" in text and "A &amp; B" in text and "&lt;abc&gt;" in text
    assert text.count("data:image/png;base64,") == 2 and "http" not in text.replace("http-equiv", "")
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["mpo_0.png", "mpo_1.png"]


def test_a_figure_of_one_row_is_drawn(tmp_path: Path) -> None:
    drawn = figure(Panel("one", "x", "y", "nowhere", ROWS[3:4]), tmp_path / "one.png")
    assert drawn.path.read_bytes().startswith(b"\x89PNG") and "Of 0 pairs" in drawn.caption

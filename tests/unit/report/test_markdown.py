from __future__ import annotations

import pytest

from mpo.report.markdown import table


def test_a_table_with_a_bar_and_a_line_break_in_its_cells() -> None:
    made = table(["name", "value"], [["a|b", "1"], ["two\nlines", "2"]])
    assert made == "| name | value |\n| --- | ---: |\n| a\\|b | 1 |\n| two lines | 2 |\n"


def test_a_row_that_does_not_fit_its_header_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells under 2 headings"):
        table(["name", "value"], [["a"]])

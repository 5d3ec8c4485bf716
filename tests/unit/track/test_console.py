from __future__ import annotations

import io
from pathlib import Path

import pytest

from mpo.track.console import Console
from mpo.track.progress import ProgressReader, ProgressWriter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show_stage(stream: io.StringIO, path: Path) -> str:
    with Console(stream).stage("train", ProgressReader(path)) as live:
        live.refresh()
        with ProgressWriter(path) as writer:
            writer.update(0, 8, "steps")
            live.refresh()
            writer.update(8, 8, "steps", loss=0.25, accuracy=0.75, kl=0.1, hidden=9.0)
            live.refresh()
    return stream.getvalue()


def test_a_log_file_gets_two_plain_lines_a_stage(tmp_path: Path) -> None:
    text = show_stage(io.StringIO(), tmp_path / "progress.json")
    assert "\r" not in text and "\x1b" not in text
    first, second = text.splitlines()
    assert first == "train: started"
    assert second.startswith("train: done in ") and second.endswith(" s")


def test_a_terminal_gets_a_bar_with_three_fields(tmp_path: Path) -> None:
    text = show_stage(Terminal(), tmp_path / "progress.json")
    assert "8/8" in text and "steps" in text
    assert "loss 0.25, accuracy 0.75, kl 0.1" in text
    assert "hidden" not in text
    assert text.rstrip().splitlines()[-1].split("\r")[-1].startswith("train: done in ")


def test_a_failed_stage_says_so(tmp_path: Path) -> None:
    stream = io.StringIO()
    with pytest.raises(KeyError), Console(stream).stage("train", ProgressReader(tmp_path / "none.json")):
        raise KeyError("boom")
    assert "train: failed after" in stream.getvalue()


def test_control_characters_from_data_do_not_reach_the_screen() -> None:
    stream = io.StringIO()
    Console(stream).line("a\x1b[31mred\rover\x07")
    assert stream.getvalue() == "a[31mredover\n"


def test_a_stream_without_unicode_is_not_a_crash() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console(stream).line("1.0 ± 0.1")
    assert raw.getvalue() == b"1.0 ? 0.1\n"


def test_table_aligns_columns() -> None:
    stream = io.StringIO()
    Console(stream).table([["data", 3], ["evaluate", 120]], ["stage", "rows"])
    assert stream.getvalue().splitlines() == ["stage     rows", "--------  ----", "data         3", "evaluate   120"]


def test_summary_is_a_block_of_aligned_facts() -> None:
    stream = io.StringIO()
    Console(stream).summary("run", {"reward": "7.2 ± 0.1", "time": "3 s"})
    assert stream.getvalue() == "\nrun\n  reward  7.2 ± 0.1\n  time    3 s\n"

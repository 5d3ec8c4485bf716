"""Figures of sampled sets' scores: one line a round, and nothing where there is nothing to draw."""

from __future__ import annotations

from pathlib import Path

from matplotlib import image

from mpo.report.records import RankedScores
from mpo.report.scores import score_figures

ROUNDS = [RankedScores("skywork", True, number, (3.0 + number, 1.0, 0.5, -1.0)) for number in (1, 2)]


def test_every_scorer_has_its_two_figures(tmp_path: Path) -> None:
    drawn = score_figures([*ROUNDS, RankedScores("length", False, 1, (9.0, 8.0, 2.0))], tmp_path)
    assert [one.title for one in drawn] == [
        "skywork by rank", "Spacing of skywork", "length by rank", "Spacing of length"
    ]  # fmt: skip
    pictures = [image.imread(one.path)[..., :3].mean(axis=-1) for one in drawn]
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert all((picture < 0.8).sum() > 1000 for picture in pictures)


def test_a_round_more_is_a_line_more(tmp_path: Path) -> None:
    one, both = (score_figures(rounds, tmp_path / str(len(rounds)))[0].path for rounds in (ROUNDS[:1], ROUNDS))
    assert one.read_bytes() != both.read_bytes()


def test_single_responses_and_no_scores_draw_nothing(tmp_path: Path) -> None:
    assert score_figures([], tmp_path) == []
    assert score_figures([RankedScores("skywork", True, 1, (3.0,))], tmp_path) == []

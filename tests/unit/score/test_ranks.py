"""Mean scores by rank."""

from __future__ import annotations

import pytest

from mpo.score.ranks import mean_by_rank


def test_each_rank_is_averaged_over_the_sets_that_have_it() -> None:
    assert mean_by_rank([1.0, 3.0, 2.0, 10.0, 0.0], [3, 2]) == pytest.approx([6.5, 1.0, 1.0])
    assert mean_by_rank([5.0], [1]) == [5.0]
    assert mean_by_rank([], []) == []

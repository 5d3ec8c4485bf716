"""Partition rules, ties, small sets, wrong fields and wrong data."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpo.errors import ConfigError, DataError
from mpo.partition import (
    PARTITIONS,
    BestVsLowest,
    BestVsRandom,
    BestVsRest,
    BestVsSpread,
    BestVsWorst,
    Everything,
    Given,
    KBin,
    Mean,
    Median,
    Partition,
    Ranks,
    TopBottom,
    TrimmedMean,
)

SCORES = st.lists(st.floats(-10, 10, allow_nan=False), min_size=1, max_size=12)


def test_kept_responses_are_those_in_bins() -> None:
    expected = {Mean(): 8, TopBottom(k=2): 4, TopBottom(k=9): 8, BestVsWorst(): 2, BestVsRandom(): 2, Given(): 8}
    expected |= {BestVsRest(): 8, KBin(bins=4): 8, Ranks(): 8, Everything(): 8}
    expected |= {BestVsLowest(k=2): 3, BestVsSpread(k=3): 4, BestVsSpread(k=9): 8}
    assert {partition: partition.keeps(8) for partition in expected} == expected


@pytest.mark.parametrize(
    ("partition", "scores", "bins"),
    [
        (Mean(), [1.0, 5.0, 9.0], [1, 1, 0]),
        (Mean(), [1.1, 2.2, 3.3], [1, 1, 0]),  # 2.2 is the mean, whatever float arithmetic says
        (Mean(), [4.0, 4.0], [1, 1]),
        (Mean(), [7.0], [1]),
        (Median(), [1.0, 2.0, 30.0, 3.0], [1, 1, 0, 0]),
        (Median(), [1.0, 2.0, 9.0], [1, 1, 0]),
        (TrimmedMean(trim=0.2), [0.0, 5.0, 6.0, 7.0, 100.0], [1, 1, 1, 0, 0]),
        (TrimmedMean(trim=0.0), [0.0, 0.0, 9.0], [1, 1, 0]),
        (TopBottom(k=2), [5.0, 4.0, 3.0, 2.0, 1.0], [0, 0, -1, 1, 1]),
        (TopBottom(k=2), [5.89, 5.89, 7.98, 3.29], [0, 1, 0, 1]),
        (TopBottom(k=2), [3.0, 1.0, 2.0], [0, 1, -1]),
        (TopBottom(k=2), [3.0], [-1]),
        (BestVsRest(), [2.0, 9.0, 9.0], [1, 0, 1]),
        (BestVsRest(), [2.0], [0]),
        (BestVsWorst(), [2.0, 9.0, 9.0, 2.0], [-1, 0, -1, 1]),
        (BestVsWorst(), [3.0, 3.0], [0, 1]),
        (BestVsWorst(), [3.0], [0]),
        (BestVsLowest(k=2), [5.0, 9.0, 1.0, 3.0], [-1, 0, 1, 1]),
        (BestVsLowest(k=2), [1.0, 9.0, 1.0, 1.0], [-1, 0, 1, 1]),
        (BestVsLowest(k=3), [1.0, 9.0], [1, 0]),
        (BestVsLowest(), [1.0], [0]),
        # From the worst, 0, the farthest is 8, then of 7 (1 away), 5 (3 away) and 1 (1 away) it is 5.
        (BestVsSpread(k=3), [10.0, 8.0, 7.0, 5.0, 1.0, 0.0], [0, 1, -1, 1, -1, 1]),
        (BestVsSpread(k=4), [10.0, 8.0, 7.0, 5.0, 1.0, 0.0], [0, 1, -1, 1, 1, 1]),  # 7 is 1 away too, but better
        (BestVsSpread(k=1), [0.0, 10.0, 8.0], [1, 0, -1]),
        (BestVsSpread(k=2), [4.0, 4.0, 9.0, 1.0, 4.0], [-1, -1, 0, 1, 1]),
        (BestVsSpread(k=2), [3.0, 9.0, 3.0, 3.0, 9.0], [-1, 0, -1, 1, 1]),
        (BestVsSpread(k=2), [3.0, 3.0, 3.0, 3.0], [0, -1, 1, 1]),
        (BestVsSpread(k=3), [3.0], [0]),
        (KBin(bins=2), [1.0, 2.0, 3.0, 4.0, 5.0], [1, 1, 0, 0, 0]),
        (KBin(bins=4), [3.39, 3.39, 4.76, 1.56, 9.0, 8.0], [1, 2, 1, 3, 0, 0]),
        (KBin(bins=4), [1.0, 2.0, 3.0], [2, 1, 0]),
        (Ranks(), [5.0, 7.0, 5.0, 1.0], [1, 0, 1, 2]),
        (Ranks(kept=2), [5.0, 7.0, 5.0, 1.0, 3.0], [1, 0, -1, 3, 2]),
        (Ranks(kept=1), [5.0, 7.0, 1.0], [-1, 0, 1]),
        (Ranks(kept=2), [5.0, 7.0, 1.0], [1, 0, 2]),
        (Ranks(kept=2), [3.0], [0]),
        (Everything(), [5.0, 7.0], [0, 0]),
    ],
)
def test_bins(partition: Partition, scores: list[float], bins: list[int]) -> None:
    assert partition(scores) == bins


def test_the_trimmed_mean_is_the_papers() -> None:
    scores = [float(score) for score in (-1000, *range(1, 9), 11)]  # 10 scores, of which 0.1 leaves out one each side
    assert TrimmedMean()(scores) == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]


@settings(max_examples=30, deadline=None)
@given(scores=SCORES, kept=st.integers(1, 4))
def test_ranks_keep_the_responses_that_top_bottom_keeps(scores: list[float], kept: int) -> None:
    if len(scores) < 2 * kept:
        assert all(number >= 0 for number in Ranks(kept=kept)(scores))
    else:
        dropped = [number < 0 for number in TopBottom(k=kept)(scores)]
        assert [number < 0 for number in Ranks(kept=kept)(scores)] == dropped


def test_given_follows_the_marks_and_drops_the_unmarked() -> None:
    assert Given()([1.0, 2.0, 3.0], [True, None, False]) == [0, -1, 1]


@pytest.mark.parametrize("accepted", [None, [None, None], [True]])
def test_given_refuses_a_set_without_fitting_marks(accepted: list[bool | None] | None) -> None:
    with pytest.raises(DataError, match="marks"):
        Given()([1.0, 2.0], accepted)


def test_random_draw_is_uniform_over_the_others_and_never_the_best() -> None:
    scores = [4.0, 9.0, 1.0, 9.0]
    drawn = Counter(BestVsRandom()(scores, draw=draw).index(1) for draw in range(30))
    assert drawn == {0: 10, 2: 10, 3: 10}
    assert all(BestVsRandom()(scores, draw=draw)[1] == 0 for draw in range(3))


@pytest.mark.parametrize("name", [name for name in PARTITIONS if name not in ("given", "best_vs_clusters")])
@settings(max_examples=30, deadline=None)
@given(scores=SCORES, draw=st.integers(0, 2**63))
def test_bins_are_dense_best_first_and_repeatable(name: str, scores: list[float], draw: int) -> None:
    partition = PARTITIONS[name]()
    bins = partition(scores, draw=draw)
    assert bins == partition(scores, draw=draw)
    used = sorted({number for number in bins if number >= 0})
    if name not in ("mean", "median", "trimmed_mean"):  # these may accept none
        assert used == list(range(len(used)))
    assert all(number < max(2, len(scores)) for number in bins)
    for score_i, bin_i in zip(scores, bins, strict=True):
        for score_j, bin_j in zip(scores, bins, strict=True):
            if 0 <= bin_i < bin_j:
                assert score_i >= score_j


@settings(max_examples=30, deadline=None)
@given(scores=SCORES, bins=st.integers(2, 6))
def test_k_bin_sizes_are_equal_or_one_larger_and_larger_first(scores: list[float], bins: int) -> None:
    counts = Counter(KBin(bins=bins)(scores))
    sizes = [counts[number] for number in range(bins)]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: TopBottom(k=0), "partition.k"),
        (lambda: BestVsSpread(k=0), "partition.k"),
        (lambda: TrimmedMean(trim=0.5), "partition.trim"),
        (lambda: TrimmedMean(trim=-0.1), "partition.trim"),
        (lambda: TrimmedMean(trim=float("nan")), "partition.trim"),
        (lambda: KBin(bins=1), "partition.bins"),
        (lambda: Ranks(kept=0), "partition.kept"),
    ],
)
def test_wrong_fields_name_their_key(build: type[Partition], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build()
    assert caught.value.where == key


@pytest.mark.parametrize("bins", [[0], [0, 0.5, 1.0], [0, 1, -2], None, "001"])
def test_what_is_no_bins_is_told(bins: Any) -> None:
    class Own(Mean):
        def assign(self, scores: Any, accepted: Any, draw: int) -> Any:
            return bins

    with pytest.raises(ConfigError, match="partition: Own gave .* for 3 scores"):
        Own()([1.0, 2.0, 3.0])


@pytest.mark.parametrize("scores", [[], [1.0, float("nan")], [float("inf"), 1.0]])
@pytest.mark.parametrize("name", PARTITIONS)
def test_scores_that_are_no_numbers_are_refused(name: str, scores: list[float]) -> None:
    with pytest.raises(DataError):
        PARTITIONS[name]()(scores, [True, False])


def test_partitions_import_neither_torch_nor_numpy() -> None:
    code = "import sys, mpo.partition; print('torch' in sys.modules, 'numpy' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]

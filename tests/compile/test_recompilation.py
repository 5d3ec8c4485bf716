"""How often a policy is compiled anew while batches change."""

from __future__ import annotations

import numpy as np
import pytest

from tests.compile.attention_cases import Lengths
from tests.compile.conftest import Cards
from tests.compile.policy_cases import graphs_of

pytestmark = [pytest.mark.slow, pytest.mark.compile]

BATCHES, NEW_GRAPHS = 50, 3


def random_sets(seed: int, most: int, shortest: int = 1) -> Lengths:
    """1 to ``most`` of them, of 2 to 16 responses of up to 400 tokens."""
    draw = np.random.default_rng(seed)
    return [
        (int(draw.integers(1, 600)), [int(length) for length in draw.integers(shortest, 400, draw.integers(2, 17))])
        for _ in range(draw.integers(1, most + 1))
    ]


@pytest.mark.parametrize("pieces", [False, True])
def test_batches_of_other_sizes_need_few_new_graphs(cards: Cards, pieces: bool) -> None:
    """All that is compiled counts: attention and its mask, norms and gates; whole sets, and sets in two pieces.

    No piece is as short as a block of the mask, 128 tokens: such rows are a kind of their own, up to four graphs.
    """
    batches = [random_sets(seed, 1, 129) if pieces else random_sets(seed, 4) for seed in range(BATCHES)]
    graphs = cards.run("sm_90", graphs_of, batches, pieces)
    print(f"graphs of each batch: {graphs}")
    assert graphs[0] > 0  # else nothing was compiled
    assert sum(graphs[1:]) <= NEW_GRAPHS

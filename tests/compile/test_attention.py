"""FlexAttention, forward and backward, down to machine code for cards that are not here."""

from __future__ import annotations

from dataclasses import astuple, replace
from itertools import combinations

import pytest
import torch

from tests.compile.attention_cases import Case, attend, attend_as_torch_does
from tests.compile.conftest import Cards, FailedThere
from tests.compile.fake_card import CARDS

pytestmark = [pytest.mark.slow, pytest.mark.compile]

CASES = [
    ("sm_80", Case(64, key_heads=8)),
    ("sm_80", Case(80, key_heads=2, window=512)),
    ("sm_80", Case(96, key_heads=1, after_prompt=True)),
    ("sm_80", Case(128, key_heads=2, window=512, after_prompt=True)),
    ("sm_80", Case(256, key_heads=1, window=512)),
    ("sm_80", Case(128, key_heads=8, gradient=False)),
    ("sm_90", Case(64, key_heads=2, window=512, after_prompt=True)),
    ("sm_90", Case(80, key_heads=1)),
    ("sm_90", Case(96, key_heads=8, window=512)),
    ("sm_90", Case(128, key_heads=1, after_prompt=True)),
    ("sm_90", Case(256, key_heads=2)),
    ("sm_90", Case(64, key_heads=8, after_prompt=True, gradient=False)),
    ("sm_100", Case(64, key_heads=1, window=512)),
    ("sm_100", Case(80, key_heads=8, after_prompt=True)),
    ("sm_100", Case(96, key_heads=2)),
    ("sm_100", Case(128, key_heads=2)),
    ("sm_100", Case(256, key_heads=8, window=512, after_prompt=True)),
    ("sm_100", Case(256, key_heads=1, window=512, gradient=False)),
]
"""Every pair of settings occurs, as :func:`test_every_pair_of_settings_occurs` sees; all of them are 360."""
CHANGED_SCORES = [
    ("sm_80", Case(256, key_heads=4, window=512, softcap=50.0)),
    ("sm_90", Case(256, key_heads=4, softcap=50.0, after_prompt=True)),
    ("sm_80", Case(64, key_heads=1, sinks=True)),
    ("sm_90", Case(64, key_heads=1, window=128, sinks=True)),
    ("sm_100", Case(128, softcap=30.0, sinks=True)),
]
"""As gemma2 caps them and gpt-oss adds to them."""
SMALL_CARDS = [("sm_86", Case(width)) for width in (256, 512)]
"""With less than half as much shared memory."""
WIDE_NUMBERS = [("sm_90", Case(128, dtype=torch.float32))]
NARROW_HEADS = [("sm_90", Case(8)), ("sm_90", Case(16, key_heads=8))]
"""Of the smallest models; the card has no products of fewer than sixteen numbers."""
SHORT_ROWS = [("sm_90", Case(128, lengths=((1, (1,)),)))]
"""Of a process that has nothing to do: a prompt and a response of a token each."""
OTHERS = [*SMALL_CARDS, *WIDE_NUMBERS, *NARROW_HEADS, *SHORT_ROWS]


@pytest.mark.parametrize(("card", "case"), [*CASES, *CHANGED_SCORES, *OTHERS], ids=str)
def test_a_card_can_take_the_kernels(cards: Cards, card: str, case: Case) -> None:
    found = cards.run(card, attend, case)
    kernels = [kernel for kernel in found.kernels if "flex_attention" in kernel.name]
    print(*kernels, sep="\n")
    assert all(kernel.architecture == CARDS[card].architecture for kernel in found.kernels)
    assert all(kernel.shared <= CARDS[card].block_memory for kernel in found.kernels if kernel.loaded)
    fitting = [kernel for kernel in found.kernels if kernel.loaded]
    assert {kernel.name for kernel in fitting} == {kernel.name for kernel in found.kernels}
    if CARDS[card].block_memory > 128 << 10:  # a small one may compile some a second time, without a pipeline
        assert fitting == found.kernels
    backwards = ["backward" in kernel.name for kernel in kernels if "_tem_" in kernel.name and kernel.loaded]
    assert backwards == ([False, True] if case.gradient else [False])


@pytest.mark.parametrize("width", [256, 512])
def test_a_small_card_cannot_take_the_kernels_that_torch_chooses(cards: Cards, width: int) -> None:
    """Why wide heads have blocks of our choice; and a kernel that is too large is seen here."""
    with pytest.raises(FailedThere, match="OutOfResources: out of resource: shared memory"):
        cards.run("sm_86", attend_as_torch_does, Case(width))


def test_every_pair_of_settings_occurs() -> None:
    """But for gradients: what goes backwards went forwards before, so going forwards alone needs few cases."""
    forwards = [(card, *astuple(replace(case, gradient=True))) for card, case in CASES]
    settings = range(len(forwards[0]))
    for one, other in combinations(settings, 2):
        values = [{case[setting] for case in forwards} for setting in (one, other)]
        pairs = {(case[one], case[other]) for case in forwards}
        assert len(pairs) == len(values[0]) * len(values[1])

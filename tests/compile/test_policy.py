"""The head, a whole layer, norms and gates on a card that is not here."""

from __future__ import annotations

from typing import Any

import pytest

from tests.compile.conftest import Cards
from tests.compile.fake_card import CARDS
from tests.compile.policy_cases import head, layer

pytestmark = [pytest.mark.slow, pytest.mark.compile]


@pytest.mark.parametrize("options", [{}, {"softcap": 30.0, "bias": True}, {"scale": 0.5, "square_sums": True}], ids=str)
def test_the_head_never_waits_for_the_card(cards: Cards, options: dict[str, Any]) -> None:
    expected = ["(9000,) torch.float32 cuda:0", "(4, 9000) torch.float32 cuda:0"]
    expected += ["(9000,) torch.float32 cuda:0"] if "square_sums" in options else []
    expected += [f"({size}) torch.bfloat16 cuda:0" for size in ("9000, 4096", "128256, 4096")]
    expected += ["(128256,) torch.bfloat16 cuda:0"] if "bias" in options else []
    assert cards.run("sm_90", head, options) == expected


@pytest.mark.parametrize(
    ("card", "checkpointing", "compile"),
    [("sm_80", True, False), ("sm_90", False, False), ("sm_90", True, True), ("sm_100", False, True)],
)
def test_a_layer_of_8b_dimensions_trains(cards: Cards, card: str, checkpointing: bool, compile: bool) -> None:
    """With ``compile`` its norms and gates are kernels too: one each forwards, and for their gradients."""
    kernels = cards.run(card, layer, checkpointing, compile).kernels
    print(*kernels, sep="\n")
    assert all(kernel.loaded and kernel.shared <= CARDS[card].block_memory for kernel in kernels)
    names = " ".join(kernel.name for kernel in kernels)
    assert [part in names for part in ("rsqrt", "mul_silu", "mul_sigmoid_silu")] == [compile] * 3

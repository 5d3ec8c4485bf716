"""A micro-batch is worked on without a wait for the device.

On the meta device tensors have shapes but no values, so whatever asks for one, as `.item()`, `.tolist()`, `nonzero`, an
index of booleans or a copy to the CPU do, raises: all that would make the host of a card wait. tests/gpu asks a card.
"""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from mpo.losses import LOSSES, Loss
from mpo.policy import head
from mpo.policy.attention import DenseAttend
from tests.distributed.world import tiny_policy
from tests.windows import window


@pytest.fixture
def sizes_of_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    for sizes in (head.LOGITS_AT_ONCE, head.VOCABULARY_AT_ONCE):
        monkeypatch.setitem(sizes, "meta", sizes["cuda"])


def backwards_on_meta(loss: Loss, rows: bool = False, micro_tokens: int = 1000, checkpointing: bool = False) -> int:
    """Of one window; a wait for a value raises."""
    policy = tiny_policy(rows=rows, checkpointing=checkpointing).to("meta").train()
    policy._backend = None if rows else DenseAttend
    if rows:  # in a row for each response transformers' "sdpa" looks once whether the mask has padding
        policy.base.set_attn_implementation("eager")
    engine, sums = window(policy, loss, micro_tokens)
    with pytest.raises(NotImplementedError, match="meta tensor"):  # the step's one wait, for all numbers together
        sums.reduce(engine)  # type: ignore[arg-type]
    return engine.backwards


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_waits(name: str, sizes_of_a_card: None) -> None:
    assert backwards_on_meta(LOSSES[name]()) == 3


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize(("micro_tokens", "backwards"), [(1000, 3), (15, 12)])
def test_no_layout_waits(
    rows: bool, micro_tokens: int, backwards: int, checkpointing: bool, sizes_of_a_card: None
) -> None:
    assert backwards_on_meta(LOSSES["mpo"](), rows, micro_tokens, checkpointing) >= backwards


def test_a_wait_would_be_seen(sizes_of_a_card: None) -> None:
    class Waiting(LOSSES["mpo"]):  # type: ignore[misc,valid-type]
        def per_set(self, inputs: Any) -> Tensor:
            assert bool(inputs.mask_BK.any())
            return super().per_set(inputs)

    with pytest.raises(Exception, match="meta"):
        backwards_on_meta(Waiting())

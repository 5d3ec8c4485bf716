"""The first loss against the one at policy = reference."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mpo.config.training import Precision, TrainConfig
from mpo.errors import UserError
from mpo.losses import DPO, SFT, LiPO, Loss, Sum, Term
from mpo.train.closed_form import check_closed_form


def check(loss: Loss, first: float, expected: float, log_ratio: float = 0.0) -> None:
    engine = cast(Any, SimpleNamespace(config=TrainConfig(precision=Precision.fp32)))
    totals = {"loss": (first, 1.0), "expected_loss": (expected, 1.0), "abs_log_ratio": (log_ratio, 1.0)}
    check_closed_form(engine, cast(Any, SimpleNamespace(loss=loss)), [0], totals)


@pytest.mark.parametrize("loss", [DPO(), Sum({"dpo": Term(DPO()), "sft": Term(SFT())})], ids=["dpo", "sum"])
def test_a_loss_off_its_closed_form_stops_the_run(loss: Loss) -> None:
    check(loss, 0.6931, 0.69314)
    with pytest.raises(UserError, match="the first loss is 0.5 but 0.6931"):
        check(loss, 0.5, 0.6931)


@pytest.mark.parametrize("loss", [LiPO(), Sum({"dpo": Term(DPO()), "lipo": Term(LiPO())})], ids=["lipo", "sum"])
def test_of_a_loss_that_jumps_there_the_log_probs_are_compared(loss: Loss) -> None:
    check(loss, 0.2, 0.3)
    with pytest.raises(UserError, match="differ by 0.5 nats"):
        check(loss, 0.3, 0.3, log_ratio=0.5)

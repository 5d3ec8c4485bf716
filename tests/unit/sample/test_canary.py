"""A known prompt tells other weights from rounding."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mpo.config.training import Precision
from mpo.errors import ConfigError
from mpo.sample.canary import Canary

KNOWN = Canary((4, 6, 7), (-1.0, -2.0))


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    KNOWN.write(tmp_path)
    assert Canary.read(tmp_path) == KNOWN


@pytest.mark.parametrize(
    ("found", "precision"),
    [((-1.0, -2.0), Precision.fp32), ((-1.005, -2.005), Precision.fp32), ((-1.3, -2.05), Precision.bf16)],
)
def test_rounding_passes(found: tuple[float, ...], precision: Precision) -> None:
    KNOWN.check(found, precision, "the engine")


@pytest.mark.parametrize(
    ("found", "precision"),
    [
        ((-1.03, -2.0), Precision.fp32),
        ((-1.5, -2.0), Precision.bf16),
        ((math.nan, -2.0), Precision.bf16),
        ((-1.0,), Precision.fp32),
        ((-1.0, -math.inf), Precision.fp32),
    ],
)
def test_other_weights_do_not(found: tuple[float, ...], precision: Precision) -> None:
    with pytest.raises(ConfigError, match="sampler: the engine g.*sampler=hf") as caught:
        KNOWN.check(found, precision, "the engine")
    assert "\n" not in str(caught.value)

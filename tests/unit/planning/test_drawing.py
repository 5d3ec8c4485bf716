"""Arithmetic and time of drawing responses: by hand, and what must order them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mpo.config.training import Precision
from mpo.planning.cards import CARDS, Card
from mpo.planning.drawing import MOST_AT_ONCE, Drawing, Engine, at_once, draw_flops, draw_seconds
from mpo.planning.sizes import Architecture
from tests.unit.planning.test_forecast import SHAPE

LLAMA3_8B = Architecture(
    hidden=4096,
    intermediate=14336,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocab=128256,
    tied=False,
    qkv_bias=False,
)
DRAWING = Drawing(prompts=6, responses=2, prompt_tokens=4, new_tokens=2, limit=10)
MATRICES, WEIGHTS = 2 * (4 * 8 * 8 + 3 * 8 * 16), 2 * (2 * (4 * 8 * 8 + 3 * 8 * 16 + 2 * 8) + 32 * 8 + 8)
CACHE = 2 * 2 * 8 * 2  # layers, keys and values, hidden, bytes
PROMPTS = 6 * (2 * 4 * MATRICES + 4 * 2 * 8 * 4 * 4 / 2)
DECODING = 12 * 2 * (2 * MATRICES + 2 * 32 * 8 + 4 * 2 * 8 * (4 + 2 / 2))


def engine(card: Card, **changed: object) -> Engine:
    whole = Engine(card, 1, 1, Precision.bf16, 1.0, 1000, True)
    return replace(whole, **changed)  # type: ignore[arg-type]


def small(tokens: int, flops: float = 1e30, bandwidth: float = 1e30) -> Card:
    """A card whose memory holds the weights and keys and values of so many tokens."""
    return Card("small", SHAPE.parameters * 2 + tokens * CACHE, flops, flops, bandwidth)


def test_flops_are_counted_by_hand() -> None:
    assert draw_flops(SHAPE, DRAWING) == PROMPTS + DECODING


def test_memory_limits_what_is_drawn_at_once() -> None:
    assert [at_once(SHAPE, DRAWING, engine(small(tokens))) for tokens in (5, 6, 35, 36)] == [0, 1, 5, 6]
    assert at_once(SHAPE, DRAWING.longest, engine(small(36))) == 2
    assert at_once(SHAPE, DRAWING, engine(small(600))) == 12  # there are no more
    assert at_once(SHAPE, DRAWING, engine(small(600), together=3)) == 3
    assert at_once(SHAPE, DRAWING, engine(small(600), copies=4)) == 3
    assert at_once(SHAPE, DRAWING, engine(small(36), precision=Precision.fp32)) == 0
    many = replace(DRAWING, prompts=10_000)
    most = [at_once(SHAPE, many, engine(small(10**6), continuous=continuous)) for continuous in (True, False)]
    assert most == [MOST_AT_ONCE, 1000]


def test_llama_on_a_card_of_80_gb() -> None:
    drawing = Drawing(10_000, 5, 180, 280, 2048)
    held = int((0.9 * 80e9 - 2 * 8_030_261_248) / (131_072 * 460))  # 128 KiB of keys and values a token
    assert at_once(LLAMA3_8B, drawing, engine(CARDS["h100"], memory_share=0.9, together=2000, continuous=False)) == held
    assert draw_seconds(LLAMA3_8B, drawing, engine(CARDS["rtx4090"], precision=Precision.fp32)) is None


def test_decoding_takes_as_long_as_the_slower_of_bytes_and_flops() -> None:
    four = small(24)  # 12 responses by fours, of two tokens each: the weights are read six times
    read = 6 * WEIGHTS + 12 * 2 * (4 + 2 / 2) * CACHE
    slow_memory = draw_seconds(SHAPE, DRAWING, engine(replace(four, bandwidth=1e3)))
    assert slow_memory == pytest.approx(read / (0.6 * 1e3))
    slow_products = draw_seconds(SHAPE, DRAWING, engine(replace(four, bf16_flops=1e3)))
    assert slow_products == pytest.approx((PROMPTS + DECODING) / (0.4 * 1e3))
    to_the_limit = draw_seconds(SHAPE, DRAWING, engine(replace(four, bandwidth=1e3), continuous=False))
    assert to_the_limit == pytest.approx((read + 24 * WEIGHTS) / (0.6 * 1e3))  # 3 batches × 10 steps in place of 6
    assert draw_seconds(SHAPE, replace(DRAWING, prompts=0), engine(four)) == 0


@pytest.mark.parametrize("continuous", [True, False])
def test_more_cards_take_less_time_and_longer_responses_more(continuous: bool) -> None:
    drawing = Drawing(10_000, 5, 180, 280, 2048)

    def hours(asked: Drawing = drawing, card: str = "a100-80gb", **changed: object) -> float:
        found = draw_seconds(LLAMA3_8B, asked, engine(CARDS[card], continuous=continuous, **changed))
        assert found is not None
        return found

    assert hours(copies=1) > hours(copies=2) > hours(copies=8) > 0
    assert hours(cards=1) > hours(cards=2) > hours(cards=4)
    assert hours(together=1) > hours(together=16) > hours(together=64)
    assert hours() < hours(replace(drawing, new_tokens=560)) < hours(drawing.longest)
    assert hours(card="h200") < hours(card="h100") < hours()

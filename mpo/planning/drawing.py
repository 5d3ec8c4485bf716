"""Tokens, arithmetic and time of drawing responses from a policy.

Decoding makes one token of each of N responses in a step. A step reads all weights once, and of every response the
keys and values of its prompt and of what is drawn so far; its products are 2 FLOPs a parameter and token, and
attention. On a card all steps together take as long as the slower of the two: bytes at a share of the bandwidth
(:data:`mpo.planning.cards.BANDWIDTH_UTILISATION`), or FLOPs at a share of the peak (``UTILISATION``): a roofline, as in
arXiv 2211.05102, section 2. Each prompt is computed once for all of its responses, before that. N is what the memory
left by the weights holds of keys and values at their full length, and not more than the sampler draws together. What a
step costs besides (the draw itself, the scheduler, communication between cards that share a model) is not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mpo.config.training import Precision
from mpo.planning.cards import BANDWIDTH_UTILISATION, Card
from mpo.planning.sizes import Architecture

MOST_AT_ONCE = 256
"""Responses that an engine with continuous batching decodes at once: vLLM's default; on some cards of 70 GiB and more
it is 1,024."""


@dataclass(frozen=True)
class Drawing:
    """What is drawn: ``responses`` to each of ``prompts``; mean tokens of a prompt and of a response, of which none has
    more than ``limit``."""

    prompts: int
    responses: int
    prompt_tokens: int
    new_tokens: int
    limit: int

    @property
    def total(self) -> int:
        """Responses in all."""
        return self.prompts * self.responses

    @property
    def longest(self) -> Drawing:
        """The same where every response reaches the limit."""
        return replace(self, new_tokens=self.limit)


@dataclass(frozen=True)
class Engine:
    """Copies of the policy that share the prompts out.

    Attributes:
        card: of which each copy takes ``cards``.
        copies: that draw side by side.
        precision: of weights, keys and values.
        memory_share: of a card's memory that a copy may take.
        together: responses that the sampler draws together at most.
        continuous: whether one that waits takes the place of one that has ended; else those begun together all end
            before others begin, which is taken to be after ``limit`` steps.
    """

    card: Card
    cards: int
    copies: int
    precision: Precision
    memory_share: float
    together: int
    continuous: bool


def draw_flops(shape: Architecture, drawing: Drawing) -> float:
    """FLOPs of all prompts, each once, and of all new tokens, the head's products for each of these."""
    return _prompt_flops(shape, drawing) + _decoding_flops(shape, drawing)


def at_once(shape: Architecture, drawing: Drawing, engine: Engine) -> int:
    """Responses that one copy decodes at once; 0 where its cards do not hold the weights and one response."""
    width = _width(engine.precision)
    left = engine.memory_share * engine.card.memory * engine.cards - shape.parameters * width
    held = int(left / (_cache_bytes(shape, width) * (drawing.prompt_tokens + drawing.new_tokens)))
    most = min(engine.together, MOST_AT_ONCE) if engine.continuous else engine.together
    return max(0, min(held, most, math.ceil(drawing.total / engine.copies)))


def draw_seconds(shape: Architecture, drawing: Drawing, engine: Engine) -> float | None:
    """Seconds until all copies are done; None where a copy's cards do not hold it."""
    if drawing.total == 0:
        return 0.0
    together = at_once(shape, drawing, engine)
    if together == 0:
        return None
    width, responses = _width(engine.precision), drawing.total / engine.copies
    steps = max(1.0, responses / together) * (drawing.new_tokens if engine.continuous else drawing.limit)
    weights = (shape.layers * shape.layer + shape.embedding + shape.hidden) * width  # of the embedding a row a token
    context = drawing.prompt_tokens + drawing.new_tokens / 2
    read = steps * weights + responses * drawing.new_tokens * context * _cache_bytes(shape, width)
    rate = engine.card.rate(engine.precision) * engine.cards
    decoding = max(
        _decoding_flops(shape, drawing) / engine.copies / rate,
        read / (BANDWIDTH_UTILISATION * engine.card.bandwidth * engine.cards),
    )
    return _prompt_flops(shape, drawing) / engine.copies / rate + decoding


def _prompt_flops(shape: Architecture, drawing: Drawing) -> float:
    prompt = drawing.prompt_tokens
    return drawing.prompts * (prompt * _layer_flops(shape) + _attention_flops(shape) * prompt**2 / 2)


def _decoding_flops(shape: Architecture, drawing: Drawing) -> float:
    context = drawing.prompt_tokens + drawing.new_tokens / 2
    each = _layer_flops(shape) + 2 * shape.embedding + _attention_flops(shape) * context
    return drawing.total * drawing.new_tokens * each


def _layer_flops(shape: Architecture) -> int:
    """Products of all layers' matrices with one token."""
    return 2 * shape.layers * shape.used_matrices


def _attention_flops(shape: Architecture) -> int:
    """Score and value of one pair of tokens in all layers."""
    return 4 * shape.layers * shape.heads * shape.head_dim


def _cache_bytes(shape: Architecture, width: int) -> int:
    """Keys and values of one token in all layers."""
    return shape.layers * 2 * shape.kv_heads * shape.head_dim * width


def _width(precision: Precision) -> int:
    return 2 if precision is Precision.bf16 else 4

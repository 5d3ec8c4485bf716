"""What the benchmarks measure with: Llamas of several sizes and response sets of random tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from benchmarks.measure import on_card
from mpo.config.training import Precision

VOCABULARY = 32_000
"""Ids that random tokens are drawn from; larger vocabularies have more that do not occur."""
END = 2
FIRST = 3
"""Ids below are special tokens."""
SPREAD = 0.35
"""Standard deviation of lengths over their mean, where nothing else is said."""
LOG_SPREAD = {"prompt": 0.85, "response": 0.8}
LONGEST = {"prompt": 10.0, "response": 6.5}
"""Of lengths like UltraFeedback's: standard deviations of their logarithms, and the longest over the mean. The means
(180 and 280 tokens) and the limit (1,800 of 2,048) are those of ``conf/data/ultrafeedback.yaml``; the spreads are of
40 prompts and 160 responses in UltraFeedback's layout, in characters, not of the whole set."""


@dataclass(frozen=True)
class RandomSet:
    """A set of random tokens; every response ends with ``END``. Scores fall with the index."""

    id: str
    prompt_ids: np.ndarray
    response_ids: list[np.ndarray]
    truncated: list[bool]
    uncounted: list[int]

    def alone(self) -> list[RandomSet]:
        """A set of its own for each response."""
        return [RandomSet(self.id, self.prompt_ids, [ids], [False], [0]) for ids in self.response_ids]


class RandomSets:
    """``count`` sets whose prompts and responses have given mean lengths, the same for the same arguments.

    Args:
        spread: standard deviation of lengths over their mean; 0: all are equal. None: skewed like UltraFeedback's.
        vocabulary: ids are below this.
    """

    def __init__(
        self,
        count: int,
        responses: int,
        prompt: int,
        response: int,
        seed: int = 0,
        spread: float | None = SPREAD,
        vocabulary: int = VOCABULARY,
    ) -> None:
        draw = np.random.default_rng([count, responses, prompt, response, seed])

        def factor(kind: str) -> float:
            if spread is not None:
                return float(np.clip(draw.normal(1.0, spread), 0.2, 2.5))
            sigma = LOG_SPREAD[kind]
            return min(float(draw.lognormal(-(sigma**2) / 2, sigma)), LONGEST[kind])

        def ids(kind: str, mean: int) -> np.ndarray:
            body = draw.integers(FIRST, vocabulary, max(4, round(mean * factor(kind)))).astype(np.int32)
            body[-1] = END if kind == "response" else body[-1]
            return body

        self.fingerprint = f"random-{count}-{responses}-{prompt}-{response}-{seed}-{spread}-{vocabulary}"
        longest = LONGEST if spread is None else {"prompt": 2.5, "response": 2.5}
        self.max_tokens = round(longest["prompt"] * prompt + longest["response"] * response) + 8
        self._sets = [
            RandomSet(
                str(i),
                ids("prompt", prompt),
                [ids("response", response) for _ in range(responses)],
                [False] * responses,
                [0] * responses,
            )
            for i in range(count)
        ]

    def __len__(self) -> int:
        return len(self._sets)

    def __getitem__(self, i: int) -> RandomSet:
        return self._sets[i]


@dataclass(frozen=True)
class HalfAndHalf:
    """Assignments: the first half of the responses in bin 0, the rest in bin 1."""

    responses: int

    def scores(self, i: int) -> list[float]:
        """K, K-1, ..., 1."""
        return [float(self.responses - k) for k in range(self.responses)]

    def bins(self, i: int) -> list[int]:
        """0 for the better half, 1 for the other."""
        return [int(k >= self.responses // 2) for k in range(self.responses)]


def _size(hidden: int, intermediate: int, layers: int, heads: int, key_heads: int, vocab: int, tied: bool) -> Any:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
    }


SIZES = {
    "tiny": _size(64, 128, 2, 4, 2, 512, True),
    "20m": _size(384, 1024, 4, 6, 6, VOCABULARY, True),
    "110m": _size(768, 2048, 12, 12, 12, VOCABULARY, True),
    "1b": _size(2048, 8192, 16, 32, 8, 128_256, True),
    "8b": _size(4096, 14336, 4, 32, 8, 128_256, False),
}
"""0.1M parameters, of which nothing can be learnt about speed; 19.4M; 110M; 1.24 billion, Llama-3.2-1B's shape; four of
Llama-3-8B's 32 layers, with embedding and head 1.92 billion."""


def llama(
    dtype: torch.dtype = torch.float32, context: int = 8192, size: str = "20m", attention: str | None = None
) -> PreTrainedModel:
    """A Llama on the CPU, the same weights at every call on one machine; a card draws them, if there is one.

    Args:
        attention: transformers' name of an implementation; None: its choice.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        **SIZES[size], max_position_embeddings=context, pad_token_id=0, bos_token_id=1, eos_token_id=END
    )
    chosen = {} if attention is None else {"attn_implementation": attention}
    with torch.device("cuda" if on_card() else "cpu"):  # a CPU draws a billion numbers in a quarter of a minute
        lm = AutoModelForCausalLM.from_config(config, dtype=dtype, **chosen)
    return lm.cpu()  # type: ignore[no-any-return]


def dtype_of(precision: Precision) -> torch.dtype:
    """Of the weights of a model that is trained in this precision."""
    return torch.bfloat16 if precision is Precision.bf16 else torch.float32


def vocabulary_of(size: str) -> int:
    """What :class:`RandomSets` for a model of this size draw from."""
    return min(VOCABULARY, int(SIZES[size]["vocab_size"]))

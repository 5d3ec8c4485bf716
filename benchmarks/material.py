"""What the benchmarks measure with: a Llama of 20M parameters and response sets of random tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

VOCABULARY = 32_000
END = 2
FIRST = 3
"""Ids below are special tokens."""
SPREAD = 0.35
"""That of lengths where nothing else is said; UltraFeedback's responses spread more."""


@dataclass(frozen=True)
class RandomSet:
    """A set of random tokens; every response ends with ``END``. Scores fall with the index."""

    id: str
    prompt_ids: np.ndarray
    response_ids: list[np.ndarray]
    truncated: list[bool]
    uncounted: list[int]


class RandomSets:
    """``count`` sets whose prompts and responses have given mean lengths, the same for the same arguments.

    Args:
        spread: standard deviation of lengths over their mean; 0: all are equal.
    """

    def __init__(
        self, count: int, responses: int, prompt: int, response: int, seed: int = 0, spread: float = SPREAD
    ) -> None:
        draw = np.random.default_rng([count, responses, prompt, response, seed])

        def ids(mean: int, end: bool) -> np.ndarray:
            length = max(4, round(mean * float(np.clip(draw.normal(1.0, spread), 0.2, 2.5))))
            body = draw.integers(FIRST, VOCABULARY, length).astype(np.int32)
            body[-1] = END if end else body[-1]
            return body

        self.fingerprint = f"random-{count}-{responses}-{prompt}-{response}-{seed}-{spread}"
        self.max_tokens = round(2.5 * (prompt + response)) + 8
        self._sets = [
            RandomSet(
                str(i),
                ids(prompt, False),
                [ids(response, True) for _ in range(responses)],
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


SIZES = {
    "20m": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 6},
    "110m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8},
}  # fmt: skip
"""19.4M and 110M parameters, and 1.04 billion in the shape of Llama-3.2-1B with a smaller vocabulary."""


def llama(dtype: torch.dtype = torch.float32, context: int = 8192, size: str = "20m") -> PreTrainedModel:
    """A Llama with tied embeddings, the same weights at every call."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        **SIZES[size],
        max_position_embeddings=context,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=END,
    )
    return AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-any-return]

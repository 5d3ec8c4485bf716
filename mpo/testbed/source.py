"""The embedded world as a source: prompts of its own, demonstrations, a tokenizer, and a reward that is the truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from mpo.data.sources.base import OnProblem, Source
from mpo.errors import ConfigError
from mpo.testbed.demonstrations import demonstration_sets, prompt_sets
from mpo.types import ResponseSet

MOST = 10**6
SEEDS = 10**9


@dataclass(frozen=True)
class World(Source):
    """The world of :mod:`mpo.testbed`.

    Attributes:
        prompts: to train on, in each round.
        heldout_prompts: distinct from those.
        demonstrations: with one response each, for the starting policy.
        seed: of all three.

    Raises:
        ConfigError: a value out of range.
    """

    demonstrations: int = 12800
    prompts: int = 500
    heldout_prompts: int = 400
    seed: int = 0

    gives_responses: ClassVar[bool] = False
    true_scorer: ClassVar[Mapping[str, Any] | None] = {
        "_target_": "mpo.score.function.FunctionScorer",
        "function": "mpo.testbed.reward.true_reward",
        "immediate": True,
    }
    own_tokenizer: ClassVar[bool] = True
    immediate: ClassVar[bool] = True
    note: ClassVar[str] = (
        "micro-scale testbed. A tiny policy in an invented world: these numbers show that the method runs and learns; "
        "they say nothing about language models at scale."
    )

    def __post_init__(self) -> None:
        for field in fields(self):
            value, low, high = getattr(self, field.name), 1, MOST
            if field.name == "seed":
                low, high = -SEEDS, SEEDS
            if not low <= value <= high:
                what, remedy = f"{value} is out of range", f"give a number in [{low:g}, {high:g}]"
                raise ConfigError(what, f"data.source.{field.name}", remedy)

    @property
    def name(self) -> str:
        """``testbed``."""
        return "testbed"

    def read_sets(self, rounds: int, on_problem: OnProblem) -> Iterator[ResponseSet]:
        """Prompts without responses, other ones for each round."""
        return prompt_sets(self.prompts * rounds, self.seed, "preference")

    def read_heldout(self, on_problem: OnProblem) -> Iterator[ResponseSet]:
        """Other prompts."""
        return prompt_sets(self.heldout_prompts, self.seed, "heldout")

    def read_demonstrations(self) -> Iterator[ResponseSet]:
        """Prompts of a third kind, each with a response of mixed quality."""
        return demonstration_sets(self.demonstrations, self.seed)

    def for_demonstrations(self) -> World:
        """Whatever prompts there are."""
        return World(demonstrations=self.demonstrations, seed=self.seed)

    def count(self, rounds: int) -> int:
        """Prompts of all rounds."""
        return self.prompts * rounds

    def count_heldout(self) -> int:
        """As configured."""
        return self.heldout_prompts

    def count_demonstrations(self) -> int:
        """As configured."""
        return self.demonstrations

    def save_tokenizer(self, folder: Path) -> None:
        """One token a word."""
        from mpo.testbed.tokenizer import build_tokenizer  # here: it leads to transformers

        build_tokenizer(folder)

"""Sampled batches kept as they come, so that a stopped run need not draw them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from mpo.cache.journal import Journal
from mpo.sample.hf import Sampled


class DrawnBatches(Journal):
    """Batches of responses by the batch's number.

    Args:
        path: where they lie.
        on_done: called after each batch with the number of prompts that have their responses.

    Attributes:
        drawn: what an earlier attempt has left, each prompt's responses, by the batch's number.
    """

    def __init__(self, path: Path, on_done: Callable[[int], None]) -> None:
        super().__init__(path)
        self._on_done = on_done
        self.drawn = {
            number: [[Sampled(**each) for each in of_prompt] for of_prompt in responses]
            for number, responses in self.kept.items()
        }

    def add_batch(self, number: int, responses: Sequence[Sequence[Sampled]], done: int) -> None:
        """Keep a batch; ``done`` prompts have their responses by now."""
        self.add(number, [[asdict(each) for each in of_prompt] for of_prompt in responses])
        self._on_done(done)

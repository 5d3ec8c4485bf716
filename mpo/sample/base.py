"""What a sampler is. No torch: the command line checks samplers before anything is loaded."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

from mpo.config.schema import SampleConfig
from mpo.sample.canary import Canary


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a sampler for one prompt.

    Attributes:
        prompt_ids: the prompt's tokens, rendered with the generation prompt.
        seeds: from 0 to 2**64 - 1, one for each response that is wanted.
    """

    prompt_ids: Sequence[int]
    seeds: Sequence[int]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One response.

    Attributes:
        token_ids: the new tokens, the stop token included where one ended the response.
        finished: whether a stop token ended it, rather than the limit of tokens.
        token_logps: log-probs of these tokens in nats under the policy, at temperature 1 and without a top-p cut;
            None where the sampler does not know them.
    """

    token_ids: Sequence[int]
    finished: bool
    token_logps: Sequence[float] | None = None


SIGNED_SEEDS = 2**63
"""Engines take seeds as signed 64-bit numbers: below this."""

Draw = Callable[[Sequence[Request]], list[list[Drawn]]]
"""For each request, in order, a response for each of its seeds, in order."""


@dataclass(frozen=True, slots=True)
class SamplingJob:
    """What responses are drawn from, and how.

    Attributes:
        policy: folder or hub name of the model.
        revision: of the hub's model.
        trust_remote_code: whether code that comes with the model may run.
        decoding: temperature (0: the likeliest tokens), top-p, limit of new tokens, arithmetic.
        stop_token_ids: ids that end a response, one at least.
        max_prompt_tokens: no prompt is longer.
        canary: a prompt with the policy's log-probs, for samplers with :attr:`Sampler.checks_weights`.
    """

    policy: str
    revision: str | None
    trust_remote_code: bool
    decoding: SampleConfig
    stop_token_ids: tuple[int, ...]
    max_prompt_tokens: int
    canary: Canary | None = None


class Sampler(ABC):
    """Draws responses. A frozen dataclass whose fields are the options of its YAML file in ``conf/sampler``.

    The stage that calls it chooses the seeds, keeps what is drawn, goes on there when it was stopped, refuses what
    cannot have been drawn, and turns tokens into text; a sampler does none of that.
    """

    requests_at_once: ClassVar[int] = 64
    """Most requests that are drawn together, unless :meth:`batches` says otherwise."""

    replicated: ClassVar[bool] = False
    """Each of the launcher's processes may hold a model, and draw a share of the batches."""

    loads_policy: ClassVar[bool] = True
    """False where it draws from one policy that others have loaded, so not from one that the run trains."""

    checks_weights: ClassVar[bool] = False
    """Its engine loads the weights by other means than transformers: before it draws, it compares the log-probs that
    the engine gives with :attr:`SamplingJob.canary`."""

    continuous: ClassVar[bool] = False
    """Whether a response that waits takes the place of one that has ended, while others go on; for the plan."""

    @property
    def cards(self) -> int:
        """Cards that one copy of the model takes, if it is :attr:`replicated`: so many processes draw as one."""
        return 1

    @property
    def memory_share(self) -> float:
        """Share of a card's memory that the model, keys and values may take; for the plan."""
        return 0.9

    @property
    def source(self) -> str:
        """The module whose code draws; what it raises is reported to its author in one line."""
        return type(self).__module__

    def check(self) -> None:  # noqa: B027  # many have nothing to look at
        """Raise ConfigError for what is wrong already before anything is sampled. Loads no model, imports no torch."""

    def batches(self, prompt_lengths: Sequence[int], decoding: SampleConfig) -> list[list[int]]:
        """Which requests are drawn together: each one's position, once in all. A stop loses one such batch at most.

        The same arguments must give the same batches.

        Args:
            prompt_lengths: tokens of each request's prompt; each request is for ``decoding.n`` responses.
        """
        order = list(range(len(prompt_lengths)))
        return [order[start : start + self.requests_at_once] for start in range(0, len(order), self.requests_at_once)]

    @abstractmethod
    def open(self, job: SamplingJob) -> AbstractContextManager[Draw]:
        """Load what is needed; the context's value draws, and its end lets everything go.

        A response should depend on its prompt, its seed and the job, and not on what is drawn beside it.
        """


def draw_seed(seed: int, round_number: int, split: str, set_id: str, number: int) -> int:
    """The seed, from 0 to 2**64 - 1, of response ``number`` to one prompt: whatever else is drawn, it is the same."""
    named = json.dumps([seed, round_number, split, set_id, number]).encode()
    return int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), "big")

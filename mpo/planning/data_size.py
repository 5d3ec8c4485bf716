"""Expected sizes of a data set: sets, responses, tokens, and the optimizer steps that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mpo.config.schema import DataConfig, SftResponses
from mpo.config.training import TrainConfig
from mpo.data.sources.base import Source


@dataclass(frozen=True)
class DataSize:
    """Expected size of the training data: sets, responses per set, tokens of a prompt and of a response (means)."""

    sets: int
    responses: int
    prompt_tokens: int
    response_tokens: int

    @property
    def tokens(self) -> int:
        """Tokens of prompts and responses, each once."""
        return self.sets * (self.prompt_tokens + self.responses * self.response_tokens)

    @property
    def response_tokens_total(self) -> int:
        """Response tokens of all sets."""
        return self.sets * self.responses * self.response_tokens


def data_size(data: DataConfig, source: Source, responses: int | None, rounds: int = 1) -> DataSize | None:
    """Expected size of one round's training data, or None where the config gives no estimate.

    Args:
        source: says how many sets it has, where it knows.
        responses: K, the samples per prompt where responses are sampled; else what the data expects.
        rounds: rounds that share the prompts.
    """
    sets = source.count(rounds) or data.expected_sets
    k = responses or data.expected_responses
    prompt, response = data.expected_prompt_tokens, data.expected_response_tokens
    if sets is None or k is None or prompt is None or response is None:
        return None
    if data.limit is not None:
        sets = min(sets, data.limit)
    if not _own_heldout(data, source):
        sets -= _held_out(data, sets)
    each = max(1, int(sets * data.fraction) // rounds)
    return DataSize(each, k, prompt, response)


def heldout_size(data: DataConfig, source: Source, rounds: int = 1) -> int | None:
    """Expected number of held-out sets, or None where the config gives no estimate."""
    if _own_heldout(data, source):
        return source.count_heldout() or data.expected_heldout
    sets = source.count(rounds) or data.expected_sets
    return None if sets is None else _held_out(data, sets if data.limit is None else min(sets, data.limit))


def _own_heldout(data: DataConfig, source: Source) -> bool:
    """Whether they are sets of their own, and no share of the others."""
    return bool(data.heldout_source or data.heldout_split) or source.read_heldout(lambda _: None) is not None


def _held_out(data: DataConfig, sets: int) -> int:
    return math.ceil(data.heldout if data.heldout >= 1 else data.heldout * sets)


def imitated(size: DataSize, source: Source, responses: SftResponses) -> DataSize:
    """The same where responses are imitated one by one: the source's demonstrations, the best of each set, or all."""
    demonstrations = source.count_demonstrations()
    if demonstrations is not None:
        return replace(size, sets=demonstrations, responses=1)
    sets = size.sets * size.responses if responses is SftResponses.all else size.sets
    return replace(size, sets=sets, responses=1)


def batch_warning(global_batch: int, sets: int) -> str | None:
    """What to say where a global batch holds more sets than there are; None where it does not."""
    if global_batch <= sets:
        return None
    return (
        f"train.global_batch {global_batch:,} exceeds the {sets:,} training sets: an epoch is one step on all of them; "
        f"for more steps set train.global_batch below {max(2, sets):,}"
    )


def optimizer_steps(train: TrainConfig, sets: int) -> int:
    """Steps of one training: epochs · ceil(sets / global batch), or ``max_steps`` where it is fewer."""
    steps = train.epochs * math.ceil(sets / train.global_batch)
    return steps if train.max_steps is None else min(steps, train.max_steps)

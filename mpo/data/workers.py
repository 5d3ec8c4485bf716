"""Batches of sets tokenised in this process or in several, in the order of the sets either way."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TYPE_CHECKING

from mpo.data.batches import batched
from mpo.data.chat import chat_format
from mpo.data.token_rows import Limits, Marks, tokenize_rows
from mpo.errors import ConfigError
from mpo.types import ResponseSet

if TYPE_CHECKING:
    import pyarrow
    from transformers import PreTrainedTokenizerBase

    from mpo.data.problems import Problem

    Tokenized = tuple[pyarrow.RecordBatch, list[Problem]]

BATCH_SETS = 256
"""Fixed, so that no result depends on the number of processes."""


def tokenized_batches(
    sets: Iterable[ResponseSet],
    tokenizer: PreTrainedTokenizerBase,
    limits: Limits,
    processes: int,
    marks: Marks = None,
) -> Iterator[Tokenized]:
    """``tokenize_rows`` of each ``BATCH_SETS`` sets, at most two batches a process in memory.

    With one process the tokenizer's own threads share the work. Raises ``ConfigError`` for fewer than one process.
    """
    if processes < 1:
        raise ConfigError(f"{processes} processes cannot work", "processes", "give at least 1")
    chat_format(tokenizer)  # a template that cannot be used is found here, before processes start
    groups = batched(sets, BATCH_SETS)
    if processes == 1:
        yield from (tokenize_rows(group, tokenizer, limits, marks) for group in groups)
        return
    # Forking a process whose tokenizer has started threads can hang, hence spawn.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start, (tokenizer, limits, marks)) as pool:
        waiting: deque[Future[Tokenized]] = deque()
        for group in groups:
            waiting.append(pool.submit(_work, group))
            if len(waiting) >= 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


_state: tuple[PreTrainedTokenizerBase, Limits, Marks] | None = None


def _start(tokenizer: PreTrainedTokenizerBase, limits: Limits, marks: Marks) -> None:
    global _state  # noqa: PLW0603  a pool hands a worker its state in no other way
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _state = tokenizer, limits, marks


def _work(group: Sequence[ResponseSet]) -> Tokenized:
    if _state is None:
        raise RuntimeError("the worker was not started with a tokenizer")
    return tokenize_rows(group, *_state)

"""Response sets as token ids on disk: written once, memory-mapped by every rank."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from mpo.data.problems import Problem, ProblemCounts
from mpo.data.token_rows import SCHEMA, Limits, Marks, update_digest
from mpo.data.workers import tokenized_batches
from mpo.errors import DataError
from mpo.types import ResponseSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SUMMARY = "tokens.json"


@dataclass(frozen=True, slots=True)
class TokenStats:
    """What ``tokenize_sets`` wrote. ``skipped_sets``: by reason; ``truncated_responses`` have no end-of-turn.
    ``uncounted_tokens`` of responses are no part of a loss."""

    sets: int
    responses: int
    prompt_tokens: int
    response_tokens: int
    truncated_responses: int
    uncounted_tokens: int
    skipped_sets: dict[str, int]


KEPT = 1024
"""Sets that stay unpacked: a training step looks at each of its own several times."""


@dataclass(frozen=True, slots=True)
class TokenizedSet:
    """One set: ``prompt_ids`` int32 [T], ``response_ids`` K arrays int32 [T_k], each at least one token.

    ``scores``: by name, each with one for every response. They and ``accepted`` hold None where the data has none. A
    truncated response, cut here or unfinished in the data, has no end-of-turn token. ``uncounted``: tokens at each
    response's beginning that are read and are no part of a loss: of a thought, where the answer alone trains.
    """

    id: str
    prompt_ids: NDArray[np.int32]
    response_ids: list[NDArray[np.int32]]
    scores: dict[str, list[float | None]]
    accepted: list[bool | None]
    truncated: list[bool]
    uncounted: list[int]


def tokenize_sets(
    sets: Iterable[ResponseSet],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_tokens: int,
    max_tokens: int,
    out: Path,
    processes: int,
    on_problem: Callable[[Problem], None],
    marks: Marks = None,
) -> TokenStats:
    """Tokenise sets, in order, into the folder ``out`` (a ``datasets`` Arrow folder and a summary).

    Where a response has ``token_ids``, which must be ``tokenizer``'s, they are taken as they are; other texts are
    rendered. A set whose prompt exceeds ``max_prompt_tokens`` is skipped and reported; a response is cut where prompt
    and response exceed ``max_tokens``, and counted. With ``marks``, of thoughts, a response's tokens up to the end of
    its thought are no part of a loss, and a set with a response that has none after it is skipped. The result doesn't
    depend on ``processes``. Raises ``ConfigError`` for limits that leave no room for a response and for a tokenizer
    without a chat template, ``DataError`` where no set is left.
    """
    import datasets

    limits = Limits(max_prompt_tokens, max_tokens)
    digest = sha256()
    found = ProblemCounts()
    counts = np.zeros(6, dtype=np.int64)
    part = out.with_name(f"{out.name}.part.arrow")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pyarrow.OSFile(str(part), "wb") as sink, pyarrow.ipc.new_stream(sink, SCHEMA) as stream:
            for batch, problems in tokenized_batches(sets, tokenizer, limits, processes, marks):
                for problem in problems:
                    on_problem(problem)
                    found(problem)
                stream.write_batch(batch)
                update_digest(digest, batch)
                counts += _count(batch)
        names = ("sets", "responses", "prompt_tokens", "response_tokens", "truncated_responses", "uncounted_tokens")
        stats = TokenStats(**dict(zip(names, counts.tolist(), strict=True)), skipped_sets=dict(found.errors))
        _require_sets(stats, found)
        datasets.Dataset.from_file(str(part)).save_to_disk(str(out))
    finally:
        part.unlink(missing_ok=True)
    summary = {"fingerprint": digest.hexdigest(), "limits": asdict(limits), "stats": asdict(stats)}
    (out / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return stats


def _count(batch: pyarrow.RecordBatch) -> NDArray[np.int64]:
    responses = batch.column("response_ids").flatten()
    truncated = batch.column("truncated").flatten().to_numpy(zero_copy_only=False)
    prompt_tokens = len(batch.column("prompt_ids").flatten())
    uncounted = batch.column("uncounted").flatten().to_numpy(zero_copy_only=False).sum()
    sizes = [len(batch), len(responses), prompt_tokens, len(responses.flatten()), truncated.sum(), uncounted]
    return np.array(sizes, np.int64)


def _require_sets(stats: TokenStats, found: ProblemCounts) -> None:
    if stats.sets:
        return
    if not found.errors:
        raise DataError("there is no set to tokenise", "data", "check the source with python -m mpo.data.check")
    raise found.unusable_sets(found.errors.total(), "no set is left")


class TokenizedSets:
    """The folder that ``tokenize_sets`` wrote, memory-mapped: ``len``, ``[i]``, ``lengths``, ``fingerprint``."""

    def __init__(self, table: pyarrow.Table, fingerprint: str, max_tokens: int) -> None:
        self.fingerprint = fingerprint
        """SHA-256 over all ids, tokens, scores and marks, in order."""
        self.max_tokens = max_tokens
        """Most tokens of a prompt with one of its responses."""
        self._batches = table.select(SCHEMA.names).to_batches()
        sizes = [len(batch) for batch in self._batches]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.lengths: NDArray[np.int64] = np.concatenate([_lengths(batch) for batch in self._batches])
        """Tokens of each set, prompt and all responses, [sets]."""
        self._kept = lru_cache(KEPT)(self._read)

    @classmethod
    def load(cls, path: Path) -> TokenizedSets:
        """Open a folder; raises ``DataError`` where it isn't one that ``tokenize_sets`` completed."""
        import datasets

        remedy = "run the stage that writes it again"
        try:
            summary: dict[str, Any] = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
            data = datasets.load_from_disk(str(path))
        except (OSError, ValueError) as error:
            raise DataError(f"not a folder of tokenised sets: {error}", str(path), remedy) from None
        if data.column_names != SCHEMA.names:
            raise DataError(f"has columns {', '.join(data.column_names)}", str(path), remedy)
        return cls(data.data.table, summary["fingerprint"], summary["limits"]["max_tokens"])

    @property
    def largest_id(self) -> int:
        """The largest token id of all sets; reads all of them."""
        largest = 0
        for batch in self._batches:
            for tokens in (batch.column("prompt_ids").flatten(), batch.column("response_ids").flatten().flatten()):
                largest = max(largest, int(tokens.to_numpy().max(initial=0)))
        return largest

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> TokenizedSet:
        if not 0 <= index < len(self):
            raise IndexError(f"set {index} of {len(self)}")
        return self._kept(index)

    def _read(self, index: int) -> TokenizedSet:
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        batch, row = self._batches[chunk], index - int(self._starts[chunk])
        prompt_ids, responses = batch.column("prompt_ids")[row].values, batch.column("response_ids")[row].values
        bounds, tokens = responses.offsets.to_numpy(), responses.values.to_numpy()
        names, scores = batch.column("score_names")[row].as_py(), batch.column("scores")[row].as_py()
        return TokenizedSet(
            id=batch.column("id")[row].as_py(),
            prompt_ids=prompt_ids.to_numpy(),
            response_ids=[tokens[bounds[k] : bounds[k + 1]] for k in range(len(responses))],
            scores=dict(zip(names, scores, strict=True)),
            accepted=batch.column("accepted")[row].as_py(),
            truncated=batch.column("truncated")[row].as_py(),
            uncounted=batch.column("uncounted")[row].as_py(),
        )


def _lengths(batch: pyarrow.RecordBatch) -> NDArray[np.int64]:
    prompts, sets = batch.column("prompt_ids"), batch.column("response_ids")
    token_bounds = sets.values.offsets.to_numpy()[sets.offsets.to_numpy()]
    lengths: NDArray[np.int64] = np.diff(prompts.offsets.to_numpy()).astype(np.int64) + np.diff(token_bounds)
    return lengths

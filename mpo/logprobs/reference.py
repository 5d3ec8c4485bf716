"""Reference log-probs of every response token, computed once and memory-mapped."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import distributed as dist

from mpo.cache.artifacts import write_text
from mpo.cache.checksums import Damaged, check_file, file_checksum, read_sealed, sealed
from mpo.errors import DataError
from mpo.layout.batch import PromptResponses
from mpo.logprobs.mismatched import MismatchedPair, mismatched_pair, mismatched_pairs
from mpo.logprobs.resumable_array import ResumableArray, forget, join
from mpo.logprobs.scoring import FrozenPolicy, score_sets
from mpo.policy.devices import broadcast_from_rank0
from mpo.policy.pieces import Indexed

TOKENS, MISMATCHED, INDEX = "logps.npy", "mismatched.npy", "index.json"
NOT_FINITE = "check the reference model's weights or use fp32"
REMEDY = "compute the reference log-probs again for these sets"


class Sets(Protocol):
    """Tokenised sets by position; ``fingerprint`` names their content, ``max_tokens`` no prompt and response passes."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def max_tokens(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> PromptResponses: ...


@dataclass(frozen=True, eq=False)
class Reference:
    """log π_ref of the responses of N sets.

    Attributes:
        tokens: float32, all response tokens of all responses of all sets, in order.
        starts: [responses + 1] where each response starts in ``tokens``.
        first: [N + 1] number of the first response of each set.
        mismatched: [N] log π_ref of each set's mismatched pair, where it was asked for.
        pairs: (prompt of which set, which response) of each mismatched pair.
    """

    tokens: np.ndarray
    starts: np.ndarray
    first: np.ndarray
    mismatched: np.ndarray | None
    pairs: list[tuple[int, int]]

    @classmethod
    def load(cls, path: Path, sets: Sets) -> Reference:
        """Open what :func:`compute_reference` wrote and check that it belongs to ``sets``, by count and by id.

        Raises:
            DataError: it is missing, or belongs to other sets or other tokens.
        """
        if not (path / INDEX).is_file():
            raise DataError("no reference log-probs here", path.name, REMEDY)
        index = json.loads((path / INDEX).read_text())
        ids, lengths = _contents(sets)
        if len(index["ids"]) != len(ids):
            raise DataError(f"reference of {len(index['ids'])} sets, but there are {len(ids)}", path.name, REMEDY)
        for i, (stored, wanted) in enumerate(zip(index["ids"], ids, strict=True)):
            if stored != wanted:
                raise DataError(f"reference set {i} is {stored!r}, but it should be {wanted!r}", path.name, REMEDY)
        starts, first = _offsets(lengths)
        tokens = np.load(path / TOKENS, mmap_mode="r")
        if index["counts"] != [len(of_set) for of_set in lengths] or len(tokens) != starts[-1]:
            raise DataError("reference of other numbers of responses or tokens", path.name, REMEDY)
        if index["fingerprint"] != sets.fingerprint:
            raise DataError("reference of the same ids but other tokens", path.name, REMEDY)
        seed = index["mismatched_seed"]
        pairs = [] if seed is None else mismatched_pairs(_prompts(sets), index["counts"], seed)
        mismatched = None if seed is None else np.load(path / MISMATCHED)
        return cls(tokens, starts, first, mismatched, pairs)

    def logps(self, i: int) -> list[np.ndarray]:
        """Token log-probs of each response of set ``i``, float32."""
        responses = range(self.first[i], self.first[i + 1])
        return [self.tokens[self.starts[r] : self.starts[r + 1]] for r in responses]

    def pair(self, sets: Sets, i: int) -> MismatchedPair:
        """Set ``i``'s mismatched pair, whose log-prob is ``mismatched[i]``."""
        prompt_of, response = self.pairs[i]
        return mismatched_pair(sets[i], sets[prompt_of], response, sets.max_tokens)


def compute_reference(
    policy: FrozenPolicy,
    sets: Sets,
    out: Path,
    micro_batch: int,
    micro_tokens: int,
    rank: int = 0,
    world_size: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    mismatched_seed: int | None = None,
    on_warning: Callable[[str], None] = warnings.warn,
) -> None:
    """Write the log-probs of all response tokens of all sets under ``policy`` into the existing folder ``out``.

    Process ``rank`` does every ``world_size``-th set; those that forward together do the same sets, more of them, and
    the first one writes. With several processes torch.distributed is initialised and they share the file system.
    ``on_progress(sets and mismatched pairs done, all of this process)`` is called after each forward pass. Called again
    after it was stopped, it goes on from what the processes had noted as done.

    Args:
        micro_batch: sets a forward pass.
        micro_tokens: most tokens a forward pass; a set above it is forwarded in pieces.
        mismatched_seed: also the mismatched pairs drawn with this seed, for losses with ``needs_mismatched_kl``.
        on_warning: gets a line if what an earlier attempt has noted is damaged; it is computed again.

    Raises:
        DataError: a log-prob is not finite.
    """
    ids, lengths = _contents(sets)
    starts, first = _offsets(lengths)
    counts = [len(of_set) for of_set in lengths]
    pairs = None if mismatched_seed is None else mismatched_pairs(_prompts(sets), counts, mismatched_seed)
    together = policy.together
    mine = list(range(rank // together, len(sets), world_size // together))
    total = len(mine) if pairs is None else 2 * len(mine)
    before = 0
    if broadcast_from_rank0(rank == 0 and _whole(out, on_warning)):
        if rank == 0:
            _forget(out)
        return

    def forward(what: Indexed, file: ResumableArray) -> Iterator[tuple[int, list[np.ndarray]]]:
        nonlocal before
        finished = before + sum(i in file.done for i in mine)
        for part, logps in score_sets(policy, what, mine, micro_batch, micro_tokens, file.done):
            values_BKT, lengths_BK = logps.token_logps_BKT.cpu().numpy(), logps.lengths_BK.tolist()
            for b, i in enumerate(part):
                if not np.isfinite(values_BKT[b]).all():
                    raise DataError("a reference log-prob is not finite", what[i].id, NOT_FINITE)
                if i not in file.done and rank % together == 0:
                    yield i, [values_BKT[b, k, :length] for k, length in enumerate(lengths_BK[b]) if length]
            finished = min(finished + len(part), before + len(mine))
            on_progress(finished, total)
        before = len(mine)

    def open_part(name: str) -> ResumableArray:
        file = ResumableArray(out / name, rank)
        if file.damaged:
            on_warning(f"log-probs of an earlier attempt are damaged ({name}); they are computed again from there on")
        return file

    with open_part(TOKENS) as file:
        _wait(world_size)  # all have read what is done, before anyone notes more
        for i, responses in forward(sets, file):
            file.write(i, int(starts[first[i]]), np.concatenate(responses))
    if pairs is not None:
        crossed = {i: mismatched_pair(sets[i], sets[pairs[i][0]], pairs[i][1], sets.max_tokens) for i in mine}
        with open_part(MISMATCHED) as file:
            _wait(world_size)
            for i, (response,) in forward(crossed, file):
                file.write(i, i, response.sum(dtype=np.float32, keepdims=True))
    _wait(world_size)
    if rank == 0:
        join(out / TOKENS, int(starts[-1]))
        if pairs is not None:
            join(out / MISMATCHED, len(sets))
        index = {
            "fingerprint": sets.fingerprint,
            "mismatched_seed": mismatched_seed,
            "counts": counts,
            "ids": ids,
            "files": {path.name: file_checksum(path) for path in sorted(out.glob("*.npy"))},
        }
        write_text(out / INDEX, json.dumps(sealed(index)))
        _forget(out)
    _wait(world_size)


def _contents(sets: Sets) -> tuple[list[str], list[list[int]]]:
    ids, lengths = [], []
    for i in range(len(sets)):
        of_set = sets[i]
        ids.append(of_set.id)
        lengths.append([len(response) for response in of_set.response_ids])
    return ids, lengths


def _prompts(sets: Sets) -> list[bytes]:
    return [hashlib.blake2b(sets[i].prompt_ids.tobytes(), digest_size=16).digest() for i in range(len(sets))]


def _offsets(lengths: list[list[int]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    responses = [length for of_set in lengths for length in of_set]
    starts = np.cumsum([0, *responses], dtype=np.int64)
    return starts, np.cumsum([0, *(len(of_set) for of_set in lengths)], dtype=np.int64)


def _whole(out: Path, on_warning: Callable[[str], None]) -> bool:
    """Whether an earlier attempt has finished in ``out``, and nothing there is damaged; damaged files are removed."""
    if not (out / INDEX).exists():  # written last
        return False
    try:
        for name, checksum in read_sealed(out / INDEX)["files"].items():
            check_file(out / name, checksum)
    except Damaged as damage:
        on_warning(f"log-probs of an earlier attempt are damaged ({damage}); they are computed again")
        (out / INDEX).unlink()
        return False
    return True


def _forget(out: Path) -> None:
    for name in (TOKENS, MISMATCHED):
        forget(out / name)


def _wait(world_size: int) -> None:
    if world_size > 1:
        dist.barrier()

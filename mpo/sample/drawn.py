"""Drawn batches kept as they come, so that a stopped run need not draw them again."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mpo.cache.journal import Journal, remove_journal
from mpo.sample.base import Drawn


def remove_batches(folder: Path, name: str) -> None:
    """Remove what :class:`DrawnBatches` has kept, once the responses are stored elsewhere."""
    remove_journal(folder, _journal_name(name))


def _journal_name(name: str) -> str:
    return f"{name}.batches"


class DrawnBatches:
    """Responses to the requests of a sampler's batches, in a journal and, packed, in memory.

    Args:
        folder: where the journal's files lie.
        name: of what is drawn, say ``train``.
        batches: which requests are drawn together, each one's position.
        writer: number of this process among those that draw.

    Attributes:
        missing: batches, by number, that are still to be drawn.
        damaged: lines of the journal that are not as they were written.
        counts: over all batches, how many responses were dropped or drawn again, by reason.
    """

    def __init__(self, folder: Path, name: str, batches: Sequence[Sequence[int]], writer: int = 0) -> None:
        self._journal = Journal(folder, _journal_name(name), writer)
        self.damaged = self._journal.damaged
        self._batches = batches
        self._packed: dict[int, list[dict[str, Any]]] = {}  # by request
        self.counts: Counter[str] = Counter()
        self.missing = []
        for number, batch in enumerate(batches):
            kept = self._journal.kept.get(number)
            if kept is None or kept["requests"] != list(batch):
                self.missing.append(number)
            else:
                self._packed |= zip(batch, kept["responses"], strict=True)
                self.counts.update(kept["counts"])

    def add(self, number: int, drawn: Sequence[Sequence[Drawn]], counts: Mapping[str, int] | None = None) -> None:
        """Keep the responses of batch ``number``, on the disk itself."""
        packed = [[_packed(each) for each in of_request] for of_request in drawn]
        counted = dict(counts or {})
        self._journal.add(number, {"requests": list(self._batches[number]), "responses": packed, "counts": counted})
        self.counts.update(counted)
        self._packed |= zip(self._batches[number], packed, strict=True)

    def __getitem__(self, position: int) -> list[Drawn]:
        """The responses to a request."""
        return [_unpacked(each) for each in self._packed[position]]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._journal.__exit__(kind, error, at)


def _packed(one: Drawn) -> dict[str, Any]:
    """The response as JSON has it. Lists of Python's numbers would take about six times the memory."""
    logps = None if one.token_logps is None else _encoded(np.asarray(one.token_logps, "<f4"))
    return {"ids": _encoded(np.asarray(one.token_ids, "<i4")), "finished": one.finished, "logps": logps}


def _unpacked(packed: dict[str, Any]) -> Drawn:
    logps = None if packed["logps"] is None else tuple(_decoded(packed["logps"], "<f4"))
    return Drawn(tuple(_decoded(packed["ids"], "<i4")), packed["finished"], logps)


def _encoded(values: NDArray[np.generic]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _decoded(text: str, kind: str) -> list[Any]:
    values: list[Any] = np.frombuffer(base64.b64decode(text), kind).tolist()
    return values

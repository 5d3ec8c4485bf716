"""What judges have answered, kept by its content for all runs, so that nothing is asked twice. No torch."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mpo.cache.artifacts import canonical_json
from mpo.cache.journal import Journal, journal_files


class KeptAnswers:
    """Each on the disk when :meth:`add` returns; several runs may keep answers of one judge at once.

    Args:
        folder: where they lie; None: nowhere.
        asked_as: what decides an answer beside the question.

    Attributes:
        damaged: answers of earlier runs that are not as they were written, and so are not known.
    """

    def __init__(self, folder: Path | None, asked_as: Mapping[str, Any]) -> None:
        self._folder, self._name = folder, hashlib.sha256(canonical_json(asked_as).encode()).hexdigest()[:20]
        self._writer = secrets.token_hex(4)
        self._kept: dict[str, Any] = {}
        self._journal: Journal | None = None
        self.damaged = 0
        if folder is not None and journal_files(folder, self._name):
            self._open(folder)

    def _open(self, folder: Path) -> Journal:
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(folder, self._name, self._writer)
        self._kept |= self._journal.kept
        self.damaged = self._journal.damaged
        return self._journal

    def get(self, question: str, repeat: int = 0) -> Any:
        """The JSON value that was added for a question asked for the ``repeat``-th time, from 0; None without one."""
        return self._kept.get(_key(question, repeat))

    def add(self, question: str, value: Any, repeat: int = 0) -> None:
        """Keep a JSON value."""
        key = _key(question, repeat)
        self._kept[key] = value
        if self._folder is not None:
            (self._journal or self._open(self._folder)).add(key, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._journal is None or self._folder is None:
            return
        self._journal.__exit__(kind, error, at)
        own = self._folder / f"{self._name}.{self._writer}.jsonl"
        if own.stat().st_size == 0:  # all was known
            own.unlink()


def _key(question: str, repeat: int) -> str:
    return hashlib.sha256(f"{repeat}\0{question}".encode()).hexdigest()[:32]

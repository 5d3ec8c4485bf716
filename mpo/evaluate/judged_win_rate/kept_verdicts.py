"""Verdicts of one judge that runs keep by their content, so that nothing is asked twice. No torch."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mpo.cache.artifacts import canonical_json
from mpo.cache.journal import Journal, journal_files
from mpo.score.verdicts import Verdict


class KeptVerdicts:
    """Each on the disk when :meth:`add` returns; several runs may keep verdicts of one judge at once.

    Args:
        folder: where they lie; None: nowhere.
        asked_as: what decides a verdict beside the question.
    """

    def __init__(self, folder: Path | None, asked_as: Mapping[str, Any]) -> None:
        self._folder, self._name = folder, hashlib.sha256(canonical_json(asked_as).encode()).hexdigest()[:20]
        self._kept: dict[str, Verdict] = {}
        self._journal: Journal | None = None
        if folder is not None and journal_files(folder, self._name):
            self._open(folder)

    def _open(self, folder: Path) -> Journal:
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(folder, self._name, secrets.token_hex(4))
        self._kept |= {key: Verdict(*value) for key, value in self._journal.kept.items()}
        return self._journal

    def get(self, question: str, repeat: int) -> Verdict | None:
        """The verdict on a question asked for the ``repeat``-th time, from 0."""
        return self._kept.get(_key(question, repeat))

    def add(self, question: str, repeat: int, verdict: Verdict) -> None:
        """Keep a verdict."""
        key = _key(question, repeat)
        self._kept[key] = verdict
        if self._folder is not None:
            (self._journal or self._open(self._folder)).add(key, [verdict.value, verdict.mass])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._journal is not None:
            self._journal.__exit__(kind, error, at)


def _key(question: str, repeat: int) -> str:
    return hashlib.sha256(f"{repeat}\0{question}".encode()).hexdigest()[:32]

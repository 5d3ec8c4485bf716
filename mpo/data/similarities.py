"""How alike the responses of stored sets are: inner products of their embeddings, on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mpo.errors import DataError


class StoredSimilarities:
    """A matrix float64 [K, K] for each set, by the set's id."""

    def __init__(self, ids: Sequence[str], sizes: np.ndarray, values: np.ndarray) -> None:
        self._place = {set_id: place for place, set_id in enumerate(ids)}
        self._sizes, self._values = sizes, values
        self._starts = np.concatenate([[0], np.cumsum(np.square(sizes))])

    def of(self, set_id: str) -> list[list[float]]:
        """The matrix of a set; raises DataError where there is none."""
        place = self._place.get(set_id)
        if place is None:
            raise DataError("its responses have no embeddings", f"set {set_id}", "run the embed stage again")
        size = int(self._sizes[place])
        matrix = self._values[self._starts[place] : self._starts[place + 1]].reshape(size, size)
        return matrix.tolist()  # type: ignore[no-any-return]

    @staticmethod
    def save(folder: Path, ids: Sequence[str], matrices: Sequence[np.ndarray]) -> None:
        """Write the matrices of sets with these ids into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "sizes.npy", np.array([len(each) for each in matrices], np.int64), allow_pickle=False)
        values = np.concatenate([np.zeros(0), *(each.ravel() for each in matrices)])
        np.save(folder / "similarities.npy", values.astype(np.float64), allow_pickle=False)
        (folder / "ids.json").write_text(json.dumps(list(ids)), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> StoredSimilarities:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: the folder lacks a file.
        """
        try:
            ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
            return cls(ids, np.load(folder / "sizes.npy"), np.load(folder / "similarities.npy", mmap_mode="r"))
        except FileNotFoundError as missing:
            remedy = "run the embed stage again"
            raise DataError(f"no {Path(missing.filename).name}", str(folder), remedy) from missing

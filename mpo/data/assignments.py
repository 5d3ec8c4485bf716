"""What the partition says of each set: scores after their transform, bins, and why a set carries no signal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mpo.errors import DataError

USABLE = ""


class Assignments:
    """Scores and bins of N sets in flat arrays, aligned with :class:`mpo.data.tokens.TokenizedSets` by index."""

    def __init__(self, offsets: np.ndarray, scores: np.ndarray, bins: np.ndarray, reasons: list[str]) -> None:
        self._offsets, self._scores, self._bins, self.reasons = offsets, scores, bins, reasons

    def __len__(self) -> int:
        return len(self.reasons)

    def scores(self, index: int) -> list[float]:
        """Scores of the set's K responses, after the transform."""
        return list(map(float, self._scores[self._offsets[index] : self._offsets[index + 1]]))

    def bins(self, index: int) -> list[int]:
        """Bins of the set's K responses: 0 best, larger is worse, -1 dropped."""
        return list(map(int, self._bins[self._offsets[index] : self._offsets[index + 1]]))

    @property
    def usable(self) -> list[int]:
        """Indices of the sets that carry a signal, ascending."""
        return [index for index, reason in enumerate(self.reasons) if reason == USABLE]

    @property
    def skipped(self) -> dict[str, int]:
        """How many sets carry none, by reason."""
        return dict(Counter(reason for reason in self.reasons if reason != USABLE))

    def save(self, folder: Path) -> None:
        """Write the arrays into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "offsets.npy", self._offsets, allow_pickle=False)
        np.save(folder / "scores.npy", self._scores, allow_pickle=False)
        np.save(folder / "bins.npy", self._bins, allow_pickle=False)
        names = sorted(set(self.reasons))
        np.save(folder / "reasons.npy", np.array([names.index(r) for r in self.reasons], np.int16), allow_pickle=False)
        (folder / "reasons.txt").write_text("\n".join(names), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Assignments:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: the folder lacks a file.
        """
        try:
            arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("offsets", "scores", "bins")]
            names = (folder / "reasons.txt").read_text(encoding="utf-8").split("\n")
            reasons = [names[int(code)] for code in np.load(folder / "reasons.npy")]
        except FileNotFoundError as missing:
            remedy = "run the partition stage again"
            raise DataError(f"no {Path(missing.filename).name}", str(folder), remedy) from missing
        return cls(arrays[0], arrays[1], arrays[2], reasons)

    @classmethod
    def build(cls, rows: Sequence[tuple[list[float], list[int], str | None]]) -> Assignments:
        """From (scores, bins, reason or None) of each set, in order."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(scores) for scores, _, _ in rows], out=offsets[1:])
        scores = np.array([value for row, _, _ in rows for value in row], np.float64)
        bins = np.array([value for _, row, _ in rows for value in row], np.int16)
        return cls(offsets, scores, bins, [reason or USABLE for _, _, reason in rows])

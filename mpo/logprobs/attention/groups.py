"""Spans of a packed row, padded to rectangles in groups of like size, so that little of a rectangle is padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

WORTH_A_GROUP = 16_384
"""Padded query-key cells above which another call of the kernel costs less than computing them."""


@dataclass(frozen=True, eq=False)
class Rectangle:
    """G spans of the row, padded to the longest.

    Attributes:
        index_GT: long, where in the row; 0 at padding.
        real_GT: bool, False at padding.
        cell_M: long, where the M real cells are in the flattened rectangle.
        row_M: long, where they are in the row.
    """

    index_GT: Tensor
    real_GT: Tensor
    cell_M: Tensor
    row_M: Tensor

    @classmethod
    def of(cls, starts: np.ndarray, lengths: np.ndarray) -> Rectangle:
        """The spans ``start .. start + length``."""
        return cls.joined(starts, lengths, starts, np.zeros_like(lengths))

    @classmethod
    def joined(
        cls, starts: np.ndarray, lengths: np.ndarray, more_starts: np.ndarray, more_lengths: np.ndarray
    ) -> Rectangle:
        """The spans ``start .. start + length``, each followed by another one."""
        steps_T = np.arange(int((lengths + more_lengths).max()))
        real_GT = steps_T < (lengths + more_lengths)[:, None]
        second_GT = (more_starts - lengths)[:, None] + steps_T
        index_GT = np.where(steps_T < lengths[:, None], starts[:, None] + steps_T, second_GT)
        index_GT = np.where(real_GT, index_GT, 0)
        cell_M = np.flatnonzero(real_GT)
        parts = (index_GT, real_GT, cell_M, index_GT.flatten()[cell_M])
        return cls(*(torch.from_numpy(part) for part in parts))

    @property
    def full(self) -> bool:
        """Whether nothing of it is padding."""
        return len(self.cell_M) == self.real_GT.numel()

    def pad(self, row: Tensor) -> Tensor:
        """``[N,...]`` to ``[G,T,...]``; padding repeats the row's first element."""
        return row.index_select(0, self.index_GT.flatten()).unflatten(0, tuple(self.index_GT.shape))

    def real(self, padded: Tensor) -> Tensor:
        """``[G,T,...]`` to its real cells ``[M,...]``."""
        flat = padded.flatten(0, 1)
        return flat if self.full else flat.index_select(0, self.cell_M)


def group(queries: np.ndarray, keys: np.ndarray) -> Sequence[np.ndarray]:
    """Members of groups such that padding each to its longest queries and keys wastes little; none of no members.

    Args:
        queries: number of each member.
        keys: number of each member.
    """
    if len(queries) == 0:
        return []
    kind = np.stack([np.ceil(np.log2(np.maximum(sizes, 16))) for sizes in (keys, queries)], axis=1)
    _, kind_of = np.unique(kind, axis=0, return_inverse=True)
    kind_of = kind_of.reshape(-1)  # numpy 2.0 gave it the shape of its argument
    groups: list[np.ndarray] = []

    def cells(members: np.ndarray) -> int:
        return len(members) * int(queries[members].max()) * int(keys[members].max())

    for number in range(int(kind_of.max()) + 1):
        members = np.flatnonzero(kind_of == number)
        if groups:
            together = np.sort(np.concatenate([groups[-1], members]))
            if cells(together) - cells(groups[-1]) - cells(members) < WORTH_A_GROUP:
                groups[-1] = together
                continue
        groups.append(members)
    return groups

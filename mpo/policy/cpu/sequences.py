"""Sequences of a packed row's tokens, read into rectangles of one length and written back."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


class Sequences:
    """M sequences of the row's tokens, each of two spans (the second may be empty), padded to L tokens.

    Args:
        spans_M22: (start, length) of either span.
        row: tokens in the row. What is written back has room for one more, where padding ends up.
        length: L, at least the longest's.

    Attributes:
        lengths_M: tokens of each.
        index_ML: long, where in the row; 0 at padding.
        real_ML: bool, False at padding.
    """

    def __init__(self, spans_M22: np.ndarray, row: int, length: int) -> None:
        starts_M2, lengths_M2 = spans_M22[..., 0], spans_M22[..., 1]
        self.lengths_M = lengths_M2.sum(1)
        self.members, self.length = len(spans_M22), length
        steps_L = np.arange(length)
        second_ML = (starts_M2[:, 1] - lengths_M2[:, 0])[:, None] + steps_L
        index_ML = np.where(steps_L < lengths_M2[:, :1], starts_M2[:, :1] + steps_L, second_ML)
        real_ML = steps_L < self.lengths_M[:, None]
        self.index_ML = torch.from_numpy(np.where(real_ML, index_ML, 0))
        self.real_ML = torch.from_numpy(real_ML)
        self._written = torch.from_numpy(np.where(real_ML, index_ML, row)).flatten()
        # One sequence is copied span by span, without an index.
        self._spans = [(int(start), int(length)) for start, length in spans_M22[0] if length]

    @property
    def full(self) -> bool:
        """Whether nothing is padding."""
        return bool((self.lengths_M == self.length).all())

    def read(self, row_HND: Tensor, out_MHLD: Tensor) -> Tensor:
        """Fill ``out_MHLD``; padding is the row's first token, or 0."""
        if self.members > 1:
            rows = row_HND.transpose(0, 1).index_select(0, self.index_ML.flatten())
            return out_MHLD.copy_(rows.unflatten(0, tuple(self.index_ML.shape)).transpose(1, 2))
        for there, here in self._slices():
            out_MHLD[0, :, here] = row_HND[:, there]
        out_MHLD[0, :, int(self.lengths_M[0]) :] = 0
        return out_MHLD

    def write(self, values_MHLD: Tensor, row_NHD: Tensor) -> None:
        """Put the values where they belong in the row."""
        if self.members > 1:
            row_NHD.index_copy_(0, self._written, values_MHLD.transpose(1, 2).flatten(0, 1))
            return
        for there, here in self._slices():
            row_NHD[there] = values_MHLD[0, :, here].transpose(0, 1)

    def add(self, values_MHLD: Tensor, row_NHD: Tensor) -> None:
        """Add the values to the row's: a prompt is in many sequences."""
        if self.members > 1:
            row_NHD.index_add_(0, self._written, values_MHLD.transpose(1, 2).flatten(0, 1).to(row_NHD.dtype))
            return
        for there, here in self._slices():
            row_NHD[there] += values_MHLD[0, :, here].transpose(0, 1)

    def _slices(self) -> Iterator[tuple[slice, slice]]:
        """Of the only sequence: where its spans are in the row, and where in the rectangle."""
        at = 0
        for start, length in self._spans:
            yield slice(start, start + length), slice(at, at + length)
            at += length


class Scratch:
    """Memory that is taken once and used again: fresh memory costs a CPU more than what is done in it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, torch.dtype], Tensor] = {}

    def __call__(self, name: str, dtype: torch.dtype, *shape: int) -> Tensor:
        """A tensor of any content; one of the same name and type shares its memory."""
        size = math.prod(shape)
        kept = self._kept.get((name, dtype))
        if kept is None or len(kept) < size:
            kept = self._kept[name, dtype] = torch.empty(size, dtype=dtype)
        return kept[:size].view(shape)

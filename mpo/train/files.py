"""Tensors and plain values in torch's files: a checksum when one is written, and no code run when one is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mpo.cache.checksums import HashedFile


def save_tensors(value: object, path: Path) -> str:
    """Write ``value``; returns the file's checksum."""
    with HashedFile(path) as file:
        torch.save(value, file)  # type: ignore[arg-type]  # it writes and flushes, and needs nothing else
    return file.checksum


def load_tensors(path: Path, classes: Sequence[type] = (), device: Any = "cpu") -> Any:
    """What :func:`save_tensors` wrote.

    Args:
        classes: those that the file may hold beside tensors, containers, numbers and strings.

    Raises:
        pickle.UnpicklingError: it holds others, which were not made.
    """
    with torch.serialization.safe_globals(list(classes)):
        return torch.load(path, map_location=device, weights_only=True)

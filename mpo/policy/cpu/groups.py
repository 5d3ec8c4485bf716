"""Members of like size in groups, so that padding each to its group's largest wastes little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WORTH_A_GROUP = 16_384
"""Padded query-key cells above which another call of the kernel costs less than computing them."""


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

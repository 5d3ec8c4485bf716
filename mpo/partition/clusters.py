"""Clusters of a set's responses, and the partition that takes one rejected response from each (AMPO's coreset)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mpo.partition.base import Similarities
from mpo.partition.chosen import BestVsChosen

SAME = 1e-9
"""Squared distance up to which two embeddings are one: more than rounding makes of it, less than other texts."""
ROUNDS = 100
"""Most rounds of k-means; of a set's few responses it needs a handful."""


@dataclass(frozen=True)
class BestVsClusters(BestVsChosen):
    """The best accepted, the lowest-scored of each of k clusters of the others rejected, the rest dropped.

    Clusters are those of k-means over the embeddings of the other responses (:func:`clusters`), begun at the worst.
    Fewer than k embeddings that differ give fewer clusters, and so fewer rejected responses.

    Attributes:
        path: folder or hub name of the encoder that embeds them.
        revision: of a hub name.
    """

    path: str = ""
    revision: str | None = None
    needs_embeddings: ClassVar[bool] = True

    def choose(self, scores: Sequence[float], others: Sequence[int], similarities: Similarities) -> Sequence[int]:
        worst_first = others[::-1]
        among = [[similarities[i][j] for j in worst_first] for i in worst_first]
        return [worst_first[members[0]] for members in clusters(among, self.k)]


def clusters(similarities: Similarities, k: int) -> list[list[int]]:
    """k-means (Lloyd) over N vectors of which only the inner products [N, N] are read: it draws nothing.

    The first vector is the first centre, each further one that vector which is farthest from the nearest centre, of
    equally far ones the earlier, until there are k of them or no vector is elsewhere. A vector as far from one cluster
    as from another goes to the earlier. A cluster that loses all its vectors is gone.

    Returns:
        At most k clusters, each with the indices of its vectors in ascending order.
    """
    size = len(similarities)

    def squared(index: int, members: Sequence[int], spread: float) -> float:
        to_members = sum(similarities[index][other] for other in members) / len(members)
        return similarities[index][index] - 2 * to_members + spread

    centres = [0]
    while len(centres) < k:
        away = [min(squared(i, [centre], similarities[centre][centre]) for centre in centres) for i in range(size)]
        farthest = max(range(size), key=lambda i: away[i])
        if away[farthest] <= SAME:
            break
        centres.append(farthest)
    found = [[centre] for centre in centres]
    for _ in range(ROUNDS):
        spreads = [sum(similarities[i][j] for i in each for j in each) / len(each) ** 2 for each in found]
        nearest = []
        for i in range(size):
            distances = [squared(i, each, spread) for each, spread in zip(found, spreads, strict=True)]
            nearest.append(distances.index(min(distances)))
        moved = [[i for i in range(size) if nearest[i] == number] for number in range(len(found))]
        moved = [members for members in moved if members]
        if moved == found:
            break
        found = moved
    return found

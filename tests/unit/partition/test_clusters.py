"""The partition by clusters of embeddings: by hand, against SciPy's k-means, and where embeddings are equal."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.vq import kmeans2

from mpo.errors import DataError
from mpo.partition import BestVsClusters
from mpo.partition.clusters import clusters


def similarities(*angles: float) -> list[list[float]]:
    """Of unit vectors in the plane, by their angles in degrees."""
    vectors = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], -1)
    return (vectors @ vectors.T).tolist()  # type: ignore[no-any-return]


def test_the_lowest_of_each_cluster_is_rejected() -> None:
    # The best is alone at 200 degrees; the others lie around 0 (scores 3, 1, 2) and around 90 (scores 5, 4).
    scores, alike = [3.0, 5.0, 9.0, 1.0, 4.0, 2.0], similarities(0, 90, 200, 5, 95, 10)
    assert BestVsClusters(k=2)(scores, similarities=alike) == [-1, -1, 0, 1, 1, -1]
    assert BestVsClusters(k=1)(scores, similarities=alike) == [-1, -1, 0, 1, -1, -1]
    assert BestVsClusters(k=5)(scores, similarities=alike) == [1, 1, 0, 1, 1, 1]
    assert BestVsClusters(k=9)(scores, similarities=alike) == [1, 1, 0, 1, 1, 1]


def test_of_tied_scores_in_a_cluster_the_later_is_rejected() -> None:
    assert BestVsClusters(k=2)([9.0, 1.0, 1.0, 1.0], similarities=similarities(0, 50, 52, 120)) == [0, -1, 1, 1]


def test_equal_embeddings_are_one_cluster() -> None:
    scores = [9.0, 1.0, 2.0, 3.0, 4.0]
    assert BestVsClusters(k=3)(scores, similarities=similarities(0, 40, 40, 80, 80)) == [0, 1, -1, 1, -1]
    assert BestVsClusters(k=3)(scores, similarities=similarities(0, 0, 0, 0, 0)) == [0, 1, -1, -1, -1]
    assert BestVsClusters(k=3)([2.0], similarities=similarities(0)) == [0]


def test_texts_without_tokens_are_a_cluster_of_their_own() -> None:
    alike = [[1.0, 0.0, 0.0, 0.9], [0.0] * 4, [0.0] * 4, [0.9, 0.0, 0.0, 1.0]]
    assert BestVsClusters(k=2)([9.0, 1.0, 2.0, 3.0], similarities=alike) == [0, 1, -1, 1]


@pytest.mark.parametrize("seed", range(20))
def test_clusters_are_those_of_k_means_on_the_embeddings(seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(15, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = clusters((vectors @ vectors.T).tolist(), 4)
    first = [0]
    while len(first) < 4:
        first.append(int(np.linalg.norm(vectors[:, None] - vectors[first], axis=-1).min(-1).argmax()))
    _, labels = kmeans2(vectors, vectors[first], iter=100, minit="matrix", missing="raise")
    assert found == [np.flatnonzero(labels == number).tolist() for number in range(4)]
    assert sorted(index for members in found for index in members) == list(range(15))


def test_the_plan_counts_the_best_and_one_of_each_cluster() -> None:
    assert [BestVsClusters(k=3).keeps(responses) for responses in (1, 3, 16)] == [1, 3, 4]


@pytest.mark.parametrize("alike", [None, [], [[1.0]], similarities(0, 90, 180)])
def test_it_refuses_a_set_without_fitting_similarities(alike: list[list[float]] | None) -> None:
    with pytest.raises(DataError, match="needs the similarities of 2 responses"):
        BestVsClusters()([1.0, 2.0], similarities=alike)

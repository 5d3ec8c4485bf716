"""Exact probabilities that noisy scores keep an order, by quadrature: what the simulation of theorem 2 is checked with.

The k true values are 0, 1, …, k − 1 and the noise is Gaussian with standard deviation β: values a gap 1/k apart with
noise β/k, in units of the gap.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import log_ndtr, ndtr

_REACH = 9.0
"""Standard deviations of the noise that the integrals cover each way; what is beyond is under 1e-18."""


def accepted(k: int) -> int:
    """Size of the better of two bins: half of k, the odd one included, as in ``partition=k_bin``."""
    return (k + 1) // 2


def two_bins_right(k: int, beta: float) -> float:
    """P(each of the better half scores above each of the other half).

    The integral over x of the density of the rejected responses' maximum at x times P(all accepted are above x).
    """
    cut = k - accepted(k)
    middle = (cut - 0.5) / beta  # in standard deviations, as all below
    step = 0.01
    reach = _REACH + 0.5 / beta  # beyond the responses on both sides of the cut
    x_G = np.arange(middle - reach, middle + reach, step)
    z_GK = x_G[:, None] - np.arange(k)[None, :] / beta
    log_below_GK = log_ndtr(z_GK)
    density_GK = np.exp(-(z_GK**2) / 2 - log_below_GK) / math.sqrt(2 * math.pi)
    maximum_G = np.exp(log_below_GK[:, :cut].sum(1)) * density_GK[:, :cut].sum(1)
    above_G = np.exp(log_ndtr(-z_GK[:, cut:]).sum(1))
    return float((maximum_G * above_G).sum() * step)


def full_order_right(k: int, beta: float) -> float:
    """P(all k scores stand in the order of the true values), to about 1e-6 of itself for each response.

    G_j(x) = P(the first j scores ascend and the j-th is at most x) is the integral of density_j · G_{j−1} up to x. Each
    G_j is kept on a grid around its own true value, so that the next one reads it a gap further on.
    """
    step = 0.002
    z_G = np.arange(-_REACH, _REACH + step, step)  # in standard deviations of the noise
    density_G = np.exp(-(z_G**2) / 2) / math.sqrt(2 * math.pi)
    ascending_G = ndtr(z_G)
    for _ in range(k - 1):
        integrand_G = density_G * np.interp(z_G + 1 / beta, z_G, ascending_G)
        ascending_G = np.concatenate([[0.0], np.cumsum((integrand_G[1:] + integrand_G[:-1]) * (step / 2))])
    return float(ascending_G[-1])

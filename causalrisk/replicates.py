"""The distribution of the propensity score, and the biases of the arms over it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.linalg import Array
from causalrisk.propensity import PropensityFit
from causalrisk.sample import Sample

BLOCK = 64  # replicates worked on at a time


@dataclass(frozen=True)
class Replicates:
    """The distribution of the propensity score.

    Parameters
    ----------
    gamma : ndarray, shape (q, B)
        Coefficients of the basis columns of the usable replicates.
    reasons : ndarray of int8, shape (B_drawn,)
        A `Reason` for each replicate drawn.
    """

    gamma: Array
    reasons: NDArray[np.int8]

    @property
    def count(self) -> int:
        """Number of usable replicates, B."""
        return self.gamma.shape[1]


def replicate_blocks(sample: Sample, fit: PropensityFit, gamma: Array) -> Iterator[tuple[slice, Array]]:
    """Linear predictors under the replicates, a block of replicates at a time.

    Parameters
    ----------
    sample : Sample
        The data.
    fit : PropensityFit
        The full-sample fit, for its basis and link.
    gamma : ndarray, shape (q, B)
        Coefficients of the replicates.

    Yields
    ------
    columns : slice
        The replicates of this block.
    eta : ndarray, shape (n, b)
        Linear predictors.
    """
    for first in range(0, gamma.shape[1], BLOCK):
        columns = slice(first, min(first + BLOCK, gamma.shape[1]))
        yield columns, fit.basis.columns @ gamma[:, columns]


def bias_forms(sample: Sample, fit: PropensityFit, gamma: Array, residual: Array) -> tuple[Array, Array]:
    """Linear forms of the arm biases in the deviation from the start, and the mean odds.

    Parameters
    ----------
    sample, fit, gamma
        As in `replicate_blocks`.
    residual : ndarray, shape (n,)
        y - start in the row's own arm; the deviations are in its units.

    Returns
    -------
    forms : ndarray, shape (K, B, p + 1)
        Bias of arm a under replicate b is forms[a, b, :p] @ z_a - forms[a, b, p].
    mean_odds : ndarray, shape (n,)
        Own-arm odds averaged over the replicates.
    """
    rows = np.column_stack([sample.outcome.columns, residual]) * (sample.weights / sample.total)[:, None]
    forms = np.empty((sample.n_arms, gamma.shape[1], rows.shape[1]))
    mean_odds, treated = np.zeros(sample.n), sample.treated[:, None]
    for columns, eta in replicate_blocks(sample, fit, gamma):
        odds = fit.link.own_odds(eta, treated)
        mean_odds += odds.sum(axis=1) / gamma.shape[1]
        for arm, members in enumerate(sample.slices):
            forms[arm, columns] = rows[members].sum(axis=0) + odds[members].T @ rows[members]
    return forms, mean_odds

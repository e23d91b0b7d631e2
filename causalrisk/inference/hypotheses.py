"""Linear hypotheses about the parameters, as statsmodels contrast results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from causalrisk.design import linear_constraint
from causalrisk.errors import OptionError
from causalrisk.estimators.record import SE_ROUNDING, FitRecord
from causalrisk.numerics.linalg import Array

Parser = Callable[[Sequence[str], str], tuple[Array, Array]]
NEGLIGIBLE = 1e-12  # variance of a combination, in those of its parameters, that rounding makes of none
ROUNDING = 1e-8  # of the parameters, relative


def constraint_matrix(r_matrix: Any, names: Sequence[str], parse: Parser) -> tuple[Array, Array]:
    """Turn what the user typed into R and q of R params = q.

    Parameters
    ----------
    r_matrix : str, list of str, array_like or tuple
        One or more texts, a matrix R, or a pair (R, q).
    names : sequence of str
        Names of the parameters.
    parse : callable
        Names and text -> (R, q).

    Returns
    -------
    R : ndarray, shape (j, d)
        Coefficients.
    q : ndarray, shape (j,)
        Right-hand sides.
    """
    if isinstance(r_matrix, list) and r_matrix and all(isinstance(text, str) for text in r_matrix):
        r_matrix = ", ".join(r_matrix)
    if isinstance(r_matrix, str):
        return parse(names, r_matrix)
    left, right = r_matrix if isinstance(r_matrix, tuple) and len(r_matrix) == 2 else (r_matrix, 0.0)
    matrix = np.atleast_2d(np.asarray(left, dtype=float))
    if matrix.shape[1] != len(names):
        raise OptionError(
            f"the matrix has {matrix.shape[1]} columns; expected {len(names)}, one for each of {', '.join(names)}.\n"
            f'Type  res.t_test("{names[-1]} - {names[-2]}").'
        )
    return matrix, np.broadcast_to(np.asarray(right, dtype=float), len(matrix))


def t_contrast(left: Array, right: Array, params: Array, covariance: Array) -> Any:
    """Test each row of R params = q by its normal z statistic."""
    from statsmodels.stats.contrast import ContrastResults

    effect = left @ params
    # Rounding may leave the variance of an exact combination just below zero.
    sd = np.sqrt(np.clip(np.einsum("jd,de,je->j", left, covariance, left), 0, None))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(sd > 0, (effect - right) / sd, np.nan)
    return ContrastResults(effect=effect, statistic=z, sd=sd, distribution="norm")


def wald_statistic(left: Array, right: Array, params: Array, covariance: Array) -> tuple[float, int, bool]:
    """Return Wald's statistic of R params = q, its degrees of freedom, and whether it is impossible.

    Combinations are measured in the standard errors of their parameters, so that units do not matter. One that has no
    sampling error beside these tells nothing that the others do not, and is left out; the hypotheses are impossible if
    the estimates contradict it.
    """
    parameters, tried = np.sqrt(np.clip(np.diag(covariance), 0, None)), np.abs(left)
    size, level = tried @ parameters, tried @ np.abs(params)
    size = np.where(size > SE_ROUNDING * level, size, np.where(level > 0, level, 1.0))
    values, vectors = np.linalg.eigh(left @ covariance @ left.T / np.outer(size, size))
    kept = values > NEGLIGIBLE
    projected = vectors.T @ ((left @ params - right) / size)
    rounding = 10 * np.sqrt(NEGLIGIBLE) + ROUNDING * (level / size).max()
    statistic = float((projected[kept] ** 2 / values[kept]).sum())
    return statistic, int(kept.sum()), bool((np.abs(projected[~kept]) > rounding).any())


def chi_squared(statistic: float, df: int) -> Any:
    """Return a chi-squared test as statsmodels has it."""
    from statsmodels.stats.contrast import ContrastResults

    return ContrastResults(statistic=np.array([[statistic]]), df_denom=df, distribution="chi2")


def t_test(record: FitRecord, r_matrix: Any) -> Any:
    """Test linear combinations of `params`, one at a time.

    Parameters
    ----------
    r_matrix : str, array_like, or tuple
        As in statsmodels: a text such as "POM[1] - POM[0] = 0" (several separated by commas), a matrix R with a
        column per parameter, or a pair (R, q) for R params = q.

    Returns
    -------
    statsmodels.stats.contrast.ContrastResults
        Estimates, z tests and intervals.
    """
    left, right = constraint_matrix(r_matrix, record.names, linear_constraint)
    return t_contrast(left, right, record.estimate.params, parameter_covariance(record))


def wald_test(record: FitRecord, r_matrix: Any) -> Any:
    """Test linear combinations of `params` jointly.

    Parameters
    ----------
    r_matrix : str, array_like, or tuple
        As in `t_test`.

    Returns
    -------
    statsmodels.stats.contrast.ContrastResults
        Chi-squared test. Since the effect is a difference of the arm means, combinations may be redundant; the
        degrees of freedom count those that are not.

    Notes
    -----
    With robust errors the joint test of several effects rejects too often in small samples. In a simulation with three
    arms and n = 300 it did in 14 to 19% instead of 5 where the outcome model was wrong and in 8 to 9% where it was
    right; after ``cov_type="bootstrap"`` in 11 to 13% and 6 to 7%, with the jackknife in 9 to 10% and 6%. "What the
    standard errors are worth" in the documentation has the table, and the jackknife.
    """
    left, right = constraint_matrix(r_matrix, record.names, linear_constraint)
    statistic, df, impossible = wald_statistic(left, right, record.estimate.params, parameter_covariance(record))
    if impossible:
        raise OptionError(
            "the hypotheses contradict each other: a combination without sampling error is not what they say.\n"
            'Leave out the redundant one, as in  res.wald_test("ATE = 0").'
        )
    return chi_squared(statistic, df)


def parameter_covariance(record: FitRecord) -> Array:
    """Covariance of the effects and arm means, shape (2 K - 1, 2 K - 1)."""
    count = len(record.names)
    return record.covariance[:count, :count]

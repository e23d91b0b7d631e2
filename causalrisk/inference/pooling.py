"""Rubin's rules: estimates from several completed data sets pooled into one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.inference.wald import critical_value, two_sided
from causalrisk.numerics.linalg import Array


@dataclass(frozen=True)
class Pooled:
    """Estimates over m completed data sets, pooled.

    Parameters
    ----------
    estimates : ndarray, shape (d,)
        Means of the estimates.
    within, between : ndarray, shape (d, d)
        Mean of the covariances, and covariance of the estimates, divisor m - 1.
    total : ndarray, shape (d, d)
        within + (1 + 1/m) between.
    increase : ndarray, shape (d,)
        Relative increase of the variance due to what is missing, (1 + 1/m) between / within.
    share : ndarray, shape (d,)
        Share of the total variance due to what is missing, lambda = (1 + 1/m) between / total.
    df : ndarray, shape (d,)
        Degrees of freedom of Barnard and Rubin.
    fmi : ndarray, shape (d,)
        Fraction of missing information, (increase + 2 / (df + 3)) / (increase + 1).
    """

    estimates: Array
    within: Array
    between: Array
    total: Array
    increase: Array
    share: Array
    df: Array
    fmi: Array

    @property
    def std_errors(self) -> Array:
        """Roots of the total variances, shape (d,)."""
        return np.sqrt(np.diag(self.total))

    def t_and_p(self) -> tuple[Array, Array]:
        """Return t statistics against zero and their two-sided p-values; NaN where the standard error is zero."""
        errors = self.std_errors
        ratios = np.divide(self.estimates, errors, out=np.full(len(errors), np.nan), where=errors > 0)
        return ratios, two_sided(ratios, self.df)

    def limits(self, alpha: float) -> Array:
        """Limits of the t intervals, shape (d, 2)."""
        half = critical_value(alpha, self.df) * self.std_errors
        return np.column_stack([self.estimates - half, self.estimates + half])


def rubin(estimates: Array, covariances: Array, df_complete: float) -> Pooled:
    """Pool estimates by Rubin's rules.

    Parameters
    ----------
    estimates : ndarray, shape (m, d)
        A row a completed data set.
    covariances : ndarray, shape (m, d, d)
        Their covariance matrices.
    df_complete : float
        Degrees of freedom had nothing been missing; may be infinite.

    Returns
    -------
    Pooled
        Estimates, covariance, degrees of freedom and the fraction of missing information.

    Notes
    -----
    The formulas are those of Rubin (1987) with the degrees of freedom of Barnard and Rubin (1999), as R's mice has
    them: with nu = (m - 1) / lambda^2 and nu_obs = (nu_com + 1) / (nu_com + 3) nu_com (1 - lambda), the degrees of
    freedom are nu nu_obs / (nu + nu_obs), or nu where nu_com is infinite.
    """
    m = len(estimates)
    mean, within = estimates.mean(axis=0), covariances.mean(axis=0)
    between = np.atleast_2d(np.cov(estimates, rowvar=False))
    total = within + (1 + 1 / m) * between
    # Without missing information b is 0 and nu infinite, without sampling variance u is 0: limits that numpy reaches.
    u, b, t = (np.diag(matrix) for matrix in (within, between, total))
    with np.errstate(divide="ignore", invalid="ignore"):
        increase, share = (1 + 1 / m) * b / u, np.where(t > 0, (1 + 1 / m) * b / t, 0.0)
        old = (m - 1) / share**2
        shrunk = (df_complete + 1) / (df_complete + 3) if np.isfinite(df_complete) else 1.0
        df = 1 / (1 / old + 1 / (shrunk * df_complete * (1 - share)))
        fmi = np.where(np.isinf(increase), 1.0, (increase + 2 / (df + 3)) / (increase + 1))
    return Pooled(
        estimates=mean, within=within, between=between, total=total, increase=increase, share=share, df=df, fmi=fmi
    )

"""How strong an omitted confounder would have to be: E-values, and bounds in the form of a Riesz representer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.linalg import Array

STANDARDIZED, STANDARDIZED_SE = 0.91, 1.78  # log risk ratio per standardized difference, and its error times 1.96


def e_value(ratio: float) -> float:
    """Return the E-value of a risk ratio.

    Parameters
    ----------
    ratio : float
        Risk ratio, on either side of 1.

    Returns
    -------
    float
        The risk ratio with both treatment and outcome that an unmeasured confounder would need, beyond the covariates,
        to explain the ratio away; NaN where the ratio is not positive.

    References
    ----------
    .. [1] VanderWeele, T. J. and Ding, P. (2017). Sensitivity analysis in observational research: introducing the
       E-value. Annals of Internal Medicine 167, 268-274.

    Examples
    --------
    Their example, a ratio of 3.9 with 95% interval from 1.8:

    >>> from causalrisk.diagnostics.sensitivity import e_value
    >>> round(e_value(3.9), 2), round(e_value(1.8), 2)
    (7.26, 3.0)
    """
    if not ratio > 0:
        return np.nan
    up = max(ratio, 1 / ratio)
    return float(up + np.sqrt(up * (up - 1)))


def limit_e_value(low: float, high: float) -> float:
    """Return the E-value of the limit of an interval that is nearer to 1; 1 where the interval holds 1."""
    if low <= 1 <= high:
        return 1.0
    return e_value(low if low > 1 else high)


def robustness_value(ratio: float) -> float:
    """Return the share r for which a confounder with cf_y = cf_d = r moves the estimate by as much as it is.

    Parameters
    ----------
    ratio : float
        Estimate over the scale S of the bias.

    Returns
    -------
    float
        r between 0 and 1, with r^2 / (1 - r) = ratio^2.

    Examples
    --------
    Cinelli and Hazlett (2020), Darfur: t = 4.18 on 783 degrees of freedom gives 13.9%:

    >>> from causalrisk.diagnostics.sensitivity import robustness_value
    >>> round(robustness_value(4.18 / 783**0.5), 3)
    0.139
    """
    square = float(ratio) ** 2
    if not np.isfinite(square):
        return 1.0 if square == np.inf else np.nan
    return float(2 * square / (square + np.sqrt(square * (square + 4)))) if square else 0.0


@dataclass(frozen=True)
class BiasScale:
    """What an omitted confounder is multiplied by; influence functions relative to the sample's weight.

    Parameters
    ----------
    effect : float
        The effect, a difference of arm means.
    residual : float
        Mean squared residual of the outcome, E (Y - g)^2.
    representer : float
        Mean square of the Riesz representer, E alpha^2.
    effect_influence, scale_influence : ndarray, shape (n,)
        Influence function of the effect and of S = sqrt(residual * representer).
    """

    effect: float
    residual: float
    representer: float
    effect_influence: Array
    scale_influence: Array

    @property
    def size(self) -> float:
        """S, the largest bias at cf_y cf_d / (1 - cf_d) = 1."""
        return float(np.sqrt(self.residual * self.representer))


def confounding_strength(cf_y: Array | float, cf_d: Array | float, rho: float) -> Array:
    """Return the bias in units of S: abs(rho) sqrt(cf_y cf_d / (1 - cf_d))."""
    return abs(rho) * np.sqrt(np.multiply(cf_y, cf_d) / (1 - np.asarray(cf_d)))


def scale_influence(
    residuals: Array, residual_influence: Array, representer: Array, representer_influence: Array, mean_of: Array
) -> tuple[float, float, Array]:
    """Moments of residuals and representer, and the influence function of S.

    Parameters
    ----------
    residuals, representer : ndarray, shape (n,)
        Squares of both for each row.
    residual_influence, representer_influence : ndarray, shape (n,)
        What the estimation of their models moves the moments by.
    mean_of : ndarray, shape (n,)
        Share of each row in means; zero for rows that are not of the sample.

    Returns
    -------
    residual, representer : float
        The moments.
    influence : ndarray, shape (n,)
        Influence function of the root of their product.
    """
    inside = (mean_of > 0).astype(float)
    sigma, nu = float(mean_of @ residuals), float(mean_of @ representer)
    by_sigma = inside * (residuals - sigma) + residual_influence
    by_nu = inside * (representer - nu) + representer_influence
    size = np.sqrt(sigma * nu)
    return sigma, nu, (nu * by_sigma + sigma * by_nu) / (2 * size) if size > 0 else np.zeros(len(inside))

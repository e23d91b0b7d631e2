"""Designs of the studies: each returns a data frame with columns y, d and covariates, and the true average effect."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

import causalrisk as cr
from tests.conftest import LALONDE_RHS, REFERENCE

RHS = "x1 + x2 + x3 + x4"


def expit(score):
    """Logistic function."""
    return 1 / (1 + np.exp(-score))


def mild(n, rng):
    """Both models right: logit treatment, linear outcome, mild confounding.

    Parameters
    ----------
    n : int
        Rows.
    rng : Generator
        Source of randomness.

    Returns
    -------
    frame : DataFrame
        Columns y, d, x1 .. x4.
    effect : float
        True average effect.
    """
    return _normal(n, rng, strength=0.4, curvature=0.0)


def strong(n, rng, strength=1.0):
    """Strong confounding, propensity model right, quadratic outcome that a linear model misses.

    Parameters
    ----------
    n, rng
        As in `mild`.
    strength : float, default 1.0
        Factor of the score x1 + 0.5 x2 - 0.25 x3 of the treatment.

    Returns
    -------
    frame, effect
        As in `mild`.
    """
    return _normal(n, rng, strength, curvature=0.5)


def _normal(n, rng, strength, curvature):
    """Normal covariates; the curvature doubles under treatment, and the effect 1 + 0.5 x1 + ... averages to 1."""
    x = rng.normal(size=(n, 4))
    d = (rng.random(n) < expit(strength * (x[:, 0] + 0.5 * x[:, 1] - 0.25 * x[:, 2]))).astype(int)
    linear = x[:, 0] + x[:, 1] + 0.5 * x[:, 2] + d * (1 + 0.5 * x[:, 0])
    y = linear + curvature * (x[:, 0] ** 2 - 1) * (1 + d) + rng.normal(size=n)
    return pd.DataFrame({"y": y, "d": d, **{f"x{j + 1}": x[:, j] for j in range(4)}}), 1.0


def kang_schafer(n, rng):
    """Both models wrong: the covariates of the models are functions of those of the data [1]_.

    Parameters
    ----------
    n, rng
        As in `mild`.

    Returns
    -------
    frame, effect
        As in `mild`; the effect is 0 for everybody.

    References
    ----------
    .. [1] Kang, J. D. Y. and Schafer, J. L. (2007). Demystifying double robustness. Statistical Science 22, 523-539.
    """
    z = rng.normal(size=(n, 4))
    d = (rng.random(n) < expit(z @ [-1, 0.5, -0.25, -0.1])).astype(int)
    y = 210 + z @ [27.4, 13.7, 13.7, 13.7] + rng.normal(size=n)
    x = {
        "x1": np.exp(z[:, 0] / 2),
        "x2": z[:, 1] / (1 + np.exp(z[:, 0])) + 10,
        "x3": (z[:, 0] * z[:, 2] / 25 + 0.6) ** 3,
        "x4": (z[:, 1] + z[:, 3] + 20) ** 2,
    }
    return pd.DataFrame({"y": y, "d": d, **x}), 0.0


def lalonde():
    """LaLonde's 614 rows (MatchIt's file), with the right-hand side of its formulas.

    Returns
    -------
    frame : DataFrame
        Outcome `y` (re78), treatment `d` and covariates.
    rhs : str
        Covariates of both models.
    """
    frame = pd.read_csv(REFERENCE / "lalonde614.csv.gz", index_col=0)
    return frame.rename(columns={"re78": "y", "treat": "d"}), LALONDE_RHS


@functools.cache
def lalonde_scores():
    """Fitted propensity scores of `lalonde`, shape (614,)."""
    frame, rhs = lalonde()
    return cr.IPWRA.from_formula(f"y ~ {rhs}", frame, treat="d").fit().propensity_scores.to_numpy()


def lalonde_redrawn(n, rng):
    """Rows of `lalonde` with replacement, treatment drawn anew: real covariates, outcomes and leverages.

    Parameters
    ----------
    n, rng
        As in `mild`.

    Returns
    -------
    frame, effect
        As in `mild`; the effect is 0 for everybody, the logit model of the treatment is right.
    """
    rows = rng.integers(0, len(lalonde_scores()), n)
    frame = lalonde()[0].iloc[rows].reset_index(drop=True)
    return frame.assign(d=(rng.random(n) < lalonde_scores()[rows]).astype(int)), 0.0

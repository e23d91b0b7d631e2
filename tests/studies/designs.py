"""Designs of the studies: each returns a data frame with columns y, d and covariates, and the true average effect."""

from __future__ import annotations

import functools
from dataclasses import replace

import pandas as pd

import causalrisk as cr
from causalrisk.simulation.designs import DESIGNS, KangSchafer, Linear
from tests.conftest import LALONDE_RHS, REFERENCE

RHS = "x1 + x2 + x3 + x4"
MISSPECIFIED = ("strong", "weak_overlap", "doubly_wrong", "kang_schafer", "ten_covariates", "wiggly")  # of the package
RIGHT = ("linear", "linear_strong", "randomized")


def drawn(design, n, rng):
    """Draw from a design of the package.

    Parameters
    ----------
    design : Design
        The design.
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
    return design.draw(n, rng).data[["y", "d", "x1", "x2", "x3", "x4"]], design.effect


def mild(n, rng):
    """Both models right, mild confounding; see `drawn`."""
    return drawn(Linear(), n, rng)


def strong(n, rng, strength=1.0):
    """Propensity model right, quadratic outcome that a linear model misses; see `drawn`.

    Parameters
    ----------
    n, rng
        As in `drawn`.
    strength : float, default 1.0
        Factor of the score of the treatment.

    Returns
    -------
    frame, effect
        As in `drawn`.
    """
    return drawn(replace(DESIGNS["strong"], confounding=strength, curvature=0.5), n, rng)


def kang_schafer(n, rng):
    """Both models wrong, by Kang and Schafer's covariates; see `drawn`."""
    return drawn(KangSchafer(), n, rng)


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
        As in `drawn`.

    Returns
    -------
    frame, effect
        As in `drawn`; the effect is 0 for everybody, the logit model of the treatment is right.
    """
    rows = rng.integers(0, len(lalonde_scores()), n)
    frame = lalonde()[0].iloc[rows].reset_index(drop=True)
    return frame.assign(d=(rng.random(n) < lalonde_scores()[rows]).astype(int)), 0.0

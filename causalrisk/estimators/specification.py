"""The registry of estimators: each a hypothesis class, importance weights, joint or separate arms, and a correction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from causalrisk.design.scan.rowless import Rowless
from causalrisk.numerics.linalg import Array


@dataclass(frozen=True)
class Specification:
    """An estimator as a configuration of importance-weighted empirical risk minimisation.

    Parameters
    ----------
    name, title : str
        Name in tables and heading of the summary.
    how : str
        What it is, for the methods paragraph.
    reference : str
        Where it comes from; empty where nobody needs to be told.
    trained : str
        How the outcome models are trained, for the explanation.
    averaged : str
        What is done to the averages of the predictions, for the explanation; empty where nothing is.
    aliases : tuple of str
        What others call it, in lower case.
    constants : bool
        Whether the hypothesis class is the constants, whatever the outcome formula names.
    weighted : bool
        Whether the outcome models are trained under importance weights.
    corrected : bool
        Whether the estimated bias of each arm is subtracted.
    joint : bool
        Whether the arms are trained jointly over the distribution of the propensity score.
    """

    name: str
    title: str
    how: str
    reference: str = ""
    trained: str = "without weights"
    averaged: str = ""
    aliases: tuple[str, ...] = ()
    constants: bool = False
    weighted: bool = False
    corrected: bool = False
    joint: bool = False

    @property
    def uses_propensity(self) -> bool:
        """Whether the estimator needs a propensity model."""
        return self.weighted or self.corrected or self.joint


UNADJUSTED = Specification(
    name="Unadjusted",
    title="Unadjusted (Difference in Means) Results",
    how="the difference of the raw arm means",
    constants=True,
)
OUTCOME_REGRESSION = Specification(
    name="OutcomeRegression",
    title="Outcome Regression Results",
    how="outcome regression: a regression in each arm, averaged over the target",
    aliases=("ra", "regression", "gformula", "ols", "standardization"),
)
HAJEK = Specification(
    name="Hajek",
    title="Hajek (Normalised IPW) Results",
    how="inverse probability weighting with normalised weights (Hajek 1971)",
    reference=(
        "Hajek, J. (1971). Comment on a paper by D. Basu. In Foundations of Statistical Inference, 236. Holt, Rinehart "
        "and Winston."
    ),
    aliases=("iptw",),
    constants=True,
    weighted=True,
)
IPWRA = Specification(
    name="IPWRA",
    title="IPW Regression Adjustment (IPWRA) Results",
    how="inverse probability weighted regression adjustment (Wooldridge 2007)",
    reference=(
        "Wooldridge, J. M. (2007). Inverse probability weighted estimation for general missing data problems. Journal "
        "of Econometrics 141, 1281-1301."
    ),
    trained="under these weights, so that it fits best where the target population lies",
    aliases=("ipw_ra", "wra"),
    weighted=True,
)
AIPW = Specification(
    name="AIPW",
    title="Augmented IPW (AIPW) Results",
    how="augmented inverse probability weighting (Robins, Rotnitzky and Zhao 1994)",
    reference=(
        "Robins, J. M., Rotnitzky, A. and Zhao, L. P. (1994). Estimation of regression coefficients when some "
        "regressors are not always observed. Journal of the American Statistical Association 89, 846-866."
    ),
    trained="without weights; its average errors are corrected in the next step",
    averaged="plus the weighted mean of the residuals",
    aliases=("dr", "doubly_robust", "doublyrobust", "eif"),
    corrected=True,
)
JRE = Specification(
    name="JRE",
    title="Joint Robust Estimator (JRE) Results",
    how=(
        "the joint robust estimator, which trains the outcome models of all arms together so that their biases cancel "
        "in the effect (Zhang 2025)"
    ),
    reference=(
        "Zhang, A. (2025). Causal Inference as Distribution Adaptation: Optimizing ATE Risk under Propensity "
        "Uncertainty. arXiv:2512.18083."
    ),
    averaged="less the bias that the arms share",
    weighted=True,
    joint=True,
)
ESTIMATORS = (UNADJUSTED, OUTCOME_REGRESSION, HAJEK, IPWRA, AIPW, JRE)
SEPARATE = tuple(spec for spec in ESTIMATORS if not spec.joint)


class EstimateRows(Protocol):
    """What an estimate has of every row, in the order of the sample."""

    @property
    def predicted(self) -> Array:
        """Predicted outcome of every row in every arm, shape (K, n)."""

    @property
    def influence(self) -> Array:
        """Influence function of (params, theta, gamma), shape (n, 2 K - 1 + K p + Q)."""

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Begin a pass over the influence function: rows, and its values there."""


@dataclass(frozen=True)
class KnownRows:
    """What an estimate has of every row, in memory.

    Parameters
    ----------
    predicted, influence
        As in `EstimateRows`.
    """

    predicted: Array
    influence: Array

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """As in `EstimateRows`: one block."""
        yield slice(0, len(self.influence)), self.influence


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its influence function; rows in the order of the sample.

    Parameters
    ----------
    params : ndarray, shape (2 K - 1,)
        Effects of the arms against the reference, then the mean of each arm.
    theta : ndarray, shape (K, p)
        Outcome coefficients of the basis columns.
    gamma : ndarray, shape (Q,)
        Propensity coefficients of the basis columns; empty without a propensity model.
    model_means : ndarray, shape (K,)
        Averages of `predicted` over the target.
    rows : EstimateRows
        Predictions and influence function.
    failed : tuple of int
        For each arm OK, or why its outcome model has no fit; empty for a joint fit.
    """

    params: Array
    theta: Array
    gamma: Array
    model_means: Array
    rows: EstimateRows
    failed: tuple[int, ...] = ()

    @property
    def predicted(self) -> Array:
        """Predicted outcome of every row in every arm, shape (K, n)."""
        return self.rows.predicted

    @property
    def influence(self) -> Array:
        """Influence function of (params, theta, gamma), shape (n, 2 K - 1 + K p + Q)."""
        return self.rows.influence

    def block(self, name: str, arm: int | None = None) -> slice:
        """Columns of `influence`, and entries of `values`, that belong to one kind of estimate.

        Parameters
        ----------
        name : {"effects", "means", "theta", "gamma"}
            Effects, arm means, outcome or propensity coefficients.
        arm : int, optional
            One arm's outcome coefficients; by default those of all arms.
        """
        n_arms, p = self.theta.shape
        first = len(self.params)
        if name == "theta" and arm is not None:
            return slice(first + arm * p, first + (arm + 1) * p)
        last = first + self.theta.size
        return {
            "effects": slice(0, n_arms - 1),
            "means": slice(n_arms - 1, first),
            "theta": slice(first, last),
            "gamma": slice(last, last + len(self.gamma)),
        }[name]

    @property
    def values(self) -> Array:
        """All estimates in the order of the columns of `influence`."""
        return np.concatenate([self.params, self.theta.ravel(), self.gamma])


class ScannedEstimate(Rowless, Estimate):
    """A point estimate on rows that come in blocks; predictions and influence function are not kept."""

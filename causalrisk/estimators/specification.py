"""The registry of estimators: each a hypothesis class, importance weights, joint or separate arms, and an arm's mean.

Most average the predictions (`ArmMean`). The formulas of another mean stand here, before its estimator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.estimators.arm_means import ArmMean, ArmRows, OverRefits, RefittedRows, Sums
from causalrisk.numerics.linalg import Array, solve


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
        Where it comes from, a key of the references in words.toml; empty where nobody needs to be told.
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
    joint : bool
        Whether the arms are trained jointly over the distribution of the propensity score.
    given : bool
        Whether the outcome models are predictions that are given, one column of the design for each arm: nothing is
        trained.
    mean : type of ArmMean
        How the mean of an arm is made of the predictions of its outcome model.
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
    joint: bool = False
    given: bool = False
    mean: type[ArmMean] = ArmMean

    @property
    def corrected(self) -> bool:
        """Whether the estimated bias of each arm is subtracted."""
        return self.mean.corrected

    @property
    def of_distributions(self) -> bool:
        """Whether the estimator has distribution functions of the arms, and so quantiles."""
        return self.constants or self.corrected

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
    reference="hajek_1971",
    aliases=("iptw",),
    constants=True,
    weighted=True,
)
IPWRA = Specification(
    name="IPWRA",
    title="IPW Regression Adjustment (IPWRA) Results",
    how="inverse probability weighted regression adjustment (Wooldridge 2007)",
    reference="wooldridge_2007",
    trained="under these weights, so that it fits best where the target population lies",
    aliases=("ipw_ra", "wra"),
    weighted=True,
)


@dataclass(frozen=True)
class CorrectedMean(ArmMean):
    """The mean of an arm in AIPW: the average of the predictions, plus the weighted average of the residuals.

    The mean is b + c: b projects the predictions, and c the residuals, c = (mean t g g')^-1 mean w g (y - m_a).

    Parameters
    ----------
    gram, coefficients
        As in `ArmMean`.
    correction : ndarray, shape (k,)
        Projection c of the residuals.
    """

    correction: Array

    corrected = True

    @property
    def value(self) -> Array:
        """The projection, shape (k,)."""
        return self.coefficients + self.correction

    @staticmethod
    def equations(rows: ArmRows) -> Sums:
        """As in `ArmMean`, and mean w g (y - m_a)."""
        return *ArmMean.equations(rows), (rows.share * rows.weights.w * rows.residual) @ rows.g

    def derivatives(self, rows: ArmRows) -> tuple[Array, Array]:
        """As in `ArmMean`."""
        g, weights = rows.g, rows.weights
        by_theta, by_gamma = super().derivatives(rows)
        by_theta = by_theta - ((rows.share * weights.w * rows.inside * rows.slope)[:, None] * g).T @ rows.own
        by_gamma = by_gamma + ((rows.share * rows.residual)[:, None] * g).T @ weights.w_by_gamma
        if weights.measure_by_gamma is not None:
            corrected = g @ self.correction
            by_gamma = by_gamma - ((rows.share * corrected)[:, None] * g).T @ weights.measure_by_gamma
        return by_theta, by_gamma

    def errors(self, rows: ArmRows) -> Array:
        """As in `ArmMean`."""
        g, weights = rows.g, rows.weights
        return super().errors(rows) + (weights.w * rows.residual - weights.measure * (g @ self.correction))[:, None] * g

    @staticmethod
    def refitted(rows: RefittedRows) -> Array:
        """As in `ArmMean`."""
        sample = rows.sample
        residual = rows.share * rows.w * rows.residual
        return ArmMean.refitted(rows) + np.stack([residual[members].sum(axis=0) for members in sample.slices])


@dataclass(frozen=True)
class NormalizedMean(CorrectedMean):
    """The mean of an arm in AIPW with weights of the residuals that add up to one, for targets that are an arm.

    The projection c of the residuals is (mean w h h')^-1 mean w h (y - m_a), over the rows of the arm; h are the
    columns g, of repeated cross sections those in each period by themselves, and the mean has the change of c.

    Parameters
    ----------
    gram, coefficients, correction
        As in `CorrectedMean`; `correction` of repeated cross sections in either period, shape (2 k,).
    weighed : ndarray, shape (k, k) or (2 k, 2 k)
        mean w h h' over the rows of the arm.
    """

    weighed: Array

    @property
    def _change(self) -> Array:
        """What is added up of `correction`, shape (k, k) or (k, 2 k)."""
        one = np.eye(len(self.coefficients))
        return one if len(self.correction) == len(one) else np.hstack([-one, one])

    @property
    def value(self) -> Array:
        """As in `CorrectedMean`."""
        return self.coefficients + self._change @ self.correction

    @staticmethod
    def equations(rows: ArmRows) -> Sums:
        """As in `ArmMean`, mean w h (y - m_a), and mean w h h' over the rows of the arm."""
        weights, h = rows.share * rows.weights.w * rows.inside, rows.by_period
        return *ArmMean.equations(rows), (weights * rows.residual) @ h, (weights[:, None] * h).T @ h

    @classmethod
    def solved(cls, gram: Array, *sums: Array) -> NormalizedMean:
        """As in `ArmMean`."""
        predicted, residuals, weighed = sums
        return cls(gram, solve(gram, predicted), solve(weighed, residuals), weighed)

    @property
    def _scale(self) -> Array:
        """Factor of the equations of the residuals that gives them the Gram matrix of the others, shape (k, .)."""
        return solve(self.weighed, self._change.T @ self.gram).T

    def derivatives(self, rows: ArmRows) -> tuple[Array, Array]:
        """As in `ArmMean`."""
        h, weights = rows.by_period, rows.weights
        by_theta, by_gamma = ArmMean.derivatives(self, rows)
        slope, left = rows.share * weights.w * rows.inside * rows.slope, rows.share * self._left(rows)
        by_theta = by_theta - self._scale @ (slope[:, None] * h).T @ rows.own
        return by_theta, by_gamma + self._scale @ (left[:, None] * h).T @ weights.w_by_gamma

    def errors(self, rows: ArmRows) -> Array:
        """As in `ArmMean`."""
        left = (rows.weights.w * self._left(rows))[:, None] * rows.by_period
        return ArmMean.errors(self, rows) + left @ self._scale.T

    def _left(self, rows: ArmRows) -> Array:
        """Residuals of the rows of the arm less their projection, shape (n,)."""
        return rows.residual - rows.inside * (rows.by_period @ self.correction)

    @classmethod
    def refit(cls, over: OverRefits) -> Array:
        """As in `ArmMean`."""
        averages, tilt, *sums = over(cls.refitted)
        *before, last = (residuals / weights for residuals, weights in zip(sums[::2], sums[1::2], strict=True))
        return np.asarray(averages + tilt * (last - sum(before)))

    @staticmethod
    def refitted(rows: RefittedRows) -> Array:
        """Sum over the rows the predictions, the tilt, and in each period the residuals and their weights.

        Shape (4, K, m), of repeated cross sections (6, K, m).
        """
        averages, weights = ArmMean.refitted(rows), rows.share * rows.w
        tilt, late = (rows.share * rows.tilt).sum(axis=0), rows.sample.late
        each = []
        for period in [np.ones(rows.sample.n)] if late is None else [1 - late, late]:
            inside = weights * period[:, None]
            each += [inside * rows.residual, inside]
        sums = [np.stack([values[a].sum(axis=0) for a in rows.sample.slices]) for values in each]
        return np.stack([averages, np.broadcast_to(tilt, averages.shape), *sums])


AIPW = Specification(
    name="AIPW",
    title="Augmented IPW (AIPW) Results",
    how="augmented inverse probability weighting (Robins, Rotnitzky and Zhao 1994)",
    reference="robins_1994",
    trained="without weights; its average errors are corrected in the next step",
    averaged="plus the weighted mean of the residuals",
    aliases=("dr", "doubly_robust", "doublyrobust", "eif"),
    mean=CorrectedMean,
)
JRE = Specification(
    name="JRE",
    title="Joint Robust Estimator (JRE) Results",
    how=(
        "the joint robust estimator, which trains the outcome models of all arms together for the least error of the "
        "effect (Zhang 2025)"
    ),
    reference="zhang_2025",
    averaged="less the bias that the arms share",
    weighted=True,
    joint=True,
)
ESTIMATORS = (UNADJUSTED, OUTCOME_REGRESSION, HAJEK, IPWRA, AIPW, JRE)
SEPARATE = tuple(spec for spec in ESTIMATORS if not spec.joint)

"""The registries of estimators and of effect scales.

An estimator is a hypothesis class, importance weights, joint or separate arms, and an arm's mean. A scale is how an
effect is reported: as a difference, ratio, odds ratio or percentage of the arm means, or by quantiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, logit

from causalrisk.errors import CausalRiskError
from causalrisk.numerics.linalg import Array

# --- the estimators ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Specification:
    """An estimator as a configuration of importance-weighted empirical risk minimisation."""

    name: str  # in tables
    title: str  # heading of the summary
    how: str  # what it is, for the methods paragraph
    trained: str = "without weights"  # how the outcome models are trained, for the explanation
    averaged: str = ""  # what is done to the averages of the predictions, for the explanation
    aliases: tuple[str, ...] = ()  # what others call it, in lower case
    constants: bool = False  # the outcome models are constants, whatever the formula names
    weighted: bool = False  # they are trained under importance weights (`Equations.outcome`)
    joint: bool = False  # the arms are trained jointly over the distribution of the propensity score
    given: bool = False  # the outcome models are predictions, one column of the design for each arm
    # The target is the second arm: its mean is the mean of its rows under any outcome model. If that model has no
    # unique fit, the one of least norm is used.
    of_controls: bool = False
    corrected: bool = False  # the mean of an arm is that of its predictions plus the weighted mean of its residuals
    normalized: bool = False  # the weights of these residuals add up to one
    targeted: bool = False  # linear predictors are shifted until the weighted residuals add up to zero, instead
    matched: bool = False  # units are matched, and there are no outcome models

    @property
    def uses_propensity(self) -> bool:
        """Whether the estimator needs a propensity model."""
        return self.weighted or self.corrected or self.joint or self.matched


UNADJUSTED = Specification(
    "Unadjusted", "Unadjusted (Difference in Means) Results", "the difference of the raw means of the groups",
    constants=True,
)  # fmt: skip
OUTCOME_REGRESSION = Specification(
    "OutcomeRegression", "Outcome Regression Results",
    "outcome regression: a regression in each group, averaged over the target",
    aliases=("ra", "regression", "gformula", "ols", "standardization"),
)  # fmt: skip
IPW = Specification(
    "IPW", "Inverse Probability Weighting (IPW) Results",
    "inverse probability weighting with normalised weights (Hajek 1971)",
    aliases=("hajek", "iptw"), constants=True, weighted=True,
)  # fmt: skip
IPWRA = Specification(
    "IPWRA", "IPW Regression Adjustment (IPWRA) Results",
    "inverse probability weighted regression adjustment (Wooldridge 2007)",
    trained="under these weights, so that it fits best where the target population lies",
    aliases=("ipw_ra", "wra"), weighted=True,
)  # fmt: skip
AIPW = Specification(
    "AIPW", "Augmented IPW (AIPW) Results",
    "augmented inverse probability weighting (Robins, Rotnitzky and Zhao 1994)",
    trained="without weights of the score; its average errors are corrected in the next step",
    averaged="plus the mean of the weighted residuals",
    aliases=("dr", "doubly_robust", "doublyrobust", "eif"), corrected=True,
)  # fmt: skip
TMLE = Specification(
    "TMLE", "Targeted Maximum Likelihood (TMLE) Results",
    "targeted maximum likelihood estimation (van der Laan and Rubin 2006)",
    trained="without weights of the score; its linear predictor is then shifted until weighted residuals sum to zero",
    aliases=("targeted",), corrected=True, targeted=True,
)  # fmt: skip
MATCHING = Specification(
    "Matching", "Nearest-Neighbour Matching Results",
    "nearest-neighbour matching with replacement (Abadie and Imbens 2006)",
    aliases=("nnmatch", "psmatch", "match"), matched=True,
)  # fmt: skip
JRE = Specification(
    "JRE", "Joint Robust Estimator (JRE) Results",
    "the joint robust estimator, which trains the outcome models of all groups together for the least error of the "
    "effect (after Zhang 2025)",
    averaged="less the bias that the groups share", weighted=True, joint=True,
)  # fmt: skip
SEPARATE = (UNADJUSTED, OUTCOME_REGRESSION, IPW, IPWRA, AIPW)  # which JRE is compared with


@dataclass(frozen=True)
class EffectScale:
    """A scale g on which effects are differences of the arm means, and how these are reported.

    `report` turns a difference on the scale into the reported effect, and `contrast` is its inverse. J levels of
    quantiles stand in the place of the mean of an arm: of means, effects and names those of an arm stand together.
    """

    name: str  # as the option is spelled
    label: str  # what follows the estimand in tables
    form: str  # the effect as a formula of {treated} and {reference}
    g: Callable[[Array], Array]
    g_slope: Callable[[Array], Array]
    g_inverse: Callable[[Array], Array]
    report: Callable[[Array], Array]
    report_slope: Callable[[Array], Array]
    contrast: Callable[[Array], Array]
    null: float  # the reported effect when there is none
    domain: str  # which means have an effect, for messages
    low: float  # limits of these means
    high: float
    quantiles: tuple[float, ...] = ()  # levels

    @property
    def per_arm(self) -> int:
        """How many means, or quantiles, there are of each arm, J."""
        return len(self.quantiles) or 1

    @property
    def additive(self) -> bool:
        """Whether effects are differences as they stand, in the units of the outcome."""
        return self.g is np.positive

    def effects(self, means: Array) -> Array:
        """Effects of arms 1 .. K-1 against arm 0, shape ((K - 1) J, ...), of means (K J, ...); NaN where undefined."""
        return self.report(self.differences(means))

    def differences(self, means: Array) -> Array:
        """Return the same on the scale where effects are differences."""
        with np.errstate(invalid="ignore", divide="ignore"):
            values = self.g(means)
            return self.against_reference(np.where(np.isfinite(values), values, np.nan))

    def against_reference(self, values: Array) -> Array:
        """Differences of values of the arms, shape (K J, ...), to those of arm 0, shape ((K - 1) J, ...)."""
        of_arms = values.reshape(-1, self.per_arm, *values.shape[1:])
        return (of_arms[1:] - of_arms[:1]).reshape(-1, *values.shape[1:])

    def on_bounds(self, means: Array, error: Array) -> Array:
        """Return the means, those no further than their rounding error from a bound of the scale on the bound."""
        means = np.where(np.abs(means - self.low) <= error, self.low, means)
        return np.where(np.abs(means - self.high) <= error, self.high, means)

    def params(self, means: Array) -> Array:
        """Effects, then the means, shape ((2 K - 1) J, ...)."""
        return np.concatenate([self.effects(means), means])

    def jacobian(self, means: Array) -> Array:
        """Return the derivative of `params` by the means, shape ((2 K - 1) J, K J)."""
        every = np.eye(len(means))
        with np.errstate(invalid="ignore", divide="ignore"):
            slope, values = self.g_slope(means), self.g(means)
            outer = self.report_slope(self.against_reference(values))
            return np.vstack([self.against_reference(every) * slope * outer[:, None], every])

    def check(self, means: Array, labels: tuple[str, ...], largest: float) -> None:
        """Raise a CausalRiskError where the means, or the largest outcome, have no effect on this scale."""
        if largest > self.high:
            problem = f'effect="{self.name}" needs outcomes between 0 and {self.high:g}; the largest is {largest:.4g}'
            raise CausalRiskError(f'{problem}.\nUse `effect="ratio"`.')
        outside = ~((means > self.low) & (means < self.high))
        if outside.any():
            arm = int(np.argmax(outside))
            problem = f'effect="{self.name}" needs {self.domain}; POM[{labels[arm]}] is {means[arm]:.4g}'
            raise CausalRiskError(f'{problem}.\nUse `effect="difference"`.')


def effect_names(estimand: str, labels: Sequence[str], quantiles: tuple[float, ...] = ()) -> list[str]:
    """Names of the effects: the estimand, for several arms with the arm that is compared to the first."""
    names = [estimand] if len(labels) == 2 else [f"{estimand}[{label}]" for label in labels[1:]]
    return [f"{name} q{level:g}" for name in names for level in quantiles] if quantiles else names


def parameter_names(estimand: str, labels: Sequence[str], quantiles: tuple[float, ...] = ()) -> list[str]:
    """Names of the effects, and of the potential-outcome means of the arms (POM) or their quantiles (POQ)."""
    means = [f"POQ[{label}] q{level:g}" for label in labels for level in quantiles]
    return [*effect_names(estimand, labels, quantiles), *(means or [f"POM[{label}]" for label in labels])]


def _logit_slope(means: Array) -> Array:
    return 1 / (means * (1 - means))


def _percent(difference: Array) -> Array:
    return 100 * np.expm1(difference)


def _percent_slope(difference: Array) -> Array:
    return 100 * np.exp(difference)


def _from_percent(percent: Array) -> Array:
    return np.log1p(percent / 100)


IDENTITY = np.positive, np.ones_like, np.positive  # functions, each with its slope and its inverse
LOG, EXP = (np.log, np.reciprocal, np.exp), (np.exp, np.exp, np.log)
LOGIT, PERCENT_OF = (logit, _logit_slope, expit), (_percent, _percent_slope, _from_percent)
DIFFERENCE = EffectScale(
    "difference", "", "{treated} - {reference}", *IDENTITY, *IDENTITY, 0.0, "numbers", -np.inf, np.inf
)
RATIO = EffectScale("ratio", " ratio", "{treated} / {reference}", *LOG, *EXP, 1.0, "positive means", 0.0, np.inf)
ODDS = "({treated} / (1 - {treated})) / ({reference} / (1 - {reference}))"
ODDS_RATIO = EffectScale("odds_ratio", " odds ratio", ODDS, *LOGIT, *EXP, 1.0, "means between 0 and 1", 0.0, 1.0)
CHANGE = "100 ({treated} - {reference}) / {reference}"
PERCENT = EffectScale("percent", " percent", CHANGE, *LOG, *PERCENT_OF, 0.0, "positive means", 0.0, np.inf)
QUANTILE = replace(DIFFERENCE, name="quantile", quantiles=(0.25, 0.5, 0.75))
SCALES = {scale.name: scale for scale in (DIFFERENCE, RATIO, ODDS_RATIO, PERCENT, QUANTILE)}

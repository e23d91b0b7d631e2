"""Registries of target populations, of estimators and of effect scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import expit, logit

from causalrisk.errors import CausalRiskError, OptionError
from causalrisk.estimation.engine import apply, value_of
from causalrisk.numerics.arrays import Array

# --- target populations ----------------------------------------------------------------------------------------------

STEP = 1e-6  # relative step of the numerical derivative of a tilt given as a function


@dataclass(frozen=True)
class TargetPopulation:
    """A target population, with its name in `target=` and its tilt."""

    name: str  # as the option is spelled and the summary prints it
    estimand: str  # name of the effect
    full_name: str  # name of the effect in words
    rows: str  # the rows over which means are taken, as reports describe them
    toward: int | None = None  # the arm whose rows are the target
    tilt: Callable[[list[Any]], Any] | None = None  # a function of the list of the K scores of the rows
    frame: bool = False  # whether the target is the rows of a data frame
    reference: str = ""  # key of its reference in the report, if it has one
    two_arms_only: bool = False

    @property
    def by_arm(self) -> bool:
        """Whether the target is the whole sample or one arm, so it does not depend on propensity scores."""
        return self.everybody or self.toward is not None

    @property
    def balance_denominator(self) -> str:
        """Denominator of standardized mean differences if no arm is the target, as in R's cobalt."""
        return "weighted" if self.tilt is not None else "pooled"

    @property
    def everybody(self) -> bool:
        """Whether the target is the whole sample, without a tilt."""
        return self.toward is None and self.tilt is None and not self.frame


def overlap_tilt(e: list[Any]) -> Any:
    """Return overlap weights, 1 / sum_k 1 / e_k (Li, Morgan and Zaslavsky 2018)."""
    return 1 / sum(1 / each for each in e)


def matching_tilt(e: list[Any]) -> Any:
    """Return matching weights, min_k e_k (Li and Greene 2013)."""
    least = e[0]
    for each in e[1:]:
        first = value_of(least) <= value_of(each)
        least = least * first + each * ~first
    return least


def entropy_tilt(e: list[Any]) -> Any:
    """Return entropy weights, -sum_k e_k log e_k (Zhou, Matsouaka and Thomas 2020)."""
    return -sum(each * apply(each, np.log, lambda v: 1 / v) for each in e)


EVERYBODY = TargetPopulation("all", "ATE", "average treatment effect (ATE)", "the {nobs} {units} used")
TREATED = TargetPopulation(
    "treated", "ATT", "average treatment effect on the treated (ATT)", "the {in_arm} treated {units} ({group})",
    toward=1, two_arms_only=True,
)  # fmt: skip
CONTROL = TargetPopulation(
    "control", "ATC", "average treatment effect on the untreated (ATC)", "the {in_arm} control {units} ({group})",
    toward=0,
)  # fmt: skip
OVERLAP = TargetPopulation(
    "overlap", "ATO", "average treatment effect in the overlap population (ATO)",
    "{nobs} {units} with overlap weights (largest where all groups are about equally likely)",
    tilt=overlap_tilt, reference="li_2018",
)  # fmt: skip
MATCHED = TargetPopulation(
    "matching", "ATM", "average treatment effect in the matching population (ATM)",
    "{nobs} {units} with matching weights (similar to one-to-one matching)", tilt=matching_tilt, reference="li_2013",
)  # fmt: skip
ENTROPY = TargetPopulation(
    "entropy", "ATEN", "average treatment effect in the entropy-weighted population (ATEN)",
    "{nobs} {units} weighted by the entropy of the propensity score", tilt=entropy_tilt, reference="zhou_2020",
)  # fmt: skip
FUNCTION = TargetPopulation(
    "function of the propensity", "WATE", "weighted average treatment effect (WATE)",
    "{nobs} {units} weighted by a function of the propensity score", two_arms_only=True,
)  # fmt: skip
DATA_FRAME = TargetPopulation(
    "data frame", "transported ATE", "average treatment effect in another population (transported ATE)",
    "the {in_frame} rows of the target frame", frame=True,
)  # fmt: skip
POPULATIONS = {population.name: population for population in (EVERYBODY, TREATED, CONTROL, OVERLAP, MATCHED, ENTROPY)}
SPELLINGS = {name: name for name in POPULATIONS} | {
    "ate": "all", "att": "treated", "atet": "treated", "atte": "treated", "atc": "control", "atu": "control",
    "untreated": "control", "controls": "control", "ato": "overlap", "atm": "matching", "aten": "entropy",
}  # fmt: skip


def arm_population(arm: int, labels: Sequence[str]) -> TargetPopulation:
    """Return the rows of one arm as a target population."""
    if arm == 0:
        return CONTROL
    if len(labels) == 2:
        return TREATED
    name, what = f"ATT({labels[arm]})", f"average treatment effect on group {labels[arm]} (ATT)"
    return TargetPopulation(labels[arm], name, what, "the {in_arm} {units} with {group}", toward=arm)


@dataclass(frozen=True)
class FunctionTilt:
    """A tilt h(e) of the score of the treated arm, given as a function."""

    function: Callable[[Array], Any]

    def __call__(self, e: list[Any]) -> Any:
        """Return the tilt at the propensity scores of both arms."""
        return apply(e[1], self.values, self._slopes)

    @property
    def name(self) -> str:
        """Name of the function."""
        return str(getattr(self.function, "__name__", "target"))

    def values(self, e: Array) -> Array:
        """Return the checked values of the function at propensity scores e."""
        found = np.asarray(self.function(e), dtype=float)
        if found.shape != e.shape:
            raise bad_tilt(self.name, f"shape {found.shape} for scores of shape {e.shape}")
        known = np.isfinite(e)  # a resample that cannot be fitted has no scores
        wrong = known & ~((found >= 0) & np.isfinite(found))
        if wrong.any():
            worst = found[wrong][0]
            raise bad_tilt(self.name, f"{worst:.4g} at the score {e[wrong][0]:.4g} ({int(wrong.sum())} such rows)")
        return found

    def _slopes(self, e: Array) -> Array:
        step = STEP * np.minimum(e, 1 - e)  # both points lie inside (0, 1)
        rise = self.values(e + step) - self.values(e - step)
        return np.divide(rise, 2 * step, out=np.zeros_like(e), where=step > 0)


def bad_tilt(name: str, found: str) -> OptionError:
    """Return the error for a function that is not a valid tilt."""
    problem = f"the function {name} in target= returned {found}; expected a finite number of at least 0 for each score"
    return OptionError(f"{problem}.\nUse `target=lambda e: ((e > 0.1) & (e < 0.9)) * 1.0`, for example.")


# --- estimators ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Specification:
    """Definition of an estimator: its outcome models, weights and means, and how reports describe it."""

    name: str  # in tables
    title: str  # heading of the summary
    how: str  # description of the estimator, for the methods paragraph
    trained: str = "without propensity weights"  # how the outcome models are fitted, for the explanation
    averaged: str = ""  # how the averages of the predictions are corrected, for the explanation
    aliases: tuple[str, ...] = ()  # other names of the estimator, in lower case
    constants: bool = False  # the outcome models are constants, whatever the formula names
    weighted: bool = False  # the outcome models are fitted under importance weights (`Equations.outcome`)
    joint: bool = False  # the arms are fitted jointly over the distribution of the propensity score
    given: bool = False  # the outcome models are predictions, one column of the design for each arm
    # In difference-in-differences on a panel, the target is arm 1. The arm's mean is then the mean of its rows under
    # any outcome model. If the arm's outcome model has no unique fit, the fit of least norm is used.
    controls_only: bool = False
    corrected: bool = False  # the mean of an arm is the mean prediction plus the weighted mean of the residuals
    normalized: bool = False  # the weights of these residuals add up to one
    targeted: bool = False  # instead, linear predictors are shifted until the weighted residuals add up to zero
    matched: bool = False  # units are matched, and there are no outcome models

    @property
    def uses_propensity(self) -> bool:
        """Whether the estimator needs a propensity model."""
        return self.weighted or self.corrected or self.joint or self.matched

    @property
    def adjustment(self) -> str:
        """Name of the adjustment in texts."""
        return "matching" if self.matched else "weighting"


UNADJUSTED = Specification(
    "Unadjusted", "Unadjusted (Difference in Means) Results", "the difference of the raw means of the groups",
    constants=True,
)  # fmt: skip
OUTCOME_REGRESSION = Specification(
    "OutcomeRegression", "Outcome Regression Results",
    "outcome regression: a regression in each group, averaged over the target",
    aliases=("ra", "reg", "regression", "gformula", "standardization"),
)  # fmt: skip
IPW = Specification(
    "IPW", "Inverse Probability Weighting (IPW) Results",
    "inverse probability weighting with normalised weights (Hajek 1971)",
    aliases=("hajek", "iptw"), constants=True, weighted=True,
)  # fmt: skip
IPWRA = Specification(
    "IPWRA", "IPW Regression Adjustment (IPWRA) Results",
    "inverse probability weighted regression adjustment (Wooldridge 2007)",
    trained="with these weights. The weighted rows represent the target population",
    aliases=("ipw_ra", "wra"), weighted=True,
)  # fmt: skip
AIPW = Specification(
    "AIPW", "Augmented IPW (AIPW) Results",
    "augmented inverse probability weighting (Robins, Rotnitzky and Zhao 1994)",
    trained="without propensity weights. The next step corrects its bias",
    averaged="Then the sum of the group's weighted residuals, divided by the size of the target, is added",
    aliases=("dr", "doubly_robust", "doublyrobust", "eif"), corrected=True,
)  # fmt: skip
TMLE = Specification(
    "TMLE", "Targeted Maximum Likelihood (TMLE) Results",
    "targeted maximum likelihood estimation (van der Laan and Rubin 2006)",
    trained="without propensity weights. Its linear predictor is then shifted until weighted residuals sum to zero",
    aliases=("targeted",), corrected=True, targeted=True,
)  # fmt: skip
MATCHING = Specification(
    "Matching", "Nearest-Neighbour Matching Results",
    "nearest-neighbour matching with replacement (Abadie and Imbens 2006)",
    aliases=("nnmatch", "match"), matched=True,
)  # fmt: skip
JRE = Specification(
    "JRE", "Joint Robust Estimator (JRE) Results",
    "the joint robust estimator, which fits the outcome models of all groups together to minimise the error of the "
    "effect (after Zhang 2025)",
    averaged="Then the models' shared bias is subtracted. This does not change the effect", weighted=True, joint=True,
)  # fmt: skip
SEPARATE = (UNADJUSTED, OUTCOME_REGRESSION, IPW, IPWRA, AIPW)  # the estimators that JRE is compared with


# --- scales ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EffectScale:
    """A function g of the arm means. Effects are differences g(mean of an arm) - g(mean of the reference).

    `report` turns this difference into the reported effect, such as a ratio. `contrast` is the inverse of `report`.
    J quantiles may replace the mean of each arm. Means, effects and names are sorted by arm.
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
    domain: str  # means for which the effect is defined, for messages
    low: float  # limits of these means
    high: float
    quantiles: tuple[float, ...] = ()  # levels

    @property
    def per_arm(self) -> int:
        """J, the number of means or quantiles per arm."""
        return len(self.quantiles) or 1

    @property
    def additive(self) -> bool:
        """Whether effects are plain differences, in the units of the outcome."""
        return self.g is np.positive

    def effects(self, means: Array) -> Array:
        """Return the effects of arms 1 .. K-1 against arm 0, shape ((K - 1) J, ...). Undefined effects are NaN."""
        return self.report(self.differences(means))

    def differences(self, means: Array) -> Array:
        """Return the differences of g(means) from arm 0, shape ((K - 1) J, ...), with J means per arm."""
        with np.errstate(invalid="ignore", divide="ignore"):
            values = self.g(means)
            return self.against_reference(np.where(np.isfinite(values), values, np.nan))

    def against_reference(self, values: Array) -> Array:
        """Subtract the values of arm 0 from the values of the other arms: shape (K J, ...) becomes ((K - 1) J, ...)."""
        of_arms = values.reshape(-1, self.per_arm, *values.shape[1:])
        return (of_arms[1:] - of_arms[:1]).reshape(-1, *values.shape[1:])

    def on_bounds(self, means: Array, error: Array) -> Array:
        """Return the means. A mean within its rounding error of a bound of the scale is set to the bound."""
        means = np.where(np.abs(means - self.low) <= error, self.low, means)
        return np.where(np.abs(means - self.high) <= error, self.high, means)

    def params(self, means: Array) -> Array:
        """Return the effects, then the means, shape ((2 K - 1) J, ...)."""
        return np.concatenate([self.effects(means), means])

    def jacobian(self, means: Array) -> Array:
        """Return the derivative of `params` with respect to the means, shape ((2 K - 1) J, K J)."""
        every = np.eye(len(means))
        with np.errstate(invalid="ignore", divide="ignore"):
            slope, values = self.g_slope(means), self.g(means)
            outer = self.report_slope(self.against_reference(values))
            return np.vstack([self.against_reference(every) * slope * outer[:, None], every])

    def check(self, means: Array, labels: tuple[str, ...], largest: float) -> None:
        """Raise a CausalRiskError if the effect is undefined on this scale for the means or the largest outcome."""
        if largest > self.high:
            problem = f'effect="{self.name}" needs outcomes between 0 and {self.high:g}; the largest is {largest:.4g}'
            raise CausalRiskError(f'{problem}.\nUse `effect="ratio"`.')
        outside = ~((means > self.low) & (means < self.high))
        if outside.any():
            arm = int(np.argmax(outside))
            problem = f'effect="{self.name}" needs {self.domain}; POM[{labels[arm]}] is {means[arm]:.4g}'
            raise CausalRiskError(f'{problem}.\nUse `effect="difference"`.')


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


def effect_names(estimand: str, labels: Sequence[str], quantiles: tuple[float, ...] = ()) -> list[str]:
    """Return names of the effects: the estimand, followed by the label of the arm if there are several effects."""
    names = [estimand] if len(labels) == 2 else [f"{estimand}[{label}]" for label in labels[1:]]
    return [f"{name} q{level:g}" for name in names for level in quantiles] if quantiles else names


def parameter_names(estimand: str, labels: Sequence[str], quantiles: tuple[float, ...] = ()) -> list[str]:
    """Return names of the effects, and of the potential-outcome means of the arms (POM) or their quantiles (POQ)."""
    means = [f"POQ[{label}] q{level:g}" for label in labels for level in quantiles]
    return [*effect_names(estimand, labels, quantiles), *(means or [f"POM[{label}]" for label in labels])]

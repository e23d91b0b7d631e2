"""How an effect is reported: as a difference, ratio, odds ratio or percentage of the arm means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from causalrisk.errors import CausalRiskError
from causalrisk.numerics.linalg import Array


@dataclass(frozen=True)
class EffectScale:
    """A scale g on which effects are differences of the arm means, and how these are reported.

    Parameters
    ----------
    name : str
        As the option is spelled.
    label : str
        What follows the estimand in tables.
    form : str
        The effect as a formula of ``{treated}`` and ``{reference}``, to be read.
    g, g_slope, g_inverse : callable
        The scale, its derivative and its inverse, elementwise.
    report, report_slope, contrast : callable
        From a difference on the scale to the reported effect, its derivative and its inverse.
    null : float
        The reported effect when there is none.
    domain : str
        Which means have an effect, for messages.
    low, high : float
        Limits of these means.
    """

    name: str
    label: str
    form: str
    g: Callable[[Array], Array]
    g_slope: Callable[[Array], Array]
    g_inverse: Callable[[Array], Array]
    report: Callable[[Array], Array]
    report_slope: Callable[[Array], Array]
    contrast: Callable[[Array], Array]
    null: float
    domain: str
    low: float
    high: float

    def effects(self, means: Array) -> Array:
        """Effects of arms 1 .. K-1 against arm 0, shape (K - 1, ...), of means (K, ...); NaN where undefined."""
        with np.errstate(invalid="ignore", divide="ignore"):
            values = self.g(means)
            values = np.where(np.isfinite(values), values, np.nan)
            return self.report(values[1:] - values[:1])

    def formula(self, treated: str, reference: str) -> str:
        """Return the effect as a formula of two means, by name or in numbers."""
        return self.form.format(treated=treated, reference=reference)

    def on_bounds(self, means: Array, error: Array) -> Array:
        """Return the means, those no further than their rounding error from a bound of the scale on the bound."""
        means = np.where(np.abs(means - self.low) <= error, self.low, means)
        return np.where(np.abs(means - self.high) <= error, self.high, means)

    def params(self, means: Array) -> Array:
        """Effects, then the means, shape (2 K - 1, ...)."""
        return np.concatenate([self.effects(means), means])

    def jacobian(self, means: Array) -> Array:
        """Return the derivative of `params` by the means, shape (2 K - 1, K)."""
        n_arms = len(means)
        with np.errstate(invalid="ignore", divide="ignore"):
            slope, values = self.g_slope(means), self.g(means)
            outer = self.report_slope(values[1:] - values[:1])
        effects = (np.eye(n_arms)[1:] - np.eye(n_arms)[0]) * slope * outer[:, None]
        return np.vstack([effects, np.eye(n_arms)])

    def check(self, means: Array, labels: tuple[str, ...]) -> None:
        """Raise a CausalRiskError where the means have no effect on this scale."""
        outside = ~((means > self.low) & (means < self.high))
        if outside.any():
            arm = int(np.argmax(outside))
            raise CausalRiskError(
                f'effect="{self.name}" needs {self.domain}; POM[{labels[arm]}] is {means[arm]:.4g}.\n'
                'Type  effect="difference".'
            )


def effect_names(estimand: str, labels: Sequence[str]) -> list[str]:
    """Names of the effects: the estimand, for several arms with the arm that is compared to the first."""
    return [estimand] if len(labels) == 2 else [f"{estimand}[{label}]" for label in labels[1:]]


def parameter_names(estimand: str, labels: Sequence[str]) -> list[str]:
    """Names of the effects and of the arm means."""
    return [*effect_names(estimand, labels), *(f"POM[{label}]" for label in labels)]


def _same(x: Array) -> Array:
    return x


def _inverse(means: Array) -> Array:
    return 1 / means


def _logit_slope(means: Array) -> Array:
    return 1 / (means * (1 - means))


def _percent(difference: Array) -> Array:
    return 100 * np.expm1(difference)


def _percent_slope(difference: Array) -> Array:
    return 100 * np.exp(difference)


def _from_percent(percent: Array) -> Array:
    return np.log1p(percent / 100)


DIFFERENCE = EffectScale(
    name="difference",
    label="",
    form="{treated} - {reference}",
    g=_same,
    g_slope=np.ones_like,
    g_inverse=_same,
    report=_same,
    report_slope=np.ones_like,
    contrast=_same,
    null=0.0,
    domain="numbers",
    low=-np.inf,
    high=np.inf,
)
RATIO = EffectScale(
    name="ratio",
    label=" ratio",
    form="{treated} / {reference}",
    g=np.log,
    g_slope=_inverse,
    g_inverse=np.exp,
    report=np.exp,
    report_slope=np.exp,
    contrast=np.log,
    null=1.0,
    domain="positive means",
    low=0.0,
    high=np.inf,
)
ODDS_RATIO = EffectScale(
    name="odds_ratio",
    label=" odds ratio",
    form="({treated} / (1 - {treated})) / ({reference} / (1 - {reference}))",
    g=logit,
    g_slope=_logit_slope,
    g_inverse=expit,
    report=np.exp,
    report_slope=np.exp,
    contrast=np.log,
    null=1.0,
    domain="means between 0 and 1",
    low=0.0,
    high=1.0,
)
PERCENT = EffectScale(
    name="percent",
    label=" percent",
    form="100 ({treated} - {reference}) / {reference}",
    g=np.log,
    g_slope=_inverse,
    g_inverse=np.exp,
    report=_percent,
    report_slope=_percent_slope,
    contrast=_from_percent,
    null=0.0,
    domain="positive means",
    low=0.0,
    high=np.inf,
)
SCALES = {scale.name: scale for scale in (DIFFERENCE, RATIO, ODDS_RATIO, PERCENT)}

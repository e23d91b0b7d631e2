"""Small problems for the tests of the numerical engine: a sample, its importance weights, an estimate."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from causalrisk.estimators.refit import SeparateRefitter
from causalrisk.estimators.sample import Sample, make_sample
from causalrisk.estimators.separate import estimate_separately
from causalrisk.estimators.specification import SCALES
from causalrisk.estimators.weights import row_weights
from causalrisk.numerics.families import outcome_family
from causalrisk.propensity.models import BinaryModel, CalibratedModel, ClippedModel, KnownModel, MultinomialModel
from causalrisk.propensity.targets import (
    ArmTarget,
    Target,
    TiltTarget,
    make_target,
)
from causalrisk.propensity.weights import WeightFit, WeightModel, fit_weights


def tilt_function(e):
    """A tilt that is no ready-made target."""
    return e**2 * (1 - e)


def simulated(n_arms=2, family="gaussian", link=None, n=300, frame=0, seed=0, offset=None):
    """Sample of three-column outcome and four-column propensity designs, with `frame` rows of a target frame.

    With offsets the means are at the "observed" ones, or where `offset` is a number at that.
    """
    rng = np.random.default_rng(seed)
    distribution = outcome_family(family, link)

    def designs(rows, scale=1.0, shift=0.0):
        x = rng.normal(size=(rows, 2)) * scale + shift
        X = np.column_stack([np.ones(rows), x])
        return x, X, np.column_stack([X, np.sin(x[:, 0])])

    x, X, Z = designs(n)
    log_odds = [np.zeros(n)] + [0.5 * (-1) ** k * x[:, 0] + 0.3 * k * x[:, 1] for k in range(1, n_arms)]
    e = np.exp(np.column_stack(log_odds))
    arm = (rng.random(n)[:, None] > (e / e.sum(axis=1, keepdims=True)).cumsum(axis=1)).sum(axis=1).astype(np.intp)
    mean = distribution.mean(0.2 + 0.3 * x[:, 0] - 0.2 * x[:, 1] + 0.3 * arm + 0.2 * x[:, 0] ** 2)
    draw = {
        "gaussian": lambda: mean + 0.3 * rng.normal(size=n),
        "binomial": lambda: (rng.random(n) < mean).astype(float),
        "poisson": lambda: rng.poisson(mean).astype(float),
        "gamma": lambda: rng.gamma(2, mean / 2),
    }
    y, rows = draw[distribution.name](), designs(frame, 0.8, 0.3)[1:] if frame else None
    known = 0.4 * rng.normal(size=n) + 0.2 * x[:, 0]
    offsets = {None: None, "observed": (known, known)}.get(offset, (known, np.full(n, offset)))
    return make_sample(y, X, Z, arm, np.ones(n), distribution, rows, offsets)


def target_of(name, sample) -> Target:
    """Target by name, "frame" for that of the sample's own."""
    given = {"frame": {}, "function": tilt_function}.get(name, name)
    return make_target(given, sample.Z.columns, sample.in_sample == 0)


def model_of(name, sample, target):
    """Propensity model by name."""
    columns, arm, n_arms = sample.Z.columns, sample.arm, sample.n_arms
    if name in ("logit", "probit", "cloglog"):
        return BinaryModel(columns, arm, name)
    if name == "calibrated":
        return CalibratedModel(columns, arm, n_arms, target.toward)
    multinomial = MultinomialModel(columns, arm, n_arms)
    if name == "multinomial":
        return multinomial
    if name == "clipped":
        return ClippedModel(BinaryModel(columns, arm, "logit"), 0.4, 0.6)
    fitted = fit_weights(WeightModel(multinomial, ArmTarget(None), sample.in_sample), sample.s)
    return KnownModel(columns, arm, fitted.probabilities.T)


def multiplicities(n, m, seed):
    """Multiplicities of m resamples of n rows, shape (n, m)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=m).T.astype(float)


@dataclass
class Problem:
    """A sample with fitted importance weights."""

    sample: Sample
    target: Target
    fit: WeightFit
    scale: object

    def separate(self, spec):
        """Estimate and refitter of a separate estimator."""
        needs = spec.uses_propensity or isinstance(self.target, TiltTarget)
        fit = self.fit if needs else None
        estimate = estimate_separately(self.sample, spec, row_weights(self.sample, fit, self.target), self.scale)
        return estimate, SeparateRefitter(self.sample, spec, fit, estimate, self.target, self.scale)


@functools.cache
def problem(n_arms=2, family="gaussian", link=None, model="logit", target="all", effect="difference", **options):
    """Return the problem that has these parts, by their names."""
    sample = simulated(n_arms, family, link, frame=150 if target == "frame" else 0, **options)
    chosen = target_of(target, sample)
    fit = fit_weights(WeightModel(model_of(model, sample, chosen), chosen, sample.in_sample), sample.s)
    assert fit.converged
    return Problem(sample, chosen, fit, SCALES[effect])


def numeric_influence(refit, sample, rows, size=1e-4):
    """Estimates under the weights of the sample, and the derivative of each by the weight of a row, times their sum."""
    weights = np.repeat(sample.s[:, None], 2 * len(rows) + 1, axis=1)
    weights[rows, 2 * np.arange(len(rows))] += size
    weights[rows, 2 * np.arange(len(rows)) + 1] -= size
    refits = refit.refit(weights)
    assert (refits.failures == 0).all()
    *moved, full = refits.values.T
    return full, (np.array(moved[0::2]) - np.array(moved[1::2])) / (2 * size) * sample.total

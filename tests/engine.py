"""Small problems for the tests of the numerical engine: a sample, its importance weights, replicates, an estimate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.criterion import Criterion
from causalrisk.effects import SCALES
from causalrisk.estimators import IPWRA, estimate_separately
from causalrisk.families import outcome_family
from causalrisk.joint import estimate_of_trained, joint_criterion, train
from causalrisk.propensity import BinaryModel, CalibratedModel, ClippedModel, KnownModel, MultinomialModel
from causalrisk.refit import JointRefitter, PropensityRefitter, SeparateRefitter
from causalrisk.replicates import Replicates, ShiftedStates
from causalrisk.resample_weights import DenseReplicates, FittedReplicates, SeparableReplicates
from causalrisk.sample import Sample, make_sample
from causalrisk.targets import ArmTarget, FrameTarget, FunctionTilt, Target, TiltTarget, overlap_tilt
from causalrisk.weighting import WeightFit, Weighting, fit_weighting

ERM, MSE = Criterion(1.0, 300.0**1.5, False), Criterion(0.3, 3000.0, True)
ADAPTIVE = Criterion(0.1, 300.0**2, True, True)  # at one of its anchors


def tilt_function(e):
    """A tilt that is no ready-made target."""
    return e**2 * (1 - e)


def simulated(n_arms=2, family="gaussian", link=None, n=300, frame=0, seed=0):
    """Sample of three-column outcome and four-column propensity designs, with `frame` rows of a target frame."""
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
    rows = designs(frame, 0.8, 0.3)[1:] if frame else None
    return make_sample(draw[distribution.name](), X, Z, arm, np.ones(n), distribution, rows)


def target_of(name, sample) -> Target:
    """Target by name, "frame" for that of the sample's own."""
    if name == "frame":
        rows = sample.observed == 0
        return FrameTarget(rows, BinaryModel(sample.propensity.columns, rows.astype(np.intp), "logit"))
    ready = {"overlap": TiltTarget(overlap_tilt), "function": TiltTarget(FunctionTilt(tilt_function))}
    return ready.get(name) or ArmTarget({"all": None, "treated": 1, "control": 0}[name])


def model_of(name, sample, target):
    """Propensity model by name."""
    columns, arm, n_arms = sample.propensity.columns, sample.arm, sample.n_arms
    if name in ("logit", "probit", "cloglog"):
        return BinaryModel(columns, arm, name)
    if name == "calibrated":
        return CalibratedModel(columns, arm, n_arms, target.toward)
    multinomial = MultinomialModel(columns, arm, n_arms)
    if name == "multinomial":
        return multinomial
    if name == "clipped":
        return ClippedModel(BinaryModel(columns, arm, "logit"), 0.4, 0.6)
    fitted = fit_weighting(Weighting(multinomial, ArmTarget(None), sample.observed), sample.weights)
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
        estimate = estimate_separately(self.sample, spec, fit, self.target, self.scale)
        return estimate, SeparateRefitter(self.sample, spec, fit, estimate, self.target, self.scale)

    def replicates(self, count=20, seed=5):
        """Propensity replicates."""
        batch = PropensityRefitter(self.fit)(multiplicities(self.sample.n, count, seed))
        assert (batch.reasons == 0).all()
        return Replicates(batch.gamma, batch.reasons)

    def joint(self, criterion, *, dense=False, count=20, starts=None):
        """Joint estimate and its refitter; `dense` takes the general path where another is possible."""
        sample, fit = self.sample, self.fit
        start = estimate_separately(sample, IPWRA, fit, self.target, self.scale)
        fixed = joint_criterion(sample, fit, start, criterion, self.scale)
        replicates = (
            self.replicates(count)
            if fit.weighting.model.estimated
            else Replicates(fit.state[:, None], np.zeros(1, dtype=np.int8))
        )
        method = "least_squares" if sample.family.linear else "trust-exact"
        trained = train(sample, fit, start, replicates, fixed, method, self.scale, starts)
        joint = estimate_of_trained(trained, start, replicates)
        if fixed.fitted:
            operators = FittedReplicates(sample, fit)
        elif fit.weighting.separable and not dense:
            operators = SeparableReplicates(sample, fit, replicates)
        else:
            shifted = ShiftedStates(replicates.states - fit.state[:, None])
            operators = DenseReplicates(sample, fit, shifted, replicates.count)
        theta = start.theta if sample.family.linear else joint.estimate.theta
        return joint, JointRefitter(sample, fit, theta, fixed, operators, self.scale)


def problem(n_arms=2, family="gaussian", link=None, model="logit", target="all", effect="difference", **options):
    """Make a problem by the names of its parts."""
    sample = simulated(n_arms, family, link, frame=150 if target == "frame" else 0, **options)
    chosen = target_of(target, sample)
    fit = fit_weighting(Weighting(model_of(model, sample, chosen), chosen, sample.observed), sample.weights)
    assert fit.converged
    return Problem(sample, chosen, fit, SCALES[effect])


def numeric_influence(refit, sample, rows, size=1e-4):
    """Derivative of every estimate by the weight of a row, times the weight of the sample."""
    weights = np.repeat(sample.weights[:, None], 2 * len(rows), axis=1)
    weights[rows, 2 * np.arange(len(rows))] += size
    weights[rows, 2 * np.arange(len(rows)) + 1] -= size
    refits = refit(weights, 0)
    assert (refits.reasons == 0).all()
    return (refits.values[:, 0::2] - refits.values[:, 1::2]).T / (2 * size) * sample.total

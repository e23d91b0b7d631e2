"""The Joint Robust Estimator from an IPWRA fit: the objective, the amount of shrinkage, the minimum, its resamples."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import Failure, first_failure
from causalrisk.estimation.estimates import Estimate, Refits, collect_refits
from causalrisk.estimation.fits import RefittedScores
from causalrisk.joint.influence import InfluenceFunction, JointFit, left_out, net_means
from causalrisk.joint.minimum import minimize_from, newton
from causalrisk.joint.objective import Terms
from causalrisk.joint.rows import Objective, Replicates, lifted
from causalrisk.joint.shrinkage import Path, choose_shrinkage
from causalrisk.joint.start import (
    JointProblem,
    StartSums,
    ate_risk,
    heterogeneity,
    inverse_of,
    joined_score,
    meat_of,
    padded,
    real_share,
    refitted,
    start_sums,
)
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.optimize import OptimizeResult

ROUNDING = 1e-12  # mean squared residual over that of the outcome that is rounding error


@dataclass(frozen=True)
class JointEstimate:
    """The Joint Robust Estimator with what its diagnostics need.

    Parameters
    ----------
    fit : JointFit
        The minimum.
    bias, start_bias : ndarray, shape (K, B)
        Bias of each arm under each replicate, here and at the IPWRA fit.
    variance, start_variance : float
        V here and at the IPWRA fit; here less what the share c leaves out of it, plus what it leaves out there.
    n_units : float
        n, by which V is divided in the expected risk.
    mc_se : ndarray, shape (K - 1,)
        Monte Carlo standard error of the effects due to the finite number of replicates; NaN for one replicate, 0 where
        they are not random.
    slopes : ndarray, shape (K,)
        What the risk multiplies the biases by: the slopes of the scale of the effect, their mean square one.
    """

    fit: JointFit
    bias: Array
    start_bias: Array
    variance: float
    start_variance: float
    n_units: float
    mc_se: Array
    slopes: Array

    @property
    def estimate(self) -> Estimate:
        """Point estimate and influence function; arm means are net of the common bias."""
        return self.fit.estimate

    @property
    def result(self) -> OptimizeResult:
        """What scipy reported."""
        return self.fit.result

    @property
    def full_risk(self) -> bool:
        """Whether the objective is "risk"."""
        return self.fit.terms.risk

    @property
    def net_bias(self) -> Array:
        """Net biases of arms 1 .. K-1 against arm 0 under each replicate, here and at the start, shape (2, K - 1, B).

        On another scale than the difference they are what moves the effect, in units of the outcome.
        """
        scaled = self.slopes[:, None] * np.stack([self.bias, self.start_bias])
        return scaled[:, 1:] - scaled[:, :1]

    @property
    def squared_net_bias(self) -> float:
        """Squared net bias averaged over the replicates."""
        return float(ate_risk(self.slopes[:, None] * self.bias).mean())

    @property
    def start_squared_net_bias(self) -> float:
        """The same of the IPWRA fit."""
        return float(ate_risk(self.slopes[:, None] * self.start_bias).mean())

    @property
    def expected_risk(self) -> float:
        """The expected ATE risk: squared net bias and, where the objective has it, sampling variance."""
        return self.squared_net_bias + (self.variance / self.n_units if self.full_risk else 0.0)

    @property
    def start_risk(self) -> float:
        """The expected ATE risk of the IPWRA fit."""
        return self.start_squared_net_bias + (self.start_variance / self.n_units if self.full_risk else 0.0)


@dataclass(frozen=True)
class Trainer:
    """Trains the arms of a problem, under one alpha after another.

    Parameters
    ----------
    problem : JointProblem
        The rows and the start.
    objective : Objective
        What is minimised.
    points : Replicates
        The replicates of resamples and folds, about their score.
    method : str
        A method of `scipy.optimize.minimize`.
    sums : StartSums
        Those of the start.
    """

    problem: JointProblem
    objective: Objective
    points: Replicates
    method: str
    sums: StartSums

    @classmethod
    def of(
        cls, problem: JointProblem, replicates: Replicates, points: Replicates, method: str, *, penalty: float | None,
        share: float | None, join: bool | None,
    ) -> Trainer:  # fmt: skip
        """Decide what the objective holds fixed; with a penalty it is "erm"."""
        theta, rows = problem.start.theta, problem.weighed(replicates)
        sums = rows.over(partial(start_sums, theta=theta))
        risk, C, c = penalty is None, problem.contrasts, 0.0 if penalty is not None else share
        if c is None:
            inverse = inverse_of(sums.bread)
            spreads = rows.over(partial(heterogeneity, theta=theta, sums=sums, C=C))
            c = real_share(spreads, inverse, meat_of(problem, rows, theta, inverse), C)
        joined = joined_score(problem, rows, theta, join) if risk else None
        rows = dataclasses.replace(rows, joined=joined)
        start = lifted(rows.lift, padded(theta[..., None], joined))
        constant = problem.equations.constant
        level = (1 - c) * sums.mean
        terms = Terms(
            contrasts=C,
            n_units=problem.n_units if penalty is None else penalty,
            sigma2=sums.variance / sums.weight,
            share=c,
            risk=risk,
            level=level if constant.any() or not problem.linear else 0 * level,
            constant=np.pad(constant, (0, start.shape[1] - len(constant))),
            origin=start[..., 0],
        )
        return cls(problem, Objective(rows, start, terms), points, method, sums)

    @property
    def start(self) -> Array:
        """Models of IPWRA on the columns of the models, shape (K, p, 1)."""
        return padded(self.problem.start.theta[..., None], self.objective.rows.joined)

    def choose(self) -> tuple[Path, NDArray[np.int8]]:
        """Choose alpha."""
        return choose_shrinkage(self.problem, self.objective, self.points)

    def train(self, alpha: float) -> JointFit:
        """Minimise by scipy, from IPWRA."""
        linear, squares = self.problem.linear, max(self.sums.squares, ROUNDING * self.sums.size)
        unit = (float(np.sqrt(squares)) or 1.0) if linear else 1.0
        found = minimize_from(self.objective.of_models, self.start, alpha, unit, self.method, linear)
        return JointFit(self.problem, self.objective, self.points, alpha, found.theta, found.multipliers, found.result)

    def variance(self, covariance: Array) -> float:
        """Variance of the effects, summed over the contrasts of the objective, from a covariance of all estimates."""
        C, means = self.objective.terms.contrasts, self.problem.start.block("means")
        return float(np.trace(C @ covariance[means, means] @ C.T))

    def estimate(self, fit: JointFit) -> JointEstimate:
        """Return the estimate of a minimum with its diagnostics over the replicates."""
        objective, at = self.objective, fit.at
        before, more = objective.at(objective.start), 0.0
        if objective.terms.share:
            given = partial(left_out, start=objective.start, means=self.sums.mean, terms=objective.terms)
            more = float(objective.rows.over(given)[0])
        random = not objective.rows.replicates.cubature
        return JointEstimate(
            fit=fit,
            bias=at.biases[0][0],
            start_bias=before.biases[0][0],
            variance=float(at.variance[0]) + more,
            start_variance=float(before.variance[0]) + more,
            n_units=self.problem.n_units,
            mc_se=InfluenceFunction(fit).monte_carlo_se() if random else np.zeros(len(fit.means) - 1),
            slopes=fit.slopes / np.sqrt((fit.slopes**2).mean()),
        )


# --- resamples -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JointRefitter:
    """Refits JRE, each resample from its own IPWRA fit, as in `estimates.Refitter`; `values` are the estimates."""

    fit: JointFit
    values: Array

    @cached_property
    def beside_points(self) -> Array:
        """By how much the estimates, whose replicates are drawn, differ from those at the points of the resamples."""
        found = self._refit(self.fit.problem.equations.sample.s[:, None]).values[:, 0]
        return np.where(np.isfinite(found), self.values - found, 0.0)

    def refit(self, s: Array, weighed: RefittedScores | None = None) -> Refits:
        """Return the estimates under row weights (n, R)."""
        found = self._refit(s, weighed)
        return dataclasses.replace(found, values=found.values + self.beside_points[:, None])

    def _refit(self, s: Array, weighed: RefittedScores | None = None) -> Refits:
        fit, problem, scale = self.fit, self.fit.problem, self.fit.problem.scale
        rows, start, refits = refitted(problem, fit.joined, fit.points, s, weighed)
        objective = Objective(rows, lifted(rows.lift, start), fit.terms)
        with np.errstate(all="ignore"):  # resamples that cannot be fitted are counted
            theta, nu = start, None
            if not problem.linear:
                theta, nu = np.repeat(fit.theta, s.shape[1], axis=2), np.repeat(fit.nu, s.shape[1], axis=0)
            found = newton(objective.of_models, theta, fit.alpha, nu)
            at = objective.at(lifted(rows.lift, found.theta))
            raw, bias = at.average[0].T, at.bias[0].T
            means = net_means(raw, bias, fit.slopes, scale)
        failed = Failure.SINGULAR_OUTCOME if problem.linear else Failure.OUTCOME_NOT_CONVERGED
        of_minimum = np.where(found.converged, Failure.OK, failed).astype(np.int8)
        params = np.concatenate([scale.effects(raw), means])
        gamma = refits.values[problem.start.block("gamma")]
        theta = found.theta[:, : problem.start.theta.shape[1]]
        collected = collect_refits(params, theta, gamma, first_failure(refits.failures, of_minimum))
        return dataclasses.replace(collected, start=refits.values[: len(problem.start.params)])

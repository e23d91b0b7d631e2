"""The Joint Robust Estimator from an IPWRA fit: the objective, the amount of shrinkage, the minimum, its resamples."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from causalrisk.errors import Failure, first_failure
from causalrisk.estimation.fits import Refits, RefittedScores, collect_refits
from causalrisk.joint.influence import JointFit, net_means
from causalrisk.joint.minimum import minimize_from, newton
from causalrisk.joint.objective import Terms
from causalrisk.joint.rows import Objective, Replicates, lifted
from causalrisk.joint.start import (
    JointProblem,
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

ROUNDING = 1e-12  # mean squared residual over that of the outcome that is rounding error


def objective_of(
    problem: JointProblem, replicates: Replicates, penalty: float | None, share: float | None, join: bool | None
) -> Objective:
    """Decide what the objective holds fixed; with a penalty it is "erm"."""
    theta, rows = problem.start.theta, problem.weighed(replicates)
    sums = rows.over(partial(start_sums, theta=theta))
    risk, C, c = penalty is None, problem.contrasts, 0.0 if penalty is not None else share
    if c is None:
        inverse = inverse_of(sums.bread)
        spreads = rows.over(partial(heterogeneity, theta=theta, sums=sums, C=C))
        c = real_share(spreads, inverse, meat_of(problem, rows, theta, inverse), C)
    rows = dataclasses.replace(rows, joined=joined_score(problem, rows, theta, join) if risk else None)
    start, constant = lifted(rows.lift, padded(theta[..., None], rows.joined)), problem.equations.constant
    terms = Terms(
        contrasts=C,
        n_units=problem.n_units if penalty is None else penalty,
        sigma2=sums.variance / sums.weight,
        share=c,
        risk=risk,
        level=(1 - c) * sums.mean * (constant.any() or not problem.linear),
        constant=np.pad(constant, (0, start.shape[1] - len(constant))),
        origin=start[..., 0],
        unit=float(np.sqrt(max(sums.squares, ROUNDING * sums.size))) or 1.0,
    )
    return Objective(rows, start, terms)


def train(problem: JointProblem, objective: Objective, points: Replicates, alpha: float, method: str) -> JointFit:
    """Minimise by scipy, from IPWRA; `points` are the replicates of resamples."""
    start = padded(problem.start.theta[..., None], objective.rows.joined)
    unit = objective.terms.unit if problem.linear else 1.0
    found = minimize_from(objective.of_models, start, alpha, unit, method, problem.linear)
    return JointFit(problem, objective, points, alpha, found.theta, found.multipliers, found.result)


# --- resamples -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JointRefitter:
    """Refits JRE, each resample from its own IPWRA fit; `values` are the estimates."""

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
        rows, start, refits = refitted(problem, fit.rows.joined, fit.points, s, weighed)
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

"""The stack: fits of one effect averaged with the weights under which the average varies least.

Flows in: M fits of the same rows and scores, such as JRE on a formula, JRE with the predictions of a learner among its
terms, and the predictions alone. Flows out: one fit whose arm means are w_1 mu_1 + ... + w_M mu_M, with w on the
simplex. The weights minimise w' (S + diag S) w, S the covariance of the effects by their influence functions, which
know of the fits' common errors. The diagonal counts twice: what is gained by weights far from equal is smaller in the
next sample than in this one. Influence functions and resamples take the weights as given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from causalrisk.errors import first_failure
from causalrisk.estimation.fits import Estimate, Refits, WeightFit, collect_refits
from causalrisk.estimation.record import FitRecord, Stack, influence_covariance
from causalrisk.estimation.specification import DIFFERENCE, EffectScale
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.optimize import non_negative_least_squares

ROUNDING = 1e-10  # of the largest variance: below, fits are the same
SMALL = 1e-8  # weight, relative to the largest, that is none


def least_variance_weights(covariance: Array) -> Array:
    """Weights on the simplex that minimise w' (S + diag S) w.

    Parameters
    ----------
    covariance : ndarray, shape (M, M)
        S; fits whose variance is not finite get no weight.

    Returns
    -------
    ndarray, shape (M,)
        Not negative, with sum one. They solve a least-squares problem with v >= 0, of which they are the shares:
        at the minimum of v' A v - 2 sum v, A v - 1 is zero where v is positive and not negative elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> least_variance_weights(np.diag([1.0, 3.0]))
    array([0.75, 0.25])
    >>> least_variance_weights(np.array([[1.0, 2.0], [2.0, 9.0]])).round(6)
    array([1., 0.])
    """
    finite = np.isfinite(np.diag(covariance))
    some = covariance[np.ix_(finite, finite)]
    scale = np.diag(some).max(initial=0.0)
    weights = np.zeros(len(covariance))
    if not scale > 0:
        weights[np.flatnonzero(finite)[0] if finite.any() else 0] = 1.0
        return weights
    doubled = (some + np.diag(np.diag(some))) / scale + ROUNDING * np.eye(len(some))
    factor = np.asarray(np.linalg.cholesky(doubled).T, dtype=float)
    found = non_negative_least_squares(factor, np.linalg.solve(factor.T, np.ones(len(some))))
    found[found < SMALL * found.max()] = 0.0
    weights[finite] = found / found.sum()
    return weights


def stacked(lead: FitRecord, names: Sequence[str], records: Sequence[FitRecord]) -> FitRecord:
    """Average fits of one effect."""
    scale, n_arms = lead.options.effect_scale, lead.design.n_arms
    jacobian = scale.jacobian(lead.estimate.params[-n_arms:])[: n_arms - 1]
    moved = [one.estimate.influence[:, one.estimate.block("means")] @ jacobian.T for one in records]
    joint = influence_covariance(lead, np.concatenate(moved, axis=1))
    joint = joint.reshape(len(records), n_arms - 1, -1, n_arms - 1)
    covariances = np.einsum("mknk->mn", joint)
    stack = Stack(tuple(names), least_variance_weights(covariances), tuple(records), covariances)
    estimates = tuple(record.estimate for record in records)
    params = np.stack([one.params for one in estimates], axis=-1) @ stack.weights
    means = np.stack([one.model_means for one in estimates], axis=-1) @ stack.weights
    params, rows = params_of(scale, params, n_arms), StackedRows(estimates, stack.weights, scale, lead.used_weight_fit)
    average = dataclasses.replace(lead.estimate, params=params, model_means=means, rows=rows)
    return dataclasses.replace(lead, estimate=average, stack=stack)


def params_of(scale: EffectScale, mixed: Array, n_arms: int) -> Array:
    """Effects and arm means, (2 K - 1, ...), from averages of those of several fits; means average, effects follow."""
    return mixed if scale == DIFFERENCE else scale.params(mixed[-n_arms:])


@dataclass(frozen=True)
class StackedRows:
    """Predictions and influence function of an average, and its refits, with the weights of the sample."""

    estimates: tuple[Estimate, ...]  # the first is the lead, whose coefficients it has
    weights: Array
    scale: EffectScale
    weight_fit: WeightFit  # which is the same in all

    @cached_property
    def predicted(self) -> Array:
        """As in `Estimate`."""
        return np.asarray(sum(w * one.predicted for w, one in zip(self.weights, self.estimates, strict=True)))

    @cached_property
    def influence(self) -> Array:
        """As in `Estimate`."""
        pairs = [(w, one) for w, one in zip(self.weights, self.estimates, strict=True) if w > 0]
        of_means = sum(w * one.influence[:, one.block("means")] for w, one in pairs)
        means = sum(w * one.params[one.block("means")] for w, one in pairs)
        moved = of_means @ self.scale.jacobian(np.asarray(means)).T
        lead = self.estimates[0]
        return np.hstack([moved, lead.influence[:, len(lead.params) :]])

    def refit(self, s: Array, weighed: Any = None) -> Refits:
        """As in `Estimate`; fits without weight are not made again, but for the lead."""
        lead, weighed = self.estimates[0], weighed or self.weight_fit.refit(s)
        used = [k for k, weight in enumerate(self.weights) if weight > 0 or k == 0]
        found, size = [self.estimates[k].rows.refit(s, weighed) for k in used], len(lead.params)
        mixed = np.tensordot(self.weights[used], np.stack([refits.values[:size] for refits in found]), axes=1)
        params = params_of(self.scale, mixed, len(lead.theta))
        rest, failures = found[0].values[size:], first_failure(*(refits.failures for refits in found))
        return dataclasses.replace(collect_refits(params, rest[:, None], rest[:0], failures), start=found[0].start)

"""The stack: fits of one effect averaged with the weights under which the average varies least.

Flows in: M fits of the same rows and scores, such as JRE on a formula, JRE with the predictions of a learner among its
terms, and the predictions alone. Flows out: one fit whose arm means are w_1 mu_1 + ... + w_M mu_M, with w on the
simplex. The weights minimise w' (S + diag S) w, S the covariance of the effects by their influence functions, which
know of the fits' common errors. The diagonal counts twice: what is gained by weights far from equal is smaller in the
next sample than in this one. Influence functions and resamples take the weights as given.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from causalrisk.errors import first_failure
from causalrisk.estimators.estimates import (
    BlockInfluence,
    Estimate,
    Refits,
    Refitter,
    Refitters,
    ScannedEstimate,
    collect_refits,
)
from causalrisk.estimators.record import FitRecord, LaterPasses, Stack, covariance_over, influence_covariance
from causalrisk.estimators.specification import DIFFERENCE, EffectScale
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.newton import NewtonFits
from causalrisk.numerics.optimize import non_negative_least_squares
from causalrisk.propensity.weights import WeightFit

T = TypeVar("T")
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
    moved = functools.partial(_effects_moved, [record.estimate for record in records], jacobian)
    passes = tuple(record.passes for record in records if record.passes is not None)
    if passes:
        joint = covariance_over(lead, functools.partial(_over_all, passes, moved))
    else:
        joint = influence_covariance(lead, moved([record.estimate.influence for record in records]))
    joint = joint.reshape(len(records), n_arms - 1, -1, n_arms - 1)
    covariances = np.einsum("mknk->mn", joint)
    kept = tuple(dataclasses.replace(record, passes=None) for record in records)
    stack = Stack(tuple(names), least_variance_weights(covariances), kept, covariances)
    rows = StackedRows(lead.estimate, tuple(record.estimate for record in records), stack.weights, scale)
    estimate = averaged(rows)
    if not passes:
        return dataclasses.replace(lead, estimate=estimate, stack=stack)
    later = StackPasses(rows, passes, start=passes[0].start)
    return dataclasses.replace(lead, estimate=ScannedEstimate.of(estimate), stack=stack, passes=later)


def _effects_moved(estimates: Sequence[Estimate], jacobian: Array, influences: Sequence[Array]) -> Array:
    """Influence functions of the effects of all fits, shape (n, M (K - 1)), from those of all their estimates."""
    pairs = zip(estimates, influences, strict=True)
    return np.concatenate([values[:, one.block("means")] @ jacobian.T for one, values in pairs], axis=1)


def _over_all(
    passes: Sequence[LaterPasses], mix: Callable[[Sequence[Array]], Array], function: Callable[[BlockInfluence], T]
) -> Iterator[T]:
    """Begin passes over the same blocks of several fits: what a function makes of a mixture of their influences."""
    for blocks in zip(*(one.influence(_itself) for one in passes), strict=True):
        yield function(dataclasses.replace(blocks[0], influence=mix([block.influence for block in blocks])))


def _itself(block: BlockInfluence) -> BlockInfluence:
    return block


def averaged(rows: StackedRows) -> Estimate:
    """Return the average of estimates; its coefficients are those of the lead."""
    own, estimates, weights = rows.lead, rows.estimates, rows.weights
    return Estimate(
        params=params_of(rows.scale, np.stack([one.params for one in estimates], axis=-1) @ weights, len(own.theta)),
        theta=own.theta,
        gamma=own.gamma,
        model_means=np.stack([one.model_means for one in estimates], axis=-1) @ weights,
        rows=rows,
        failed=own.failed,
    )


def params_of(scale: EffectScale, mixed: Array, n_arms: int) -> Array:
    """Effects and arm means, (2 K - 1, ...), from averages of those of several fits; means average, effects follow."""
    return mixed if scale == DIFFERENCE else scale.params(mixed[-n_arms:])


@dataclass(frozen=True)
class StackedRows:
    """Predictions and influence function of an average, as in `EstimateRows`.

    Parameters
    ----------
    lead : Estimate
        The estimate whose coefficients it has.
    estimates : tuple of Estimate
        Those that are averaged.
    weights : ndarray, shape (M,)
        Their weights.
    scale : EffectScale
        How the effect is reported.
    """

    lead: Estimate
    estimates: tuple[Estimate, ...]
    weights: Array
    scale: EffectScale

    @cached_property
    def predicted(self) -> Array:
        """As in `EstimateRows`."""
        return np.asarray(sum(w * one.predicted for w, one in zip(self.weights, self.estimates, strict=True)))

    @cached_property
    def influence(self) -> Array:
        """As in `EstimateRows`."""
        return self.mixed([one.influence for one in self.estimates])

    def mixed(self, influences: Sequence[Array]) -> Array:
        """Return the influence function of the average, shape (n, d), from those of the estimates, the lead's first."""
        pairs = [(w, one, own) for w, one, own in zip(self.weights, self.estimates, influences, strict=True) if w > 0]
        of_means = sum(w * own[:, one.block("means")] for w, one, own in pairs)
        means = sum(w * one.params[one.block("means")] for w, one, _ in pairs)
        with np.errstate(invalid="ignore"):  # means without an effect on this scale are told by the caller
            moved = of_means @ self.scale.jacobian(np.asarray(means)).T
        return np.hstack([moved, influences[0][:, len(self.lead.params) :]])

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """As in `EstimateRows`."""
        yield slice(0, len(self.influence)), self.influence


class StackRefitter(Refitters):
    """Refits the fits of a stack under the same resamples and averages with the weights of the sample.

    Parameters
    ----------
    refitters : sequence of Refitter
        One for each fit, the lead first. Of the others those without weight are not made again.
    weights : ndarray, shape (M,)
        Weights of the fits.
    weight_fit : WeightFit
        Importance weights, which are the same in all.
    scale : EffectScale
        How the effect is reported.
    n_arms : int
        K.
    """

    def __init__(
        self, refitters: Sequence[Refitter], weights: Array, weight_fit: WeightFit, scale: EffectScale, n_arms: int
    ) -> None:
        used = _used(weights)
        super().__init__([refitters[k] for k in used], weight_fit)
        self.weights, self.scale, self.n_arms = weights[used], scale, n_arms

    def refit(self, counts: Array, fits: NewtonFits | None = None) -> Refits:
        """As in `estimates.Refitter`."""
        return averaged_refits(self.refit_each(counts, fits), self.weights, self.scale, self.n_arms)


def averaged_refits(found: Sequence[Refits], weights: Array, scale: EffectScale, n_arms: int) -> Refits:
    """Average refits of several fits, the lead first, with given weights."""
    size = 2 * n_arms - 1
    mixed = np.tensordot(weights, np.stack([refits.values[:size] for refits in found]), axes=1)
    params, rest = params_of(scale, mixed, n_arms), found[0].values[size:]
    failures = first_failure(*(refits.failures for refits in found))
    refits = collect_refits(params, rest[:, None], rest[:0], failures)
    return dataclasses.replace(refits, start=found[0].start)


def _used(weights: Array) -> list[int]:
    """Positions of the fits that have a part in resamples: those with weight, and the lead."""
    return [k for k, weight in enumerate(weights) if weight > 0 or k == 0]


@dataclass(frozen=True)
class StackPasses(LaterPasses):
    """Further passes over the rows of a stack of fits to a scan.

    Parameters
    ----------
    rows : StackedRows
        How the fits are averaged.
    passes : tuple of LaterPasses
        Those of the fits.
    start : LaterPasses, optional
        Those of the IPWRA fit that the lead starts from.
    """

    rows: StackedRows
    passes: tuple[LaterPasses, ...]
    start: LaterPasses | None = None

    def influence(self, function: Callable[[BlockInfluence], T]) -> Iterator[T]:
        """As in `LaterPasses`."""
        return _over_all(self.passes, self.rows.mixed, function)

    def refits(self, kind: str, seed: np.random.SeedSequence, n_boot: int) -> Refits:
        """As in `LaterPasses`."""
        rows, used = self.rows, _used(self.rows.weights)
        found = [self.passes[k].refits(kind, seed, n_boot) for k in used]
        return averaged_refits(found, rows.weights[used], rows.scale, len(rows.lead.theta))

"""Minima of the joint objective, of the full sample or of many resamples together.

Flows in: passes over rows with their importance weights, and where to begin. Flows out: theta of each objective.

Those of linear outcome models are solved from weighted products of their columns, in a pass. With E = (q, y - m, 1) the
columns of a row (and its offset, if there is one), psi and its derivatives are combinations of E times excess, tilt and
measure, so that everything is in the sums of products of E under products of two weights: for a row of arm k

    psi'_a = 1{a != k} t q - 1{a = k} (w - t) q - t M'_a - measure R'_a
    psi_a  = t (d_a - M_a) - measure R_a + 1{a = k} w (y - m_k)

with d_a, the means less a share of those at the start, and M_a, R_a, M'_a, R'_a of `VarianceCentres`. The rows of a
target frame stand among those of the first arm, without importance weight.

Those of others are searched for by Newton's method in a trust region. A point takes two passes: the second knows what
centres psi and the net biases. The walls of the valleys are the net biases with the largest penalty
(`Expansion.strict`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import Failure, first_failure
from causalrisk.estimators.joint.equations import JointRows, Over
from causalrisk.estimators.joint.objective import (
    Expansion,
    FirstPassSums,
    JointCriterion,
    JointObjective,
    ObjectiveTerms,
    ResampledWeights,
    contrasted,
    penalised,
)
from causalrisk.estimators.joint.start import Starts
from causalrisk.estimators.joint.variance import VarianceCentres
from causalrisk.estimators.outcome import constant_direction, solved_change
from causalrisk.estimators.sample import Sample, shifted
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import (
    Array,
    pairwise_columns,
    solve_stacked,
    spectral_equations,
    unpack_symmetric,
    upper_triangle,
)
from causalrisk.numerics.newton import LikelihoodSums
from causalrisk.numerics.optimize import Expansions, Minima, minimize_stack
from causalrisk.propensity.weights import ImportanceWeights

T = TypeVar("T")
KNOWN = 4  # points whose sums are kept, of a single objective: the search comes back to the last ones
EXCESS, TILT = 0, 1  # places of the weights; the last is the measure, which may be the tilt


@dataclass(frozen=True)
class LinearModels:
    """Linear outcome models at fixed coefficients, about which the objective of every resample is expanded.

    Parameters
    ----------
    theta : ndarray, shape (K, p)
        The coefficients.
    level : ndarray, shape (K,)
        Average prediction of each arm, where the models have a constant; sums are of what is left, to keep its digits.
    constant : ndarray, shape (p,)
        Coefficients of the columns that give the constant one; zero where there is none.
    """

    theta: Array
    level: Array
    constant: Array

    @classmethod
    def of(cls, theta: Array, sample: Sample) -> LinearModels:
        """Return the models of a sample."""
        constant = constant_direction(sample.X.columns)
        if constant is None:
            return cls.plain(theta)
        return cls(theta, sample.mean(sample.X.columns) @ theta.T, constant)

    @classmethod
    def plain(cls, theta: Array) -> LinearModels:
        """Return models without a level."""
        return cls(theta, np.zeros(len(theta)), np.zeros(theta.shape[1]))

    def rows(self, sample: Sample) -> LinearRows:
        """Return the columns of rows."""
        q = sample.X.columns
        error = sample.y - sample.own(shifted(self.theta @ q.T, sample.offset))
        offset = [] if sample.offset is None else [sample.offset]
        columns = np.column_stack([q, error, np.ones(len(q)), *offset])
        return LinearRows(sample, columns, pairwise_columns(columns))

    def counted(self, share: float, start: Array, width: int) -> tuple[Array, Array]:
        """Return what V counts of each arm: predictions less a share of those at the start, (K, p, m), in two parts.

        Coefficients of E that give it less a level, shape (m, K, width), and the level, shape (K,).
        """
        p, level = self.theta.shape[1], (1 - share) * self.level
        found = np.zeros((start.shape[2], len(self.theta), width))
        found[:, :, :p] = self.theta - level[:, None] * self.constant - share * start.transpose(2, 0, 1)
        found[:, :, p + 2 :] = 1.0 - share  # the offset
        return found, level


@dataclass(frozen=True)
class LinearRows:
    """Rows under linear models.

    Parameters
    ----------
    sample : Sample
        The rows.
    columns : ndarray, shape (n, e)
        E, of p + 2 columns or with an offset p + 3.
    pairs : ndarray, shape (n, e (e + 1) / 2)
        `pairwise_columns` of E.
    """

    sample: Sample
    columns: Array
    pairs: Array

    @property
    def nbytes(self) -> int:
        """Bytes of columns and pairs."""
        return self.columns.nbytes + self.pairs.nbytes


@dataclass(frozen=True)
class RiskSums:
    """What the net biases, V and the averages need of the rows under m resamples.

    Parameters
    ----------
    fitted, replicated : ndarray, shape (K, 1, m, p + 1) and (K, B, m, p + 1)
        For each arm the derivative of its bias, and the bias: at the fitted score, and under the replicates.
    first : ndarray, shape (K, F, e, m)
        Products of E and excess, tilt and, where it is another, measure; their means over the replicates.
    second : ndarray, shape (J, K, F (F + 1) / 2, e (e + 1) / 2, m)
        Products of pairs of E and pairs of these, for each part of the moments.
    tilted : ndarray, shape (e, m)
        Products of E and the fitted tilt.
    """

    fitted: Array
    replicated: Array
    first: Array
    second: Array
    tilted: Array


@dataclass(frozen=True)
class LinearSums:
    """Sums over rows under m resamples; those of blocks add up.

    Parameters
    ----------
    started : ndarray, shape (K, e (e + 1) / 2, m)
        Products of pairs of E under the weights of IPWRA.
    trained : ndarray, shape (K, e (e + 1) / 2, m)
        The same under the weights of the losses and of the part `own_sd` of V.
    risk : RiskSums
        What the net biases, V and the averages need.
    """

    started: Array
    trained: Array
    risk: RiskSums

    @classmethod
    def of(cls, rows: LinearRows, criterion: JointCriterion, resampled: ResampledWeights) -> LinearSums:
        """Sum over rows with their weights."""
        sample, share = rows.sample, resampled.share

        def products(weights: Array) -> Array:
            return np.stack([rows.pairs[own].T @ weights[own] for own in sample.slices])

        started = products(share * resampled.at.w)
        if criterion.full_risk:
            squares = np.diag(criterion.D)[:, None, None]
            trained = criterion.alpha_sigma2 * started + squares * products(share * resampled.moments.own_sd**2)
        else:
            trained = criterion.alpha_sigma2 * products(share * resampled.moments.mean.w)
        return cls(started, trained, _risk_sums(rows, criterion, resampled))


def _risk_sums(of_rows: LinearRows, criterion: JointCriterion, resampled: ResampledWeights) -> RiskSums:
    columns, slices, p = of_rows.columns, of_rows.sample.slices, of_rows.sample.X.columns.shape[1]
    share, at = resampled.share, resampled.at
    forms = columns[:, : p + 1] * np.append(np.ones(p), -1.0)  # of the derivative of an arm's bias, and of the bias
    weighted = share * at.w
    of_mean = [share * weights for weights in _kinds(resampled.moments.mean)]
    parts = resampled.moments.parts if criterion.full_risk else []
    return RiskSums(
        fitted=np.stack([weighted[rows].T @ forms[rows] for rows in slices])[:, None],
        replicated=resampled.replicated.sums(share, forms[:, None]),
        first=np.stack([[columns[rows].T @ weights[rows] for weights in of_mean] for rows in slices]),
        second=np.array([_second_products(slices, share, part, of_rows.pairs) for part in parts]),
        tilted=columns.T @ (share * at.tilt),
    )


def _kinds(at: ImportanceWeights) -> list[Array]:
    """Excess, tilt and, where it is another, measure."""
    return [at.excess, at.tilt] if at.measure is at.tilt else [at.excess, at.tilt, at.measure]


def _second_products(slices: tuple[slice, ...], share: Array, at: ImportanceWeights, pairs: Array) -> Array:
    """Products of pairs of columns and pairs of weights, shape (K, F (F + 1) / 2, e (e + 1) / 2, m)."""
    kinds = _kinds(at)
    first, second = upper_triangle(len(kinds))
    found = []
    for i, j in zip(first, second, strict=True):
        weights = share * kinds[i] * kinds[j]
        found.append([pairs[rows].T @ weights[rows] for rows in slices])
    return np.asarray(found).swapaxes(0, 1)


@dataclass(frozen=True)
class Solved:
    """Minima of the joint objectives of m resamples.

    Parameters
    ----------
    theta : ndarray, shape (K, p, m)
        Coefficients.
    failures : ndarray of int8, shape (m,)
        What failed.
    averages : ndarray, shape (K, m)
        Averages of the predictions over the target.
    biases : ndarray, shape (K, m)
        Biases of the arms averaged over the replicates.
    starts : Starts
        IPWRA in the same resamples.
    """

    theta: Array
    failures: NDArray[np.int8]
    averages: Array
    biases: Array
    starts: Starts


class LinearObjectives:
    """The joint objectives of m resamples for linear models.

    Parameters
    ----------
    models : LinearModels
        The models about which they are expanded.
    criterion : JointCriterion
        Weights of the terms.
    sums : LinearSums
        Sums over all rows.
    """

    def __init__(self, models: LinearModels, criterion: JointCriterion, sums: LinearSums) -> None:
        self.models, self.criterion, self.sums = models, criterion, sums
        self.n_arms, self.p = models.theta.shape
        self.width = sums.risk.tilted.shape[0]

    @cached_property
    def starts(self) -> Starts:
        """IPWRA in each resample, which the models of the full sample are where it cannot be fitted."""
        p, found = self.p, []
        for packed in self.sums.started:
            products = unpack_symmetric(packed, self.width)
            found.append(solved_change(LikelihoodSums(products[:, :p, :p], products[:, :p, p].T)))
        failures = first_failure(*(failed for _, failed in found))
        change = np.where(failures == Failure.OK, np.stack([step for step, _ in found]), 0.0)
        theta = self.models.theta[..., None] + change
        return Starts(theta, self.averages(theta), failures)

    def minima(self) -> Solved:
        """Minimise them."""
        (strict, gram), unit = self.equations(), self.criterion.rms_residual
        units = np.append(np.ones(gram.shape[1]), 1 / unit)
        equations = np.concatenate([strict * units, spectral_equations(gram * units[:-1, None] * units)], axis=1)
        step, singular = solve_stacked(equations)
        moved = unit * step.reshape(*self.models.theta.shape, -1)
        theta = self.models.theta[..., None] + moved
        failures = np.where(singular, Failure.SINGULAR_OUTCOME, Failure.OK).astype(np.int8)
        return Solved(theta, failures, self.averages(theta), self.biases(moved), self.starts)

    def equations(self) -> tuple[Array, Array]:
        """Equations of the net biases with the largest penalty, (m, r, K p + 1), and the Gram matrix of the others."""
        risk, gram = self.sums.risk, self._fit_gram()
        fitted, replicated = (contrasted(forms, self.criterion) for forms in (risk.fitted, risk.replicated))
        count = risk.replicated.shape[1]
        if not self.criterion.full_risk:
            return penalised(self.criterion, fitted, replicated, count)[1], gram
        of_biases = replicated[..., :-1].transpose(0, 2, 1) @ replicated
        of_biases *= self.criterion.penalty / count
        gram += of_biases + self._variance_gram()
        return np.sqrt(self.criterion.fitted_penalty) * fitted, gram

    def _fit_gram(self) -> Array:
        """Gram matrix of the equations of a weighted fit of each arm, shape (m, K p, K p + 1)."""
        n_arms, p = self.n_arms, self.p
        gram = np.zeros((self.sums.trained.shape[2], n_arms * p, n_arms * p + 1))
        for a, packed in enumerate(self.sums.trained):
            block, products = slice(a * p, (a + 1) * p), unpack_symmetric(packed, self.width)
            gram[:, block, block], gram[:, block, -1] = products[:, :p, :p], products[:, :p, p]
        return gram

    def biases(self, step: Array) -> Array:
        """Biases of the arms averaged over the replicates, a step (K, p, m) from the models; shape (K, m)."""
        own = self.sums.risk.first[:, EXCESS] + self.sums.risk.first[:, TILT]
        return (own[:, : self.p] * step).sum(axis=1) - own[:, self.p]

    def averages(self, theta: Array) -> Array:
        """Averages of the predictions over the target under coefficients (K, p, m); shape (K, m)."""
        tilted = self.sums.risk.tilted
        return (tilted[: self.p] * theta).sum(axis=1) + tilted[self.p + 2 :].sum(axis=0)

    def _variance_gram(self) -> Array:
        """Gram matrix of the equations of V but for the part `own_sd`, shape (m, K p, K p + 1)."""
        n_arms, p, D, risk = self.n_arms, self.p, self.criterion.D, self.sums.risk
        m, total = risk.tilted.shape[1], np.zeros(1)
        combined = self._combinations()
        for part in risk.second:
            for weights, packed in zip(combined, part, strict=True):
                total = total + weights @ self._products(packed) @ weights.transpose(0, 2, 1)
        by_arm = np.reshape(total, (m, n_arms, p + 1, n_arms, p + 1))
        weighted = by_arm * D[:, None, :, None]
        gram = np.empty((m, n_arms * p, n_arms * p + 1))
        gram[:, :, :-1] = weighted[:, :, :p, :, :p].reshape(m, n_arms * p, n_arms * p)
        gram[:, :, -1] = -weighted[:, :, :p, :, p].sum(axis=3).reshape(m, n_arms * p)
        return gram

    def _products(self, packed: Array) -> Array:
        """Symmetric matrices, shape (m, F e, F e), from products of pairs of columns and pairs of weights."""
        kinds, e = int(np.sqrt(2 * len(packed))), self.width
        found = np.empty((packed.shape[2], kinds, e, kinds, e))
        for i, j, products in zip(*upper_triangle(kinds), packed, strict=True):
            found[:, i, :, j] = found[:, j, :, i] = unpack_symmetric(products, e)
        return found.reshape(-1, kinds * e, kinds * e)

    def _combinations(self) -> list[Array]:
        """For rows of each arm, psi' and psi of all arms as combinations of E times weights, (m, K (p + 1), F e)."""
        n_arms, p, e, risk = self.n_arms, self.p, self.width, self.sums.risk
        first, kinds, m = risk.first, risk.first.shape[1], risk.tilted.shape[1]
        tilted = first[:, TILT].sum(axis=0)
        own, one, error = first[:, EXCESS] + first[:, TILT], p + 1, p
        counted, level = self.models.counted(self.criterion.real_share, self.starts.theta, e)
        common = np.zeros((m, n_arms, p + 1, kinds, e))
        if kinds == 2:
            common[:, :, :p, TILT, one] = (own[:, :p] - tilted[:p]).transpose(2, 0, 1)
        else:
            common[:, :, :p, TILT, one] = -tilted[:p].T[:, None]
            common[:, :, :p, -1, one] = own[:, :p].transpose(2, 0, 1)
        common[:, :, p, TILT] = counted
        centre = np.einsum("mae,em->ma", counted, tilted) + (tilted[one] - 1)[:, None] * level
        common[:, :, p, TILT, one] -= centre
        common[:, :, p, -1, one] -= own[:, error].T
        found = []
        for k in range(n_arms):
            of_arm = common.copy()
            for a in range(n_arms):
                of_arm[:, a, range(p), EXCESS if a == k else TILT, range(p)] += -1.0 if a == k else 1.0
            of_arm[:, k, p, [EXCESS, TILT], error] += 1.0
            found.append(of_arm.reshape(m, n_arms * (p + 1), kinds * e))
        return found


# --- nonlinear models ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """Coefficients of resamples that are worked on together.

    Parameters
    ----------
    theta : ndarray, shape (K, p, m)
        Coefficients.
    first_pass : FirstPassSums, optional
        What is known of all rows there.
    """

    theta: Array
    first_pass: FirstPassSums | None = None


ObjectiveStage: TypeAlias = Callable[[JointObjective, ResampledWeights, Point], T]  # what it makes of some rows adds up


class JointPasses(Protocol):
    """Passes over rows with the importance weights of resamples, or of the sample as one.

    Attributes
    ----------
    in_blocks : bool
        Whether the rows are read and weighed anew in every pass.
    sizes : sequence of int
        How many resamples there are in each group that is worked on together.
    """

    @property
    def in_blocks(self) -> bool:
        """Whether the rows are read and weighed anew in every pass."""

    @property
    def sizes(self) -> Sequence[int]:
        """How many resamples there are in each group that is worked on together."""

    def over(self, stage: ObjectiveStage[T], points: list[Point]) -> list[T]:
        """Make a pass: the sums over all rows of what a stage makes of some, for the point of each group."""

    def subset(self, wanted: NDArray[np.bool_]) -> JointPasses:
        """Return passes for some of the resamples."""


@dataclass(frozen=True)
class SamplePasses:
    """Passes over the rows of the full sample.

    Parameters
    ----------
    criterion : JointCriterion
        Weights of the terms.
    rows : Over
        Begins a pass over the rows.
    in_blocks : bool
        Whether the rows come in more than one block.
    """

    criterion: JointCriterion
    rows: Over
    in_blocks: bool
    sizes = (1,)

    def over(self, stage: ObjectiveStage[T], points: list[Point]) -> list[T]:
        """As in `JointPasses`."""
        return [add_up(self.rows(partial(_of_rows, stage, self.criterion, point))) for point in points]

    def subset(self, wanted: NDArray[np.bool_]) -> SamplePasses:
        """As in `JointPasses`: all of the one."""
        return self


def _of_rows(stage: ObjectiveStage[T], criterion: JointCriterion, point: Point, rows: JointRows) -> T:
    return stage(JointObjective(rows.sample, criterion, pairs=lambda: rows.pairs), rows.resampled, point)


class NonlinearObjectives:
    """Joint objectives of resamples, or that of the full sample, as functions of coefficients, shape (K p, m).

    Parameters
    ----------
    objective : JointObjective
        The objective, of whose rows nothing is asked.
    passes : JointPasses
        Passes over the rows.
    """

    def __init__(self, objective: JointObjective, passes: JointPasses) -> None:
        self.objective, self.passes = objective, passes
        self._first_pass: dict[bytes, list[FirstPassSums]] = {}
        self._expansions: dict[bytes, Expansion] = {}

    def first_pass(self, theta: Array) -> list[FirstPassSums]:
        """Sum what the terms need of all rows at theta, shape (K, p, m), for each group; a pass."""
        return self._known(self._first_pass, theta, lambda: self.passes.over(_first_pass, self._points(theta)))

    def at(self, theta: Array) -> Expansion:
        """Expand about theta, shape (K, p, m); a pass after the first."""
        return self._known(self._expansions, theta, lambda: self._expand(theta))

    def _expand(self, theta: Array) -> Expansion:
        first_pass = self.first_pass(theta)
        points = [
            dataclasses.replace(point, first_pass=of_group.without_slopes())
            for point, of_group in zip(self._points(theta), first_pass, strict=True)
        ]
        terms = self.passes.over(_terms, points)
        parts = [self.objective.expansion(*pair) for pair in zip(first_pass, terms, strict=True)]
        names = [field.name for field in dataclasses.fields(Expansion)]
        return Expansion(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def _points(self, theta: Array) -> list[Point]:
        return [Point(own) for own in np.split(theta, np.cumsum(self.passes.sizes)[:-1], axis=2)]

    def _known(self, known: dict[bytes, T], theta: Array, make: Callable[[], T]) -> T:
        """Return what is known of a point, or make it; that of the last points is kept."""
        key = theta.tobytes()
        if key not in known:
            known[key] = make()
            for old in list(known)[: -max(KNOWN // theta.shape[2], 1)]:
                del known[old]
        return known[key]

    def centres(self, theta: Array) -> VarianceCentres | None:
        """Return what centres psi of the full sample at theta, shape (K, p, 1), where there is V."""
        return self.first_pass(theta)[0].centres

    def _by_arm(self, theta: Array) -> Array:
        return theta.reshape(self.objective.sample.n_arms, -1, theta.shape[1])

    def expand(self, theta: Array) -> Expansions:
        """As in `numerics.optimize.Objectives`: the net biases with the largest penalty first."""
        at = self.at(self._by_arm(theta))
        equations = np.concatenate([at.strict, spectral_equations(at.gram)], axis=1)
        finite = np.isfinite(equations).all(axis=(1, 2)) & np.isfinite(at.curvature).all(axis=(1, 2))
        return Expansions(equations, at.curvature, np.where(finite, at.value, np.inf))

    def walls(self, theta: Array) -> Array:
        """As in `numerics.optimize.Objectives`; of rows in blocks the first pass, which is needed next."""
        theta = self._by_arm(theta)
        if self.passes.in_blocks:
            return np.concatenate([self.objective.strict_after_pass(sums) for sums in self.first_pass(theta)])
        return np.concatenate(self.passes.over(_walls, self._points(theta)))

    def subset(self, wanted: NDArray[np.bool_]) -> NonlinearObjectives:
        """As in `numerics.optimize.Objectives`."""
        return self if wanted.all() else NonlinearObjectives(self.objective, self.passes.subset(wanted))

    def minima(self, theta: Array) -> Minima:
        """Minimise from theta, shape (K, p, m)."""
        return minimize_stack(self, theta.reshape(-1, theta.shape[2]))


def _first_pass(objective: JointObjective, resampled: ResampledWeights, point: Point) -> FirstPassSums:
    with np.errstate(all="ignore"):  # where a step goes too far sums are not finite
        return objective.first_pass(objective.means(point.theta), resampled)


def _terms(objective: JointObjective, resampled: ResampledWeights, point: Point) -> ObjectiveTerms:
    first_pass = cast(FirstPassSums, point.first_pass)
    with np.errstate(all="ignore"):
        return objective.terms(objective.means(point.theta), resampled, first_pass)


def _walls(objective: JointObjective, resampled: ResampledWeights, point: Point) -> Any:
    with np.errstate(all="ignore"):
        return objective.strict_residuals(point.theta, resampled)


# --- both ----------------------------------------------------------------------------------------------------------


def solve(objective: JointObjective, passes: JointPasses, models: LinearModels, starts: Starts | None) -> list[Solved]:
    """Minimise the objectives of resamples.

    Parameters
    ----------
    objective : JointObjective
        The objective, of whose rows nothing is asked.
    passes : JointPasses
        Passes over the rows.
    models : LinearModels
        Where refits begin; of other than linear models theirs are the coefficients.
    starts : Starts or None
        IPWRA in all resamples; None of linear models, whose sums have it.

    Returns
    -------
    list
        The minima of each group of resamples.
    """
    if objective.sample.family.linear:
        points = [Point(models.theta[..., None])] * len(passes.sizes)
        found = passes.over(partial(_linear_sums, models), points)
        return [LinearObjectives(models, objective.criterion, sums).minima() for sums in found]
    if starts is None:
        raise TypeError("nonlinear models are refitted by themselves first")
    begin = np.repeat(models.theta[..., None], sum(passes.sizes), axis=2)
    minima, cuts = NonlinearObjectives(objective, passes).minima(begin), np.cumsum(passes.sizes)[:-1]
    theta = np.split(minima.theta.reshape(begin.shape), cuts, axis=2)
    ended = np.where(minima.settled, Failure.OK, Failure.OUTCOME_NOT_CONVERGED)
    ended = np.where(minima.singular, Failure.SINGULAR_OUTCOME, ended).astype(np.int8)
    sums = passes.over(_mean_sums, [Point(own) for own in theta])
    some = [starts.part(part) for part in np.split(np.arange(begin.shape[2]), cuts)]
    every = zip(theta, np.split(ended, cuts), sums, some, strict=True)
    return [Solved(own, failed, *of_group, started) for own, failed, of_group, started in every]


def _linear_sums(models: LinearModels, objective: JointObjective, resampled: ResampledWeights, _: Point) -> LinearSums:
    return LinearSums.of(models.rows(objective.sample), objective.criterion, resampled)


def _mean_sums(objective: JointObjective, resampled: ResampledWeights, point: Point) -> tuple[Array, Array]:
    """Sum arm means, and biases averaged over the replicates, (K, m), at theta (K, p, m)."""
    sample = objective.sample
    predicted = sample.family.mean(shifted(sample.X.columns @ point.theta, sample.offset, axis=-2))
    means = (resampled.share * resampled.at.tilt * predicted).sum(axis=1)
    error = resampled.share * resampled.moments.mean.w * (sample.own(predicted) - sample.y[:, None])
    return means, np.stack([error[rows].sum(axis=0) for rows in sample.slices])

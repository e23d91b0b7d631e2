"""The rows of a fit as the arrays of `causalrisk.joint`, in memory or in blocks of a scan, and passes over them.

Everything of JRE that knows of samples, importance weights and resamples stands here: a pass sums a function of `Rows`
and `Weights` over the rows under some columns of row weights, be these the sample's own, without a fold, or resamples'.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.problem import Block, KeptProblem, Problem, ScannedProblem
from causalrisk.estimators.refit import Weighing, weigh_resamples
from causalrisk.estimators.resampling import FullFit, KeptPasses, ResamplePasses, RowsToRefit, ScannedPasses
from causalrisk.estimators.sample import Sample
from causalrisk.joint.influence import Slopes
from causalrisk.joint.minimum import Evaluate
from causalrisk.joint.objective import Rows, Sums, Terms, Weights, curvature, expand, sums
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, row_blocks
from causalrisk.numerics.newton import NewtonFits
from causalrisk.propensity.models import ClippedModel, LikelihoodModel
from causalrisk.propensity.weights import TargetSums, WeightModel, predictor_columns

AT_ONCE = 32768  # numbers of an array of rows and columns of weights that are worked on at a time
FEW = 4096  # rows in memory that are worked on at once
RANK = 1e-9  # share of the variance of a column of the score that the outcome columns leave, below which it is rounding


@dataclass(frozen=True)
class Joined:
    """The linear predictor of the score among the outcome columns, less what these tell of it.

    Parameters
    ----------
    from_Z, from_X : ndarray, shape (q, e) and (p, e)
        The columns that it is made of are Z times the first less X times the second.
    of_score : ndarray, shape (e, q)
        Coordinates of the columns of Z in them.
    count : int
        Number of predictors; of as many columns as there are, the columns themselves join.
    """

    from_Z: Array
    from_X: Array
    of_score: Array
    count: int

    @property
    def fixed(self) -> bool:
        """Whether the columns themselves join, and nothing moves with the score."""
        return len(self.of_score) <= self.count

    @property
    def width(self) -> int:
        """Number of columns that join."""
        return min(len(self.of_score), self.count)

    def columns(self, sample: Sample) -> Array:
        """Return the columns of rows, shape (n, e)."""
        return sample.Z.columns @ self.from_Z - sample.X.columns @ self.from_X

    def lift(self, gamma: Array, p: int) -> Array:
        """Coefficients of all columns by those of the model, shape (P, p + width, R), at scores gamma (S, R)."""
        extra, q = self.of_score.shape
        found = np.zeros((p + extra, p + self.width, gamma.shape[1]))
        found[range(p), range(p)] = 1.0
        if self.fixed:
            found[range(p, p + extra), range(p, p + extra)] = 1.0
        else:
            by_predictor = gamma[: self.count * q].reshape(self.count, q, -1)
            found[p:, p:] = np.einsum("eq,lqr->elr", self.of_score, by_predictor)
        return found


def lifted(lift: Array | None, theta: Array) -> Array:
    """Coefficients of all columns, (K, P, R), from those of the models, (K, p, R)."""
    return theta if lift is None else np.einsum("Ppr,kpr->kPr", lift, theta)


def has_predictors(model: WeightModel) -> bool:
    """Whether the score has linear predictors with coefficients."""
    return isinstance(model.propensity, LikelihoodModel | ClippedModel)


def rows_of(sample: Sample, model: WeightModel, joined: Joined | None) -> Rows:
    """Return the arrays of rows."""
    frame, inside = model.membership is not None, sample.in_sample[:, None]
    columns = sample.X.columns if joined is None else np.hstack([sample.X.columns, joined.columns(sample)])
    return Rows(
        X=columns,
        y=sample.y,
        slices=sample.slices,
        family=sample.family,
        offset=0.0 if sample.offset is None else sample.offset[:, None],
        averaged=1 - inside if frame else 1.0,
        measured=inside if frame else 1.0,
    )


def weights_of(
    model: WeightModel, counts: Array, weighing: Weighing, shifts: Array, totals: list[TargetSums] | None, stack: bool
) -> Weights:
    """Weigh rows in R resamples and under replicates, whose scores are `shifts` (S, B) from each; a stack if it can be.

    `totals` are sums over all rows under the replicates of each resample, where tilts vary.
    """
    share, whole = counts / weighing.whole.total, weighing.whole
    if stack:
        terms, at = model.terms(model.predictors(weighing.gamma), counts, whole)
        tilt = np.broadcast_to(at.tilt, (len(counts), at.tilt.shape[1]))
        return Weights(share, tilt, at.w, tilt, terms, model.odds(model.predictors(shifts)))
    at = model.weights_at(model.predictors(weighing.gamma), counts, whole)
    b = model.weights_at(model.predictors(weighing.gamma + shifts), counts, whole if totals is None else totals[0])
    tilt, tilts = at.tilt[:, 0] * np.ones(len(counts)), None
    if not model.target.fixed_tilt:
        beside = model.membership is not None  # the tilt of a frame's rows, and the divisor's summands of the others
        tilt, tilts = (at.tilt + at.measure)[:, 0] if beside else tilt, b.tilt + b.measure if beside else b.tilt
        tilts = tilts * np.ones((1, shifts.shape[1]))
    return Weights.of_one(share[:, 0], tilt, at.w[:, 0], b.w * np.ones((1, shifts.shape[1])), tilts)


@dataclass(frozen=True)
class Given:
    """Columns of row weights in place of resamples: those of the sample, or without each fold.

    Parameters
    ----------
    n_boot : int
        How many.
    of_block : callable
        Returns the columns for a block.
    """

    n_boot: int
    of_block: Callable[[Block], Array]

    def groups(self) -> list[slice]:
        """As in `Resamples`: one."""
        return [slice(0, self.n_boot)]

    def counts(self, block: Block, group: slice) -> Array:
        """As in `Resamples`."""
        return self.of_block(block)[:, group]


def own_weights(block: Block) -> Array:
    """Weights of the rows of a block, shape (n, 1)."""
    return block.sample.s[:, None]


def passes_of(problem: Problem, full: FullFit, given: Given) -> ResamplePasses:
    """Return passes over all rows under given columns of weights."""
    if isinstance(problem, ScannedProblem):
        return ScannedPasses(problem, full, given)  # type: ignore[arg-type]
    if not isinstance(problem, KeptProblem):
        raise TypeError("rows are in memory, or of a scan")
    return kept_passes(problem, full, given.of_block(problem.some_block()))


def kept_passes(problem: KeptProblem, full: FullFit, counts: Array) -> KeptPasses:
    """Return passes over rows in memory, some at a time where they are many, under columns of weights."""
    by_rows = problem.model is not None and problem.model.by_rows
    alone = not by_rows or problem.sample.n <= FEW
    return KeptPasses(problem, full, counts, [RowsToRefit(problem.some_block(), full)] if alone else None)


@dataclass(frozen=True)
class Weighed:
    """Passes over rows under R columns of row weights, with the scores of each and replicates about these.

    Parameters
    ----------
    passes : ResamplePasses
        The passes.
    weighing : Weighing
        The scores.
    failures : ndarray of int8, shape (R,)
        Of the scores.
    shifts : ndarray, shape (S, B)
        Distances of the replicates from the score.
    joined : Joined, optional
        The score's predictor among the outcome columns.
    totals : list of TargetSums, optional
        Sums over all rows under the replicates of each column, where tilts vary.
    """

    passes: ResamplePasses
    weighing: Weighing
    failures: NDArray[np.int8]
    shifts: Array
    joined: Joined | None
    totals: list[TargetSums] | None

    @classmethod
    def of(
        cls,
        passes: ResamplePasses,
        gamma: Array,
        shifts: Array,
        joined: Joined | None,
        fits: NewtonFits | None,
    ) -> tuple[Weighed, float]:
        """Fit the scores, if they are not given; also returns the widest row, as `weigh_resamples`."""
        weighing, failures, widest = weigh_resamples(passes, gamma, fits)
        weighing = Weighing(weighing.gamma, weighing.whole)
        totals = None
        if not passes.problem.target.fixed_tilt:
            found = passes.over(functools.partial(_replicate_totals, weighing.gamma, shifts))
            totals = [
                TargetSums(weighing.whole.total[[j]], of.tilt, of.measure)
                for j, of in enumerate(one for group in found for one in group)
            ]
        return cls(passes, weighing, failures, shifts, joined, totals), widest

    @property
    def count(self) -> int:
        """R."""
        return self.weighing.gamma.shape[1]

    def over(self, function: Callable[..., Any], *arrays: Array, whole: bool = False) -> list[Any]:
        """Make a pass: for each group of columns the sum of function(rows, weights, *arrays) over the rows.

        Arrays have the columns as their last axis. With `whole` the function takes the sample, the weight model and the
        number of rows before these too.
        """
        stage = functools.partial(_on_rows, function, self._without_passes, arrays, whole)
        return self.passes.over(stage, add_up)

    @property
    def _without_passes(self) -> Weighed:
        return dataclasses.replace(self, passes=None)  # type: ignore[arg-type]

    def sums(self, theta: Array, start: Array, terms: Terms) -> Sums:
        """Sum the objective over all rows, at coefficients of all columns (K, P, R)."""
        given = (theta,) if start is theta else (theta, start)
        return beside(self.over(functools.partial(_sums, terms), *given))

    @functools.cached_property
    def lift(self) -> Array | None:
        """Coefficients of all columns by those of the models, shape (P, p, R)."""
        if self.joined is None:
            return None
        return self.joined.lift(self.weighing.gamma, self.joined.from_X.shape[0])

    def evaluate(self, start: Array, terms: Terms) -> Evaluate:
        """Return the objective as a function of theta, (K, p, R); `start` are the models of IPWRA on all columns."""

        def at(theta: Array) -> Any:
            beta = lifted(self.lift, theta)
            of = self.sums(beta, start, terms)
            expansion = projected(expand(of, terms), self.lift, len(beta))
            if self.passes.problem.family.linear:
                return expansion, None

            def curved(nu: Array) -> Array:
                parts = self.over(functools.partial(_curvature, terms), beta, start, *of_axes_last(of), nu.T)
                return projected_blocks(beside(parts), self.lift)

            return expansion, curved

        return at


def _replicate_totals(
    gamma: Array, shifts: Array, rows: RowsToRefit, counts: Array, group: slice
) -> tuple[TargetSums, ...]:
    model = rows.weight_model
    own = (model.predictors(gamma[:, [j]] + shifts) for j in range(group.start, group.stop))
    return tuple(model.target_sums(eta, counts[:, [j]]) for j, eta in enumerate(own))


def _on_rows(
    function: Callable[..., Any], weighed: Weighed, arrays: tuple[Array, ...], whole: bool, rows: RowsToRefit,
    counts: Array, group: slice,
) -> Any:  # fmt: skip
    """Apply a function to some rows under a group of columns of weights, some rows or a column at a time."""
    model, size = rows.weight_model, counts.shape[1]
    stack = model.separable and size > 1
    parts = []
    width = size if stack else 1
    for first in range(0, size, width):
        some, found = slice(group.start + first, group.start + first + width), []
        weighing = weighed.weighing.some(some)
        totals = None if weighed.totals is None else weighed.totals[some]
        places = row_blocks(len(counts), max(AT_ONCE // width, 256)) if model.by_rows else [slice(0, len(counts))]
        for place in places:
            sample, part = (rows.sample, model) if len(places) == 1 else (rows.sample.part(place), model.part(place))
            own = rows_of(sample, part, weighed.joined)
            w = weights_of(part, counts[place, first : first + width], weighing, weighed.shifts, totals, stack)
            before = (sample, part, place, rows.block) if whole else ()
            found.append(function(*before, own, w, *(each[..., some] for each in arrays)))
        parts.append(add_up(found))
    return parts[0] if len(parts) == 1 else beside(parts)


def _sums(terms: Terms, rows: Rows, weights: Weights, theta: Array, *start: Array) -> Sums:
    return sums(rows, weights, theta, start[0] if start else theta, terms)


AXES = {"hessian": 2, "loss_hessian": 1, "biases": 1, "biases_slope": 2}  # of the columns of weights, if not the last


def beside(parts: list[Any]) -> Any:
    """Put sums of groups of columns of weights beside each other."""
    if len(parts) == 1:
        return parts[0]
    if not isinstance(parts[0], Sums):
        return np.concatenate(parts, axis=1 if parts[0].ndim == 4 else -1)  # of matrices (K, R, P, P), or the last
    names = [field.name for field in dataclasses.fields(Sums)]
    return Sums(**{n: np.concatenate([getattr(p, n) for p in parts], axis=AXES.get(n, -1)) for n in names})


def of_axes_last(of: Sums) -> tuple[Array, ...]:
    """Return what the curvature needs of sums over all rows, the columns of weights last."""
    return of.M, of.R, of.t_psi, of.h_psi, of.tt, of.th, of.hh, of.biases.transpose(0, 2, 1)


def _curvature(terms: Terms, rows: Rows, weights: Weights, theta: Array, start: Array, *given: Array) -> Array:
    M, R, t_psi, h_psi, tt, th, hh, biases, nu = given
    none = dict.fromkeys((field.name for field in dataclasses.fields(Sums)), np.empty(0))
    known = {"M": M, "R": R, "t_psi": t_psi, "h_psi": h_psi, "tt": tt, "th": th, "hh": hh}
    of = Sums(**none | known | {"biases": biases.transpose(0, 2, 1)})
    return curvature(rows, weights, theta, start, terms, of, nu)


def projected_blocks(blocks: Array, lift: Array | None) -> Array:
    """Put matrices of the arms (K, R, P, P) into one, (R, K p, K p), for coefficients of the models."""
    if lift is not None:
        blocks = np.einsum("Ppr,krPQ,Qqr->krpq", lift, blocks, lift, optimize=True)
    n_arms, m, p, _ = blocks.shape
    found = np.zeros((m, n_arms, p, n_arms, p))
    for a in range(n_arms):
        found[:, a, :, a] = blocks[a]
    return found.reshape(m, n_arms * p, n_arms * p)


def projected(of: Any, lift: Array | None, n_arms: int) -> Any:
    """Return an expansion in the coefficients of the models."""
    if lift is None:
        return of
    _, p, m = lift.shape

    def vector(values: Array) -> Array:
        shape = values.shape[1:-1]
        wide = values.reshape(m, -1, n_arms, lift.shape[0])
        return np.einsum("rckP,Ppr->rckp", wide, lift, optimize=True).reshape(m, *shape, n_arms * p)

    def matrix(values: Array) -> Array:
        wide = values.reshape(m, n_arms, lift.shape[0], n_arms, lift.shape[0])
        found = np.einsum("Ppr,rkPlQ,Qqr->rkplq", lift, wide, lift, optimize=True)
        return found.reshape(m, n_arms * p, n_arms * p)

    return dataclasses.replace(
        of,
        gradient=vector(of.gradient),
        hessian=matrix(of.hessian),
        loss_gradient=vector(of.loss_gradient),
        loss_hessian=matrix(of.loss_hessian),
        u_slope=vector(of.u_slope),
    )


def slopes_of(model: WeightModel, counts: Array, weighed: Weighed) -> Slopes:
    """Return the derivatives of the weights of rows by the predictors of the score, of the sample."""
    gamma, none = weighed.weighing.gamma, np.zeros((0, 1))
    eta, totals = model.predictors(gamma), None if weighed.totals is None else weighed.totals[0]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        at = model.slopes(eta, counts, weighed.weighing.whole, none)
        b = model.slopes(
            model.predictors(gamma + weighed.shifts), counts, weighed.weighing.whole if totals is None else totals, none
        )
    ones = np.ones((1, 1, weighed.shifts.shape[1]))
    varying = not model.target.fixed_tilt and at.measure is not None and b.measure is not None
    return Slopes(
        w=at.w[..., 0],
        tilt=at.measure[..., 0] if varying and at.measure is not None else None,
        replicated=b.w * ones,
        tilts=b.measure * ones if varying and b.measure is not None else None,
        columns=predictor_columns(model.columns, model.beside, len(at.w)) if len(at.w) else [],
    )

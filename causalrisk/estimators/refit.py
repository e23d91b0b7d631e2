"""Batched refits: the stages of a fit, each a pass over the rows under many resamples together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import Failure, first_failure
from causalrisk.estimators.estimates import ROWS_TOGETHER, Estimate, Refits
from causalrisk.estimators.outcome import OutcomeLikelihood, mean_columns, outcome_failures, solved_change
from causalrisk.estimators.problem import Block, KeptProblem, ScannedProblem, scanned
from causalrisk.estimators.resampling import (
    FullFit,
    KeptPasses,
    Likelihoods,
    ResamplePasses,
    Resamples,
    RowsToRefit,
    ScannedPasses,
    widest_row,
)
from causalrisk.estimators.sample import Sample
from causalrisk.estimators.specification import EffectScale, RefittedRows, Specification
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.newton import LikelihoodSums, NewtonFits, WeightedRows, refit_batch
from causalrisk.propensity.models import LikelihoodModel, likelihood_of
from causalrisk.propensity.targets import FrameTarget, Target
from causalrisk.propensity.weights import TargetSums, WeightFit

T = TypeVar("T")
ARRAYS = 4  # with a number for each row and resample, where the rows are not worked on in blocks


class ResampledLikelihood:
    """Likelihoods of rows that come in blocks, under many resamples; each set of gammas takes a pass.

    Parameters
    ----------
    passes : ResamplePasses
        Passes over the rows.
    likelihoods : callable
        Some rows, their multiplicities and the resamples -> the likelihoods, as many as `which` has rows.
    bounded : bool
        As in `newton.Likelihood`.
    widest : float
        Largest sum of the sizes of the columns of a row.
    which : ndarray of bool, shape (parts, n_boot)
        The likelihoods and resamples that are columns of gamma, likelihood by likelihood.
    """

    halving = False

    def __init__(
        self,
        passes: ResamplePasses,
        likelihoods: Likelihoods,
        *,
        bounded: bool,
        widest: float,
        which: NDArray[np.bool_],
    ) -> None:
        self.passes, self.likelihoods, self.bounded = passes, likelihoods, bounded
        self.widest, self.which = widest, which

    @property
    def width(self) -> int:
        """As in `newton.WeightedLikelihood`."""
        return int(self.which.sum())

    def sums(self, gamma: Array) -> LikelihoodSums:
        """As in `newton.WeightedLikelihood`; a pass."""
        size, m = len(gamma), self.width
        gamma = np.broadcast_to(gamma, (size, m))
        total = LikelihoodSums(np.zeros((m, size, size)), np.zeros((size, m)))
        for at, found in self._pass("sums", gamma, add_up):
            total.hessian[at], total.gradient[:, at] = found.hessian, found.gradient
        return total

    def loss(self, gamma: Array) -> Array:
        """As in `newton.WeightedLikelihood`; a pass."""
        return self._values("loss", gamma, add_up)

    def farthest(self, gamma: Array) -> Array:
        """As in `newton.WeightedLikelihood`; a pass."""
        return self._values("farthest", gamma, largest)

    def some(self, which: NDArray[np.bool_]) -> ResampledLikelihood:
        """As in `newton.WeightedLikelihood`."""
        kept = np.zeros_like(self.which)
        kept[self.which] = which
        return ResampledLikelihood(self.passes, self.likelihoods, bounded=self.bounded, widest=self.widest, which=kept)

    def _values(self, method: str, gamma: Array, combine: Callable[[Iterable[Any]], Any]) -> Array:
        values = np.zeros(gamma.shape[1])
        for at, found in self._pass(method, gamma, combine):
            values[at] = found
        return values

    def _pass(
        self, method: str, gamma: Array, combine: Callable[[Iterable[Any]], Any]
    ) -> Iterator[tuple[NDArray[np.intp], Any]]:
        """Yield columns of gamma, and what a method of the likelihoods finds there."""
        place = np.full(self.which.shape, -1)
        place[self.which] = np.arange(gamma.shape[1])
        stage = functools.partial(_by_likelihood, method, self.likelihoods, gamma, place)
        by_part = functools.partial(_by_part, combine)
        for group, found in zip(self.passes.groups(), self.passes.over(stage, by_part), strict=True):
            for part, values in zip(place[:, group], found, strict=True):
                if values is not None:
                    yield part[part >= 0], values


def _by_likelihood(
    method: str, likelihoods: Likelihoods, gamma: Array, place: NDArray[np.intp], rows: RowsToRefit, counts: Array,
    group: slice,
) -> list[Any]:  # fmt: skip
    """Apply a method of each likelihood to some rows; None where no resample of the group is a column of gamma."""
    own, wanted = place[:, group], place[:, group] >= 0
    if not wanted.any():
        return [None] * len(own)
    found = []
    for at, which, likelihood in zip(own, wanted, likelihoods(rows, counts, group), strict=True):
        some = likelihood if which.all() else likelihood.some(which)
        found.append(getattr(some, method)(gamma[:, at[which]]) if which.any() else None)
    return found


def _by_part(combine: Callable[[Iterable[Any]], Any], parts: Iterable[list[Any]]) -> list[Any]:
    """Combine what was found of each likelihood."""
    return [None if found[0] is None else combine(found) for found in zip(*parts, strict=True)]


def largest(parts: Iterable[Array]) -> Array:
    """Largest of values that rows have, resample by resample."""
    return functools.reduce(np.maximum, parts)


# --- the stages of a refit, each a pass --------------------------------------------------------------------------


class SeparateRefitter:
    """Refits every estimator but the joint one, in memory.

    Parameters
    ----------
    sample : Sample
        The data.
    spec : Specification
        The estimator.
    weight_fit : WeightFit or None
        The full-sample importance weights.
    estimate : Estimate
        The full-sample estimate.
    target : Target
        The target population.
    effect_scale : EffectScale
        How the effect is reported.
    """

    rows_together = ROWS_TOGETHER

    def __init__(
        self,
        sample: Sample,
        spec: Specification,
        weight_fit: WeightFit | None,
        estimate: Estimate,
        target: Target,
        effect_scale: EffectScale,
    ) -> None:
        model = None if weight_fit is None else weight_fit.model
        self.problem = KeptProblem(spec=spec, target=target, sample=sample, model=model)
        self.weight_fit = weight_fit
        level = self.problem.level
        theta = estimate.theta - level.height * level.direction
        self.full = FullFit(estimate.params, theta, level, effect_scale)

    @property
    def arrays(self) -> int:
        """As in `estimates.Refitter`; over blocks of rows the multiplicities alone."""
        return 1 if len(self.problem.places) > 1 else ARRAYS

    def refit(self, counts: Array, fits: NewtonFits | None = None) -> Refits:
        """As in `estimates.Refitter`."""
        if self.weight_fit is None:
            fits, gamma = None, np.empty(0)
        else:
            fits, gamma = fits or self.weight_fit.refit(counts), self.weight_fit.gamma
        refits = refit_passes(self.passes(counts), gamma, fits)
        if self.weight_fit is None or len(self.weight_fit.coefficients) == len(gamma):
            return refits
        first = len(refits.values) - len(gamma)  # the log odds that a classifier gives are no estimates
        values = np.delete(refits.values, np.s_[first : len(refits.values) - len(self.weight_fit.coefficients)], axis=0)
        return Refits(values, refits.failures)

    def passes(self, counts: Array) -> KeptPasses:
        """Return passes over the rows under multiplicities."""
        return KeptPasses(self.problem, self.full, counts, self._kept)

    def steps(self, counts: Array, fits: NewtonFits | None = None) -> Array:
        """Return what each row adds to weighted means under resamples, shape (n, m); arguments as in `refit`."""
        gamma = np.empty(0) if self.weight_fit is None else self.weight_fit.gamma
        passes = self.passes(counts)
        weighing, _, _ = weigh_resamples(passes, gamma, fits)
        theta = np.repeat(self.full.theta[..., None], counts.shape[1], axis=2)
        stage = functools.partial(
            _on_refitted, lambda rows: rows.share * rows.w * rows.sample.in_sample[:, None], weighing, theta
        )
        return np.concatenate(passes.over(stage, list)[0])

    @cached_property
    def _kept(self) -> list[RowsToRefit] | None:
        return [RowsToRefit(self.problem.some_block(), self.full)] if len(self.problem.places) == 1 else None


def refit_passes(passes: ResamplePasses, gamma: Array, fits: NewtonFits | None = None) -> Refits:
    """Estimate again under resamples: importance weights, outcome models, means.

    Parameters
    ----------
    gamma : ndarray, shape (S,)
        The full-sample propensity coefficients.
    fits : NewtonFits, optional
        Propensity refits, where they were made already.
    """
    return refit_weighed(passes, *weigh_resamples(passes, gamma, fits))


def refit_weighed(passes: ResamplePasses, weighing: Weighing, failures: NDArray[np.int8], widest: float) -> Refits:
    """Estimate again under resamples with importance weights: outcome models, means; arguments by `weigh_resamples`."""
    theta, outcome = _fit_outcome(passes, weighing, failures == Failure.OK, widest)
    means = passes.problem.spec.mean.refit(functools.partial(_over_refits, passes, weighing, theta))
    return passes.full.refits(means, theta, weighing.gamma, first_failure(failures, *outcome))


def weigh_resamples(
    passes: ResamplePasses, gamma: Array, fits: NewtonFits | None = None
) -> tuple[Weighing, NDArray[np.int8], float]:
    """Fit the importance weights under all resamples.

    Parameters
    ----------
    gamma : ndarray, shape (Q,)
        The full-sample propensity coefficients.
    fits : NewtonFits, optional
        Propensity refits, where they were made already.

    Returns
    -------
    weighing : Weighing
        The weights; the coefficients of a fit that failed are those of the full sample.
    failures : ndarray of int8, shape (n_boot,)
        What failed.
    widest : float
        Largest sum of the sizes of the outcome columns of a row.
    """
    found = passes.over(_totals_and_widest, _added_and_largest)
    totals, widest = np.concatenate([part[0] for part in found], axis=1), found[0][1]
    present = np.asarray((totals > 0).all(axis=0))
    failures = np.where(present, Failure.OK, Failure.EMPTY_ARM).astype(np.int8)
    coefficients = np.empty((0, len(present)))
    if passes.problem.weighs:
        fits = _fit_propensity(passes, gamma, present, widest[1]) if fits is None else fits
        coefficients = np.where(fits.failures == Failure.OK, fits.coefficients, gamma[:, None])
        failures = first_failure(failures, fits.failures)
    kept = dict[str, Any]() if passes.alone else None
    weighing = Weighing(coefficients, _target_of(passes, totals, coefficients), kept)
    return weighing, failures, float(widest[0])


def refit_propensity(problem: ScannedProblem, full: FullFit, gamma: Array, resamples: Resamples) -> NewtonFits:
    """Fit the propensity model under resamples that have rows in every arm, such as propensity replicates.

    Parameters
    ----------
    gamma : ndarray, shape (Q,)
        Its propensity coefficients.
    """
    widest = max(problem.over(_widest_row))
    every = np.ones(resamples.n_boot, dtype=bool)
    return _fit_propensity(ScannedPasses(problem, full, resamples), gamma, every, widest)


def _widest_row(block: Block) -> float:
    return widest_row(block.sample)


def _fit_propensity(passes: ResamplePasses, gamma: Array, present: NDArray[np.bool_], widest: float) -> NewtonFits:
    """Fit the models of the arm, of the membership of a target frame and of the observation, as `_fit_model`."""
    models = scanned(passes.problem).some_block().weight_model.models  # those in memory are refitted by themselves
    fits = [
        _fit_model(passes, functools.partial(_of_model, k), likelihood_of(model), gamma[part], present, widest)
        for k, (model, part) in enumerate(models)
    ]
    return functools.reduce(NewtonFits.above, fits)


def _fit_model(
    passes: ResamplePasses, likelihoods: Likelihoods, model: LikelihoodModel, gamma: Array, present: NDArray[np.bool_],
    widest: float,
) -> NewtonFits:  # fmt: skip
    """Fit a model under every resample that has rows in every arm, a pass an iteration; `model` is without rows."""
    likelihood = ResampledLikelihood(
        passes, likelihoods, bounded=model.likelihood.bounded, widest=widest, which=present[None]
    )
    fits = refit_batch(likelihood, gamma, restart=np.zeros(len(gamma)))
    coefficients = np.repeat(gamma[:, None], len(present), axis=1)
    failures = np.full(len(present), Failure.EMPTY_ARM, dtype=np.int8)
    coefficients[:, present], failures[present] = fits.coefficients, fits.failures
    return NewtonFits(coefficients, failures, fits.iterations)


def _target_of(passes: ResamplePasses, totals: Array, gamma: Array) -> TargetSums:
    """Return what weights are divided by: sums of arms, or a pass where the tilt depends on the score."""
    target, n_arms = passes.problem.target, passes.problem.n_arms
    total = totals[:n_arms].sum(axis=0)
    total = np.where(total > 0, total, 1.0)
    if target.fixed_tilt:
        tilt = total if target.toward is None else totals[target.toward]
        return TargetSums(total, tilt, tilt)
    if not passes.problem.weighs:
        return TargetSums(total, totals[n_arms], totals[n_arms])
    found = passes.over(functools.partial(_target_sums, gamma))
    return TargetSums(
        *(np.concatenate([getattr(part, name) for part in found]) for name in ("total", "tilt", "measure"))
    )


def _fit_outcome(
    passes: ResamplePasses, weighing: Weighing, usable: NDArray[np.bool_], widest: float
) -> tuple[Array, list[NDArray[np.int8]]]:
    """Train the arms under every resample: coefficients, shape (K, p, n_boot), and for each arm what failed."""
    start, family, m = passes.full.theta, passes.problem.outcome_family, len(usable)
    theta = np.repeat(start[..., None], m, axis=2)
    if passes.problem.spec.given:
        return theta, [np.zeros(m, dtype=np.int8)] * len(start)
    if family.linear:
        found = passes.over(functools.partial(_equations, weighing))
        alone = passes.problem.spec.of_controls
        solved = [solved_change(_beside([part[a] for part in found]), alone and a > 0) for a in range(len(start))]
        return theta + np.stack([change for change, _ in solved]), [failures for _, failures in solved]
    likelihood = ResampledLikelihood(
        passes,
        functools.partial(_outcome, weighing),
        bounded=OutcomeLikelihood(family, np.empty(0)).bounded,
        widest=widest,
        which=np.tile(usable, (len(start), 1)),
    )
    from_full = np.repeat(start, usable.sum(), axis=0).T
    fits = refit_batch(likelihood, from_full, restart=from_full)
    failures = np.zeros((len(start), m), dtype=np.int8)
    failures[:, usable] = outcome_failures(fits.failures).reshape(len(start), -1)
    theta[:, :, usable] = fits.coefficients.T.reshape(len(start), -1, start.shape[1]).transpose(0, 2, 1)
    return theta, list(failures)


def _over_refits(
    passes: ResamplePasses, weighing: Weighing, theta: Array, function: Callable[[RefittedRows], Array]
) -> Array:
    """Make a pass over the rows under refitted outcome models: a function's sums, of all resamples."""
    return np.concatenate(passes.over(functools.partial(_on_refitted, function, weighing, theta)), axis=-1)


def _beside(parts: list[LikelihoodSums]) -> LikelihoodSums:
    """Put the sums of groups of resamples beside each other."""
    hessian = np.concatenate([part.hessian for part in parts])
    return LikelihoodSums(hessian, np.concatenate([part.gradient for part in parts], axis=1))


# --- what a stage makes of some rows -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Weighing:
    """Fitted importance weights of the resamples.

    Parameters
    ----------
    gamma : ndarray, shape (Q, n_boot)
        Propensity coefficients.
    whole : TargetSums
        What weights are divided by.
    kept : dict, optional
        Weights and outcome models of rows that are the same in every pass, under one group of resamples.
    """

    gamma: Array
    whole: TargetSums
    kept: dict[str, Any] | None = None

    def some(self, columns: slice | NDArray[np.intp]) -> Weighing:
        """Return that of some of the resamples."""
        return Weighing(self.gamma[:, columns], self.whole.some(columns))

    def of(self, rows: RowsToRefit, counts: Array, group: slice) -> tuple[Array, Array]:
        """Tilt and importance weights of some rows, as by `RowsToRefit.weights`."""
        own = self.some(group)
        return self.once("weights", lambda: rows.weights(counts, own.gamma, own.whole))

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Make something of the rows: anew, or for those that stay in the first pass."""
        if self.kept is None:
            return make()
        if name not in self.kept:
            self.kept[name] = make()
        made: T = self.kept[name]
        return made


def _totals_and_widest(rows: RowsToRefit, counts: Array, group: slice) -> tuple[Array, Array]:
    """Sum of the multiplicities of each arm, and of a target frame if there is one, (K, w) or (K + 1, w); `widest`."""
    sample, frame = rows.sample, counts[: rows.sample.n_frame].sum(axis=0)
    observed = counts * sample.in_sample[:, None] if sample.n_frame else counts
    totals = [observed[members].sum(axis=0) for members in sample.slices]
    return np.stack([*totals, frame] if isinstance(rows.block.problem.target, FrameTarget) else totals), rows.widest


def _added_and_largest(parts: Iterable[tuple[Array, Array]]) -> tuple[Array, Array]:
    totals, widest = zip(*parts, strict=True)
    return add_up(totals), largest(widest)


def _of_model(k: int, rows: RowsToRefit, counts: Array, group: slice) -> list[WeightedRows]:
    """Return the likelihood of one of `WeightModel.models`."""
    model, own = rows.weight_model.likelihood(k, counts)
    return [model.batch(own)]


def _target_sums(gamma: Array, rows: RowsToRefit, counts: Array, group: slice) -> TargetSums:
    return rows.weight_model.target_sums(rows.weight_model.predictors(gamma[:, group]), counts)


def _training(weighing: Weighing, rows: RowsToRefit, counts: Array, group: slice) -> list[Array]:
    return rows.training(counts, weighing.of(rows, counts, group)[1])


def _outcome(weighing: Weighing, rows: RowsToRefit, counts: Array, group: slice) -> list[WeightedRows]:
    """Return the likelihoods of the outcome models."""

    def make() -> list[WeightedRows]:
        training = _training(weighing, rows, counts, group)
        return [model.batch(weights) for model, weights in zip(rows.outcome, training, strict=True)]

    return weighing.once("outcome", make)


def _equations(weighing: Weighing, rows: RowsToRefit, counts: Array, group: slice) -> tuple[LikelihoodSums, ...]:
    """Sum what the coefficients of linear outcome models solve."""
    training = _training(weighing, rows, counts, group)
    every = zip(rows.outcome, training, rows.full.theta, strict=True)
    return tuple(model.equations(weights, theta) for model, weights, theta in every)


def _on_refitted(
    function: Callable[[RefittedRows], Array], weighing: Weighing, theta: Array, rows: RowsToRefit, counts: Array,
    group: slice,
) -> Array:  # fmt: skip
    """Apply a function of the rows under refitted outcome models."""
    sample, share, (tilt, w) = rows.sample, counts / weighing.whole.total[group], weighing.of(rows, counts, group)
    at_means = rows.q if sample.late is None else mean_columns(sample, rows.spec)
    return function(RefittedRows(sample, rows.family, at_means, rows.q, theta[..., group], share, tilt, w, group))

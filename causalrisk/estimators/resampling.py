"""Resamples and propensity replicates: how the rows of a fit are drawn, and passes over the rows under resamples.

In memory the resamples come a group after the other, whose multiplicities are kept. Over a scan a pass sums over the
rows of each block for all resamples, `multiplicities.WIDTH` at a time, whose weights are drawn again in every pass.
The sums of the blocks are added up in their order.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design
from causalrisk.design.survey import SurveyDesign
from causalrisk.errors import BootstrapError, Notes, ResampleWarning, failure_text
from causalrisk.estimators.estimates import RELATIVE_ROUNDING, Refits, collect_refits
from causalrisk.estimators.outcome import ArmModel, Level, arm_models, training_columns, training_family
from causalrisk.estimators.problem import Block, KeptProblem, Problem, ScannedProblem, row_chunks, unit_resampler
from causalrisk.estimators.sample import Sample
from causalrisk.estimators.specification import DIFFERENCE, EffectScale, Specification
from causalrisk.estimators.weights import plain_tilt
from causalrisk.numerics.blocks import KEPT, add_up
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array, row_blocks
from causalrisk.numerics.multiplicities import (
    JACKKNIFE,
    REPLICATE_STREAM,
    RESAMPLE_STREAM,
    WIDTH,
    Resampler,
    Units,
    given_multiplicities,
    stream_generator,
)
from causalrisk.numerics.newton import WeightedRows
from causalrisk.propensity.replicates import Replicates, draw_replicates
from causalrisk.propensity.weights import TargetSums, WeightFit, WeightModel

FRAME_STREAM = 16  # added to a stream for the rows of a target frame
FEW = 8  # columns of weights below which one after the other, without products of pairs, is as fast as together
BY_DESIGN = ("rescaled", "replicates")  # kinds of resamples that a survey design has
MOST_FAILED = 0.5  # share of the replicates that may fail: the others still say how the score varies


def unit_count(design: Design) -> int:
    """Return the number of clusters of a design, or of its rows where it has none."""
    return design.n_clusters or design.n


def frame_resampler(design: Design, kind: str, seed: np.random.SeedSequence, n_frame: int) -> Resampler:
    """Make what draws the rows of a target frame, which have neither clusters nor arms, or leaves them out last."""
    own = Resampler.of(kind if kind in ("bayesian", JACKKNIFE) else "pairs", seed, n_frame)
    return dataclasses.replace(own, first=unit_count(design))


@dataclass(frozen=True)
class SampleResampler:
    """The random part of a fit; multiplicities are of rows in the order of the sample.

    Parameters
    ----------
    resampler : Resampler
        Draws the rows of the design.
    frame : Resampler or None
        Draws those of a target frame, which are a sample of their own.
    units : Units
        The rows of the design.
    sample : Sample
        Whose rows are drawn.
    frequency : bool
        Whether weights count repeated rows.
    survey : SurveyDesign, optional
        The survey design that resamples are drawn by.
    """

    resampler: Resampler
    frame: Resampler | None
    units: Units
    sample: Sample
    frequency: bool
    survey: SurveyDesign | None = None

    def draw(self, stream: int, block: int, width: int) -> Array:
        """Multiplicities of a block, times the weights of the rows."""
        if self.survey is None:
            drawn = self.resampler.draw(stream, block, width, self.units)
        else:
            drawn = self._survey_columns(self.survey, stream, block, width)[self.sample.order]
            drawn *= self.units.weights[:, None]
        if self.frame is None:
            return drawn
        return np.concatenate([self.frame.draw(stream + FRAME_STREAM, block, width, self._frame_units), drawn])

    def _survey_columns(self, survey: SurveyDesign, stream: int, block: int, width: int) -> Array:
        """Multiplicities of a block by replicate weights, or by the rescaled bootstrap, rows as in the design."""
        if survey.replication is not None:
            return given_block(survey.replication.multiplicities, block, width)
        return survey.resampled(functools.partial(stream_generator, self.resampler.seed, stream, block), width)

    def perturbations(self, block: int, width: int, spread: float, at_once: int) -> Iterator[Array]:
        """Draw fractional weights of a block of propensity replicates, in groups of `at_once` columns."""
        drawn = self.resampler.perturbations(REPLICATE_STREAM, block, width, self.units, spread=spread, at_once=at_once)
        if self.frame is None:
            return drawn
        of_frame = self.frame.perturbations(
            REPLICATE_STREAM + FRAME_STREAM, block, width, self._frame_units, spread=spread, at_once=at_once
        )
        return map(np.concatenate, zip(of_frame, drawn, strict=True))

    def given(self, option: str, values: Any) -> Array:
        """Check multiplicities that the caller gave, (n_design, m), and arrange them as the sample.

        They are multiplied by observation weights that do not count rows; a target frame stays as it is.
        """
        multiplicities = given_multiplicities(option, values, len(self.sample.order))
        scale = np.ones(self.sample.n) if self.frequency else self.sample.s
        ones = np.ones((self.sample.n_frame, multiplicities.shape[1]))
        return self.sample.arrange(np.concatenate([multiplicities, ones])) * scale[:, None]

    @property
    def _frame_units(self) -> Units:
        return Units(np.arange(self.sample.n_frame), np.ones(self.sample.n_frame))


def sample_resampler(design: Design, sample: Sample, kind: str, seed: np.random.SeedSequence) -> SampleResampler:
    """Make the resampler of a design: of its clusters where it has any, of arms for "stratified"."""
    own, frequency = slice(sample.n_frame, None), design.weight_type == "frequency"
    number = sample.order if design.cluster is None else design.cluster[sample.order]
    strata = sample.arm[own] if kind == "stratified" else None
    units, survey = Units(number, sample.s[own], strata), None
    if kind in BY_DESIGN:  # fractional weights are drawn by units or rows
        kind, survey = "cluster" if design.n_clusters else "pairs", design.survey
    resampler = unit_resampler(design, kind, seed, design.n, functools.partial(row_chunks, design, units, design.n))
    frame = frame_resampler(design, kind, seed, sample.n_frame) if sample.n_frame else None
    return SampleResampler(resampler, frame, units, sample, frequency, survey)


def fit_replicates(
    weight_fit: WeightFit, resampler: SampleResampler, given: Array | None, n_drawn: int, spread: float, notes: Notes
) -> Replicates:
    """Draw the weights of the replicates, or take those that were given, and fit them.

    Parameters
    ----------
    given : ndarray, shape (n, B), or None
        Weights that the caller gave, rows in the order of the sample.

    Raises
    ------
    BootstrapError
        If fewer than half of them can be fitted.
    """
    if not weight_fit.model.propensity.estimated:
        return Replicates.single(weight_fit.gamma)
    at_once = int(np.clip(KEPT // (64 * len(weight_fit.excess)), 1, WIDTH))
    at_once = at_once if at_once >= FEW else 1
    draws = _drawn(resampler, n_drawn, spread, at_once) if given is None else _given_groups(given, at_once)
    return checked_replicates(draw_replicates(weight_fit, draws), notes)


def checked_replicates(replicates: Replicates, notes: Notes) -> Replicates:
    """Return replicates of which at least half could be fitted; a BootstrapError otherwise, a warning of the others."""
    n_drawn = len(replicates.failures)
    failed = n_drawn - replicates.count
    if failed > MOST_FAILED * n_drawn:
        raise BootstrapError(
            f"{failed} of {n_drawn} propensity replicates failed, more than half: "
            f"{failure_text(replicates.failures)}.\nSimplify the formula in propensity=, or use `IPWRA`."
        )
    if failed:
        notes.warn(
            f"{failed} of {n_drawn} propensity replicates were left out: {failure_text(replicates.failures)}.\n"
            "See res.replicate_ledger; a simpler formula in propensity= would avoid it.",
            ResampleWarning,
        )
    return replicates


def _drawn(resampler: SampleResampler, n_drawn: int, spread: float, at_once: int) -> Iterator[Array]:
    """Weights of the replicates, `at_once` columns at a time."""
    for block, first in enumerate(range(0, n_drawn, WIDTH)):
        yield from resampler.perturbations(block, min(WIDTH, n_drawn - first), spread, at_once)


def _given_groups(given: Array, at_once: int) -> Iterator[Array]:
    """Columns of given weights, `at_once` at a time."""
    for block in range(-(-given.shape[1] // WIDTH)):
        own = given_block(given, block, WIDTH)
        for first in range(0, own.shape[1], at_once):
            yield own[:, first : first + at_once]


def given_block(given: Array, block: int, width: int) -> Array:
    """Columns of a block of given multiplicities."""
    return given[:, block * WIDTH : block * WIDTH + width]


# --- passes under resamples ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resamples:
    """Draws the resamples of a block.

    Parameters
    ----------
    resampler : Resampler
        Draws multiplicities.
    n_boot : int
        How many resamples there are.
    spread : float, optional
        Of propensity replicates in the place of resamples: how much their fractional weights vary.
    some : slice, optional
        Some of the groups, where not all are worked on in a pass.
    """

    resampler: Resampler
    n_boot: int
    spread: float | None = None
    some: slice | None = None

    def groups(self) -> list[slice]:
        """Resamples that are worked on together."""
        every = [slice(first, min(first + WIDTH, self.n_boot)) for first in range(0, self.n_boot, WIDTH)]
        return every if self.some is None else every[self.some]

    def counts(self, block: Block, group: slice) -> Array:
        """Multiplicities times observation weights of a group of resamples, rows in the order of the sample."""
        resampler, shift = self.resampler, 0
        width, number, units = group.stop - group.start, group.start // WIDTH, block.units(resampler.kind)
        if block.of_frame and isinstance(block.problem, ScannedProblem):
            problem, shift = block.problem, FRAME_STREAM
            resampler = frame_resampler(problem.design, resampler.kind, resampler.seed, problem.n_frame)
        if self.spread is not None:
            return resampler.perturb(REPLICATE_STREAM + shift, number, width, units, spread=self.spread)
        if block.multiplicities is not None:
            sample = block.sample
            return np.asarray(sample.s[:, None] * block.multiplicities[sample.order, group])
        return resampler.draw(RESAMPLE_STREAM + shift, number, width, units)


@dataclass(frozen=True)
class FullFit:
    """The full-sample estimate, which resamples start from.

    Parameters
    ----------
    params : ndarray, shape (2 K - 1,)
        Effects and arm means.
    theta : ndarray, shape (K, p)
        Outcome coefficients, of outcomes measured from the level.
    level : Level
        Where the outcome lies.
    effect_scale : EffectScale
        How the effect is reported.
    """

    params: Array
    theta: Array
    level: Level
    effect_scale: EffectScale

    @property
    def coefficients(self) -> Array:
        """Outcome coefficients of outcomes as they are, shape (K, p)."""
        return self.theta + self.level.height * self.level.direction

    def without_level(self) -> FullFit:
        """Return a fit of outcomes as they are, for what starts from it; its coefficients stay."""
        return dataclasses.replace(self, level=Level(0.0, np.zeros_like(self.level.direction)))

    def refits(self, means: Array, theta: Array, gamma: Array, failures: NDArray[np.int8]) -> Refits:
        """Collect the values of m resamples.

        Parameters
        ----------
        means : ndarray, shape (K, m)
            Arm means, measured from the level.
        theta : ndarray, shape (K, p, m)
            Outcome coefficients, measured from it.
        gamma : ndarray, shape (Q, m)
            Propensity coefficients.
        failures : ndarray of int8, shape (m,)
            What failed.
        """
        level, error = self.level, RELATIVE_ROUNDING * np.abs(self.params[-len(means) :])[:, None]
        if self.effect_scale != DIFFERENCE:
            means = self.effect_scale.on_bounds(means + level.height, error) - level.height
        params = level.params(self.effect_scale, means)
        return collect_refits(params, theta + level.height * level.direction[:, None], gamma, failures)


@dataclass(frozen=True)
class RowsToRefit:
    """Rows under multiplicities: all of a sample, or a block of them."""

    block: Block
    full: FullFit

    @cached_property
    def sample(self) -> Sample:
        """The rows, outcomes measured from the level."""
        return dataclasses.replace(self.block.sample, y=self.block.sample.y - self.full.level.height)

    @property
    def spec(self) -> Specification:
        """The estimator."""
        return self.block.problem.spec

    @property
    def weight_model(self) -> WeightModel:
        """Propensity model and target, where there are importance weights to fit."""
        return self.block.weight_model

    @cached_property
    def q(self) -> Array:
        """Columns of the outcome models, shape (n, p)."""
        return training_columns(self.sample, self.spec)

    @cached_property
    def widest(self) -> Array:
        """Largest sums of the sizes of the columns of a row, of the outcome and of the other designs, shape (2,)."""
        return np.array([np.abs(self.q).sum(axis=1).max(initial=0), widest_row(self.sample)])

    @cached_property
    def family(self) -> OutcomeFamily:
        """Family of the outcome models."""
        return training_family(self.sample, self.spec)

    @cached_property
    def outcome(self) -> list[ArmModel]:
        """The outcome model of each arm."""
        return arm_models(self.sample, self.spec)

    def weights(self, counts: Array, gamma: Array, whole: TargetSums) -> tuple[Array, Array]:
        """Tilt and importance weights under multiplicities (n, m) and propensity coefficients (S, m).

        `whole` has the sums over all rows.
        """
        target, model = self.block.problem.target, self.block.model
        if model is None:
            return plain_tilt(self.sample, target, counts, whole.mean_tilt), np.ones((self.sample.n, 1))
        at = model.weights_at(model.predictors(gamma), counts, whole)
        return at.tilt, at.w

    def training(self, counts: Array, w: Array) -> list[Array]:
        """Weights of the training of the outcome model of each arm, shape (n_a, m)."""
        training = counts * (w if self.spec.weighted else self.sample.with_outcome[:, None])
        return [training[rows] for rows in self.sample.slices]


RowStage: TypeAlias = Callable[[RowsToRefit, Array, slice], Any]
Likelihoods: TypeAlias = Callable[[RowsToRefit, Array, slice], list[WeightedRows]]


class ResamplePasses(ABC):
    """Passes over the rows of a problem under resamples.

    Attributes
    ----------
    problem : Problem
        What is estimated.
    full : FullFit
        The full-sample estimate.
    alone : bool
        Whether the rows are a few in memory, made once for all passes.
    """

    problem: Problem
    full: FullFit
    alone = False

    @abstractmethod
    def groups(self) -> list[slice]:
        """Resamples that are worked on together."""

    @abstractmethod
    def over(self, stage: RowStage, combine: Callable[[Iterable[Any]], Any] = add_up) -> list[Any]:
        """Make a pass.

        Parameters
        ----------
        stage : callable
            What is made of some rows, their multiplicities (n, w) and the resamples they are of, a slice; a stage that
            returns None for a group leaves it out.
        combine : callable
            How these become those of all rows.

        Returns
        -------
        list
            For each group of resamples what was made of all rows.
        """


class KeptPasses(ResamplePasses):
    """Passes over rows in memory under one group of resamples, whose multiplicities are kept.

    Parameters
    ----------
    problem, full
        As in `ResamplePasses`.
    counts : ndarray, shape (n, m)
        Multiplicities times observation weights.
    kept : sequence of RowsToRefit, optional
        The rows, where they are made once for all passes; otherwise they are made anew in each.
    """

    problem: KeptProblem

    def __init__(
        self, problem: KeptProblem, full: FullFit, counts: Array, kept: Sequence[RowsToRefit] | None = None
    ) -> None:
        self.problem, self.full, self.counts, self.kept = problem, full, counts, kept
        self.alone = kept is not None and len(kept) == 1

    def groups(self) -> list[slice]:
        """As in `ResamplePasses`: one."""
        return [slice(0, self.counts.shape[1])]

    def over(self, stage: RowStage, combine: Callable[[Iterable[Any]], Any] = add_up) -> list[Any]:
        """As in `ResamplePasses`."""
        with np.errstate(all="ignore"):  # resamples that cannot be fitted are counted
            return [combine(self._stages(stage))]

    def _stages(self, stage: RowStage) -> Iterator[Any]:
        every = slice(0, self.counts.shape[1])
        anew = (RowsToRefit(self.problem.block(place), self.full) for place in row_blocks(self.problem.sample.n))
        for rows in anew if self.kept is None else self.kept:
            yield stage(rows, self.counts[rows.block.place], every)


@dataclass(frozen=True)
class ScannedPasses(ResamplePasses):
    """Passes over the rows of a scan under all resamples.

    Parameters
    ----------
    problem, full
        As in `ResamplePasses`.
    resamples : Resamples
        The resamples.
    """

    problem: ScannedProblem
    full: FullFit
    resamples: Resamples

    def groups(self) -> list[slice]:
        """As in `ResamplePasses`."""
        return self.resamples.groups()

    def over(self, stage: RowStage, combine: Callable[[Iterable[Any]], Any] = add_up) -> list[Any]:
        """As in `ResamplePasses`."""
        function = functools.partial(_of_block, stage, combine, self.full, self.resamples)
        return _in_order(self.problem.over(function), combine)


def _in_order(blocks: Iterator[list[Any]], combine: Callable[[Iterable[Any]], Any]) -> list[Any]:
    total = next(blocks)
    for found in blocks:
        total = [combine(pair) for pair in zip(total, found, strict=True)]
    return total


def _of_block(
    stage: RowStage, combine: Callable[[Iterable[Any]], Any], full: FullFit, resamples: Resamples, block: Block
) -> list[Any]:
    """For each group of resamples what a stage makes of the rows of a block, a few in the cache at a time."""
    found = []
    for group in resamples.groups():
        with np.errstate(all="ignore"):  # resamples that cannot be fitted are counted
            counts = resamples.counts(block, group)
            found.append(combine(_stages(stage, full, block, group=group, counts=counts)))
    return found


def _stages(stage: RowStage, full: FullFit, block: Block, *, group: slice, counts: Array) -> Iterator[Any]:
    for part in row_blocks(block.sample.n):
        yield stage(RowsToRefit(block.part(part), full), counts[part], group)


def widest_row(sample: Sample) -> float:
    """Largest sum of the sizes of the columns of a row, of the designs of propensity and observation model."""
    designs = [sample.Z] if sample.R is None else [sample.Z, sample.R]
    return max(float(np.abs(design.columns).sum(axis=1).max(initial=0)) for design in designs)

"""What is estimated from a scan, and its rows block by block as the estimators work on them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design import ScannedDesign, TargetRows
from causalrisk.design.scan.coder import CodedBlock, PassCounter
from causalrisk.design.scan.piece import Place
from causalrisk.estimators.exposure import stated_exposure
from causalrisk.estimators.options import ModelOptions
from causalrisk.estimators.prepare import make_model
from causalrisk.estimators.resampling import row_chunks, unit_resampler
from causalrisk.estimators.sample import BlockSample, block_sample
from causalrisk.estimators.specification import Specification
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import Chunks, Resampler, Units
from causalrisk.propensity.models import LikelihoodModel, likelihood_of
from causalrisk.propensity.targets import DATA_FRAME, FrameTarget, Target, TiltTarget, frame_target
from causalrisk.propensity.weights import WeightModel, membership_of

T = TypeVar("T")


@dataclass(frozen=True)
class Block:
    """A block of rows, sorted by arm.

    Parameters
    ----------
    places : tuple of Place
        Where the rows are from.
    sample : BlockSample
        The rows.
    model : WeightModel
        Propensity model and target, on the rows.
    position : ndarray of int, shape (n,)
        Number of each row in all data.
    problem : Problem
        What is estimated.
    """

    places: tuple[Place, ...]
    sample: BlockSample
    model: WeightModel
    position: NDArray[np.intp]
    problem: Problem

    @property
    def propensity(self) -> LikelihoodModel:
        """The propensity model as it is fitted, before clipping; those that are no likelihood are refused."""
        return likelihood_of(self.model.propensity)

    @property
    def cluster(self) -> NDArray[np.intp] | None:
        """Clusters, shape (n,)."""
        return self.sample.cluster

    @property
    def membership(self) -> LikelihoodModel:
        """The membership model of a target frame."""
        return likelihood_of(membership_of(self.model))

    def scored(self, gamma: Array) -> tuple[Array, Array]:
        """Probability of each arm, (K, n), and importance weights not divided by the mean tilt, (n,), under (S,)."""
        eta = self.model.predictors(gamma[:, None])
        return self.model.probabilities(eta)[:, :, 0], self.model.undivided(eta)[:, 0]

    @property
    def of_frame(self) -> bool:
        """Whether the rows are of a target frame."""
        return self.sample.n_frame > 0

    def units(self, kind: str) -> Units:
        """Rows as a kind of resampling draws them; those of a target frame are numbered by themselves, without arms."""
        if self.of_frame:
            return Units(self.position, self.sample.s)
        number = self.position if self.cluster is None else self.cluster
        return Units(number, self.sample.s, self.sample.arm if kind == "stratified" else None)


@dataclass(frozen=True)
class Problem:
    """What is estimated from which data.

    Parameters
    ----------
    design : ScannedDesign
        The data.
    spec : Specification
        The estimator.
    options : ModelOptions
        What is estimated.
    target : Target
        The target population.
    family : OutcomeFamily
        Family of the outcome models.
    workers : int, default 1
        Blocks worked on at a time.
    passes : PassCounter, optional
        Shows how far each pass is.
    full_design : ScannedDesign, optional
        The data before trimming.
    trimmed : str, default ""
        As in `FitRecord`.
    frame : TargetRows, optional
        Rows of a target frame; they are worked on here, and do not travel.
    n_frame : int, default 0
        How many.
    """

    design: ScannedDesign
    spec: Specification
    options: ModelOptions
    target: Target
    family: OutcomeFamily
    workers: int = 1
    passes: PassCounter | None = None
    full_design: ScannedDesign | None = None
    trimmed: str = ""
    frame: TargetRows | None = None
    n_frame: int = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes to workers, which need to know of a target frame only that it is one."""
        known = dict(self.__dict__, frame=None)
        if self.n_frame:
            known["options"] = dataclasses.replace(self.options, target=DATA_FRAME)
        return known

    @property
    def n_arms(self) -> int:
        """K."""
        return self.design.n_arms

    @property
    def n_clusters(self) -> int:
        """Number of clusters, of which each row of a target frame is one; 0 where there are none."""
        return self.design.n_clusters + self.n_frame if self.design.n_clusters else 0

    @property
    def total(self) -> float:
        """Sum of the observation weights, N."""
        return float(self.design.arm_totals.sum())

    @property
    def weighs(self) -> bool:
        """Whether there are importance weights to fit."""
        return self.spec.uses_propensity or isinstance(self.target, TiltTarget)

    def resampler(self, kind: str, seed: np.random.SeedSequence) -> Resampler:
        """Return what draws multiplicities of the rows, whole clusters where there are any."""
        n = self.design.n_read  # blocks number their rows among all that are read
        return unit_resampler(self.design, kind, seed, n, functools.partial(self._chunks, kind, n))

    def _chunks(self, kind: str, n: int) -> Chunks:
        """Make a pass that counts the units in each chunk of rows."""
        function = functools.partial(_block_chunks, self.design, kind, n)
        return functools.reduce(Chunks.beside, self.design.over(function, self.workers, self.passes))

    def over(self, function: Callable[[Block], T]) -> Iterator[T]:
        """Begin a pass over the rows: what a function makes of each block, in the order of the blocks.

        The rows of a target frame come first.
        """
        if self.frame is not None:
            size = self.design.block_rows
            for first in range(0, self.n_frame, size):
                yield function(self._frame_block(self.frame, slice(first, min(first + size, self.n_frame))))
        yield from self.design.over(functools.partial(_of_coded, self, function), self.workers, self.passes)

    def block(self, block: CodedBlock) -> Block:
        """Make the sample and the models of a block."""
        design, stated = self.design, stated_exposure(self.design, self.options)
        sample = block_sample(
            block,
            design.outcome_basis,
            design.propensity_basis,
            family=self.family,
            n_arms=self.n_arms,
            total=self.total,
            at=None if stated is None else float(np.log(stated)),
        )
        return Block(
            places=block.places,
            sample=sample,
            model=self.weight_model(sample),
            position=block.position[sample.order],
            problem=self,
        )

    def _frame_block(self, frame: TargetRows, rows: slice) -> Block:
        """Make a block of rows of the target frame, as `make_sample` puts them into a sample."""
        design, stated, n = self.design, stated_exposure(self.design, self.options), rows.stop - rows.start
        offsets, number = design.offset_kind is not None, np.arange(rows.start, rows.stop)
        x = design.outcome_basis.of(frame.X[rows])
        sample = BlockSample(
            y=np.full(n, design.outcome_moments[0]),
            X=x,
            Z=design.propensity_basis.of(frame.Z[rows]),
            arm=np.zeros(n, dtype=np.intp),
            s=np.ones(n),
            slices=(slice(0, n), *[slice(n, n)] * (self.n_arms - 1)),
            order=np.empty(0, dtype=np.intp),
            family=self.family,
            offset=np.zeros(n) if offsets else None,
            mean_offset=np.full(n, np.log(stated)) if offsets and stated is not None else None,
            whole=self.total,
            cluster=number + design.n_clusters if design.n_clusters else None,
        )
        return Block(
            places=(Place("the target frame", rows.start, n),),
            sample=sample,
            model=self.weight_model(sample),
            position=number,
            problem=self,
        )

    def weight_model(self, sample: BlockSample) -> WeightModel:
        """Return propensity model and target on some rows."""
        propensity = make_model(self.design, sample=sample, target=self.target, options=self.options, frame=None)
        target = self.target
        if isinstance(target, FrameTarget):
            target = frame_target(sample.Z.columns, sample.observed == 0)
        return WeightModel(propensity, target, sample.observed)

    def without_rows(self) -> Block:
        """Return a block without rows, which knows the columns and models."""
        design, none = self.design, np.empty(0)
        p, q = len(design.exog_names), len(design.propensity_names)
        arm = np.empty(0, dtype=np.intp)
        return self.block(
            CodedBlock(
                places=(),
                position=arm,
                y=none,
                X=np.empty((0, p)),
                Z=np.empty((0, q)),
                arm=arm,
                weights=none,
                cluster=None,
                offset=None if design.offset_kind is None else none,
                table=pd.DataFrame(),
                place=arm,
            )
        )


def _of_coded(problem: Problem, function: Callable[[Block], T], block: CodedBlock) -> T:
    return function(problem.block(block))


def _block_chunks(design: ScannedDesign, kind: str, n: int, block: CodedBlock) -> Chunks:
    return row_chunks(design, Units(block.position, block.weights, block.arm if kind == "stratified" else None), n)

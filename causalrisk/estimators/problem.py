"""What is estimated from which rows: a fit is a sequence of passes over blocks of them.

In memory the rows are kept, as one block or in parts of one sample; those of a scan are read, or taken from its store,
and come in blocks that are sorted by arm one by one. Whatever a stage needs of all rows, it sums in a pass.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design, ScannedDesign, TargetRows
from causalrisk.design.scan.coding import CodedBlock
from causalrisk.design.scan.source import naming
from causalrisk.estimators.options import ModelOptions
from causalrisk.estimators.outcome import (
    LEVEL_TOLERANCE,
    LINEAR,
    Level,
    level_at,
    outcome_level,
    training_family,
)
from causalrisk.estimators.sample import BlockSample, Sample, ScannedSample, by_arm
from causalrisk.estimators.specification import Specification
from causalrisk.learners.folds import folds_of
from causalrisk.numerics.blocks import add_up, of_made
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import Chunks, Resampler, Units
from causalrisk.propensity.models import (
    BinaryModel,
    CalibratedModel,
    ClassifierModel,
    ClippedModel,
    KnownModel,
    MultinomialModel,
    PropensityModel,
)
from causalrisk.propensity.targets import DATA_FRAME, FrameTarget, Target, TiltTarget, frame_target
from causalrisk.propensity.weights import WeightModel

T = TypeVar("T")
EMPTY = np.empty(0, dtype=np.intp)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of rows, sorted by arm.

    Parameters
    ----------
    sample : Sample
        The rows.
    model : WeightModel or None
        Propensity model and target, on the rows; None where there are no importance weights to fit.
    problem : Problem
        What is estimated.
    place : slice
        Where the rows stand in a sample in memory; of a scan they are in no sample.
    position : ndarray of int, shape (n,)
        Of a scan the number of each row among those of the sample.
    where : str
        Of a scan where the rows are from.
    multiplicities : ndarray, shape (n, R), optional
        Of a scan replicate weights over the weights, in the order in which the rows came.
    """

    sample: Sample
    model: WeightModel | None
    problem: Problem
    place: slice = dataclasses.field(default_factory=lambda: slice(0, 0))
    position: NDArray[np.intp] = dataclasses.field(default_factory=lambda: EMPTY)
    where: str = ""
    multiplicities: Array | None = None

    @property
    def weight_model(self) -> WeightModel:
        """The model, where there is one."""
        if self.model is None:
            raise TypeError("there are no importance weights to fit")
        return self.model

    def part(self, rows: slice) -> Block:
        """Return some of the rows."""
        model = None if self.model is None else self.model.part(rows)
        return dataclasses.replace(self, sample=self.sample.part(rows), model=model)

    def scored(self, gamma: Array) -> tuple[Array, Array, Array | None]:
        """Probability of each arm, importance weights not divided by the mean tilt, and probability of an outcome.

        Under coefficients of shape (S,); of shapes (K, n), (n,) and (n,), the last where outcomes are missing.
        """
        model = self.weight_model
        eta = model.predictors(gamma[:, None])
        chances = model.observation_probabilities(eta)
        return (
            model.probabilities(eta)[:, :, 0], model.undivided(eta)[:, 0], None if chances is None else chances[:, 0]
        )  # fmt: skip

    @property
    def of_frame(self) -> bool:
        """Whether the rows of a scan are of a target frame."""
        return self.sample.n_frame > 0

    @property
    def number(self) -> NDArray[np.intp] | None:
        """Number of each row of a scan among all, those of a target frame last; None in memory."""
        problem = self.problem
        if not isinstance(problem, ScannedProblem):
            return None
        return self.position + problem.design.n if self.of_frame else self.position

    def units(self, kind: str) -> Units:
        """Rows as a kind of resampling draws them; those of a target frame are numbered by themselves, without arms."""
        if self.of_frame:
            return Units(self.position, self.sample.s)
        number = self.position if self.sample.cluster is None else self.sample.cluster
        return Units(number, self.sample.s, self.sample.arm if kind == "stratified" else None)


@dataclass(frozen=True, kw_only=True)
class Problem(ABC):
    """What is estimated from which rows."""

    spec: Specification
    target: Target
    in_memory: ClassVar[bool]

    @property
    @abstractmethod
    def known(self) -> Sample:
        """The sample as it is kept after the fit: of a scan what does not go by rows."""

    @property
    def family(self) -> OutcomeFamily:
        """Family of the outcome models."""
        return self.known.family

    @property
    def n_arms(self) -> int:
        """K."""
        return self.known.n_arms

    @property
    def total(self) -> float:
        """Sum of the observation weights, N."""
        return self.known.total

    @property
    @abstractmethod
    def weighs(self) -> bool:
        """Whether there are importance weights to fit."""

    @property
    @abstractmethod
    def level(self) -> Level:
        """The level of the outcome that linear models with a constant can leave out."""

    @property
    @abstractmethod
    def outcome_family(self) -> OutcomeFamily:
        """Family of the outcome models as they are trained."""

    @abstractmethod
    def over(self, function: Callable[[Block], T]) -> Iterator[T]:
        """Begin a pass over the rows: what a function makes of each block, in the order of the blocks."""

    @abstractmethod
    def some_block(self) -> Block:
        """Return a block of the rows or of none, which knows the columns and models."""


@dataclass(frozen=True, kw_only=True)
class KeptProblem(Problem):
    """What is estimated from rows in memory.

    Parameters
    ----------
    sample : Sample
        The rows.
    model : WeightModel or None
        Propensity model and target, on the rows; None where there are no importance weights to fit.
    """

    sample: Sample
    model: WeightModel | None
    in_memory = True

    @property
    def known(self) -> Sample:
        """As in `Problem`: all of it."""
        return self.sample

    @property
    def weighs(self) -> bool:
        """Whether there is a model of the arms."""
        return self.model is not None

    @property
    def outcome_family(self) -> OutcomeFamily:
        """As in `Problem`."""
        return training_family(self.sample, self.spec)

    @functools.cached_property
    def level(self) -> Level:
        """As in `Problem`."""
        return outcome_level(self.sample, self.spec)

    @property
    def places(self) -> list[slice]:
        """Rows of each block: all in one where they are few, or where the propensity model is one of all rows."""
        by_rows = self.model is None or self.model.by_rows
        return self.sample.parts() if by_rows else [slice(0, self.sample.n)]

    def over(self, function: Callable[[Block], T]) -> Iterator[T]:
        """As in `Problem`."""
        return (function(self.block(place)) for place in self.places)

    def some_block(self) -> Block:
        """As in `Problem`: all rows."""
        return self.block(slice(0, self.sample.n))

    def block(self, place: slice) -> Block:
        """Return some of the rows, or all of them, which are then those that were given."""
        whole = Block(sample=self.sample, model=self.model, problem=self, place=place)
        return whole if place == slice(0, self.sample.n) else whole.part(place)


@dataclass(frozen=True, kw_only=True)
class ScannedProblem(Problem):
    """What is estimated from a scan.

    Parameters
    ----------
    design : ScannedDesign
        The data.
    options : ModelOptions
        What is estimated.
    workers : int, default 1
        Blocks worked on at a time.
    frame : TargetRows, optional
        Rows of a target frame; they are worked on here, and do not travel.
    n_frame : int, default 0
        How many.
    """

    design: ScannedDesign
    options: ModelOptions
    workers: int = 1
    frame: TargetRows | None = None
    n_frame: int = 0
    in_memory = False

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes to workers, which need to know of a target frame only that it is one."""
        known = dict(self.__dict__, frame=None)
        if self.n_frame:
            known["options"] = dataclasses.replace(self.options, target=DATA_FRAME)
        return known

    @functools.cached_property
    def known(self) -> Sample:
        """As in `Problem`."""
        design, total = self.design, float(self.design.arm_totals.sum())
        bases = {"X": design.outcome_basis, "Z": design.propensity_basis, "R": design.observation_basis}
        return ScannedSample(**bases, family=self.options.outcome_family, total=total, n_arms=design.n_arms)

    @property
    def n_clusters(self) -> int:
        """Number of clusters, of which each row of a target frame is one; 0 where there are none."""
        return self.design.n_clusters + self.n_frame if self.design.n_clusters else 0

    @property
    def weighs(self) -> bool:
        """Whether the estimator or the target has importance weights."""
        return weighs(self.spec, self.target)

    @property
    def outcome_family(self) -> OutcomeFamily:
        """As in `Problem`."""
        return LINEAR if self.spec.constants and self.design.offset_kind is None else self.family

    @functools.cached_property
    def level(self) -> Level:
        """As in `Problem`."""
        direction = np.ones(1) if self.spec.constants else self.design.constant
        if not self.outcome_family.linear or abs(direction @ direction - 1) > LEVEL_TOLERANCE:
            return Level(0.0, np.zeros(len(direction)))
        return level_at(*self.design.outcome_moments, direction)

    def resampler(self, kind: str, seed: np.random.SeedSequence) -> Resampler:
        """Return what draws multiplicities of the rows, whole clusters where there are any."""
        return unit_resampler(self.design, kind, seed, self.design.n, functools.partial(self._chunks, kind))

    def _chunks(self, kind: str) -> Chunks:
        """Make a pass that counts the units in each chunk of rows."""
        function = functools.partial(_block_chunks, self.design, kind)
        return add_up(self.design.over(function, self.workers))

    def over(self, function: Callable[[Block], T]) -> Iterator[T]:
        """As in `Problem`; the rows of a target frame come first."""
        if self.frame is not None:
            size = self.design.block_rows
            for first in range(0, self.n_frame, size):
                coded = self._coded(self.frame, slice(first, min(first + size, self.n_frame)))
                yield function(self.block(coded, of_frame=True))
        yield from self.design.over(functools.partial(of_made, function, self.block), self.workers)

    def check_outcome(self, block: Block) -> None:
        """Refuse outcomes that the family does not have, naming their place."""
        outcome, name = block.sample.y[block.sample.n_frame :], self.design.endog_name
        with naming(block.where):
            self.family.check(outcome, name)

    def block(self, block: CodedBlock, of_frame: bool = False) -> Block:
        """Make the sample of a block, its rows sorted by arm, and the models."""
        design, stated, R = self.design, self.options.stated_exposure(self.design), self.design.observation_basis
        order, slices = by_arm(block.arm, self.n_arms, 0)
        x, offset = design.outcome_basis.of(block.X, order), None if block.offset is None else block.offset[order]
        y, seen = block.y[order], block.recorded[order]
        sample = BlockSample(
            y=y if R is None else np.where(seen, y, design.outcome_limits.mean()),  # where it counts for nothing
            R=None if R is None or block.R is None else R.of(block.R, order),
            recorded=None if R is None else seen.astype(float),
            X=x,
            Z=x if block.Z is block.X else design.propensity_basis.of(block.Z, order),
            arm=block.arm[order],
            s=block.weights[order],
            slices=slices,
            order=EMPTY if of_frame else order,
            family=self.family,
            offset=offset,
            mean_offset=offset if stated is None or offset is None else np.full_like(offset, np.log(stated)),
            whole=self.total,
            cluster=None if block.cluster is None else block.cluster[order],
            stratum=None if block.stratum is None else block.stratum[order],
        )
        return Block(
            where=block.where,
            sample=sample,
            model=self.weight_model(sample),
            position=block.position[order],
            problem=self,
            multiplicities=block.multiplicities,
        )

    def _coded(self, frame: TargetRows, rows: slice) -> CodedBlock:
        """Code some rows of the target frame, as `make_sample` puts them into a sample: without an outcome."""
        design, number = self.design, np.arange(rows.start, rows.stop)
        n = len(number)
        return CodedBlock(
            where="the target frame",
            position=number,
            y=np.full(n, design.outcome_moments[0] if design.observation is None else np.nan),
            X=frame.X[rows],
            Z=frame.Z[rows],
            arm=np.zeros(n, dtype=np.intp),
            weights=np.ones(n),
            cluster=number + design.n_clusters if design.n_clusters else None,
            offset=None if design.offset_kind is None else np.zeros(n),
            stratum=None if design.survey is None else np.full(n, len(design.survey.units)),
            R=None if design.observation is None else np.zeros((n, len(design.observation.names))),
        )

    def weight_model(self, sample: Sample) -> WeightModel | None:
        """Return propensity model and target on some rows."""
        if not self.weighs:
            return None
        target = self.target
        propensity = make_model(self.design, sample=sample, target=target, options=self.options, frame=None)
        if isinstance(target, FrameTarget):
            target = frame_target(sample.Z.columns, sample.in_sample == 0)
        return WeightModel(propensity, target, sample.in_sample, observation_model(sample, self.spec))

    def some_block(self) -> Block:
        """As in `Problem`: none."""
        design, none = self.design, np.empty(0)
        return self.block(
            CodedBlock(
                where="",
                position=EMPTY,
                y=none,
                X=np.empty((0, len(design.exog_names))),
                Z=np.empty((0, len(design.propensity_names))),
                arm=EMPTY,
                weights=none,
                cluster=None,
                offset=None if design.offset_kind is None else none,
                R=None if design.observation is None else np.empty((0, len(design.observation.names))),
            )
        )


def kept(problem: Problem) -> KeptProblem:
    """Return a problem whose rows are in memory."""
    if not isinstance(problem, KeptProblem):
        raise TypeError("the rows of this problem are not in memory")
    return problem


def scanned(problem: Problem) -> ScannedProblem:
    """Return a problem whose rows are those of a scan."""
    if not isinstance(problem, ScannedProblem):
        raise TypeError("this problem is no scan")
    return problem


def _block_chunks(design: ScannedDesign, kind: str, block: CodedBlock) -> Chunks:
    units = Units(block.position, block.weights, block.arm if kind == "stratified" else None)
    return row_chunks(design, units, design.n)


def unit_resampler(
    design: Design, kind: str, seed: np.random.SeedSequence, n: int, chunks: Callable[[], Chunks]
) -> Resampler:
    """Make the resampler of the n rows of a design, or of its clusters.

    Parameters
    ----------
    kind, seed
        As in `Resampler`.
    chunks : callable
        Returns the chunks of all rows; called where rows are drawn one by one or within their arms.
    """
    one_by_one = design.weight_type == "frequency"
    if design.n_clusters:
        return Resampler.of(kind, seed, design.n_clusters)
    if one_by_one or kind == "stratified":
        return Resampler(kind, seed, chunks(), one_by_one)
    return Resampler.of(kind, seed, n)


def row_chunks(design: Design, units: Units, n: int) -> Chunks:
    """Return what some rows of a design add to the chunks of its n rows: one each, or what frequency weights count."""
    sizes = units.weights if design.weight_type == "frequency" else np.ones(len(units.number))
    return dataclasses.replace(units, weights=sizes).chunks(n, design.n_arms)


def weighs(spec: Specification, target: Target) -> bool:
    """Whether an estimator or its target has importance weights to fit."""
    return spec.uses_propensity or isinstance(target, TiltTarget)


def observation_model(sample: Sample, spec: Specification) -> BinaryModel | None:
    """Return the logit of the outcome being observed; None where none is missing, or the estimator has no weights."""
    if sample.R is None or sample.recorded is None or not spec.uses_propensity:
        return None
    return BinaryModel(sample.R.columns, sample.recorded.astype(np.intp), "logit")


def make_model(
    design: Design, sample: Sample, target: Target, options: ModelOptions, frame: TargetRows | None
) -> PropensityModel:
    """Return the propensity model that the options name, on the rows of the sample."""
    columns, arm = sample.Z.columns, sample.arm
    model: PropensityModel
    if design.score is not None:
        filler = np.full((sample.n_frame, design.n_arms), 1 / design.n_arms)
        model = KnownModel(columns, arm, sample.arrange(np.concatenate([design.score, filler])))
    elif options.propensity_score is not None:
        features = sample.arrange(design.Z if frame is None else np.concatenate([design.Z, frame.Z]))
        of_frame = folds_of(np.zeros(sample.n_frame, dtype=np.intp), None, options.n_folds, options.repeat)
        fold = np.concatenate([folds_of(design.arm, design.cluster, options.n_folds, options.repeat), of_frame])
        model = ClassifierModel(
            columns=columns,
            arm=arm,
            n_arms=design.n_arms,
            classifier=options.propensity_score,
            features=features,
            fold=sample.arrange(fold),
            limits=options.clip,
            repeat=options.repeat,
        )
    elif options.propensity_loss == "calibrated":
        model = CalibratedModel(columns, arm, design.n_arms, target.toward)
    elif design.n_arms == 2:
        model = BinaryModel(columns, arm, options.propensity_link)
    else:
        model = MultinomialModel(columns, arm, design.n_arms)
    return model if options.clip is None else ClippedModel(model, *options.clip)

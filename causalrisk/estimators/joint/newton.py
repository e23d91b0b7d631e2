"""Minima of nonlinear joint objectives, of the full sample or of many resamples together, by Newton's method.

Flows in: passes over rows with their importance weights, and where to begin. Flows out: theta of each objective, found
in a trust region. A point takes two passes: the second knows what centres psi and the net biases. The walls of the
valleys are the net biases with the largest penalty (`Expansion.strict`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.joint.criterion import JointCriterion
from causalrisk.estimators.joint.equations import JointRows, Over
from causalrisk.estimators.joint.objective import (
    Expansion,
    JointObjective,
    ObjectiveLevels,
    ObjectiveTerms,
    ResampledWeights,
)
from causalrisk.estimators.joint.variance import VarianceCentres
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, spectral_equations
from causalrisk.numerics.trust_region import Expansions, Minima, minimize_stack

T = TypeVar("T")
KNOWN = 4  # points whose sums are kept, of a single objective: the search comes back to the last ones


@dataclass(frozen=True)
class Point:
    """Coefficients of resamples that are worked on together.

    Parameters
    ----------
    theta : ndarray, shape (K, p, m)
        Coefficients.
    levels : ObjectiveLevels, optional
        What is known of all rows there.
    """

    theta: Array
    levels: ObjectiveLevels | None = None


Stage: TypeAlias = Callable[[JointObjective, ResampledWeights, Point], T]  # what it makes of some rows adds up


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

    def over(self, stage: Stage[T], points: list[Point]) -> list[T]:
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
        As in `JointPasses`.
    """

    criterion: JointCriterion
    rows: Over
    in_blocks: bool
    sizes = (1,)

    def over(self, stage: Stage[T], points: list[Point]) -> list[T]:
        """As in `JointPasses`."""
        return [add_up(self.rows(partial(_of_rows, stage, self.criterion, point))) for point in points]

    def subset(self, wanted: NDArray[np.bool_]) -> SamplePasses:
        """As in `JointPasses`: all of the one."""
        return self


def _of_rows(stage: Stage[T], criterion: JointCriterion, point: Point, rows: JointRows) -> T:
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
        self._levels: dict[bytes, list[ObjectiveLevels]] = {}
        self._expansions: dict[bytes, Expansion] = {}

    def levels(self, theta: Array) -> list[ObjectiveLevels]:
        """Sum what the terms need of all rows at theta, shape (K, p, m), for each group; a pass."""
        return self._known(self._levels, theta, lambda: self.passes.over(_levels, self._points(theta)))

    def at(self, theta: Array) -> Expansion:
        """Expand about theta, shape (K, p, m); a pass after that for the levels."""
        return self._known(self._expansions, theta, lambda: self._expand(theta))

    def _expand(self, theta: Array) -> Expansion:
        levels = self.levels(theta)
        points = [
            dataclasses.replace(point, levels=of_group.without_slopes())
            for point, of_group in zip(self._points(theta), levels, strict=True)
        ]
        terms = self.passes.over(_terms, points)
        parts = [self.objective.expansion(*pair) for pair in zip(levels, terms, strict=True)]
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
        return next(iter(self.levels(theta)[0].centres), None)

    def _by_arm(self, theta: Array) -> Array:
        return theta.reshape(self.objective.sample.n_arms, -1, theta.shape[1])

    def expand(self, theta: Array) -> Expansions:
        """As in `trust_region.Objectives`: the net biases with the largest penalty first."""
        at = self.at(self._by_arm(theta))
        equations = np.concatenate([at.strict, spectral_equations(at.gram)], axis=1)
        finite = np.isfinite(equations).all(axis=(1, 2)) & np.isfinite(at.curvature).all(axis=(1, 2))
        return Expansions(equations, at.curvature, np.where(finite, at.value, np.inf))

    def walls(self, theta: Array) -> Array:
        """As in `trust_region.Objectives`; of rows in blocks the pass for the levels, which are needed next."""
        theta = self._by_arm(theta)
        if self.passes.in_blocks:
            return np.concatenate([self.objective.strict_levels(levels) for levels in self.levels(theta)])
        return np.concatenate(self.passes.over(_walls, self._points(theta)))

    def subset(self, wanted: NDArray[np.bool_]) -> NonlinearObjectives:
        """As in `trust_region.Objectives`."""
        return self if wanted.all() else NonlinearObjectives(self.objective, self.passes.subset(wanted))

    def minima(self, theta: Array) -> Minima:
        """Minimise from theta, shape (K, p, m)."""
        return minimize_stack(self, theta.reshape(-1, theta.shape[2]))


def _levels(objective: JointObjective, resampled: ResampledWeights, point: Point) -> ObjectiveLevels:
    with np.errstate(all="ignore"):  # where a step goes too far sums are not finite
        return objective.levels(objective.means(point.theta), resampled.views(objective.groups))


def _terms(objective: JointObjective, resampled: ResampledWeights, point: Point) -> ObjectiveTerms:
    levels = cast(ObjectiveLevels, point.levels)
    with np.errstate(all="ignore"):
        return objective.terms(objective.means(point.theta), resampled, resampled.views(objective.groups), levels)


def _walls(objective: JointObjective, resampled: ResampledWeights, point: Point) -> Any:
    with np.errstate(all="ignore"):
        return objective.strict_residuals(point.theta, resampled)

"""Minima of nonlinear joint objectives, of the full sample or of many resamples at once.

Flows in: an objective, the importance weights of resamples, or the rows of the full sample in one block or more, and
where to begin. Flows out: theta of each, by Newton's method in a trust region. The walls of the valleys are the net
biases with the largest penalty (`Expansion.strict`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

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
from causalrisk.estimators.sample import Sample
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, spectral_equations
from causalrisk.numerics.trust_region import Expansions, Minima, minimize_stack

T = TypeVar("T")
KNOWN = 4  # points of the full sample of which sums are kept: the search comes back to the last ones


@dataclass(frozen=True)
class ResampledObjectives:
    """The joint objectives of m resamples as functions of stacked coefficients, shape (K p, m).

    Parameters
    ----------
    objective : JointObjective
        The objective of the sample.
    resampled : ResampledWeights
        The resamples.
    """

    objective: JointObjective
    resampled: ResampledWeights

    def _by_arm(self, theta: Array) -> Array:
        return theta.reshape(self.objective.sample.n_arms, -1, theta.shape[1])

    def expand(self, theta: Array) -> Expansions:
        """As in `trust_region.Objectives`."""
        return expansions(self.objective.expand(self._by_arm(theta), self.resampled))

    def walls(self, theta: Array) -> Array:
        """As in `trust_region.Objectives`."""
        return self.objective.strict_residuals(self._by_arm(theta), self.resampled)

    def subset(self, wanted: NDArray[np.bool_]) -> ResampledObjectives:
        """As in `trust_region.Objectives`."""
        return ResampledObjectives(self.objective, self.resampled.subset(wanted))

    def minima(self, theta: Array) -> Minima:
        """Minimise all from theta, shape (K, p, m)."""
        return minimize_stack(self, theta.reshape(-1, theta.shape[-1]))


class SampleObjective:
    """The joint objective of the full sample, a stack of one; a point takes two passes over the rows.

    Parameters
    ----------
    sample : Sample
        The data; of rows in blocks what is known of them all.
    criterion : JointCriterion
        Weights of the terms.
    over : Over
        Begins a pass over the rows.
    in_blocks : bool
        Whether the rows come in more than one block.
    """

    def __init__(self, sample: Sample, criterion: JointCriterion, over: Over, *, in_blocks: bool) -> None:
        self.objective, self.over, self.in_blocks = JointObjective(sample, criterion), over, in_blocks
        self.criterion, self.row_units = criterion, self.objective.row_units
        self._levels: dict[bytes, ObjectiveLevels] = {}
        self._known: dict[bytes, Expansion] = {}

    def levels(self, theta: Array) -> ObjectiveLevels:
        """Sum what the terms need of all rows at theta, shape (K, p); a pass."""
        return _kept(
            self._levels, theta, lambda: add_up(self.over(partial(_levels, theta, self.criterion, self.in_blocks)))
        )

    def at(self, theta: Array) -> Expansion:
        """Expand about theta, shape (K, p); a pass after that for the levels."""
        return _kept(self._known, theta, lambda: self._expand(theta, self.levels(theta)))

    def _expand(self, theta: Array, levels: ObjectiveLevels) -> Expansion:
        terms = add_up(self.over(partial(_terms, theta, self.criterion, levels)))
        return self.objective.expansion(levels, terms)

    def centres(self, theta: Array) -> VarianceCentres | None:
        """Return what centres psi at theta, where there is V."""
        return next(iter(self.levels(theta).centres), None)

    def _by_arm(self, theta: Array) -> Array:
        return theta.reshape(self.objective.sample.n_arms, -1)

    def expand(self, theta: Array) -> Expansions:
        """As in `trust_region.Objectives`."""
        return expansions(self.at(self._by_arm(theta)))

    def walls(self, theta: Array) -> Array:
        """As in `trust_region.Objectives`; a pass, of rows in blocks that for the levels, which are needed next."""
        if self.in_blocks:
            return self.objective.strict_levels(self.levels(self._by_arm(theta)))
        return add_up(self.over(partial(_walls, self._by_arm(theta), self.criterion)))

    def subset(self, wanted: NDArray[np.bool_]) -> SampleObjective:
        """As in `trust_region.Objectives`: itself."""
        return self

    def minima(self, theta: Array) -> Minima:
        """Minimise from theta, shape (K, p)."""
        return minimize_stack(self, theta.reshape(-1, 1))


def _kept(known: dict[bytes, T], theta: Array, make: Callable[[], T]) -> T:
    """Return what is known of a point, or make it; that of the last few is kept."""
    key = theta.tobytes()
    if key not in known:
        known[key] = make()
        for old in list(known)[:-KNOWN]:
            del known[old]
    return known[key]


def expansions(at: Expansion) -> Expansions:
    """Return the objectives near a point as equations, strict ones first, curvature and value."""
    equations = np.concatenate([at.strict, spectral_equations(at.gram)], axis=1)
    finite = np.isfinite(equations).all(axis=(1, 2)) & np.isfinite(at.curvature).all(axis=(1, 2))
    return Expansions(equations, at.curvature, np.where(finite, at.value, np.inf))


def _levels(theta: Array, criterion: JointCriterion, of_block: bool, rows: JointRows) -> ObjectiveLevels:
    objective = JointObjective(rows.sample, criterion)
    with np.errstate(all="ignore"):  # where a step goes too far sums are not finite
        return objective.levels(objective.means(theta[..., None]), [rows.resampled], of_block=of_block)


def _terms(theta: Array, criterion: JointCriterion, levels: ObjectiveLevels, rows: JointRows) -> ObjectiveTerms:
    objective = JointObjective(rows.sample, criterion, pairs=rows.pairs)
    with np.errstate(all="ignore"):
        return objective.terms(objective.means(theta[..., None]), rows.resampled, [rows.resampled], levels)


def _walls(theta: Array, criterion: JointCriterion, rows: JointRows) -> Array:
    with np.errstate(all="ignore"):
        return JointObjective(rows.sample, criterion).strict_residuals(theta[..., None], rows.resampled)

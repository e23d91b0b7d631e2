"""Minima of nonlinear joint objectives, of the full sample or of many resamples at once.

Flows in: an objective, the importance weights of resamples, where to begin. Flows out: theta of each, by Newton's
method in a trust region. The walls of the valleys are the net biases with the largest penalty (`Expansion.strict`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.joint.objective import JointObjective, ResampledWeights
from causalrisk.numerics.linalg import Array, spectral_equations
from causalrisk.numerics.trust_region import Expansions, Minima, minimize_stack


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
        at = self.objective.expand(self._by_arm(theta), self.resampled)
        value, curvature = at.nonlinear
        equations = np.concatenate([at.strict, spectral_equations(at.gram)], axis=1)
        finite = np.isfinite(equations).all(axis=(1, 2)) & np.isfinite(curvature).all(axis=(1, 2))
        return Expansions(equations, curvature, np.where(finite, value, np.inf))

    def walls(self, theta: Array) -> Array:
        """As in `trust_region.Objectives`."""
        return self.objective.strict_residuals(self._by_arm(theta), self.resampled)

    def subset(self, wanted: NDArray[np.bool_]) -> ResampledObjectives:
        """As in `trust_region.Objectives`."""
        return ResampledObjectives(self.objective, self.resampled.subset(wanted))

    def minima(self, theta: Array) -> Minima:
        """Minimise all from theta, shape (K, p, m)."""
        return minimize_stack(self, theta.reshape(-1, theta.shape[-1]))

"""The mean of an arm from the predictions of its outcome model: point estimate, influence function, batched refits.

Flows in: rows under the outcome models of a fit (`ArmRows`) or of many refits (`RefittedRows`), all there are or a
block of them. Flows out: the means. With s_i / N the share of a row, t_i its tilt and m_a the outcome model of arm a at
theta_a, the mean of arm a is

    mu_a = sum_i (s_i / N) t_i m_a(x_i)

An estimator that makes something else of the predictions has a subclass of `ArmMean` beside its `Specification`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, TypeAlias

import numpy as np

from causalrisk.estimators.sample import Sample, shifted
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array, solve
from causalrisk.propensity.weights import RowWeights


@dataclass(frozen=True)
class ArmRows:
    """Rows whose mean in one arm is projected on columns; on the constant it is the mean itself.

    Parameters
    ----------
    sample : Sample
        The rows.
    weights : RowWeights
        Their importance weights.
    g : ndarray, shape (n, k)
        The columns.
    q, own : ndarray, shape (n, p)
        Columns of the outcome model where the means are taken, and as it is trained.
    arm : int
        The arm.
    family : OutcomeFamily
        Family of the outcome model.
    eta, predicted : ndarray, shape (n,)
        Its linear predictors and its predictions m_a where the means are taken.
    fitted : ndarray, shape (n,), optional
        Predictions as the model is trained, where these are others.
    """

    sample: Sample
    weights: RowWeights
    g: Array
    q: Array
    own: Array
    arm: int
    family: OutcomeFamily
    eta: Array
    predicted: Array
    fitted: Array | None = None

    @cached_property
    def slope(self) -> Array:
        """Derivative of the predictions by the linear predictors, shape (n,)."""
        return self.family.mean_deriv(self.eta)

    @cached_property
    def share(self) -> Array:
        """Share of each row in the weight of all, shape (n,)."""
        return self.sample.s / self.sample.total

    @cached_property
    def weighted(self) -> Array:
        """Share and tilt times the columns, shape (n, k)."""
        return (self.share * self.weights.tilt)[:, None] * self.g

    @cached_property
    def inside(self) -> Array:
        """1.0 for the rows of the arm whose outcome was observed, shape (n,)."""
        return (self.sample.arm == self.arm) * self.sample.with_outcome

    @cached_property
    def residual(self) -> Array:
        """Residual of the rows of the arm, shape (n,)."""
        return self.inside * (self.sample.y - (self.predicted if self.fitted is None else self.fitted))

    @cached_property
    def by_period(self) -> Array:
        """The columns g, of repeated cross sections once for each period, shape (n, k) or (n, 2 k)."""
        return self.sample.in_periods(self.g)


@dataclass(frozen=True)
class RefittedRows:
    """Rows under the outcome models of m refits.

    Parameters
    ----------
    sample : Sample
        The rows.
    family : OutcomeFamily
        Family of the outcome models.
    q, own : ndarray, shape (n, p)
        Their columns where the means are taken, and as they are trained.
    theta : ndarray, shape (K, p, m)
        Their coefficients.
    share : ndarray, shape (n, m)
        Share of each row in the weight of all.
    tilt, w : ndarray, shape (n, m) or (n, 1)
        As in `ImportanceWeights`.
    resamples : slice
        Which of all resamples these are.
    """

    sample: Sample
    family: OutcomeFamily
    q: Array
    own: Array
    theta: Array
    share: Array
    tilt: Array
    w: Array
    resamples: slice

    @property
    def eta(self) -> Array:
        """Linear predictors of every arm, shape (K, n, m)."""
        return shifted(self.q @ self.theta, self.sample.mean_offset, axis=-2)

    @cached_property
    def predicted(self) -> Array:
        """Predictions of every arm, shape (K, n, m)."""
        return self.family.mean(self.eta)

    @property
    def residual(self) -> Array:
        """Residual of each row in its own arm, shape (n, m)."""
        if self.own is self.q:
            fitted = self.sample.own(self.predicted)
        else:
            fitted = np.concatenate([self.own[rows] @ self.theta[a] for a, rows in enumerate(self.sample.slices)])
        return self.sample.y[:, None] - fitted


Sums: TypeAlias = tuple[Array, ...]
OverArms: TypeAlias = Callable[[Callable[[ArmRows], Sums]], Iterable[Sums]]
OverRefits: TypeAlias = Callable[[Callable[[RefittedRows], Array]], Array]


@dataclass(frozen=True)
class ArmMean:
    """The mean of an arm: the predictions, averaged over the target.

    It is the projection b of the predictions on the columns g, with mean t g (m_a - g'b) = 0.

    Parameters
    ----------
    gram : ndarray, shape (k, k)
        mean t g g'.
    coefficients : ndarray, shape (k,)
        Projection of the predictions.
    """

    gram: Array
    coefficients: Array

    corrected: ClassVar[bool] = False  # whether residuals of the arm's rows correct the average

    @property
    def value(self) -> Array:
        """The projection, shape (k,)."""
        return self.coefficients

    @classmethod
    def solve(cls, over: OverArms) -> tuple[ArmMean, ...]:
        """Return the mean of each arm.

        Parameters
        ----------
        over : callable
            A pass over the rows: a function of the rows of an arm -> for each arm its sum over all rows. Blocks of rows
            may be worked on elsewhere, so that it is one that can be pickled.
        """
        return tuple(cls.solved(*sums) for sums in over(cls.equations))

    @staticmethod
    def equations(rows: ArmRows) -> Sums:
        """Sum over the rows what the mean solves: the Gram matrix, and mean t g m_a."""
        return rows.weighted.T @ rows.g, rows.weighted.T @ rows.predicted

    @classmethod
    def solved(cls, gram: Array, *sums: Array) -> ArmMean:
        """Solve the equations of all rows."""
        return cls(gram, *(solve(gram, each) for each in sums))

    def derivatives(self, rows: ArmRows) -> tuple[Array, Array]:
        """Sum over the rows the derivatives of the equations by theta, (k, p), and by gamma, (k, Q)."""
        g, weights = rows.g, rows.weights
        by_theta = (rows.weighted * rows.slope[:, None]).T @ rows.q
        by_gamma = np.zeros((g.shape[1], weights.size))
        if weights.tilt_by_gamma is not None:
            error = rows.predicted - g @ self.coefficients
            by_gamma = by_gamma + ((rows.share * error)[:, None] * g).T @ weights.tilt_by_gamma
        return by_theta, by_gamma

    def errors(self, rows: ArmRows) -> Array:
        """Return what each row adds to the equations at the solution, shape (n, k)."""
        return (rows.weights.tilt * (rows.predicted - rows.g @ self.coefficients))[:, None] * rows.g

    def influence(self, rows: ArmRows, by_gamma: Array) -> Array:
        """Influence function at known outcome coefficients, shape (n, k), given the sum over all rows by gamma."""
        moved = self.errors(rows) + rows.weights.influence @ by_gamma.T
        return moved @ solve(self.gram, np.eye(len(self.gram)))  # the Gram matrix is symmetric

    @classmethod
    def refit(cls, over: OverRefits) -> Array:
        """Return the means of the refits, shape (K, m).

        Parameters
        ----------
        over : callable
            A pass over the rows as in `solve`: a function of them under some resamples -> its sum over all rows, of all
            resamples, which are the last axis.
        """
        return over(cls.refitted)

    @staticmethod
    def refitted(rows: RefittedRows) -> Array:
        """Sum over the rows what the means of the refits are made of, shape (K, m)."""
        return np.asarray((rows.share * rows.tilt * rows.predicted).sum(axis=1))

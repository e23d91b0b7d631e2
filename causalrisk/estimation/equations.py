"""The estimating equations of each estimator, from the blocks that they share.

Letters are those of the page "The method": e the propensity scores, h the tilt that makes the sample the target
population, w = h / e the importance weight of a row in its own arm (of an ATT e_t / e_a), m_a the outcome model of arm
a, mu_a its mean. `at` are coefficients: `at(eta)` is a linear predictor there, `at.of(values)` are values in the rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import CausalRiskError, Failure
from causalrisk.estimation.engine import (
    ALL,
    Block,
    Linear,
    Point,
    apply,
    apply_both,
    exp,
)
from causalrisk.estimation.sample import Sample
from causalrisk.estimation.scores import Score, ScoreModel, fitted
from causalrisk.estimation.specification import Specification
from causalrisk.estimation.targets import TargetPopulation
from causalrisk.numerics.blocks import add_up, chunk_sizes, in_chunks, lazy_rows
from causalrisk.numerics.families import OutcomeFamily, outcome_family
from causalrisk.numerics.linalg import Array

T = TypeVar("T")
D = TypeVar("D", bound=np.generic)
LINEAR = outcome_family("gaussian", None)
WEIGHT_NAMES = ("score", "member", "observed")


@dataclass(frozen=True)
class Equations:
    """A sample, its score and target: what the equations of every estimator are made of.

    `importance` is h / e; `weight` is that over the probability that the outcome is observed; `tilt` is what means are
    averaged with; `measure` is what weights add up to, which differs from the tilt for a target frame only. The
    outcomes of the sample are those less `height`, which linear models with a constant do not see.
    """

    sample: Sample
    spec: Specification
    target: TargetPopulation
    model: ScoreModel | None = None
    height: float = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: what is made of them is made again."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @cached_property
    def score(self) -> Score | None:
        """The propensity scores; None where the estimator needs none."""
        sample = self.sample
        if self.model is None:
            return None
        return self.model.score(
            sample.Z.columns, sample.arm, sample.n_arms, toward=self.target.toward, inside=sample.in_sample
        )

    # --- importance weights ------------------------------------------------------------------------------------------

    def tilt(self, at: Point) -> Any:
        """Tilt of each row: for an ATT one in the rows of arm `toward`, of a frame one in its rows, else h(e)."""
        if self.target.frame:
            return 1.0 - at.of(self.sample.in_sample)
        if self.target.toward is not None:
            return (at.of(self.sample.arm) == self.target.toward) * 1.0
        return 1.0 if self.target.tilt is None else self.target.tilt(self.probabilities(at))

    def probabilities(self, at: Point) -> list[Any]:
        """Return the scores e_a of each arm; of two arms that are calibrated one by one e_0 is 1 - e_1."""
        if self.score is None or self.model is None:
            raise CausalRiskError("there is no propensity score")
        found: list[Any] = [1 / self.score.inverse(at, a) for a in range(self.sample.n_arms)]
        if self.model.kind == "calibrated" and self.target.toward is None and len(found) == 2:
            found[0] = 1 - found[1]
        return found

    def measure(self, at: Point) -> Any:
        """Return what weights add up to: the tilt, or the density of a target frame relative to the sample."""
        return self.density(at) if self.target.frame else self.tilt(at)

    def density(self, at: Point) -> Any:
        """Density of a target frame relative to the sample: the odds of being in the frame."""
        return exp(at(self.member)) * at.of(self.sample.in_sample)

    def weight(self, at: Point, a: int) -> Any:
        """Weigh rows of arm a, h / e_a over the probability that the outcome is observed."""
        w = self.importance(at, a)
        return w if self.observed is None else w * self.inverse_observed(at)

    def importance(self, at: Point, a: int) -> Any:
        """Return h / e_a; an ATT weighs the rows of another arm by the odds e_t / e_a, and those of arm t by one."""
        if self.score is None:
            return at.of(self.sample.with_outcome)
        if self.target.toward is not None:
            return self.score.odds(at, self.target.toward, a)
        if self.target.frame:
            return self.density(at) * self.score.inverse(at, a)
        return self.tilt(at) * self.score.inverse(at, a)

    def inverse_observed(self, at: Point) -> Any:
        """One over the probability that the outcome is observed, zero where it is not."""
        eta: Any = self.observed
        return (1.0 + exp(-at(eta))) * at.of(self.sample.with_outcome)

    @cached_property
    def constant(self) -> Array:
        """Coefficients of the columns that give the constant one, shape (p,); zeros where there are none."""
        columns = self.columns
        if self.sample.constant is not None:  # of rows beyond memory
            return np.ones(1) if self.spec.constants else self.sample.constant
        steady = np.flatnonzero((columns[0] == columns).all(axis=0) & (columns[0] != 0))
        if steady.size:  # exactly, so that a high level moves no other coefficient
            return np.asarray(np.eye(columns.shape[1])[steady[0]] / columns[0, steady[0]])
        found = np.linalg.lstsq(columns.T @ columns, columns.sum(axis=0), rcond=None)[0]
        return np.zeros(columns.shape[1]) if np.abs(columns @ found - 1).max() > 1e-9 else np.asarray(found)

    @cached_property
    def member(self) -> Linear:
        """Log odds of being one of the target frame."""
        return Linear("member", self.sample.Z.columns)

    @cached_property
    def observed(self) -> Linear | None:
        """Log odds of the outcome being observed; None where all are, or the estimator has no weights."""
        basis = self.sample.R if self.spec.uses_propensity else None
        return None if basis is None else Linear("observed", basis.columns)

    @property
    def weight_blocks(self) -> list[Block]:
        """The models that weights are made of: score, membership of a target frame, observation."""
        return [block for block in self.blocks if block.name in WEIGHT_NAMES]

    def _weight_blocks(self) -> list[Block]:
        sample, blocks = self.sample, list[Block]()
        if self.score is None:
            return blocks
        if self.score.block is not None:
            blocks.append(self.score.block)
        if self.target.frame:
            blocks.append(logit_block(self.member, 1.0 - sample.in_sample, np.ones(sample.n)))
        if self.observed is not None:
            blocks.append(logit_block(self.observed, sample.with_outcome, sample.in_sample))
        return blocks

    # --- outcome models ----------------------------------------------------------------------------------------------

    @cached_property
    def family(self) -> OutcomeFamily:
        """Family of the outcome models; without offsets the best constant is the weighted mean under every one."""
        return LINEAR if self.spec.constants and self.sample.offset is None else self.sample.family

    @cached_property
    def columns(self) -> Array:
        """Columns of the outcome models: those of the design, or the constant, in each period."""
        return self.sample.in_periods(self._columns)

    @cached_property
    def _columns(self) -> Array:
        return np.ones((self.sample.n, 1)) if self.spec.constants else self.sample.X.columns

    @cached_property
    def own(self) -> tuple[Linear, ...]:
        """Linear predictors of each arm, as outcomes are observed."""
        return tuple(Linear(f"outcome {a}", self.columns, 0, self.sample.offset) for a in range(self.sample.n_arms))

    @cached_property
    def at_means(self) -> tuple[Linear, ...]:
        """Linear predictors of each arm where the means are taken: of cross sections of the change."""
        if self.sample.late is None and self.sample.mean_offset is self.sample.offset:
            return self.own
        columns = self.columns if self.sample.late is None else self.sample.at_means(self._columns)
        offset = self.sample.mean_offset
        return tuple(Linear(f"outcome {a}", columns, 0, offset) for a in range(self.sample.n_arms))

    def outcome(self, a: int) -> Block:
        """Fit an arm: the sum over its rows of u (y - m_a) dm_a / V(m_a) is zero, u = w in IPWRA, else 1."""
        eta, sample = self.own[a], self.sample

        def residuals(at: Point) -> list[Any]:
            u = self.weight(at, a) if self.spec.weighted else at.of(sample.with_outcome)

            def score(x: Array, y: Array) -> tuple[Array, Array]:
                found, information, _ = self.family.score(y, x)
                return found, -information

            return [u * apply_both(at(eta), score, at.of(sample.y))]

        return Block(
            (eta,),
            ((sample.slices[a], residuals),),
            start=None if self.family.linear or self.family.name == "binomial" else partial(self._start, a),
            linear=self.family.linear,
            least_norm=self.spec.of_controls and a > 0,  # their mean alone is needed
            unsettled=Failure.OUTCOME_NOT_CONVERGED,
            separated=Failure.OUTCOME_SEPARATION if self.family.name == "binomial" else None,
        )

    def _start(self, a: int) -> tuple[Array, Array]:
        """Least squares of the linear predictors that fit each outcome, or nearly."""
        sample, rows = self.sample, self.sample.slices[a]
        u, offset = (sample.s * sample.with_outcome)[rows], 0.0 if sample.offset is None else sample.offset[rows]
        q, y = self.columns[rows], sample.y[rows]
        eta = self.family.start(y) if len(y) else y  # a chunk of rows has those of one arm
        return (q.T * u) @ q, (q.T * u) @ (eta - offset)

    def predicted(self, at: Point, a: int, shift: Any = 0.0) -> Any:
        """Predicted outcomes in an arm, m_a, where the means are taken; TMLE shifts their linear predictors."""
        return self._mean(at, a, self.at_means[a], shift)

    def fitted(self, at: Point, a: int, shift: Any = 0.0) -> Any:
        """Predicted outcomes of the rows of an arm as these were observed."""
        return self._mean(at, a, self.own[a], shift)

    def _mean(self, at: Point, a: int, eta: Linear, shift: Any) -> Any:
        """Return the mean; predictions that are given are stored as linear predictors."""
        x = at.of(self.sample.X.columns[:, a]) if self.spec.given else at(eta)
        return apply(x + shift, self.family.mean, self.family.mean_deriv)

    # --- means -------------------------------------------------------------------------------------------------------

    def correction(self, a: int, g: Array) -> Block:
        """Mean residual of an arm, delta: the sum of w (y - m_a) over its rows, less h delta over all, is zero.

        Normalised weights: the sum of w (y - m_a - delta) over the rows of the arm is zero. TMLE: likewise, with delta
        in the linear predictor of m_a.
        """
        sample, normalized, targeted = self.sample, self.spec.normalized, self.spec.targeted
        delta = Linear(f"correction {a}", sample.in_periods(g) if normalized else g)

        def weighted(at: Point) -> list[Any]:
            left = at.of(sample.y) - self.fitted(at, a, at(delta) if targeted else 0.0)
            if normalized:
                left = left - at(delta) * at.of(self._relative_exposure)
            return [self.weight(at, a) * at.of(sample.with_outcome) * left]

        def divided(at: Point) -> list[Any]:
            return [-(at(delta) * self.measure(at))]

        own = (sample.slices[a], weighted)
        terms = (own,) if normalized or targeted else (own, (ALL, divided))
        return Block((delta,), terms, linear=not targeted or self.family.linear, singular=Failure.OK)

    def mean(self, a: int, g: Array) -> Block:
        """Mean of an arm: the sum of h (m_a + delta - mu_a) is zero, delta for AIPW and TMLE only."""
        sample, mu = self.sample, Linear(f"mean {a}", g)
        delta = Linear(f"correction {a}", sample.at_means(g) if self.spec.normalized else g)

        def residuals(at: Point) -> list[Any]:
            m = self.predicted(at, a, at(delta) if self.spec.targeted else 0.0)
            if self.spec.corrected and not self.spec.targeted:
                m = m + at(delta)
            return [(m - at(mu)) * self.tilt(at)]

        return Block((mu,), ((ALL, residuals),), linear=True, singular=Failure.OK)

    @cached_property
    def _relative_exposure(self) -> Array:
        """Exposure of each row over the one that the means are at, shape (n,)."""
        sample = self.sample
        if sample.offset is None or sample.mean_offset is None:
            return np.ones(sample.n)
        return np.asarray(np.exp(sample.offset - sample.mean_offset))

    # --- the estimators ----------------------------------------------------------------------------------------------

    def arm_blocks(self, g: Array | None = None) -> list[Block]:
        """Return the means of all arms, projected on columns g; on the constant they are the means themselves."""
        g, blocks = np.ones((self.sample.n, 1)) if g is None else g, list[Block]()
        for a in range(self.sample.n_arms):
            if self.spec.corrected:
                blocks.append(self.correction(a, g))
            blocks.append(self.mean(a, g))
        return blocks

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """All equations of the estimator.

        Unadjusted and OutcomeRegression: outcome models, means. Hajek: score, weighted constants, means. IPWRA: score,
        weighted outcome models, means. AIPW and TMLE: score, outcome models, corrections, means.
        """
        if self.chunks:
            import dask

            of_chunk = dask.delayed(_block_named)
            return tuple(
                dataclasses.replace(block, chunks=tuple(of_chunk(chunk, block.name) for chunk in self.chunks))
                for block in self.empty.blocks
            )
        outcome = [] if self.spec.given else [self.outcome(a) for a in range(self.sample.n_arms)]
        return (*self._weight_blocks(), *outcome, *self.arm_blocks())

    # --- rows beyond memory ------------------------------------------------------------------------------------------

    @cached_property
    def empty(self) -> Equations:
        """The equations without rows, in memory."""
        return dataclasses.replace(self, sample=self.sample.empty)

    @cached_property
    def chunks(self) -> tuple[Any, ...]:
        """The equations of each chunk of rows beyond memory, delayed."""
        if not self.sample.chunks:
            return ()
        import dask

        of_chunk = dask.delayed(partial(dataclasses.replace, self.empty))
        return tuple(of_chunk(sample=chunk) for chunk in self.sample.chunks)

    def each(self, function: Callable[..., T], *given: Any) -> list[T]:
        """Return what a function of the equations finds in all rows; beyond memory in each chunk of them."""
        return in_chunks(function, self.chunks, *given) if self.chunks else [function(self, *given)]

    def by_row(self, function: Callable[..., NDArray[D]], *given: Any) -> NDArray[D]:
        """Return what a function of the equations finds for every row, shape (n, ...)."""
        found = self.each(function, *given)
        return np.concatenate(found) if len(found) > 1 else found[0]

    def totals(self, function: Callable[..., Any], *given: Any) -> Any:
        """Return the sums over rows that a function of the equations finds."""
        return add_up(self.each(function, *given))

    def lazily(self, width: int, function: Callable[..., Array], *given: Any) -> Any:
        """As `by_row`, as a Dask array of so many columns that is made when it is needed."""
        shapes = [(rows, width) for rows in chunk_sizes(self.sample.y)]
        return lazy_rows(function, self.chunks, shapes, *given)


def _block_named(equations: Equations, name: str) -> Block:
    return next(block for block in equations.blocks if block.name == name)


def logit_block(eta: Linear, event: Array, among: Array) -> Block:
    """Logit of an event among some rows."""

    def residuals(at: Point) -> list[Any]:
        return [at.of(among) * (at.of(event) - 1 / (1.0 + exp(-at(eta))))]

    return fitted([eta], residuals)

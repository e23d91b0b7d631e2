"""The rows of a fit as arrays for the objective, under columns of row weights, with scores and replicates.

A column of row weights has the sample's weights, the weights without one fold, or a resample. Each column has its own
fitted score. Replicates differ from it by the same amounts in all columns. Rows are processed in pieces to save memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from causalrisk.errors import Failure
from causalrisk.estimation.engine import Beta, Dual, FieldsAlone, Linear, Point, value_of
from causalrisk.estimation.equations import Equations
from causalrisk.estimation.fits import WEIGHT_NAMES, WeightFit, by_arm
from causalrisk.estimation.sample import stored, within
from causalrisk.joint.objective import Rows, Weights, mean_and_square
from causalrisk.numerics import arrays
from causalrisk.numerics.arrays import Array, is_dask, loaded

AT_ONCE = 32_768  # rows times columns of weights that are processed at a time
KEPT = 2**21  # largest number of weights under replicates that is cached
FEWEST, PART = 512, 4096  # fewest rows of a piece, if the rows are in memory and if not


@dataclass(frozen=True)
class Replicates:
    """Replicates of the propensity score, given as differences of their coefficients from the fitted coefficients.

    Parameters
    ----------
    shifts : dict
        Differences of the coefficients from the fitted ones, shape (m, p, B), for each model of the weights.
    failures : ndarray of int8, shape (B_drawn,)
        A `Failure` code for each replicate that was drawn.
    ratio : ndarray, shape (n, K, B), optional
        Factors that multiply the probabilities of a classifier, which has no coefficients.
    cubature : bool
        Whether the replicates are the points of `of_normal`. Otherwise they are random.
    """

    shifts: Beta
    failures: NDArray[np.int8] = field(default_factory=lambda: np.full(1, Failure.OK, dtype=np.int8))
    ratio: Array | None = None
    cubature: bool = False

    @property
    def count(self) -> int:
        """Number of usable replicates, B."""
        return int((self.failures == Failure.OK).sum())

    @classmethod
    def of_normal(cls, weights: WeightFit, covariance: Array | None) -> Replicates:
        """Return cubature points for a normal distribution of the coefficients, given its covariance (Q, Q).

        By the spherical-radial rule [1]_, averages over the points equal expectations for polynomials of degree up to
        three. There are 2 Q points. With several arms, coefficients are measured from their mean over the arms, so the
        choice of the reference does not matter. There are then K / (K - 1) times as many points. Without a covariance,
        the fitted propensity score is the only point.

        References
        ----------
        .. [1] Arasaratnam, I. and Haykin, S. (2009). Cubature Kalman filters. IEEE Transactions on Automatic Control
           54, 1254-1269.
        """
        if covariance is None or not covariance.size or not np.isfinite(covariance).all():
            return cls({name: np.zeros((*each.shape[:2], 1)) for name, each in weights.beta.items()})
        every = [weights.beta[name] for name in WEIGHT_NAMES if name in weights.beta]
        wide = block_diag(*[np.kron(_about_mean(len(each)), np.eye(each.shape[1])) for each in every])
        root = np.linalg.pinv(wide) @ arrays.symmetric_root(wide @ covariance @ wide.T) * np.sqrt(len(wide))
        away = np.hstack([root, -root])
        return cls(weights.beta_of(away), np.full(away.shape[1], Failure.OK, dtype=np.int8), cubature=True)


def _about_mean(m: int) -> Array:
    """Return the matrix that turns m coefficients, relative to a reference arm, into deviations from the arms' mean."""
    return np.eye(1) if m == 1 else np.eye(m + 1, m, -1) - 1 / (m + 1)


@dataclass(frozen=True)
class ScoreColumns:
    """The propensity score's linear predictor as a further outcome column, residualised on the other outcome columns.

    Parameters
    ----------
    from_Z, from_X : ndarray, shape (q, e) and (p, e)
        The predictor is a combination of e further columns, Z @ from_Z - X @ from_X.
    of_score : ndarray, shape (e, q)
        Coefficients of the columns of Z on the further columns.
    count : int
        Number of predictors. If it is e or more, the further columns are added instead of the predictors.
    squared : ndarray, shape (q', q), optional
        Coefficients of predictors whose squares are used instead of Z.
    """

    from_Z: Array
    from_X: Array
    of_score: Array
    count: int
    squared: Array | None = None

    @property
    def fixed(self) -> bool:
        """Whether the further columns are added instead of the predictors. They do not depend on the score."""
        return len(self.of_score) <= self.count

    @property
    def width(self) -> int:
        """Number of columns that are added to the outcome columns."""
        return min(len(self.of_score), self.count)

    def columns(self, X: Array, Z: Array) -> Array:
        """Return the further columns, shape (n, e), of rows with columns X and Z."""
        of = Z if self.squared is None else (Z @ self.squared) ** 2
        return of @ self.from_Z - X @ self.from_X

    def lift(self, score: Array, p: int) -> Array:
        """Return L with beta = L theta, shape (P, p + width, R). `score` (m, q, R) has the propensity coefficients."""
        extra = len(self.of_score)
        found = np.zeros((p + extra, p + self.width, score.shape[2]))
        found[range(p), range(p)] = 1.0
        found[p:, p:] = np.eye(extra)[..., None] if self.fixed else np.einsum("eq,lqr->elr", self.of_score, score)
        return found


class Scores(NamedTuple):
    """Tilt and importance weight of rows, divided by mean tilts. They may be `Dual` numbers with derivatives.

    `tilt` and `w` are at the fitted propensity score, shape (n, 1). `tilts` and `replicated` are under the replicates,
    shape (n, B). If the tilt is the same under all replicates, `tilts` has shape (n, 1) and `varies` is False.
    """

    tilt: Any
    w: Any
    tilts: Any
    replicated: Any
    varies: bool


class Moments(NamedTuple):
    """Moments of each row's tilt t and importance weight w, shape (n, 1) each, or `Dual` numbers with derivatives.

    `t` and `w` are at the fitted propensity score. `t1`, `w1`, `t2`, `tw` and `w2` are means of t, w, t^2, t w and w^2
    over the replicates. `each`, shape (n, B), is w under the replicates in the slice `some`.
    """

    t: Any
    w: Any
    t1: Any
    w1: Any
    t2: Any
    tw: Any
    w2: Any
    each: Any
    some: slice = slice(None)

    @classmethod
    def of(cls, scores: Scores) -> Moments:
        """Compute the moments from the tilts and weights of some rows."""
        t, w, T, W, _ = scores
        return cls(t, w, _mean(T), _mean(W), _mean(T**2), _mean(T * W), _mean(W**2), W)

    def by(self, eta: Linear) -> Moments:
        """Return the derivatives of the moments with respect to a linear predictor of the propensity score."""
        found: list[Any] = [derivative_of(each, eta) for each in self[:-1]]
        return Moments(*found)


def _mean(x: Any) -> Any:
    if isinstance(x, Dual):
        return Dual(_mean(x.value), {eta: _mean(d) for eta, d in x.by.items()})
    return x.mean(axis=1, keepdims=True)


def derivative_of(x: Any, eta: Linear) -> Array:
    """Return the derivatives of a `Dual` with respect to a linear predictor. They are zero for other numbers."""
    found = x.by.get(eta) if isinstance(x, Dual) else None
    return np.zeros_like(value_of(x)) if found is None else found


@dataclass(frozen=True)
class WeightedRows(FieldsAlone):
    """Rows under R columns of row weights, with the propensity score fitted under each column, and its replicates.

    Parameters
    ----------
    equations : Equations
        The sample and its importance weights. A classifier has one set of probabilities per column.
    s : ndarray, shape (n, R)
        The columns of row weights.
    beta : dict
        Coefficients of the models of the weights, shape (m, p, R).
    replicates : Replicates
        The replicates of the propensity score.
    joined : ScoreColumns, optional
        The propensity score's linear predictor, if it is an outcome column.
    """

    equations: Equations
    s: Array
    beta: Beta
    replicates: Replicates
    joined: ScoreColumns | None = None

    @cached_property
    def total(self) -> Array:
        """Sum of the weights of the sample's rows, shape (R,)."""
        return np.asarray(loaded(self.equations.sample.in_sample @ self.s))

    def pieces(self, width: int, *given: Any) -> Iterator[tuple[Any, ...]]:
        """Yield for each piece: rows in memory, its slice of these rows, its slice of all rows, its rows of `given`."""
        fewest = max(FEWEST, 4 * self.equations.sample.X.columns.shape[1])  # few pieces: each one adds up Gram matrices
        size, ends = max(AT_ONCE // width, fewest), [0, len(self.s)]
        if is_dask(self.s):
            size, ends = max(size, PART), np.cumsum([0, *arrays.chunk_sizes(self.s)]).tolist()
        for k, (first, last) in enumerate(pairwise(ends)):
            part, owned = self, list(given)
            if is_dask(self.s):
                chunks = [None if each is None else arrays.chunks_of(each)[k] for each in (self.s, *given)]
                equations, s, *owned = arrays.load_all([self.equations.chunks[k], *chunks])
                part = dataclasses.replace(self, equations=equations, s=s)
                part.__dict__.update(total=self.total, divisors=self.divisors)
            for here in arrays.row_blocks(last - first, size):
                own = (None if each is None else each[here] for each in owned)
                yield part, here, slice(first + here.start, first + here.stop), *own

    @cached_property
    def lift(self) -> Array:
        """Matrix L that turns theta into coefficients of `Rows.X`, (P, p, R) or (P, p, 1); see `joint.minimum`."""
        p = self.equations.sample.X.columns.shape[1]
        return np.eye(p)[..., None] if self.joined is None else self.joined.lift(self.beta["score"], p)

    @cached_property
    def lift_of_arms(self) -> Array:
        """`lift` for the stacked coefficients of all arms, shape (R, K P, K p)."""
        arms = np.eye(self.equations.sample.n_arms)
        return np.stack([np.kron(arms, of) for of in self.lift.transpose(2, 0, 1)])

    def lifted(self, theta: Array) -> Array:
        """Return beta = L theta, shape (K, P, R), for the models' coefficients `theta` (K, p, R)."""
        return np.einsum("Ppr,kpr->kPr", self.lift, theta)

    @property
    def separable(self) -> bool:
        """Whether a replicate multiplies a row's odds by the same factor in every column of row weights."""
        model, fixed = self.equations.model, self.equations.target.tilt is None and not self.equations.target.frame
        log_linear = model is not None and model.limits is None and model.kind in ("logit", "calibrated")
        return log_linear and fixed and self.equations.observed is None

    # --- points ------------------------------------------------------------------------------------------------------

    def some(self, columns: Any) -> tuple[Equations, Beta]:
        """Return the equations, and the coefficients for the given columns of row weights."""
        beta, model = {name: each[:, :, columns] for name, each in self.beta.items()}, self.equations.model
        if model is None or model.classifier is None or model.e is None:
            return self.equations, beta
        return self.equations.with_scores(model.e[:, :, columns]), beta

    def under(self, columns: NDArray[np.intp]) -> WeightedRows:
        """Return the same rows with only the given columns of row weights."""
        equations, beta = self.some(columns)
        found = dataclasses.replace(self, equations=equations, s=self.s[:, columns], beta=beta)
        own, replicated, tilts = self.divisors
        divisors = own[columns], [replicated[r] for r in columns], [tilts[r] for r in columns] if tilts else []
        found.__dict__.update(total=self.total[columns], divisors=divisors)
        return found

    def at_replicates(self, r: int) -> tuple[Equations, Beta]:
        """Return the equations, and the coefficients of the replicates around the score fitted under column r."""
        equations, beta = self.some(slice(r, r + 1))
        beta = {name: each + self.replicates.shifts[name] for name, each in beta.items()}
        if equations.model is None or equations.model.e is None or self.replicates.ratio is None:
            return equations, beta
        e = equations.model.e * self.replicates.ratio
        return equations.with_scores(e / e.sum(axis=1, keepdims=True)), beta

    @cached_property
    def divisors(self) -> tuple[Array, list[Array], list[float]]:
        """Divisors of the importance weights for each column of row weights: the means of `Equations.measure`.

        The first item is at the fitted scores, shape (R,). The second has R arrays for the replicates. With a target
        frame, the third has each column's mean tilt.
        """
        target, replicated = self.equations.target, list[Array]()

        def mean(equations: Equations, beta: Beta, s: Array, total: Array) -> Array:
            return np.asarray(equations.totals(_measure_sum, s, beta) / total)

        own = mean(*self.some(slice(0, self.s.shape[1])), self.s, self.total)
        if target.tilt is None and not target.frame:
            return own, [own[[r]] for r in range(self.s.shape[1])], []
        for r in range(self.s.shape[1]):
            replicated.append(mean(*self.at_replicates(r), self.s[:, [r]], self.total[[r]]))
        in_frame = loaded((1 - self.equations.sample.in_sample) @ self.s)
        return own, replicated, (in_frame / self.total).tolist()

    # --- rows --------------------------------------------------------------------------------------------------------

    def rows(self, place: slice) -> Rows:
        """Return the arrays of the rows in the slice `place`."""
        sample, frame = self.equations.sample, self.equations.target.frame
        X, inside = sample.X.columns[place], sample.in_sample[place, None]
        if self.joined is not None:
            X = np.hstack([X, self.joined.columns(X, sample.Z.columns[place])])
        return Rows(
            X=X,
            y=sample.y[place],
            slices=within(sample.slices, place),
            family=sample.family,
            offset=None if sample.offset is None else sample.offset[place, None],
            averaged=1 - inside if frame else 1.0,
            measured=inside if frame else 1.0,
        )

    def weights(self, place: slice, columns: slice) -> Weights:
        """Return weights of the rows in `place` for a slice of the columns, which has one column unless `separable`."""
        share, (equations, beta) = self.s[place, columns] / self.total[columns], self.some(columns)
        width, divisor = share.shape[1], self.divisors[0][columns]
        if self.separable and width > 1:
            base = np.broadcast_to(value_of(equations.tilt(Point(beta, place))) / divisor, share.shape)
            terms = self._odds(beta, place, width) / divisor
            factor = self._odds(self.replicates.shifts, place, self.replicates.count)
            w1, w2 = mean_and_square(base, terms, factor)
            moments = base, w1, base**2, base * w1, w2
            return Weights(share, base, base + terms.sum(axis=0), moments, base, terms, factor)
        at = self.scores(place, column=columns.start)
        zeros, ones = np.zeros_like(share), np.ones((1, len(share), 1))
        return Weights(share, at.tilt, at.w, Moments.of(at)[2:7], zeros, ones, at.replicated[None])

    @cached_property
    def known_scores(self) -> Scores | None:
        """Scores of all rows if there is a single column of row weights and few rows; otherwise None."""
        many = is_dask(self.s) or self.s.shape[1] > 1 or len(self.s) * self.replicates.count > KEPT
        return None if many else self._scores(slice(0, len(self.s)), frozenset(), 0)

    def scores(self, place: slice, by: frozenset[str] = frozenset(), column: int = 0) -> Scores:
        """Return tilt and weight of rows at a column's fitted score and replicates, with derivatives for `by`."""
        known = None if by else self.known_scores
        if known is None:
            return self._scores(place, by, column)
        tilt, w, tilts, replicated, varies = known
        return Scores(tilt[place], w[place], tilts[place], replicated[place], varies)

    def _scores(self, place: slice, by: frozenset[str], column: int) -> Scores:
        target, (own, replicated, mean) = self.equations.target, self.divisors
        ones, varies = np.ones((place.stop - place.start, 1)), target.frame or target.tilt is not None

        def weight(equations: Equations, beta: Beta, divisor: Array) -> Any:
            return by_arm(equations, Point(beta, place, by), equations.weight, len(divisor)) / divisor

        def tilt(equations: Equations, beta: Beta, divisor: Array) -> Any:
            here = Point(beta, place, by)
            if target.frame:  # the tilt in the frame's rows, and the summands of the divisor in the sample's rows
                return equations.tilt(here) / mean[column] + equations.measure(here) / divisor
            return ones * equations.tilt(here) / divisor

        at = *self.some(slice(column, column + 1)), own[[column]]
        again = *self.at_replicates(column), np.broadcast_to(replicated[column], self.replicates.count)
        fixed = tilt(*at)
        return Scores(fixed, weight(*at), tilt(*again) if varies else fixed, weight(*again), varies)

    def _odds(self, beta: Beta, place: slice, width: int) -> Array:
        """Return the odds (T, n, width) of other arms, or of the target arm, against the row's own arm."""
        score: Any = self.equations.score
        toward, n_arms = self.equations.target.toward, self.equations.sample.n_arms
        calibrated = self.equations.model is not None and self.equations.model.kind == "calibrated"

        def of_arm(at: Point, a: int, k: int) -> Any:
            if toward is not None:
                return score.odds(at, toward, a) if a != toward else 0.0
            return score.inverse(at, a) - 1.0 if calibrated else score.odds(at, (a + k) % n_arms, a)

        others = range(1, 2 if calibrated or toward is not None else n_arms)
        at = Point(beta, place)
        return np.stack([by_arm(self.equations, at, partial(of_arm, k=k), width) for k in others])

    # --- sums over the rows ------------------------------------------------------------------------------------------

    def by_row(self, function: Callable[..., Array], *given: Any) -> Array:
        """Concatenate function(part, here, *own) over `pieces`, as a Dask array if the rows do not fit in memory."""
        found = (function(part, here, *own) for part, here, _, *own in self.pieces(max(AT_ONCE // PART, 1), *given))
        return stored(found, arrays.chunk_sizes(self.s)) if is_dask(self.s) else np.concatenate(list(found))

    def over(self, function: Callable[[Rows, Weights, slice], Any]) -> Any:
        """Add up function(rows, weights, columns) over the pieces of rows, for all columns."""
        width = self.s.shape[1] if self.separable else 1
        groups = [slice(first, first + width) for first in range(0, self.s.shape[1], width)]

        def of_piece(part: WeightedRows, here: slice, _: slice) -> list[Any]:
            rows = part.rows(here)
            return [function(rows, part.weights(here, own), own) for own in groups]

        found = arrays.add_up(of_piece(*piece) for piece in self.pieces(max(width, self.replicates.count)))
        if len(found) == 1:
            return found[0]
        if isinstance(found[0], dict):
            return {name: np.concatenate([each[name] for each in found]) for name in found[0]}
        return np.concatenate(found)


def _measure_sum(equations: Equations, s: Array, beta: Beta) -> Array:
    sums: Any = 0.0
    for place in arrays.row_blocks(len(s), AT_ONCE):
        sums = sums + (s[place] * value_of(equations.measure(Point(beta, place)))).sum(axis=0)
    return sums

"""The learner "smooth": ridge regression on splines and products of the covariates, penalties by likelihood.

What is fitted is a constant and, for each covariate, the covariate itself and a natural cubic spline [1]_; where the
covariates are few the product of each two of them as well. The coefficients of standardised columns are penalised;
those of curves and products as much as those of the covariates or more, or they are left out, so that many columns of
which few matter do not hide a straight line. Penalties maximise the restricted likelihood of the model in which
coefficients are normal [2]_ [3]_, which the eigenvalues of the sums of squares and products give for every penalty at
once.

A fit needs two things of its rows: a `SmoothBasis`, which holds centres, scales and knots of the covariates, and
`RidgeSums`, which add up over blocks of rows. Other families than the normal one with the identity are fitted by
penalised iteratively reweighted least squares [4]_, whose working responses and weights give sums of the same kind.

References
----------
.. [1] Hastie, T., Tibshirani, R. and Friedman, J. (2009). The Elements of Statistical Learning, 2nd edition, section
   5.2.1 (natural cubic splines). Springer.
.. [2] Patterson, H. D. and Thompson, R. (1971). Recovery of inter-block information when block sizes are unequal.
   Biometrika 58, 545-554.
.. [3] Wood, S. N. (2011). Fast stable restricted maximum likelihood and marginal likelihood estimation of
   semiparametric generalized linear models. Journal of the Royal Statistical Society B 73, 3-36.
.. [4] Breslow, N. E. and Clayton, D. G. (1993). Approximate inference in generalized linear mixed models. Journal of
   the American Statistical Association 88, 9-25.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import DesignError, one_of
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.families import LARGEST, OutcomeFamily
from causalrisk.numerics.linalg import Array, all_ones, row_blocks

Kinds = NDArray[np.intp]
LINEAR = OutcomeFamily("gaussian", "identity")
KNOTS = (0.05, 0.35, 0.65, 0.95)  # quantiles of a covariate, as Harrell places four knots
DISTINCT = 5  # values of a covariate below which it gets no curve
PAIRED = 25  # covariates up to which their products take part
SHARES = (0.0, 0.1, 0.3, 1.0)  # standard deviations of coefficients of curves and products that are tried, see `Choice`
FIRST = 0.3  # that of the curves while that of the products is chosen
PENALTIES = np.geomspace(1e4, 1e-8, 49)  # relative to the number of rows, the largest first
NO_VARIATION = 1e-12  # mean square about its mean below which a column is constant; covariates have 1
NO_INFORMATION = 1e-14  # eigenvalue of sums of products, relative to the largest, that is rounding error
SEARCHED = 6  # iterations of other families in which the penalty is chosen anew
MAX_ITERATIONS = 60
HALVINGS = 30
SETTLED = 1e-12  # decrease of the penalised loss, relative to it, at which iterations end
ROWS = 1024  # rows of a block of basis columns


@dataclass(frozen=True)
class SmoothBasis:
    """Columns of the smooth regression: covariates, their curves and their products.

    Parameters
    ----------
    centre, scale : ndarray, shape (p,)
        Mean and standard deviation of each covariate; the scale of a constant is infinite, which makes it a zero.
    curved : ndarray of int, shape (c,)
        Covariates that have a curve.
    knots : ndarray, shape (K, c)
        Their knots, in standard deviations about the mean.
    paired : bool
        Whether the products of the covariates are among the columns.
    """

    centre: Array
    scale: Array
    curved: NDArray[np.intp]
    knots: Array
    paired: bool

    @cached_property
    def kinds(self) -> Kinds:
        """What each column is: 0 a covariate, 1 part of a curve, 2 a product; shape (q,)."""
        p, bends = len(self.centre), len(self.curved) * (len(self.knots) - 2)
        return np.repeat([0, 1, 2], [p, bends, p * (p - 1) // 2 if self.paired else 0])

    @property
    def n_columns(self) -> int:
        """Number of columns, without the constant."""
        return len(self.kinds)

    def columns(self, X: Array) -> Array:
        """Return the columns, shape (n, q), of rows of covariates, shape (n, p).

        Notes
        -----
        Equations (5.4) and (5.5) of The Elements of Statistical Learning: with d_k(x) = ((x - t_k)+^3 - (x - t_K)+^3) /
        (t_K - t_k) the curve of a covariate is spanned by d_k - d_{K-1}, k = 1 .. K - 2, which is zero left of t_k and
        has the slope 3 (t_{K-1} - t_k) right of t_K. The straight parts are added by themselves, as differences of
        cubes would lose their digits far out.
        """
        found = np.empty((self.n_columns, len(X)))  # a row of memory for each column
        self._write(X, found)
        return found.T

    def _write(self, X: Array, found: Array) -> None:
        """Write the columns into the rows of an array, shape (q, n)."""
        (p, c), bends = (len(self.centre), len(self.curved)), len(self.knots) - 2
        found[:p] = ((X - self.centre) / self.scale).T
        x = found[self.curved]
        last = self.knots[-1, :, None]
        inside, beyond = np.minimum(x, last), np.maximum(x - last, 0.0)

        def d(k: int) -> Array:
            cubes: Array = np.maximum(inside - self.knots[k, :, None], 0.0) ** 3
            return cubes / (last - self.knots[k, :, None])

        for k in range(bends):
            slope = 3 * (self.knots[-2] - self.knots[k])[:, None]
            found[p + k * c : p + (k + 1) * c] = d(k) - d(bends) + slope * beyond
        at = p + bends * c
        for j in range(p - 1 if self.paired else 0):
            np.multiply(found[j], found[j + 1 : p], out=found[at : at + p - 1 - j])
            at += p - 1 - j

    def sums(self, X: Array, y: Array, weights: Array, counts: Array) -> RidgeSums:
        """Return the sums over rows that ridge regression needs.

        Parameters
        ----------
        X : ndarray, shape (n, p)
            Covariates.
        y : ndarray, shape (n,)
            Outcomes, best about a number near their mean, so that no digits are lost.
        weights : ndarray, shape (n,)
            Non-negative weights.
        counts : ndarray, shape (n,)
            How many rows each one stands for.

        Returns
        -------
        RidgeSums
            The sums.
        """
        blocks = row_blocks(len(y), ROWS)
        return add_up(self._sums(X[rows], y[rows], weights[rows], counts[rows]) for rows in blocks)

    def _sums(self, X: Array, y: Array, weights: Array, counts: Array) -> RidgeSums:
        beside = np.empty((self.n_columns + 2, len(y)))
        beside[0], beside[-1] = 1.0, y
        self._write(X, beside[1:-1])
        return RidgeSums((beside * weights) @ beside.T, float(counts.sum()))

    def problem(self, X: Array, y: Array, weights: Array, counts: Array, unit: Array | None = None) -> RidgeProblem:
        """Return the ridge regressions on the columns of rows, arguments as those of `sums`, from the smaller side."""
        if len(y) <= self.n_columns:
            return rows_problem(self.columns(X), y, weights, float(counts.sum()), self.kinds, unit)
        return self.sums(X, y, weights, counts).problem(self.kinds, unit)

    def predictors(self, X: Array, coefficients: Array) -> Array:
        """Linear predictors, shape (n,), of rows of covariates by coefficients, shape (q + 1,), the constant first."""
        blocks = row_blocks(len(X), ROWS)
        return np.concatenate([coefficients[0] + self.columns(X[rows]) @ coefficients[1:] for rows in blocks])


def smooth_basis(X: Array, weights: Array) -> SmoothBasis:
    """Return the basis of training rows: centres, scales and knots under their weights.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Covariates of the training rows.
    weights : ndarray, shape (n,)
        Positive weights.

    Returns
    -------
    SmoothBasis
        The basis. A covariate with fewer than five distinct values has no curve.
    """
    centre = weights @ X / weights.sum()
    scale = np.sqrt(weights @ (X - centre) ** 2 / weights.sum())
    scale[(X[0] == X).all(axis=0)] = np.inf
    knots = [_knots(x, weights) for x in X.T]
    curved = np.array([j for j, at in enumerate(knots) if len(at)], dtype=np.intp)
    placed = np.reshape([knots[j] for j in curved], (len(curved), len(KNOTS))).T
    return SmoothBasis(centre, scale, curved, (placed - centre[curved]) / scale[curved], X.shape[1] <= PAIRED)


def _knots(x: Array, weights: Array) -> Array:
    """Quantiles of the rows, or where these coincide of the distinct values; none where there are few values."""
    values, place = np.unique(x, return_inverse=True)
    if len(values) < DISTINCT:
        return np.empty(0)
    found = _quantiles(values, np.bincount(place, weights).astype(float))
    return found if (np.diff(found) > 0).all() else _quantiles(values, np.ones(len(values)))


def _quantiles(values: Array, weights: Array) -> Array:
    """Return for each share of KNOTS the least of the sorted values up to which it lies."""
    reached = np.cumsum(weights)
    return values[np.searchsorted(reached, np.array(KNOTS) * reached[-1])]


@dataclass(frozen=True)
class RidgeSums:
    """Sums over rows that ridge regression needs; those of blocks of rows add up to those of all.

    Parameters
    ----------
    products : ndarray, shape (q + 2, q + 2)
        Weighted sums of squares and products of the constant, the columns and the outcome, in this order.
    count : float
        Number of rows that the weights stand for.
    """

    products: Array
    count: float

    def problem(self, kinds: Kinds, unit: Array | None = None) -> RidgeProblem:
        """Return the problem of the standardised columns.

        Parameters
        ----------
        kinds : ndarray of int, shape (q,)
            What each column is, as of `SmoothBasis`.
        unit : ndarray, shape (q,), optional
            What each column is multiplied by; by default one over its standard deviation, and zero for a constant.
        """
        total = float(self.products[0, 0])
        mean = self.products[0, 1:] / total
        centred = self.products[1:, 1:] - total * np.outer(mean, mean)
        unit = _units(np.diag(centred)[:-1] / total) if unit is None else unit
        gram, inner = centred[:-1, :-1] * np.outer(unit, unit), centred[:-1, -1] * unit
        return SumsProblem(total, self.count, mean, unit, kinds, float(centred[-1, -1]), gram, inner)


def rows_problem(
    columns: Array, y: Array, weights: Array, count: float, kinds: Kinds, unit: Array | None = None
) -> RidgeProblem:
    """Return the problem from the rows, which takes less where there are more columns than rows.

    Parameters
    ----------
    columns : ndarray, shape (n, q)
        Columns of the basis.
    y, weights : ndarray, shape (n,)
        Outcome; non-negative weights.
    count : float
        Number of rows that the weights stand for.
    kinds, unit : ndarray, shape (q,)
        As of `RidgeSums.problem`.
    """
    total, root = float(weights.sum()), np.sqrt(weights)
    mean = weights @ np.column_stack([columns, y]) / total
    rows = columns - mean[:-1]
    unit = _units(weights @ rows**2 / total) if unit is None else unit
    rows *= unit * root[:, None]
    outcome = root * (y - mean[-1])
    return RowsProblem(total, count, mean, unit, kinds, float(outcome @ outcome), rows, outcome)


def _units(squares: Array) -> Array:
    """One over the roots of mean squares; zero for constant columns."""
    return np.where(squares > NO_VARIATION, 1 / np.sqrt(np.maximum(squares, NO_VARIATION)), 0.0)


@dataclass(frozen=True)
class RidgeProblem(ABC):
    """Ridge regressions on standardised columns, each row times the root of its weight.

    Parameters
    ----------
    total, count : float
        Sum of the weights; number of rows that they stand for.
    mean : ndarray, shape (q + 1,)
        Means of the columns and of the outcome.
    unit : ndarray, shape (q,)
        What the columns are multiplied by, about their means.
    kinds : ndarray of int, shape (q,)
        What each column is, as of `SmoothBasis`.
    square : float
        Sum of squares of the outcome about its mean.
    """

    total: float
    count: float
    mean: Array
    unit: Array
    kinds: Kinds
    square: float

    @abstractmethod
    def spectrum(self, shares: tuple[float, float]) -> Spectrum:
        """Return the ridge regressions of every penalty, with given shares of curves and products."""

    @abstractmethod
    def slopes(self, choice: Choice) -> Array:
        """Return the slopes of the columns in their units, shape (q,)."""

    def factors(self, shares: tuple[float, float]) -> Array:
        """Return what to multiply the columns by, shape (q,), that the penalty of all be the same."""
        return np.array([1.0, *shares])[self.kinds]

    def choose(self, penalties: Array) -> Choice:
        """Return what is likeliest: first the products' share is chosen, then that of the curves."""
        curves, products = (SHARES if (self.kinds == kind).any() else (0.0,) for kind in (1, 2))
        _, found = min((self._best((FIRST, share), penalties) for share in products), key=itemgetter(0))
        return min((self._best((share, found.shares[1]), penalties) for share in curves), key=itemgetter(0))[1]

    def _best(self, shares: tuple[float, float], penalties: Array) -> tuple[float, Choice]:
        deviance = self.spectrum(shares).deviance(penalties, self.count)
        least = int(np.argmin(deviance))
        return float(deviance[least]), Choice(shares, float(penalties[least]))

    def fit(self, origin: float = 0.0) -> tuple[Array, Choice]:
        """Choose, and return coefficients for `SmoothBasis.predictors` and what was chosen.

        Parameters
        ----------
        origin : float
            Number about which the outcomes are given.
        """
        choice = self.choose(PENALTIES * self.total)
        return _coefficients(self.solution(choice), self.unit, origin), choice

    def solution(self, choice: Choice) -> Array:
        """Return the constant, and the slopes of the columns in their units, shape (q + 1,)."""
        slopes = self.slopes(choice)
        return np.concatenate([[self.mean[-1] - self.mean[:-1] @ (slopes * self.unit)], slopes])


class Choice(NamedTuple):
    """What is chosen of a ridge regression.

    Parameters
    ----------
    shares : tuple of float
        Standard deviation that the coefficients of curves and of products are thought to have, relative to those of
        the covariates; 0 leaves them out.
    penalty : float
        Penalty of the squares of the covariates' coefficients; that of the others is divided by their squared share.
    """

    shares: tuple[float, float]
    penalty: float


@dataclass(frozen=True)
class SumsProblem(RidgeProblem):
    """The problem given by sums of squares and products.

    Parameters
    ----------
    gram : ndarray, shape (q, q)
        Of the columns.
    inner : ndarray, shape (q,)
        Of the columns and the outcome.
    """

    gram: Array
    inner: Array

    def spectrum(self, shares: tuple[float, float]) -> Spectrum:
        """As in `RidgeProblem`, from the eigenvectors of the sums."""
        factors = self.factors(shares)
        used = factors > 0
        values, vectors = np.linalg.eigh((self.gram * np.outer(factors, factors))[np.ix_(used, used)])
        known = values > values.max(initial=0.0) * NO_INFORMATION
        values = np.where(known, values, 0.0)
        along = vectors.T @ (self.inner * factors)[used]
        along = np.divide(along, np.sqrt(values), out=np.zeros_like(along), where=known)
        return Spectrum(values, vectors, along, max(self.square - float(along @ along), 0.0))

    def slopes(self, choice: Choice) -> Array:
        """As in `RidgeProblem`."""
        found, spectrum = self.factors(choice.shares), self.spectrum(choice.shares)
        found[found > 0] *= spectrum.vectors @ (np.sqrt(spectrum.values) * spectrum.shrunk(choice.penalty))
        return found


@dataclass(frozen=True)
class RowsProblem(RidgeProblem):
    """The problem given by its rows.

    Parameters
    ----------
    rows : ndarray, shape (n, q)
        The columns.
    outcome : ndarray, shape (n,)
        The outcome.
    """

    rows: Array
    outcome: Array

    def spectrum(self, shares: tuple[float, float]) -> Spectrum:
        """As in `RidgeProblem`, from the eigenvectors of the products of the rows."""
        squares = np.square([1.0, *shares])
        values, vectors = np.linalg.eigh(np.tensordot(squares, self.kernels, axes=1))
        return Spectrum(np.maximum(values, 0.0), vectors, vectors.T @ self.outcome, 0.0)

    @cached_property
    def kernels(self) -> Array:
        """Products of the rows in the columns of each kind, shape (3, n, n)."""
        parts = [self.rows[:, self.kinds == kind] for kind in range(3)]
        return np.stack([part @ part.T for part in parts])

    def slopes(self, choice: Choice) -> Array:
        """As in `RidgeProblem`."""
        spectrum = self.spectrum(choice.shares)
        return self.factors(choice.shares) ** 2 * (self.rows.T @ (spectrum.vectors @ spectrum.shrunk(choice.penalty)))


@dataclass(frozen=True)
class Spectrum:
    """Ridge regression for every penalty, along the singular directions of the columns.

    Parameters
    ----------
    values : ndarray, shape (r,)
        Squared singular values.
    vectors : ndarray, shape (r, r)
        Eigenvectors of the columns' products, or of the rows'.
    along : ndarray, shape (r,)
        The outcome along the left singular vectors.
    rest : float
        Sum of squares of the outcome in other directions.
    """

    values: Array
    vectors: Array
    along: Array
    rest: float

    def deviance(self, penalties: Array, count: float) -> Array:
        """Return minus twice the log restricted likelihood at each penalty, up to a constant.

        Of the model in which the coefficients are normal, their variances those of the noise divided by the penalty,
        with the variance of the noise at its maximum. Infinite where the fit has more than half a degree of freedom for
        each row: few rows do not tell a smooth outcome from one that they happen to fit.

        Generalised cross-validation, which is found from the same numbers, follows the noise at times, above all with
        few rows; with a factor against that, as `gamma` of R's mgcv, it misses more where columns are many.
        """
        kept = self.values / (self.values + penalties[:, None])
        squares = (1 - kept) @ self.along**2 + self.rest
        squares = np.maximum(squares, (self.along @ self.along + self.rest) * NO_INFORMATION)
        found = (count - 1) * np.log(squares) + np.log1p(self.values / penalties[:, None]).sum(axis=1)
        return np.where(1 + kept.sum(axis=1) <= count / 2, found, np.inf)

    def shrunk(self, penalty: float) -> Array:
        """Return `along` divided by the squared singular values and the penalty, shape (r,)."""
        return self.along / (self.values + penalty)


class Smooth:
    """Ridge regression on natural cubic splines and products of the covariates, penalties by restricted likelihood.

    With methods `fit` and `predict` as those of scikit-learn; nothing is drawn at random.

    Parameters
    ----------
    family : OutcomeFamily
        Family and link of the outcome; by default least squares.
    weight_type : {"frequency", "probability"}
        Whether a weight of 2 stands for two rows where penalties are chosen, or for one as any positive weight.

    Attributes
    ----------
    basis : SmoothBasis or None
        What the columns are made by; None after a fit to outcomes that are all the same.
    coefficients : ndarray, shape (q + 1,)
        The constant and the coefficients of the columns.
    choice : Choice or None
        The shares and the penalty that were chosen.

    Notes
    -----
    Minimised is sum_i w_i (y_i - f(x_i))^2 + penalty sum_j (b_j / s_j)^2, with b_j the coefficient of column j divided
    by its standard deviation and s_j = 1 for a covariate, else the share of curves or products. For other families
    twice the negative log quasi-likelihood at dispersion 1 is in place of the squares; shares and penalty are chosen by
    the working responses of the first iterations and are then kept.

    Examples
    --------
    >>> import numpy as np
    >>> from causalrisk.learners.smooth import Smooth
    >>> x = np.linspace(-2, 2, 200)[:, None]
    >>> fit = Smooth().fit(x, np.abs(x[:, 0]))
    >>> fit.predict(np.array([[-2.0], [0.0], [2.0]])).round(1)
    array([2.1, 0.3, 2.1])
    """

    def __init__(self, family: OutcomeFamily = LINEAR, weight_type: str = "frequency") -> None:
        one_of("weight_type", weight_type, ("frequency", "probability"))
        self.family, self.weight_type = family, weight_type

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Smooth:
        """Fit to rows.

        Parameters
        ----------
        X : array_like, shape (n, p)
            Covariates, numbers.
        y : array_like, shape (n,)
            Outcome.
        sample_weight : array_like, shape (n,), optional
            Non-negative weights; rows with weight 0 count for nothing.

        Returns
        -------
        Smooth
            The learner itself.

        Raises
        ------
        DesignError
            If shapes do not go together, values are missing or infinite, weights are negative or none is positive,
            outcomes are none of the family, or their mean is not above zero where the link is logarithmic.
        """
        X, y = _numbers("X", X, 2), _numbers("y", y, 1)
        weights = all_ones(len(y)) if sample_weight is None else _numbers("sample_weight", sample_weight, 1)
        if not len(X) == len(y) == len(weights):
            raise DesignError(f"X, y and sample_weight have {len(X)}, {len(y)} and {len(weights)} rows.")
        used = weights > 0
        if (weights < 0).any() or not used.any():
            raise DesignError("sample_weight has negative values, or none above zero.")
        self.family.check(y[used], "y")
        self._fit(X[used], y[used], weights[used])
        return self

    def _fit(self, X: Array, y: Array, weights: Array) -> None:
        if (y == y[0]).all():  # a family may have no finite predictor of it
            self.basis, self.coefficients, self.choice = None, y[:1], None
            return
        counts = weights if self.weight_type == "frequency" else all_ones(len(y))
        self.basis = smooth_basis(X, weights)
        if self.family.linear:
            origin = weights @ y / weights.sum()
            self.coefficients, self.choice = self.basis.problem(X, y - origin, weights, counts).fit(origin)
        else:
            self.coefficients, self.choice = _reweighted(self.basis, X, y, weights, counts, self.family)

    def predict(self, X: Any) -> Array:
        """Predict the mean of the outcome.

        Parameters
        ----------
        X : array_like, shape (m, p)
            Covariates.

        Returns
        -------
        ndarray, shape (m,)
            Means, inside of the range of the family.
        """
        X = _numbers("X", X, 2)
        if self.basis is None:
            return np.full(len(X), self.coefficients[0])
        if X.shape[1] != len(self.basis.centre):
            raise DesignError(f"X has {X.shape[1]} columns; the learner was fitted to {len(self.basis.centre)}.")
        eta = self.basis.predictors(X, self.coefficients)
        return self.family.mean(eta if self.family.linear else np.clip(eta, -LARGEST, LARGEST))


def _numbers(name: str, given: Any, ndim: int) -> Array:
    """Return an array of finite numbers."""
    found = np.asarray(given, dtype=float)
    if found.ndim != ndim:
        raise DesignError(
            f"{name} has shape {found.shape}; expected {ndim} dimension{'s' * (ndim > 1)}.\n"
            f"Type  {name}.reshape(len({name}){', -1' * (ndim > 1)})."
        )
    if not np.isfinite(found).all():
        raise DesignError(
            f"{name} has {int((~np.isfinite(found)).sum())} values that are missing or infinite; expected numbers.\n"
            f"Type  np.argwhere(~np.isfinite({name}))  to see which."
        )
    return found


def _coefficients(solution: Array, unit: Array, origin: float) -> Array:
    """Coefficients of the constant and of the columns as they are, of outcomes about an origin."""
    return np.concatenate([[solution[0] + origin], solution[1:] * unit])


def _reweighted(
    basis: SmoothBasis, X: Array, y: Array, weights: Array, counts: Array, family: OutcomeFamily
) -> tuple[Array, Choice]:
    """Coefficients by penalised iteratively reweighted least squares, and what was chosen.

    The start is the constant model, under which working weights are the weights times a number. So the units of the
    columns are those of the weights, and they and the penalties to choose from stay the same.
    """
    mean = weights @ y / weights.sum()
    if family.link == "log" and mean <= 0:  # of the normal family, whose constant has no finite estimate then
        raise DesignError(
            f'y has the mean {mean:g}, which link="log" cannot have; expected one above 0.\nType  link="identity".'
        )
    origin = float(family.distribution.link(mean))
    now, eta = np.zeros(basis.n_columns + 1), np.full(len(y), origin)
    unit: Any = None
    choice: Any = None
    grid, searching = PENALTIES, True
    for iteration in range(MAX_ITERATIONS):
        score, _, expected = family.score(y, eta)
        step = np.divide(score, expected, out=np.zeros_like(eta), where=expected > 0)
        problem = basis.problem(X, eta - origin + step, weights * expected, counts, unit)
        if unit is None:
            unit, grid = problem.unit, PENALTIES * problem.total
        if searching:
            before, choice = choice, problem.choose(grid)
            searching = choice != before and iteration < SEARCHED
            now[1:][problem.factors(choice.shares) == 0] = 0.0
            eta = basis.predictors(X, _coefficients(now, unit, origin))
        factors = problem.factors(choice.shares)
        ridge = np.divide(choice.penalty, factors**2, out=np.zeros_like(factors), where=factors > 0)
        loss = _penalised(family, y, weights, eta, now, ridge)
        new = problem.solution(choice)
        for _ in range(HALVINGS):
            eta = basis.predictors(X, _coefficients(new, unit, origin))
            reached = _penalised(family, y, weights, eta, new, ridge)
            if reached <= loss * (1 + SETTLED):
                break
            new = (now + new) / 2
        now = new
        if not searching and loss - reached <= SETTLED * loss:
            break
    return _coefficients(now, unit, origin), choice


def _penalised(family: OutcomeFamily, y: Array, weights: Array, eta: Array, solution: Array, ridge: Array) -> float:
    """Return what iterations decrease: the negative log quasi-likelihood and half of the penalised squares."""
    with np.errstate(all="ignore"):  # of a step that is too long
        return float(weights @ family.loss(y, eta) + ridge @ solution[1:] ** 2 / 2)

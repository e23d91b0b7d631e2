"""The learner "smooth": ridge regression on splines and products of covariates, with penalties chosen by likelihood.

The model has a constant and, for each covariate, the covariate itself and a natural cubic spline (its curve) [1]_. If
there are few covariates, the model also has the product of each pair.

Coefficients of standardised columns are penalised. Curves and products are penalised at least as much as covariates, or
left out, so that many irrelevant columns do not hide a straight line. The penalties maximise the restricted likelihood
of the model with normal coefficients [3]_ [4]_. The eigenvalues of the matrix of sums of squares and products give the
likelihood for every penalty at once.

A fit needs a `SmoothBasis` (centres, scales and knots of the covariates) and sums of products of the basis columns.
These sums add up over blocks of rows. All fits to an arm, each without one fold, share the basis of the arm. Families
other than the normal with identity link are fitted by penalised iteratively reweighted least squares [2]_. The working
responses and weights give sums of the same kind, in one pass over the rows per iteration.

References
----------
.. [1] Hastie, T., Tibshirani, R. and Friedman, J. (2009). The Elements of Statistical Learning, 2nd edition, section
   5.2.1 (natural cubic splines). Springer.
.. [2] Breslow, N. E. and Clayton, D. G. (1993). Approximate inference in generalized linear mixed models. Journal of
   the American Statistical Association 88, 9-25.
.. [3] Patterson, H. D. and Thompson, R. (1971). Recovery of inter-block information when block sizes are unequal.
   Biometrika 58, 545-554.
.. [4] Wood, S. N. (2011). Fast stable restricted maximum likelihood and marginal likelihood estimation of
   semiparametric generalized linear models. Journal of the Royal Statistical Society B 73, 3-36.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import DesignError, LearnerError
from causalrisk.numerics.arrays import Arms, Array, Numbers, add_up, row_blocks
from causalrisk.numerics.families import LARGEST, LINEAR, OutcomeFamily
from causalrisk.runtime import ordered_map

SHARES = (0.0, 0.1, 0.3, 1.0)  # candidate standard deviations of coefficients of curves and products, see `Choice`
FIRST = 0.3  # share of the curves while the share of the products is chosen
PENALTIES = np.geomspace(1e4, 1e-8, 49)  # relative to the sum of the weights, the largest first
NO_VARIATION = 1e-12  # variance below which a column is constant; covariates have variance 1
NO_INFORMATION = 1e-14  # eigenvalue of sums of products, relative to the largest, that is rounding error
KNOTS = (0.05, 0.35, 0.65, 0.95)  # quantiles of a covariate, as Harrell places four knots
DISTINCT = 5  # a covariate with fewer distinct values has no curve
PAIRED = 25  # number of covariates up to which their products are columns
PLACED = 25_000  # rows of an arm that place knots; more rows do not place them better
GOLDEN = (np.sqrt(5) - 1) / 2  # multiples by row numbers, modulo 1, are spread evenly and have no period
SEARCHED = 6  # iterations in which families other than the normal choose penalties again
MAX_ITERATIONS = 60
HALVINGS = 30
SETTLED = 1e-12  # relative decrease of the penalised loss at which iterations end
ROWS = 1024  # rows of a block of basis columns


# --- ridge regression ------------------------------------------------------------------------------------------------


def coefficients_of(solution: Array, unit: Array, origin: float = 0.0) -> Array:
    """Return the constant and the slopes of the original columns. `origin` is added back to the constant."""
    return np.concatenate([[solution[0] + origin], solution[1:] * unit])


def ridge_problem(products: Array, count: float, kinds: Numbers, unit: Array | None = None) -> RidgeProblem:
    """Return the ridge problem of columns times `unit`: by default 1 / (standard deviation), and 0 for a constant."""
    total = float(products[0, 0])
    mean = products[0, 1:] / total
    centred = products[1:, 1:] - total * np.outer(mean, mean)
    if unit is None:
        squares = np.diag(centred)[:-1] / total
        unit = np.where(squares > NO_VARIATION, 1 / np.sqrt(np.maximum(squares, NO_VARIATION)), 0.0)
    gram, inner = centred[:-1, :-1] * np.outer(unit, unit), centred[:-1, -1] * unit
    return RidgeProblem(total, count, mean, unit, kinds, float(centred[-1, -1]), gram, inner)


@dataclass(frozen=True)
class RidgeProblem:
    """Ridge regressions on standardised columns, with each row multiplied by the root of its weight.

    `total` is the sum of the weights. `count` is the number of observations. `mean` (q + 1,) has the weighted means of
    the q columns and, last, of the outcome. `unit` (q,) has the factors by which columns are multiplied. `kinds` is as
    in `SmoothBasis`. `square` is the outcome's sum of squares about its mean. `gram` (q, q) has the products of the
    columns with each other, and `inner` (q,) with the outcome.
    """

    total: float
    count: float
    mean: Array
    unit: Array
    kinds: Numbers
    square: float
    gram: Array
    inner: Array

    def spectrum(self, shares: tuple[float, float]) -> tuple[Array, Array, Array]:
        """Return squared singular values and right singular vectors of the scaled columns, and U'y (U: left ones)."""
        factors = self.factors(shares)
        used = factors > 0
        values, vectors = np.linalg.eigh((self.gram * np.outer(factors, factors))[np.ix_(used, used)])
        known = values > values.max(initial=0.0) * NO_INFORMATION
        values = np.where(known, values, 0.0)
        along = vectors.T @ (self.inner * factors)[used]
        return values, vectors, np.divide(along, np.sqrt(values), out=np.zeros_like(along), where=known)

    def factors(self, shares: tuple[float, float]) -> Array:
        """Return factors (q,). Columns that are multiplied by these all have the same penalty."""
        return np.array([1.0, *shares])[self.kinds]

    def choose(self, penalties: Array) -> Choice:
        """Return the `Choice` with the largest likelihood. The share for products of columns is chosen first."""

        def likeliest(pairs: list[tuple[float, float]]) -> Choice:
            deviances = [self.deviance(shares, penalties) for shares in pairs]
            best = int(np.argmin([deviance.min() for deviance in deviances]))
            return Choice(pairs[best], float(penalties[deviances[best].argmin()]))

        curves, products = (SHARES if (self.kinds == kind).any() else (0.0,) for kind in (1, 2))
        found = likeliest([(FIRST, share) for share in products])
        return likeliest([(share, found.shares[1]) for share in curves])

    def deviance(self, shares: tuple[float, float], penalties: Array) -> Array:
        """Return minus twice the log restricted likelihood at each penalty, up to a constant.

        In the model, coefficients are normal, and their variance is the noise variance divided by the penalty. The
        noise variance maximises the likelihood. The result is infinite if the fit has more than half a degree of
        freedom per row. With few rows, such a fit can be close by chance.
        """
        values, _, along = self.spectrum(shares)
        inside = float(along @ along)
        rest = max(self.square - inside, 0.0)
        kept = values / (values + penalties[:, None])
        squares = np.maximum((1 - kept) @ along**2 + rest, (inside + rest) * NO_INFORMATION)
        found = (self.count - 1) * np.log(squares) + np.log1p(values / penalties[:, None]).sum(axis=1)
        return np.where(1 + kept.sum(axis=1) <= self.count / 2, found, np.inf)

    def solution(self, choice: Choice) -> Array:
        """Return the constant, then the slopes of the columns multiplied by `unit`, shape (q + 1,)."""
        slopes, (values, vectors, along) = self.factors(choice.shares), self.spectrum(choice.shares)
        slopes[slopes > 0] *= vectors @ (np.sqrt(values) * (along / (values + choice.penalty)))
        return np.concatenate([[self.mean[-1] - self.mean[:-1] @ (slopes * self.unit)], slopes])


class Choice(NamedTuple):
    """Penalty of the covariates' coefficients, and `shares` of curves and products.

    A share is the prior standard deviation of coefficients relative to the covariates'. 0 leaves the columns out.
    """

    shares: tuple[float, float]
    penalty: float


# --- the learner -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SmoothBasis:
    """Columns of the smooth regression: covariates, their curves and their products.

    `centre` (p,) and `scale` (p,) are mean and standard deviation of each covariate. The scale of a constant is
    infinite. `curved` (c,) has the positions of the covariates with a curve, and `knots` (K, c) their K knots, in
    standard deviations about the mean. `paired` says whether there are products of the covariates.
    """

    centre: Array
    scale: Array
    curved: NDArray[np.intp]
    knots: Array
    paired: bool

    @cached_property
    def kinds(self) -> Numbers:
        """Kind of each column, shape (q,): 0 a covariate, 1 part of a curve, 2 a product."""
        p, bends = len(self.centre), len(self.curved) * (len(self.knots) - 2)
        return np.repeat([0, 1, 2], [p, bends, p * (p - 1) // 2 if self.paired else 0])

    def columns(self, X: Array) -> Array:
        """Return the columns (n, q) for rows of covariates (n, p).

        Notes
        -----
        A curve is a combination of d_k - d_{K-1}, k = 1 .. K - 2, where d_k(x) = ((x - t_k)+^3 - (x - t_K)+^3) /
        (t_K - t_k). These are equations (5.4) and (5.5) of The Elements of Statistical Learning. Each term is zero left
        of t_k, and has the slope 3 (t_{K-1} - t_k) right of t_K. Straight lines are computed separately, because
        differences of cubes would lose digits far from the knots.
        """
        found = np.empty((len(self.kinds), len(X)))  # a row of memory for each column
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
        return found.T

    def products(self, X: Array, y: Array, weights: Array) -> Array:
        """Return the weighted sums (q + 2, q + 2) of products of each pair among constant, columns and outcome."""
        total = np.zeros((len(self.kinds) + 2, len(self.kinds) + 2))
        for rows in row_blocks(len(y), ROWS):
            joint = np.vstack([np.ones(len(y[rows])), self.columns(X[rows]).T, y[rows]])
            total += (joint * weights[rows]) @ joint.T
        return total

    def predictors(self, X: Array, coefficients: Array) -> Array:
        """Return linear predictors of n rows of covariates, given coefficients (q + 1,) with the constant first."""
        blocks = row_blocks(len(X), ROWS)
        return np.concatenate([coefficients[0] + self.columns(X[rows]) @ coefficients[1:] for rows in blocks])


def smooth_basis(X: Array, weights: Array) -> SmoothBasis:
    """Return the basis of covariates (n, p). A covariate with fewer than five distinct values has no curve."""
    centre = weights @ X / weights.sum()
    scale = np.sqrt(weights @ (X - centre) ** 2 / weights.sum())
    scale[(X[0] == X).all(axis=0)] = np.inf
    knots = [_knots(x, weights) for x in X.T]
    curved = np.array([j for j, at in enumerate(knots) if len(at)], dtype=np.intp)
    placed = np.reshape([knots[j] for j in curved], (len(curved), len(KNOTS))).T
    return SmoothBasis(centre, scale, curved, (placed - centre[curved]) / scale[curved], X.shape[1] <= PAIRED)


def _knots(x: Array, weights: Array) -> Array:
    """Return a covariate's knots: quantiles of its values or, if these coincide, of the distinct values."""
    values, place = np.unique(x, return_inverse=True)
    if len(values) < DISTINCT:
        return np.empty(0)
    found = _quantiles(values, np.bincount(place, weights).astype(float))
    return found if (np.diff(found) > 0).all() else _quantiles(values, np.ones(len(values)))


def _quantiles(values: Array, weights: Array) -> Array:
    """Return weighted quantiles of the sorted values, at the shares in KNOTS."""
    reached = np.cumsum(weights)
    return values[np.searchsorted(reached, np.array(KNOTS) * reached[-1])]


@dataclass(frozen=True)
class Smooth:
    """Ridge regression on natural cubic splines and products of covariates, with penalties by restricted likelihood.

    The fit is deterministic.

    Parameters
    ----------
    family : OutcomeFamily
        Family and link of the outcome. The default is least squares.
    basis : SmoothBasis or None
        The basis of the columns. None before a fit, and after a fit to constant outcomes.
    coefficients : ndarray, shape (q + 1,)
        The constant and the coefficients of the columns.
    choice : Choice or None
        The shares and the penalty that were chosen. None where `basis` is None.

    Notes
    -----
    The fit minimises sum_i w_i (y_i - f(x_i))^2 + penalty sum_j (b_j / s_j)^2. b_j is the coefficient of column j after
    the column is divided by its standard deviation. s_j is 1 for a covariate, and otherwise the share of curves
    or of products. For other families, twice the negative log quasi-likelihood at dispersion 1 replaces the squares.
    Shares and penalty are then chosen from the working responses of the first iterations, and kept fixed.
    """

    family: OutcomeFamily = LINEAR
    basis: SmoothBasis | None = None
    coefficients: Array = field(default_factory=lambda: np.empty(0))
    choice: Choice | None = None

    def predict(self, X: Array) -> Array:
        """Predict m mean outcomes, within the range of the family, at covariates `X` (m, p)."""
        if self.basis is None:
            return np.full(len(X), self.coefficients[0])
        eta = self.basis.predictors(X, self.coefficients)
        return self.family.mean(eta if self.family.linear else np.clip(eta, -LARGEST, LARGEST))


def smooth_fits(model: Smooth, a: int, training: Training, workers: int = 1) -> tuple[Smooth, ...]:
    """Fit arm `a`'s learner to the arm's rows outside of each fold or, with a single fold, to all of them."""
    family, n_folds = model.family, training.n_folds

    def outcomes(rows: LearnerRows) -> tuple[Array, Array, Numbers]:
        own = rows.trained(a)
        return rows.y[own], rows.s[own], rows.fold[own]

    y, weights, fold = (np.concatenate(parts) for parts in zip(*training.over(outcomes), strict=True))
    outside = [fold != f if n_folds > 1 else fold == f for f in range(n_folds)]
    for f in range(n_folds):
        if not outside[f].any():
            raise without_training(training, a, f)
    means = [float(np.average(y[own], weights=weights[own])) for own in outside]
    counts = [float(weights[own].sum() if training.counts else own.sum()) for own in outside]
    origin, share = float(np.mean(means)), PLACED / len(y)

    def placed(rows: LearnerRows) -> tuple[Array, Array]:
        own = rows.trained(a)
        own = own if share >= 1 else own[(rows.number[own] * GOLDEN) % 1.0 < share]
        return rows.features[own], rows.s[own]

    basis = smooth_basis(*(np.concatenate(parts) for parts in zip(*training.over(placed), strict=True)))

    def products(rows: LearnerRows) -> list[Array]:
        trained, y = rows.trained(a), rows.y - origin
        cells = [trained[rows.fold[trained] == f] for f in range(n_folds)]
        return [basis.products(rows.features[own], y[own], rows.s[own]) for own in cells]

    def fitted(f: int) -> Smooth:
        if np.ptp(y[outside[f]]) == 0:
            return dataclasses.replace(model, coefficients=y[outside[f]][:1])
        if family.linear:
            others = [of_fold for g, of_fold in enumerate(of_folds) if g != f or n_folds == 1]
            problem = ridge_problem(add_up(others), counts[f], basis.kinds)
            choice = problem.choose(PENALTIES * problem.total)
            coefficients = coefficients_of(problem.solution(choice), problem.unit, origin)
        else:
            coefficients, choice = _reweighted(basis, family, means[f], counts[f], training, (a, f))
        return dataclasses.replace(model, basis=basis, coefficients=coefficients, choice=choice)

    of_folds = add_up(training.over(products)) if family.linear else []
    with ordered_map(fitted, range(n_folds), workers if family.linear else 1) as results:
        return tuple(results)


def _reweighted(
    basis: SmoothBasis, family: OutcomeFamily, mean: float, count: float, training: Training, fit: tuple[int, int]
) -> tuple[Array, Choice]:
    """Return coefficients with the least penalised loss, and the choice. `fit` has the arm and the left-out fold."""

    def working(coefficients: Array) -> tuple[Array, float]:
        def of_rows(rows: LearnerRows) -> tuple[Array, float]:
            own = rows.outside(*fit, training.n_folds)
            X, y, weights = rows.features[own], rows.y[own], rows.s[own]
            eta = basis.predictors(X, coefficients)
            with np.errstate(all="ignore"):  # a step may be too long
                score, _, expected = family.score(y, eta)
                step = np.divide(score, expected, out=np.zeros_like(eta), where=expected > 0)
                return basis.products(X, eta + step, weights * expected), float(weights @ family.loss(y, eta))

        return add_up(training.over(of_rows))

    if family.link == "log" and mean <= 0:  # the normal family's constant then has no finite estimate
        raise DesignError(f'y has mean {mean:g}; link="log" needs a mean above 0.\nUse `link="identity"`.')
    now = np.zeros(len(basis.kinds) + 1)
    now[0] = family.distribution.link(mean)
    products, loss = working(now)
    problem = ridge_problem(products, count, basis.kinds)
    unit, grid, searching = problem.unit, PENALTIES * problem.total, True
    choice = Choice((np.nan, np.nan), np.nan)  # none yet
    for iteration in range(MAX_ITERATIONS):
        if searching:
            before, choice = choice, problem.choose(grid)
            searching = choice != before and iteration < SEARCHED
        factors = problem.factors(choice.shares)
        left_out = (factors == 0) & (now[1:] != 0)
        if left_out.any():
            now[1:][left_out] = 0.0
            _, loss = working(coefficients_of(now, unit))
        ridge = np.divide(choice.penalty, factors**2, out=np.zeros_like(factors), where=factors > 0)
        penalised, new = loss + ridge @ now[1:] ** 2 / 2, problem.solution(choice)
        for _ in range(HALVINGS):
            products, loss = working(coefficients_of(new, unit))
            reached = loss + ridge @ new[1:] ** 2 / 2
            if reached <= penalised * (1 + SETTLED):
                break
            new = (now + new) / 2
        now = new
        if not searching and penalised - reached <= SETTLED * penalised:
            break
        problem = ridge_problem(products, count, basis.kinds, unit)
    return coefficients_of(now, unit), choice


# --- rows that learners are fitted to --------------------------------------------------------------------------------


@dataclass(frozen=True)
class LearnerRows:
    """Rows for learners: `features` (n, k), outcomes `y` (n,), arms, folds. NaN outcomes are not used for fitting."""

    features: Array
    y: Array
    arm: Arms
    fold: Numbers
    weights: Array | None
    number: Numbers

    def trained(self, arm: int) -> Numbers:
        """Return the positions of the rows of an arm that have an outcome."""
        return np.flatnonzero((self.arm == arm) & ~np.isnan(self.y))

    def outside(self, arm: int, fold: int, n_folds: int) -> Numbers:
        """Return the positions of the `trained` rows outside of a fold. With a single fold, these are all such rows."""
        own = self.trained(arm)
        return own if n_folds == 1 else own[self.fold[own] != fold]

    @property
    def s(self) -> Array:
        """Weights of the rows, shape (n,)."""
        return np.ones(len(self.y)) if self.weights is None else self.weights


@dataclass(frozen=True)
class Training:
    """Access to the rows that learners are fitted to, with labels of the arms and number of folds.

    `over(function)` calls the function with the `LearnerRows` of each block, in order, and yields the results. `counts`
    says whether weights are counts of equal rows.
    """

    over: Callable[[Callable[[LearnerRows], Any]], Iterator[Any]]
    labels: tuple[str, ...]
    n_folds: int
    repeat: int = 0
    counts: bool = False


def without_training(training: Training, arm: int, fold: int) -> LearnerError:
    """Return the error for a fold that contains all rows of an arm, which leaves no rows to fit the learner."""
    found = f"all clusters of group {training.labels[arm]!r} are in fold {fold + 1} of {training.n_folds}"
    return LearnerError(f"{found}, so the learner has no rows to fit.\nUse another `n_folds=`.")

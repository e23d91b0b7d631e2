"""An estimator fitted to a sample: importance weights, estimates, their influence function, and refits to resamples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from causalrisk.design.survey import Factors
from causalrisk.errors import Failure, first_failure
from causalrisk.estimation.engine import Beta, Dual, FieldsAlone, Influence, Linear, Point, influence, solve, value_of
from causalrisk.estimation.equations import WEIGHT_NAMES, Equations, Score
from causalrisk.estimation.sample import within
from causalrisk.estimation.specification import DIFFERENCE, EffectScale, Specification
from causalrisk.numerics import arrays
from causalrisk.numerics.arrays import Arms, Array, chunk_sizes, is_dask, lazy_rows, load_all, loaded, weighted_gram


@dataclass(frozen=True)
class FittedRows:
    """Results of a fit that have one entry per row, in the row order of the data."""

    arm: Arms
    weights: Array  # observation weights
    units: Array  # how many observations each row stands for
    importance: Array  # importance weights, not divided by the mean tilt
    scores: Array  # probability of each arm, (K, n)
    recorded: NDArray[np.bool_]  # whether the outcome is observed
    chances: Array | None = None  # probability that the outcome is observed, if some are missing


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its influence function. The rows are in the order of the sample, sorted by arm.

    Parameters
    ----------
    params : ndarray, shape (2 K - 1,)
        Effects of the arms against the reference, then the mean of each arm. With J quantiles, shape ((2 K - 1) J,).
    theta : ndarray, shape (K, p)
        Outcome coefficients of the basis columns. For quantiles and matching, p is 0.
    gamma : ndarray, shape (Q,)
        Coefficients of all models of the weights, for basis columns. Empty without such models.
    model_means : ndarray, shape (K,)
        Averages of `predicted` over the target.
    rows : object
        The results by row, with `predicted` (K, n) and `influence` (n, 2 K - 1 + K p + Q). `refit(s, weighed=None)`
        estimates again under row weights (n, R). `weighed` is the result of `WeightFit.refit`, if known.
    failed : tuple of int
        The `Failure` code of each arm's outcome model. Empty for joint fits, quantiles and matching.
    """

    params: Array
    theta: Array
    gamma: Array
    model_means: Array
    rows: Any
    failed: tuple[int, ...] = ()

    @property
    def predicted(self) -> Array:
        """Predicted outcome of every row in every arm, shape (K, n)."""
        return self.rows.predicted

    @property
    def influence(self) -> Array:
        """Influence function of (params, theta, gamma), shape (n, 2 K - 1 + K p + Q)."""
        return self.rows.influence

    def block(self, name: str, arm: int | None = None) -> slice:
        """Return the columns of `influence` for "effects", "means", "theta" (of one `arm` or all) or "gamma"."""
        (n_arms, p), first = self.theta.shape, len(self.params)
        effects, last = first // (2 * n_arms - 1) * (n_arms - 1), first + n_arms * p
        if name == "theta" and arm is not None:
            return slice(first + arm * p, first + (arm + 1) * p)
        gamma = last, last + len(self.gamma)
        ends = {"effects": (0, effects), "means": (effects, first), "theta": (first, last), "gamma": gamma}
        return slice(*ends[name])

    @property
    def values(self) -> Array:
        """All estimates in the order of the columns of `influence`."""
        return np.concatenate([self.params, self.theta.ravel(), self.gamma])


# --- refits ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refits:
    """Estimates under m resamples. They are NaN for resamples that failed."""

    values: Array  # `Estimate.values` for each, (m, d)
    failures: NDArray[np.int8]  # a `Failure` for each
    start: Array | None = None  # for a joint fit, effects and arm means of IPWRA, where it starts, (m, 2 K - 1)
    errors: Array | None = None  # with multipliers, each resample's standard errors of params, (m, 2 K - 1)

    @classmethod
    def joined(cls, parts: Sequence[Refits]) -> Refits:
        """Concatenate the estimates of successive batches of resamples."""
        starts = [part.start for part in parts if part.start is not None]
        values = np.concatenate([part.values for part in parts])
        failures = np.concatenate([part.failures for part in parts])
        return cls(values, failures, np.concatenate(starts) if starts else None)

    @property
    def used(self) -> Array:
        """Estimates of the resamples that worked."""
        return self.values[self.failures == Failure.OK]

    @property
    def failed_share(self) -> float:
        """Share of the resamples that failed."""
        return float(np.mean(self.failures != Failure.OK))


def collect_refits(params: Array, theta: Array, gamma: Array, failures: NDArray[np.int8]) -> Refits:
    """Return `Refits` from estimates whose last axis is the resamples. Failed or undefined estimates are NaN."""
    failures = first_failure(failures, np.where(np.isnan(params).any(axis=0), Failure.NO_EFFECT, Failure.OK))
    values = np.concatenate([params, theta.reshape(-1, params.shape[1]), gamma])
    values[:, failures != Failure.OK] = np.nan
    return Refits(values.T, failures)


# --- covariance ------------------------------------------------------------------------------------------------------


def sandwich(
    influence: Array, weights: Array, total: float, *, frequency: bool = False, cluster: Any = None,
    stratum: Any = None, strata: Factors | None = None,
) -> Array:  # fmt: skip
    """Return the covariance of estimates from their influence function (n, d), given row weights with sum `total`.

    Weights multiply influences, but frequency weights without clusters multiply squared influences. Rows of one cluster
    may depend on each other (Liang and Zeger 1986). `strata` are for surveys (Binder 1983).
    """

    def over_rows(function: Callable[..., Array], *given: Any) -> Array:
        chunks = arrays.chunks_of(influence) if is_dask(influence) else []
        return arrays.add_up(arrays.in_chunks(function, chunks, influence, *given))

    units = cluster if strata is None or cluster is not None else stratum
    if units is None:
        return over_rows(weighted_gram, weights if frequency else weights**2) / total**2
    n_units = int(loaded(units.max())) + 1
    sums = over_rows(lambda psi, s, unit: group_sums(psi * s[:, None], unit, n_units), weights, units)
    if strata is None:
        return sums.T @ sums / total**2
    if cluster is None:
        squares = weighted_gram(influence, weights**2 * strata.squares[stratum])
    else:
        of_cluster = stratum_of_groups(cluster, stratum, len(sums))
        squares, sums = weighted_gram(sums, strata.squares[of_cluster]), group_sums(sums, of_cluster)
    return (squares - weighted_gram(sums, strata.totals[: len(sums)])) / total**2


def stratum_of_groups(cluster: NDArray[np.intp], stratum: NDArray[np.intp], n_clusters: int) -> NDArray[np.intp]:
    """Return the stratum of each cluster, given the cluster and the stratum of each row."""
    found = np.zeros(n_clusters, dtype=np.intp)
    found[cluster] = stratum
    return found


def small_sample_factor(n: float, n_coefficients: int, n_clusters: int | None) -> float:
    """Return a covariance's factor: n / (n - k), or [G / (G - 1)] [(n - 1) / (n - k)] with G clusters; 1 if k = 0."""
    if not n_coefficients:
        return 1.0
    of_clusters = n_clusters / (n_clusters - 1) * (n - 1) / n if n_clusters else 1.0
    return n / (n - n_coefficients) * of_clusters


def group_sums(values: Array, group: NDArray[np.intp], n_groups: int = 0) -> Array:
    """Add up `values` (n, d) of rows within groups. Return an array (G, d) with at least `n_groups` groups."""
    return np.stack([np.bincount(group, column, minlength=n_groups) for column in values.T], axis=1)


# --- fits -------------------------------------------------------------------------------------------------------------


RELATIVE_ROUNDING = 1e-13  # share of the estimates below which a mean or a standard error is rounding error
FAR = 100  # outcomes whose mean is more standard deviations than this from zero are centred, which saves digits


@dataclass(frozen=True)
class WeightFit:
    """Fitted importance weights of the rows of a sample."""

    equations: Equations  # the sample, score and target
    beta: Beta  # coefficients of `Equations.weight_blocks`
    converged: bool = True
    times: Array | None = None  # for matching: one in the target, plus the unit's weight as a match

    @property
    def at(self) -> Point:
        """All rows and the fitted coefficients, as a `Point`."""
        return Point(self.beta)

    @cached_property
    def gamma(self) -> Array:
        """Stacked coefficients of all models of the weights, shape (Q,)."""
        return gamma_of(self.beta, 1)[:, 0]

    def beta_of(self, gamma: Array) -> Beta:
        """Split stacked coefficients (Q, R) of R resamples into the coefficients of each model, by name."""
        found, cut = Beta(), 0
        for name in WEIGHT_NAMES:
            if name in self.beta:
                m, p, _ = self.beta[name].shape
                found[name] = gamma[cut : cut + m * p].reshape(m, p, -1)
                cut += m * p
        return found

    @cached_property
    def probabilities(self) -> Array:
        """Probability of each arm, shape (K, n)."""
        return np.ascontiguousarray(self.equations.by_row(lambda of, at: np.hstack(of.probabilities(at)), self.at).T)

    @cached_property
    def raw_weights(self) -> Array:
        """Importance weight h / e of each row in its own arm, shape (n,). It is zero where the outcome is missing."""
        if self.times is not None:
            return self.times
        return self.equations.by_row(lambda of, at: by_arm(of, at, of.weight), self.at)[:, 0]

    @cached_property
    def s(self) -> Array:
        """Observation weights of the rows, shape (n,)."""
        return np.asarray(loaded(self.equations.sample.s))

    def _mean(self, values: Array) -> float:
        return float(self.s @ values) / self.equations.sample.total

    def by_row(self, name: str) -> Array:
        """Return `Equations.tilt` or `Equations.measure` of each row, shape (n,). `name` is the method."""
        return self.equations.by_row(_column, self.at, name)

    @cached_property
    def tilt(self) -> Array:
        """Tilt of each row divided by the mean tilt, shape (n,)."""
        tilt = self.by_row("tilt")
        return tilt / self._mean(tilt)

    @cached_property
    def w(self) -> Array:
        """Importance weights divided by the mean of `Equations.measure`, shape (n,)."""
        return self.raw_weights / self._mean(self.by_row("measure"))

    @property
    def clipped(self) -> NDArray[np.bool_]:
        """Mask of the rows whose propensity score was clipped, shape (n,)."""
        model = cast(Any, self.equations.model)
        free = dataclasses.replace(self.equations, model=dataclasses.replace(model, limits=None))
        return self.equations.by_row(_inverse, self.at) != free.by_row(_inverse, self.at)

    @property
    def estimated(self) -> bool:
        """Whether propensity scores are estimated."""
        model = self.equations.model
        return model is not None and model.kind != "known"

    def refit(self, s: Array) -> tuple[Equations, Beta, NDArray[np.int8]]:
        """Refit the weights' models under row weights (n, R). Return equations, coefficients and failure codes."""
        sample = self.equations.sample
        sums = load_all(s[max(rows.start, sample.n_frame) : rows.stop].sum(axis=0) for rows in sample.slices)
        empty = np.where((np.stack(sums) > 0).all(axis=0), Failure.OK, Failure.EMPTY_ARM)
        equations = under_weights(self.equations, s)
        beta, failures = solve(equations.weight_blocks, s, self.beta)
        return equations, beta, first_failure(empty, *failures.values())


def by_arm(equations: Equations, at: Point, function: Callable[[Point, int], Any], width: int = 1) -> Any:
    """Return `function(point, a)` for the rows of each arm a, shape (n, width), with derivatives if `at` has them."""
    first, last, _ = at.rows.indices(equations.sample.n)
    found, by = np.zeros((last - first, width)), dict[Linear, Array]()
    for a, own in enumerate(within(equations.sample.slices, slice(first, last))):
        if own.stop > own.start:
            value = function(Point(at.beta, slice(first + own.start, first + own.stop), at.by), a)
            found[own] = value_of(value)
            for eta, d in value.by.items() if isinstance(value, Dual) else ():
                by.setdefault(eta, np.zeros_like(found))[own] = d
    return Dual(found, by) if by else found


def _inverse(equations: Equations, at: Point) -> Array:
    return by_arm(equations, at, cast(Score, equations.score).inverse)[:, 0]


def _column(equations: Equations, at: Point, name: str) -> Array:
    return np.array(np.broadcast_to(value_of(getattr(equations, name)(at)), (equations.sample.n, 1))[:, 0])


def gamma_of(beta: Beta, width: int) -> Array:
    """Return the stacked coefficients of all models of the weights, shape (Q, R), for R = `width` resamples."""
    own = [beta[name].reshape(-1, width) for name in WEIGHT_NAMES if name in beta]
    return np.concatenate([np.empty((0, width)), *own])


def under_weights(equations: Equations, s: Array) -> Equations:
    """Return the equations after refitting the classifier of the scores, if any, under row weights (n, R)."""
    model = equations.model
    if model is None or model.classifier is None:
        return equations
    return equations.with_scores(model.classifier.scores(equations.sample, s, clip=model.limits is not None))


def fit_weights(equations: Equations) -> WeightFit:
    """Fit the models of the importance weights."""
    s = equations.sample.s[:, None]
    equations = under_weights(equations, s)
    beta, failures = solve(equations.weight_blocks, s)
    return WeightFit(equations, beta, all(codes[0] == Failure.OK for codes in failures.values()))


# --- estimates -------------------------------------------------------------------------------------------------------


RefittedScores = tuple[Equations, Beta, NDArray[np.int8]]  # by `WeightFit.refit`


@dataclass(frozen=True)
class SeparateRows(FieldsAlone):
    """The results by row of an `Estimate` whose arms are modelled separately."""

    equations: Equations
    beta: Beta
    scale: EffectScale
    weights: WeightFit

    @cached_property
    def predicted(self) -> Array:
        """Predicted outcome of every row in every arm, shape (K, n)."""
        return np.ascontiguousarray(self.equations.by_row(_predicted, Point(self.beta)).T) + self.equations.height

    def of_blocks(self) -> Influence:
        """Return the influence functions of all coefficients."""
        sample = self.equations.sample
        return influence(self.equations.blocks, sample.s[:, None], self.beta, sample.total)

    @property
    def means(self) -> Array:
        """Arm means of the outcomes minus `Equations.height`, shape (K, R)."""
        return np.stack([self.beta[f"mean {a}"][0, 0] for a in range(self.equations.sample.n_arms)])

    def estimates(self) -> tuple[Array, Array, Array]:
        """Return effects and means (2 K - 1, R), outcome coefficients (K, p, R) and weight coefficients (Q, R)."""
        equations, means, scale, n_arms = self.equations, self.means, self.scale, self.equations.sample.n_arms
        levels, theta = means + equations.height, np.eye(n_arms)[..., None]
        if scale.additive:  # the height cancels
            params = np.concatenate([scale.effects(means), levels])
        else:
            params = scale.params(scale.on_bounds(levels, RELATIVE_ROUNDING * np.abs(levels).max(axis=0)))
        if not equations.spec.given:
            theta = np.stack([self.beta[f"outcome {a}"][0] for a in range(n_arms)])
            theta = theta + equations.height * equations.constant[:, None] if equations.height else theta
        used = {block.name: self.beta[block.name] for block in equations.weight_blocks}
        return params, theta, gamma_of(used, means.shape[1])

    @property
    def of_params(self) -> dict[str, Array]:
        """Derivatives of effects and means with respect to the means, in the form that `Influence.of` expects."""
        means = self.means[:, 0] + self.equations.height
        jacobian = self.scale.jacobian(means)
        return {f"mean {a}": jacobian[:, [a]] for a in range(self.equations.sample.n_arms)}

    @property
    def influence_of_params(self) -> Array:
        """Influence function of effects and arm means alone, for rows in memory."""
        return self.of_blocks().of(self.of_params)

    @cached_property
    def influence(self) -> Array:
        """Influence function (n, d) of (params, theta, gamma). A Dask array if the rows do not fit in memory."""
        psi, n_arms = self.of_blocks(), self.equations.sample.n_arms
        own = {name: {name: np.eye(len(factors[name]))} for name, factors in psi.factors.items()}
        theta = [own[f"outcome {a}"] for a in range(n_arms) if not self.equations.spec.given]
        theta = theta or [{"mean 0": np.zeros((n_arms**2, 1))}]  # given predictions are constants
        every = [self.of_params, *theta, *(own[name] for name in WEIGHT_NAMES if name in own)]
        if not self.equations.chunks:
            return psi.of(*every)
        width = sum(len(next(iter(of.values()))) for of in every)
        shapes = [(rows, width) for rows in chunk_sizes(self.equations.sample.y)]

        def of_chunk(chunk: Equations, beta: Beta, factors: Any) -> Array:
            return Influence(chunk.sample.n, chunk.blocks, beta, factors).of(*every)

        return lazy_rows(of_chunk, self.equations.chunks, shapes, self.beta, psi.factors)

    def refit(self, s: Array, weighed: RefittedScores | None = None) -> Refits:
        """Refit under row weights (n, R), starting from the sample's coefficients, as `Estimate` describes."""
        equations, (scored, beta, codes) = self.equations, weighed or self.weights.refit(s)
        if equations.model is not None and equations.model.classifier is not None:  # its scores have no coefficients
            equations = dataclasses.replace(equations, model=scored.model)
        rest = [block for block in equations.blocks if block.name not in beta]
        beta, failures = solve(rest, s, self.beta, known=beta)
        params, *others = dataclasses.replace(self, equations=equations, beta=beta).estimates()
        theta, gamma = (np.broadcast_to(each, (*each.shape[:-1], s.shape[1])) for each in others)
        return collect_refits(params, theta, gamma, first_failure(codes, *failures.values()))

    def steps(self, s: Array, weighed: RefittedScores) -> Array:
        """Return each row's weight in the weighted mean of its arm, under R resamples, shape (n, R)."""
        at, equations = Point(weighed[1]), weighed[0].of_estimator(self.equations.spec)
        found = s * by_arm(equations, at, equations.weight, s.shape[1]) * equations.sample.in_sample[:, None]
        return found / (s * value_of(equations.measure(at))).sum(axis=0)


def _predicted(equations: Equations, at: Point) -> Array:
    return np.concatenate([value_of(equations.predicted(at, a)) for a in range(equations.sample.n_arms)], axis=1)


def centred(equations: Equations) -> Equations:
    """Subtract the mean from outcomes far from zero. This changes only the constants of linear models."""
    sample, spec = equations.sample, equations.spec
    # changes between cross sections are not shifted, and given predictions are for unshifted outcomes
    level = not spec.given and equations.family.linear and sample.late is None
    if not level or not equations.constant.any():
        return equations
    total, squares, weight = equations.totals(_outcome_sums)
    height = total / weight
    variance = squares / weight - height**2
    if height**2 <= FAR**2 * variance:  # an arm of zeros then has a mean of exactly zero
        return equations
    return dataclasses.replace(equations, sample=dataclasses.replace(sample, y=sample.y - height), height=height)


def _outcome_sums(equations: Equations) -> tuple[float, ...]:
    sample = equations.sample
    y, u = sample.y if sample.offset is None else sample.y - sample.offset, sample.s * sample.with_outcome
    return float(y @ u), float((y * y) @ u), float(u.sum())


def estimate_means(weights: WeightFit, spec: Specification, scale: EffectScale = DIFFERENCE) -> Estimate:
    """Fit the outcome models with the fitted importance weights, and average their predictions over the target."""
    equations = centred(weights.equations.of_estimator(spec))
    rest = [block for block in equations.blocks if block.name not in weights.beta]
    beta, failures = solve(rest, equations.sample.s[:, None], known=weights.beta)
    arms = range(equations.sample.n_arms)
    of_arms = [[codes for name, codes in failures.items() if name.endswith(f" {a}")] for a in arms]
    failed = tuple(int(first_failure(*codes)[0]) for codes in of_arms)
    predicted, total = equations.totals(_predicted_sums, Point(beta))
    rows, means = SeparateRows(equations, beta, scale, weights), predicted / total + equations.height
    params, theta, gamma = (each[..., 0] for each in rows.estimates())
    return Estimate(params, theta, gamma, means, rows, failed)


def _predicted_sums(equations: Equations, at: Point) -> tuple[Array, float]:
    tilted = (_column(equations, at, "tilt") * equations.sample.s)[:, None]
    return (tilted * _predicted(equations, at)).sum(axis=0), tilted.sum()


# --- means in groups -------------------------------------------------------------------------------------------------


def weights_of(record: Any) -> WeightFit:
    """Return the importance weights of a fit. If it has none, return a `WeightFit` with its sample and target."""
    return record.weight_fit or WeightFit(Equations(record.sample, record.spec, record.options.population), {})


def projected_means(weights: WeightFit, spec: Specification, found: Estimate, columns: Array) -> tuple[Array, Array]:
    """Project potential outcomes on `columns` (n, k). Return coefficients (K, k) and influence functions (n, K, k)."""
    equations, beta = at_estimate(weights, spec, found.theta[..., None])
    sample, psi, first = equations.sample, dict[str, Array](), found.block("gamma").start
    arms, s, means, moved = range(sample.n_arms), sample.s[:, None], list[Array](), list[Array]()
    for a in () if spec.given else arms:
        psi[f"outcome {a}"] = found.influence[:, found.block("theta", a)]
    for name in (name for name in WEIGHT_NAMES if name in beta):
        psi[name] = found.influence[:, first : first + beta[name].size]
        first += beta[name].size
    factors = {name: {name: np.eye(each.shape[1])} for name, each in psi.items()}
    for own in _apart(columns):
        blocks = equations.arm_blocks(own)
        solved, _ = solve(blocks, s, known=beta)
        of_blocks = influence(blocks, s, solved, sample.total, Influence(len(s), (), solved, factors, psi))
        means.append(np.stack([solved[f"mean {a}"][0, :, 0] for a in arms]))
        moved.append(np.stack([of_blocks[f"mean {a}"] for a in arms], axis=1))
    return np.concatenate(means, axis=1), np.concatenate(moved, axis=2)


def _apart(columns: Array) -> list[Array]:
    """Split indicators of groups into single columns. An empty group then does not affect the others."""
    return np.split(columns, columns.shape[1], axis=1) if (np.count_nonzero(columns, axis=1) == 1).all() else [columns]


def at_estimate(weights: WeightFit, spec: Specification, theta: Array) -> tuple[Equations, Beta]:
    """Return the equations and coefficients of a fit, with outcome coefficients from `theta` (K, p, R)."""
    equations = weights.equations.of_estimator(spec)
    beta = {} if equations.model is None else dict(weights.beta)
    if not spec.given:
        beta |= {f"outcome {a}": of_arm[None] for a, of_arm in enumerate(theta)}
    return equations, beta


def means_under(weights: WeightFit, spec: Specification, gamma: Array, theta: Array, columns: Array, s: Array) -> Array:
    """Return coefficients (K, k, R) as in `projected_means`, for R refits with row weights `s`."""
    equations, beta = at_estimate(weights, spec, theta)
    equations = under_weights(equations, s)
    if gamma.size:
        beta |= weights.beta_of(gamma)
    of_columns = [solve(equations.arm_blocks(own), s, known=beta)[0] for own in _apart(columns)]
    arms = range(equations.sample.n_arms)
    return np.concatenate([np.stack([of[f"mean {a}"][0] for a in arms]) for of in of_columns], axis=1)

"""An estimator fitted to a sample: importance weights, estimates, their influence function, and refits to resamples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import Failure, first_failure
from causalrisk.estimation.engine import Beta, Influence, Point, influence, solve, value_of
from causalrisk.estimation.equations import WEIGHT_NAMES, Equations
from causalrisk.estimation.estimates import Estimate, Refits, collect_refits
from causalrisk.estimation.specification import DIFFERENCE, EffectScale, Specification
from causalrisk.numerics.blocks import loaded, totals
from causalrisk.numerics.linalg import Array

RELATIVE_ROUNDING = 1e-13  # relative size of a mean that is rounding error
FAR = 100  # standard deviations between the outcomes and zero: nearer, their level costs no digits


@dataclass(frozen=True)
class WeightFit:
    """Fitted importance weights of the rows of a sample.

    Parameters
    ----------
    equations : Equations
        The sample, score and target.
    beta : dict
        Coefficients of `Equations.weight_blocks`.
    converged : bool
        Whether their fits converged.
    """

    equations: Equations
    beta: Beta
    converged: bool = True

    @property
    def at(self) -> Point:
        """All rows, at the coefficients."""
        return Point(self.beta)

    @cached_property
    def gamma(self) -> Array:
        """The coefficients of all models, shape (Q,)."""
        return np.concatenate([np.empty(0), *(self.beta[name].ravel() for name in WEIGHT_NAMES if name in self.beta)])

    @property
    def arms(self) -> list[int]:
        """The arm of each predictor of the score; none where it has no coefficients."""
        model, sample = self.equations.model, self.equations.sample
        if model is None or "score" not in self.beta:
            return []
        against = self.equations.target.toward if model.kind == "calibrated" else 0
        return [a for a in range(sample.n_arms) if a != against]

    def beta_of(self, gamma: Array) -> Beta:
        """Return the coefficients of all models from those of R resamples, shape (Q, R)."""
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
        return np.ascontiguousarray(self.equations.by_row(probabilities_of, self.at).T)

    @cached_property
    def undivided(self) -> Array:
        """Importance weight of each row in its own arm, h / e, shape (n,); zero where the outcome is missing."""
        return self.equations.by_row(_importance, self.at)

    @cached_property
    def s(self) -> Array:
        """Observation weights of the rows, shape (n,)."""
        return np.asarray(loaded(self.equations.sample.s))

    def _mean(self, values: Array) -> float:
        return float(self.s @ values) / self.equations.sample.total

    @property
    def tilt_total(self) -> float:
        """Sum of the tilt over the rows."""
        return float(self.equations.by_row(_tilt, self.at).sum())

    @cached_property
    def tilt(self) -> Array:
        """Share of each row in the target, over its mean, shape (n,)."""
        tilt = self.equations.by_row(_tilt, self.at)
        return tilt / self._mean(tilt)

    @cached_property
    def measure(self) -> Array:
        """What weights add up to, over its mean, shape (n,)."""
        measure = self.equations.by_row(_measure, self.at)
        return measure / self._mean(measure)

    @cached_property
    def w(self) -> Array:
        """Importance weights over the mean of what they add up to, shape (n,)."""
        return self.undivided / self._mean(self.equations.by_row(_measure, self.at))

    @property
    def observation_probabilities(self) -> Array | None:
        """Probability that the outcome is observed, where some are missing, shape (n,)."""
        return self.equations.by_row(_chance, self.at) if "observed" in self.beta else None

    @property
    def clipped(self) -> NDArray[np.bool_]:
        """Rows whose propensity score was clipped, shape (n,)."""
        return self.equations.by_row(_clipped, self.at)

    @property
    def estimated(self) -> bool:
        """Whether the scores are estimated."""
        model = self.equations.model
        return model is not None and model.kind != "known"

    def refit(self, s: Array) -> tuple[Equations, Beta, NDArray[np.int8]]:
        """Fit under row weights (n, R): equations of these scores, coefficients, and failures."""
        equations, codes = self.equations, np.zeros(s.shape[1], dtype=np.int8)
        if equations.model is not None and equations.model.classifier is not None:
            equations, codes = under_weights(equations, s)
        beta, failures = solve(equations.weight_blocks, s, self.beta)
        return equations, beta, first_failure(codes, *failures.values())


def probabilities_of(equations: Equations, at: Point) -> Array:
    """Return the probability of each arm, shape (n, K)."""
    n = equations.sample.n
    return np.stack([np.broadcast_to(e[:, 0], n) for e in equations.probabilities(at)], axis=1)


def _importance(equations: Equations, at: Point) -> Array:
    found = np.empty((equations.sample.n, 1))
    for a, rows in enumerate(equations.sample.slices):
        found[rows] = value_of(equations.weight(Point(at.beta, rows), a))
    return found[:, 0]


def _tilt(equations: Equations, at: Point) -> Array:
    return np.array(np.broadcast_to(value_of(equations.tilt(at)), (equations.sample.n, 1))[:, 0])


def _measure(equations: Equations, at: Point) -> Array:
    return np.array(np.broadcast_to(value_of(equations.measure(at)), (equations.sample.n, 1))[:, 0])


def _chance(equations: Equations, at: Point) -> Array:
    eta: Any = equations.observed
    return 1 / (1 + np.exp(-at(eta)[:, 0]))


def _clipped(equations: Equations, at: Point) -> NDArray[np.bool_]:
    score, found = equations.score, np.zeros(equations.sample.n, dtype=bool)
    if score is not None and score.unclipped is not None:
        for a, rows in enumerate(equations.sample.slices):
            here = Point(at.beta, rows)
            found[rows] = (score.unclipped(here, a) != score.inverse(here, a))[:, 0]
    return found


def under_weights(equations: Equations, s: Array) -> tuple[Equations, NDArray[np.int8]]:
    """Return the equations with the scores of a classifier under row weights (n, R)."""
    model = equations.model
    if model is None or model.classifier is None:
        return equations, np.zeros(s.shape[1], dtype=np.int8)
    e, codes = model.classifier.scores(s)
    return dataclasses.replace(equations, model=dataclasses.replace(model, e=e)), codes


def fit_weights(equations: Equations) -> WeightFit:
    """Fit the models that importance weights are made of."""
    s = equations.sample.s[:, None]
    equations, _ = under_weights(equations, s)
    beta, failures = solve(equations.weight_blocks, s)
    return WeightFit(equations, beta, all(codes[0] == Failure.OK for codes in failures.values()))


# --- estimates -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SeparateRows:
    """What an estimate has of every row: predictions and influence function, made when asked for."""

    equations: Equations
    beta: Beta
    scale: EffectScale

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: what is made of them is made again."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @cached_property
    def predicted(self) -> Array:
        """Predicted outcome of every row in every arm, shape (K, n)."""
        return np.ascontiguousarray(self.equations.by_row(_predicted, Point(self.beta)).T) + self.equations.height

    def of_blocks(self) -> Influence:
        """Influence functions of the blocks."""
        sample = self.equations.sample
        return influence(self.equations.blocks, sample.s[:, None], self.beta, sample.total)

    @property
    def of_params(self) -> dict[str, Array]:
        """Effects and means as a combination of the means, for `Influence.of`."""
        means = means_of(self.equations, self.beta)[:, 0] + self.equations.height
        with np.errstate(invalid="ignore"):  # means without an effect on this scale are told by the caller
            jacobian = self.scale.jacobian(means)
        return {f"mean {a}": jacobian[:, [a]] for a in range(self.equations.sample.n_arms)}

    @cached_property
    def influence(self) -> Array:
        """Influence function of (params, theta, gamma), shape (n, d)."""
        psi, n_arms = self.of_blocks(), self.equations.sample.n_arms
        own = {name: {name: np.eye(len(factors[name]))} for name, factors in psi.factors.items()}
        theta = [own[f"outcome {a}"] for a in range(n_arms) if not self.equations.spec.given]
        theta = theta or [{"mean 0": np.zeros((n_arms**2, 1))}]  # of predictions that are given
        return self._combined(psi, self.of_params, *theta, *(own[name] for name in WEIGHT_NAMES if name in own))

    def _combined(self, psi: Influence, *combinations: Mapping[str, Array]) -> Array:
        """Return influence functions of combinations of coefficients; beyond memory a Dask array."""
        if self.equations.chunks:
            width = sum(len(next(iter(of.values()))) for of in combinations)
            return self.equations.lazily(width, _influence, self.beta, psi.factors, combinations)
        return psi.of(*combinations)


def _predicted(equations: Equations, at: Point) -> Array:
    return np.concatenate([value_of(equations.predicted(at, a)) for a in range(equations.sample.n_arms)], axis=1)


def _influence(equations: Equations, beta: Beta, factors: Any, combinations: Any) -> Array:
    return Influence(equations.sample.n, equations.blocks, beta, factors).of(*combinations)


def means_of(equations: Equations, beta: Beta) -> Array:
    """Arm means, shape (K, R), less the height."""
    return np.stack([beta[f"mean {a}"][0, 0] for a in range(equations.sample.n_arms)])


def params_of(equations: Equations, means: Array, scale: EffectScale) -> Array:
    """Effects and arm means, shape (2 K - 1, R), of arm means less the height, (K, R).

    A mean that is zero, or one, to rounding has no ratio, or odds ratio, which would be a large number.
    """
    levels = means + equations.height
    if scale.additive:  # the height cancels
        return np.concatenate([scale.effects(means), levels])
    return scale.params(scale.on_bounds(levels, RELATIVE_ROUNDING * np.abs(levels).max(axis=0)))


def theta_of(equations: Equations, beta: Beta) -> Array:
    """Outcome coefficients of outcomes as they are, shape (K, p, R)."""
    n_arms = equations.sample.n_arms
    if equations.spec.given:
        return np.eye(n_arms)[..., None]
    theta = np.stack([beta[f"outcome {a}"][0] for a in range(n_arms)])
    return theta + equations.height * equations.constant[:, None] if equations.height else theta


def centred(equations: Equations) -> Equations:
    """Return the equations with outcomes far from zero less their mean, which linear models with a constant ignore."""
    sample, spec = equations.sample, equations.spec
    # changes between cross sections have no level, and predictions that are given are of outcomes as they are
    if spec.given or not equations.family.linear or sample.late is not None:
        return equations
    if not equations.constant.any():
        return equations
    total, squares, weight = equations.totals(_outcome_sums)
    height = total / weight
    variance = squares / weight - height**2
    if height**2 <= FAR**2 * variance:  # and an arm of zeros has a mean of zero
        return equations
    return dataclasses.replace(equations, sample=dataclasses.replace(sample, y=sample.y - height), height=height)


def _outcome_sums(equations: Equations) -> tuple[float, ...]:
    sample = equations.sample
    y, u = sample.y if sample.offset is None else sample.y - sample.offset, sample.s * sample.with_outcome
    return float(y @ u), float((y * y) @ u), float(u.sum())


def estimate_means(weights: WeightFit, spec: Specification, scale: EffectScale = DIFFERENCE) -> Estimate:
    """Train the arms and average over the target, at fitted importance weights."""
    equations = weights.equations
    needed = spec.uses_propensity or equations.target.tilt is not None
    equations = centred(dataclasses.replace(equations, spec=spec, model=equations.model if needed else None))
    rest = [block for block in equations.blocks if block.name not in weights.beta]
    beta, failures = solve(rest, equations.sample.s[:, None], known=weights.beta)
    arms = range(equations.sample.n_arms)
    of_arms = [[codes for name, codes in failures.items() if name.endswith(f" {a}")] for a in arms]
    used = {block.name for block in equations.blocks}
    return Estimate(
        params=params_of(equations, means_of(equations, beta), scale)[:, 0],
        theta=theta_of(equations, beta)[:, :, 0],
        gamma=np.concatenate([np.empty(0), *(beta[name].ravel() for name in WEIGHT_NAMES if name in used)]),
        model_means=_model_means(equations, beta),
        rows=SeparateRows(equations, beta, scale),
        failed=tuple(int(first_failure(*codes)[0]) for codes in of_arms),
    )


def _model_means(equations: Equations, beta: Beta) -> Array:
    """Means of the outcome models over the target, before any correction, shape (K,)."""
    predicted, total = equations.totals(_predicted_sums, Point(beta))
    return predicted / total + equations.height


def _predicted_sums(equations: Equations, at: Point) -> tuple[Array, float]:
    tilted = (_tilt(equations, at) * equations.sample.s)[:, None]
    return (tilted * _predicted(equations, at)).sum(axis=0), tilted.sum()


# --- refits ----------------------------------------------------------------------------------------------------------


RefittedScores = tuple[Equations, Beta, NDArray[np.int8]]  # by `WeightFit.refit`


@dataclass(frozen=True)
class SeparateRefitter:
    """Estimates again under resamples, from the coefficients of the sample."""

    rows: SeparateRows
    weights: WeightFit | None

    @property
    def weights_used(self) -> WeightFit:
        """The importance weights; without a score those that only missing outcomes and the target make."""
        return self.weights or WeightFit(self.rows.equations, {})

    def refit(self, s: Array, weighed: RefittedScores | None = None) -> Refits:
        """Return the estimates under row weights (n, R); `weighed` is what `WeightFit.refit` found for them."""
        equations, beta, failures = self.solved(s, weighed)
        used = {block.name for block in equations.blocks}
        theta = theta_of(equations, beta)
        return collect_refits(
            params_of(equations, means_of(equations, beta), self.rows.scale),
            np.broadcast_to(theta, (*theta.shape[:2], s.shape[1])),
            np.concatenate([np.empty((0, s.shape[1])), *(_flat(beta[name]) for name in WEIGHT_NAMES if name in used)]),
            failures,
        )

    def solved(self, s: Array, weighed: RefittedScores | None = None) -> RefittedScores:
        """Return equations and coefficients under row weights, and failures."""
        sample = self.rows.equations.sample
        sums = totals(s[max(rows.start, sample.n_frame) : rows.stop].sum(axis=0) for rows in sample.slices)
        empty = np.where((np.stack(sums) > 0).all(axis=0), Failure.OK, Failure.EMPTY_ARM)
        scored, beta, codes = weighed or self.weights_used.refit(s)
        equations = self.rows.equations
        if equations.model is not None and equations.model.classifier is not None:  # not in coefficients
            equations = dataclasses.replace(equations, model=scored.model)
        rest = [block for block in equations.blocks if block.name not in beta]
        beta, failures = solve(rest, s, self.rows.beta, known=beta)
        return equations, beta, first_failure(empty, codes, *failures.values())

    def steps(self, s: Array, weighed: RefittedScores) -> Array:
        """Return what each row adds to weighted means under row weights, shape (n, R)."""
        equations, beta, _ = weighed
        equations, sample = dataclasses.replace(equations, spec=self.rows.equations.spec), equations.sample
        if self.rows.equations.model is None:
            equations = dataclasses.replace(equations, model=None)
        found = np.empty(s.shape)
        for a, rows in enumerate(sample.slices):
            found[rows] = s[rows] * value_of(equations.weight(Point(beta, rows), a)) * sample.in_sample[rows, None]
        return found / (s * value_of(equations.measure(Point(beta)))).sum(axis=0)


def _flat(beta: Array) -> Array:
    return beta.reshape(-1, beta.shape[2])


# --- means in groups -------------------------------------------------------------------------------------------------


def weights_of(record: Any) -> WeightFit:
    """Return the importance weights of a fit, of an estimator without any those of its target."""
    return record.weight_fit or WeightFit(Equations(record.sample, record.spec, record.options.population), {})


def projected_means(weights: WeightFit, spec: Specification, found: Estimate, columns: Array) -> tuple[Array, Array]:
    """Project the means of all arms on columns g: coefficients, shape (K, k), and influence function, (n, K, k)."""
    equations, beta, psi = at_estimate(weights, spec, found.theta)
    for a in range(equations.sample.n_arms):
        if not spec.given:
            psi[f"outcome {a}"] = found.influence[:, found.block("theta", a)]
    first = found.block("gamma").start
    for name in WEIGHT_NAMES:
        if name in beta:
            size = beta[name].size
            psi[name] = found.influence[:, first : first + size]
            first += size
    sample, blocks = equations.sample, equations.arm_blocks(columns)
    s = sample.s[:, None]
    beta, _ = solve(blocks, s, known=beta)
    moved = influence(blocks, s, beta, sample.total, psi)
    arms = range(sample.n_arms)
    means = np.stack([beta[f"mean {a}"][0, :, 0] for a in arms])
    return means, np.stack([moved[f"mean {a}"] for a in arms], axis=1)


def at_estimate(weights: WeightFit, spec: Specification, theta: Array) -> tuple[Equations, Beta, dict[str, Array]]:
    """Return the equations and coefficients of outcome models of outcomes as they are, theta of shape (K, p)."""
    needed = spec.uses_propensity or weights.equations.target.tilt is not None
    equations = dataclasses.replace(weights.equations, spec=spec, model=weights.equations.model if needed else None)
    beta = {name: each for name, each in weights.beta.items() if needed}
    if not spec.given:
        beta |= {f"outcome {a}": of_arm[None, :, None] for a, of_arm in enumerate(theta)}
    return equations, beta, {}


def means_under(weights: WeightFit, spec: Specification, gamma: Array, theta: Array, columns: Array, s: Array) -> Array:
    """Project the means on columns under row weights (n, 1) and the coefficients that a refit found, shape (K, k)."""
    equations, beta, _ = at_estimate(weights, spec, theta)
    if equations.model is not None and equations.model.classifier is not None:
        equations, _ = under_weights(equations, s)
    elif gamma.size:
        beta |= weights.beta_of(gamma)
    blocks = equations.arm_blocks(columns)
    beta, _ = solve(blocks, s, known=beta)
    return np.stack([beta[f"mean {a}"][0, :, 0] for a in range(equations.sample.n_arms)])

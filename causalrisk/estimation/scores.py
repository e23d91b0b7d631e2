"""Propensity scores: their equations, and the probabilities that they give.

A score is a set of functions of the point at which it is evaluated: 1 / e_a, the odds e_t / e_a, and the block of
equations that its coefficients solve. Odds keep the digits of a small probability, which 1 - e would lose.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import Failure, OptionError, SeparationError
from causalrisk.estimation.engine import ALL, LARGEST, Block, Linear, Point, apply, apply_both, exp
from causalrisk.learners.cross_fitting import learner_errors, seeded
from causalrisk.numerics.families import BINARY_LINKS
from causalrisk.numerics.linalg import Array

SMALLEST = 1e-12  # a score of zero stands for this one until it is clipped


@dataclass(frozen=True)
class Score:
    """Propensity scores of K arms.

    Parameters
    ----------
    inverse : callable
        ``inverse(at, a)``: 1 / e_a of the rows of a point.
    odds : callable
        ``odds(at, t, a)``: e_t / e_a.
    block : Block or None
        The equations of the coefficients; None for scores that are known.
    unclipped : callable or None
        `inverse` before clipping.
    """

    inverse: Callable[[Point, int], Any]
    odds: Callable[[Point, int, int], Any]
    block: Block | None = None
    unclipped: Callable[[Point, int], Any] | None = None


@dataclass(frozen=True)
class ScoreModel:
    """Which propensity model is fitted, or the scores that are known.

    Parameters
    ----------
    kind : {"logit", "probit", "cloglog", "calibrated", "known", "classifier"}
        The model.
    limits : (float, float), optional
        Limits that scores are clipped to.
    e : ndarray, shape (n, K) or (n, K, R), optional
        Scores that are known, or those of the classifier under R resamples.
    classifier : Classifier, optional
        What fits scores without coefficients.
    """

    kind: str
    limits: tuple[float, float] | None = None
    e: Array | None = None
    classifier: Classifier | None = None

    def score(self, Z: Array, arm: NDArray[Any], n_arms: int, *, toward: int | None, inside: Array) -> Score:
        """Return the scores of rows, `inside` 1.0 for those of the sample and 0.0 for a target frame."""
        if self.e is not None:
            found = known_score(self.e)
        elif self.kind == "calibrated":
            found = calibrated_score(Z, arm, n_arms, toward, inside)
        elif self.kind in ("probit", "cloglog"):
            found = link_score(Z, arm, self.kind, inside)
        else:
            found = logit_score(Z, arm, n_arms, inside)
        return found if self.limits is None else clipped(found, n_arms, *self.limits)


def fitted(predictors: Sequence[Linear], residuals: Callable[[Point], list[Any]]) -> Block:
    """Return equations of a binary or multinomial model of all rows."""
    return Block(
        tuple(predictors),
        ((ALL, residuals),),
        singular=Failure.SINGULAR_PROPENSITY,
        separated=Failure.SEPARATION,
    )


def logit_score(Z: Array, arm: NDArray[Any], n_arms: int, inside: Array) -> Score:
    """Multinomial logit, log e_k / e_0 = Z gamma_k; with two arms the logit."""
    predictors = [Linear("score", Z, j) for j in range(n_arms - 1)]

    def log_odds(at: Point, k: int) -> Any:
        return at(predictors[k - 1]) if k else 0.0

    def odds(at: Point, t: int, a: int) -> Any:
        return exp(log_odds(at, t) - log_odds(at, a)) if t != a else 1.0

    def inverse(at: Point, a: int) -> Any:
        return sum(odds(at, k, a) for k in range(n_arms))

    def residuals(at: Point) -> list[Any]:
        return [at.of(inside) * ((at.of(arm) == k) * 1.0 - 1 / inverse(at, k)) for k in range(1, n_arms)]

    return Score(inverse, odds, fitted(predictors, residuals))


def link_score(Z: Array, arm: NDArray[Any], link: str, inside: Array) -> Score:
    """Two arms under another link, e_1 = F(Z gamma)."""
    eta, of_link = Linear("score", Z), BINARY_LINKS[link]

    def odds(at: Point, t: int, a: int) -> Any:
        if t == a:
            return 1.0
        own = np.array(float(a))

        def bounded(function: Callable[[Array, Array], Array], x: Array) -> Array:
            with np.errstate(all="ignore"):  # a row that is sure of the other arm
                return np.nan_to_num(np.clip(function(x, own), -LARGEST, LARGEST))

        return apply(at(eta), partial(bounded, of_link.own_odds), partial(bounded, of_link.own_odds_slope))

    def residuals(at: Point) -> list[Any]:
        treated = (at.of(arm) == 1) * 1.0

        def score(x: Array, d: Array) -> tuple[Array, Array]:
            found, information = of_link.score(x, d)
            return found, -information

        return [at.of(inside) * apply_both(at(eta), score, treated)]

    return Score(lambda at, a: 1.0 + odds(at, 1 - a, a), odds, fitted([eta], residuals))


def calibrated_score(Z: Array, arm: NDArray[Any], n_arms: int, toward: int | None, inside: Array) -> Score:
    """Fit a model an arm, with weights 1 + exp(-Z gamma_a) that balance the columns exactly (Tan 2020)."""
    arms = [a for a in range(n_arms) if a != toward]
    predictors = {a: Linear("score", Z, j) for j, a in enumerate(arms)}

    def away(at: Point, a: int) -> Any:
        return exp(-at(predictors[a])) if a != toward else 1.0

    def odds(at: Point, t: int, a: int) -> Any:
        if t == a:
            return 1.0
        return inverse(at, a) / inverse(at, t) if toward is None else away(at, a) / away(at, t)

    def inverse(at: Point, a: int) -> Any:
        return 1.0 + away(at, a) if toward is None else sum(odds(at, k, a) for k in range(n_arms))

    def residuals(at: Point) -> list[Any]:
        found = []
        for a in arms:
            own = at.of(arm)
            target = (own != a if toward is None else own == toward) * 1.0
            found.append(at.of(inside) * ((own == a) * away(at, a) - target))
        return found

    return Score(inverse, odds, fitted(list(predictors.values()), residuals))


def known_score(e: Array) -> Score:
    """Scores that are given, (n, K), or those of a classifier under each resample, (n, K, R)."""

    def of(at: Point, a: int) -> Array:
        own = e[at.rows, a]
        return own if own.ndim == 2 else own[:, None]

    return Score(lambda at, a: 1 / of(at, a), lambda at, t, a: of(at, t) / of(at, a))


def clipped(score: Score, n_arms: int, low: float, high: float) -> Score:
    """Scores within limits: of the treated arm, or with several arms each by itself."""

    def inverse(at: Point, a: int) -> Any:
        least, most = (low, high) if a or n_arms > 2 else (1 - high, 1 - low)
        x = score.inverse(at, a)
        with np.errstate(divide="ignore"):
            floor, ceiling = np.divide(1.0, most), np.divide(1.0, least)
        return apply(x, lambda v: np.clip(v, floor, ceiling), lambda v: ((v >= floor) & (v <= ceiling)) * 1.0)

    def odds(at: Point, t: int, a: int) -> Any:
        if t == a:
            return 1.0
        return inverse(at, a) - 1.0 if n_arms == 2 else inverse(at, a) / inverse(at, t)

    return Score(inverse, odds, score.block, unclipped=score.inverse)


@dataclass(frozen=True)
class Classifier:
    """Cross-fitted scores of a classifier: each row's from fits to the other folds."""

    classifier: Any
    features: Array
    arm: NDArray[np.intp]
    n_arms: int
    fold: NDArray[np.intp]
    limits: tuple[float, float] | None
    repeat: int = 0

    def scores(self, s: Array) -> tuple[Array, NDArray[np.int8]]:
        """Return scores (n, K, R) under row weights (n, R), and which resamples leave an arm without rows."""
        found = np.full((len(self.arm), self.n_arms, s.shape[1]), 1 / self.n_arms)
        codes = np.zeros(s.shape[1], dtype=np.int8)
        for r in range(s.shape[1]):
            if (np.bincount(self.arm, s[:, r] > 0, self.n_arms) > 0).all():
                found[:, :, r] = self._under(s[:, r])
            else:
                codes[r] = Failure.EMPTY_ARM
        return found, codes

    def _under(self, weights: Array) -> Array:
        scores = np.empty((len(self.arm), self.n_arms))
        takes_weights = "sample_weight" in inspect.signature(self.classifier.fit).parameters
        for fold in range(self.fold.max() + 1):
            out = self.fold == fold
            rows = np.flatnonzero(~out & (weights > 0))
            # The caller's classifier is not changed by a fit.
            model = seeded(copy.deepcopy(self.classifier), [self.repeat, self.n_arms, fold])
            where = f"fold {fold + 1} of {self.fold.max() + 1}"
            with learner_errors(f"classifier {type(model).__name__}", where):
                if takes_weights:
                    model.fit(self.features[rows], self.arm[rows], sample_weight=weights[rows])
                else:
                    repeated = np.repeat(rows, _counts(weights[rows]))
                    model.fit(self.features[repeated], self.arm[repeated])
                found = model.predict_proba(self.features[out])
            if len(model.classes_) < self.n_arms:
                raise SeparationError(
                    f"{where} leaves an arm without rows to fit the classifier to.\nLeave propensity_score= out."
                )
            scores[out] = found
        extreme = ((scores <= 0) | (scores >= 1)).any(axis=1)
        if extreme.any() and self.limits is None:
            raise SeparationError(
                f"{type(self.classifier).__name__} gives {int(extreme.sum())} of {len(scores)} rows a propensity score "
                "of exactly 0 or 1, so no weight exists.\nUse `clip=(0.01, 0.99)`, or regularise the classifier."
            )
        bounded = np.clip(scores, SMALLEST, 1.0)
        return np.asarray(bounded / bounded.sum(axis=1, keepdims=True))


def _counts(weights: Array) -> NDArray[np.intp]:
    """Weights as repetition counts."""
    counts = np.rint(weights).astype(np.intp)
    if not np.allclose(counts, weights):
        raise OptionError(
            "this classifier takes no sample_weight, and the weights are not whole numbers.\n"
            'Use a classifier that does, or `bootstrap="pairs"` and no probability weights.'
        )
    return counts

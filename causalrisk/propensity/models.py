"""Propensity models: odds, probabilities and scores of a model of the arm, in whatever form, for the weights.

A model turns gamma, shape (S, m), into linear predictors, shape (L, n, m), and these into the odds of the other arms
against the arm each row is in. Gamma are the coefficients of the basis columns; of a classifier the log odds of the
rows.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

from causalrisk.errors import Failure, OptionError, SeparationError
from causalrisk.learners.cross_fitting import seeded
from causalrisk.numerics.blocks import Rows, add_up
from causalrisk.numerics.families import BINARY_LINKS, Link
from causalrisk.numerics.linalg import UNDER_RESAMPLES, Array, pairwise_columns, row_blocks
from causalrisk.numerics.multiplicities import WIDTH
from causalrisk.numerics.newton import (
    BlockedLikelihood,
    Curvature,
    Likelihood,
    NewtonFits,
    PartedRows,
    WeightedLikelihood,
    WeightedRows,
    information,
    maximize,
    predictors,
    refit_batch,
)

Arms = NDArray[np.signedinteger[Any]]
ALONE = 16_384  # rows of a block that stay in the cache under a single column of weights
MANY = 65_536  # rows beyond which products of pairs of columns are made anew in every pass, to stay small


class BinaryLikelihood:
    """Bernoulli likelihood under any link.

    Parameters
    ----------
    link : Link
        The inverse link.
    arm : ndarray of int, shape (n,)
        Arm of each row, 0 or 1.
    """

    n_predictors, bounded = 1, True

    def __init__(self, link: Link, arm: Arms) -> None:
        self.link, self.arm = link, arm

    @property
    def treated(self) -> Array:
        """1.0 for treated rows, 0.0 for the others, shape (n, 1)."""
        return (self.arm > 0).astype(float)[:, None]

    def derivatives(self, eta: Array) -> tuple[Array, Curvature]:
        """As in `newton.Likelihood`."""
        score, information = self.link.score(eta[0], self.treated)
        return score[None], {(0, 0): information}

    def value(self, eta: Array) -> Array:
        """As in `newton.Likelihood`."""
        return self.link.log_likelihood(eta[0], self.treated)


class MultinomialLikelihood:
    """Multinomial logit likelihood; predictor l is the log odds of arm l + 1 against arm 0.

    Parameters
    ----------
    arm : ndarray of int, shape (n,)
        Arm of each row.
    n_arms : int
        K.
    """

    bounded = True

    def __init__(self, arm: Arms, n_arms: int) -> None:
        self.n_predictors = n_arms - 1
        self.indicators = (arm == np.arange(1, n_arms)[:, None])[:, :, None].astype(float)

    def derivatives(self, eta: Array) -> tuple[Array, Curvature]:
        """As in `newton.Likelihood`."""
        p = softmax(eta)[1:]
        curvature = {(k, k): p[k] * (1 - p[k]) for k in range(len(p))}
        curvature |= {(k, j): -p[k] * p[j] for j in range(len(p)) for k in range(j)}
        return self.indicators - p, curvature

    def value(self, eta: Array) -> Array:
        """As in `newton.Likelihood`."""
        full = np.concatenate([np.zeros_like(eta[:1]), eta])
        return (self.indicators * eta).sum(axis=0) - logsumexp(full, axis=0)


class CalibratedLoss:
    """Minus the calibration loss of Tan (2020): at its minimum the weighted covariates of an arm meet the target's.

    Predictor l belongs to arm ``arms[l]``; its weights are 1 + exp(-eta) for everybody as the target, exp(-eta) for the
    rows of one arm.

    Parameters
    ----------
    arm : ndarray of int, shape (n,)
        Arm of each row.
    arms : sequence of int
        The arms that are weighted.
    toward : int or None
        Arm whose rows are the target; None for everybody.

    References
    ----------
    .. [1] Tan, Z. (2020). Regularized calibrated estimation of propensity scores with model misspecification and
       high-dimensional data. Biometrika 107, 137-158.
    """

    bounded = True

    def __init__(self, arm: Arms, arms: Arms, toward: int | None) -> None:
        self.n_predictors = len(arms)
        self.own = (arm == arms[:, None])[:, :, None].astype(float)
        self.target = 1 - self.own if toward is None else (arm == toward)[None, :, None].astype(float)

    def derivatives(self, eta: Array) -> tuple[Array, Curvature]:
        """As in `newton.Likelihood`."""
        weight = self.own * np.exp(np.where(self.own > 0, -eta, 0.0))
        return weight - self.target, {(k, k): weight[k] for k in range(len(eta))}

    def value(self, eta: Array) -> Array:
        """As in `newton.Likelihood`."""
        weight = self.own * np.exp(np.where(self.own > 0, -eta, 0.0))
        return -(weight + self.target * eta).sum(axis=0)


def softmax(eta: Array) -> Array:
    """Probabilities of K arms, shape (K, ...), from the log odds of arms 1 .. K-1 against arm 0, (K - 1, ...)."""
    full = np.concatenate([np.zeros_like(eta[:1]), eta])
    full -= full.max(axis=0)
    np.exp(full, out=full)
    return full / full.sum(axis=0)


class PropensityModel(ABC):
    """A model of the arm given the covariates.

    Parameters
    ----------
    columns : ndarray, shape (n, q)
        Basis columns of the propensity design.
    arm : ndarray of int, shape (n,)
        Arm of each row.
    n_arms : int
        K.

    Attributes
    ----------
    n_predictors : int
        L.
    arms : ndarray of int, shape (L,)
        Arm that each predictor belongs to.
    log_linear : bool
        Whether each term of the odds is the exponential of a linear predictor, so that shifts multiply it.
    """

    n_predictors: int
    log_linear: bool
    estimated = True

    def __init__(self, columns: Array, arm: Arms, n_arms: int) -> None:
        self.columns, self.arm, self.n_arms = columns, arm, n_arms
        self.arms = np.arange(1, n_arms)

    @property
    def n_coefficients(self) -> int:
        """Number of coefficients that are estimated by estimating equations, L q."""
        return self.n_predictors * self.columns.shape[1]

    @property
    def n_gamma(self) -> int:
        """Length of gamma, S."""
        return self.n_coefficients

    @abstractmethod
    def fit(self, weights: Array) -> NewtonFits:
        """Fit under weights of shape (n, 1) from nowhere."""

    @abstractmethod
    def refit(self, weights: Array, start: Array) -> NewtonFits:
        """Refit under weights of shape (n, m) from a gamma near the solutions."""

    def predictors(self, gamma: Array) -> Array:
        """Linear predictors, shape (L, n, m), under gammas of shape (S, m)."""
        return predictors(self.columns, gamma)

    @abstractmethod
    def score(self, eta: Array) -> Array:
        """Score of each row in each predictor, shape (L, n), under linear predictors (L, n, 1)."""

    @abstractmethod
    def inverse(self, gamma: Array, weights: Array, whole: Array | None = None) -> Array:
        """Return rows of the inverse of the information at a solution, shape (L, q, Q).

        The influence function of the coefficients is the sum over predictors of score * columns @ inverse.

        Parameters
        ----------
        gamma : ndarray, shape (S,)
            The solution.
        weights : ndarray, shape (n,)
            Its weights.
        whole : ndarray, shape (Q, Q), optional
            Mean information, where the rows are a block of others.
        """

    @abstractmethod
    def odds(self, eta: Array, toward: int | None) -> Array:
        """Odds of other arms against a row's own arm, shape (T, n, m), zero in the arm `toward`.

        Parameters
        ----------
        eta : ndarray, shape (L, n, m)
            Linear predictors.
        toward : int or None
            One arm, or None for all others.

        Returns
        -------
        ndarray, shape (T, n, m)
            Terms whose sum is e_toward / e_own, or (1 - e_own) / e_own.
        """

    @abstractmethod
    def odds_slopes(self, eta: Array, toward: int | None) -> Array:
        """Return derivatives of the sum of `odds` by each predictor that has coefficients, shape (L, n, m)."""

    @abstractmethod
    def probabilities(self, eta: Array) -> Array:
        """Probability of each arm, shape (K, n, m)."""

    @abstractmethod
    def probability_slopes(self, eta: Array) -> Array:
        """Return derivatives of `probabilities` by each predictor, shape (K, L, n, m)."""


def _finite(values: Array) -> Array:
    return np.where(np.isfinite(values), values, 0.0)


class LikelihoodModel(PropensityModel):
    """A model fitted by Newton's method on a likelihood or another smooth loss."""

    likelihood: Likelihood

    @abstractmethod
    def part(self, rows: Rows) -> LikelihoodModel:
        """Return the model on some of the rows."""

    @cached_property
    def pairs(self) -> Array:
        """Products of pairs of basis columns, made when first needed."""
        return pairwise_columns(self.columns)

    def fit(self, weights: Array) -> NewtonFits:
        """Fit from zero, with damping."""
        blocks = row_blocks(len(weights), ALONE)
        likelihood = BlockedLikelihood(
            lambda function: (function([self.part(rows).weighted(weights[rows])]) for rows in blocks),
            bounded=self.likelihood.bounded,
            which=(0,),
        )
        return maximize(likelihood, np.zeros((self.n_coefficients, 1)))

    def weighted(self, weights: Array) -> WeightedRows:
        """Return the likelihood under one column of weights, shape (n, 1), with damping."""
        return WeightedRows(columns=self.columns, pairs=None, likelihood=self.likelihood, weights=weights, halving=True)

    def batch(self, weights: Array) -> WeightedRows:
        """Return the likelihoods under many columns of weights, shape (n, m); a single one needs no pairs."""
        pairs = self.pairs if weights.shape[1] > 1 else None
        return WeightedRows(columns=self.columns, pairs=pairs, likelihood=self.likelihood, weights=weights)

    def refit(self, weights: Array, start: Array) -> NewtonFits:
        """Refit every column of the weights; one that leaves an arm without rows has no fit."""
        zero = np.zeros(self.n_coefficients)
        fits = refit_batch(self._blocks(weights), start, restart=zero)
        present = np.stack([(self.arm == a) @ weights > 0 for a in range(self.n_arms)]).all(axis=0)
        return NewtonFits(fits.coefficients, np.where(present, fits.failures, Failure.EMPTY_ARM), fits.iterations)

    def _blocks(self, weights: Array) -> WeightedLikelihood:
        """Return the likelihoods under many columns of weights, in blocks of rows that stay in the cache."""
        blocks = row_blocks(len(weights), max(WIDTH // weights.shape[1], 1) * UNDER_RESAMPLES)
        if len(blocks) == 1:
            return self.batch(weights)

        def parts() -> Iterator[WeightedRows]:
            return (self.part(rows).batch(weights[rows]) for rows in blocks)

        if len(weights) > MANY:
            return PartedRows(parts, weights.shape[1])
        kept = list(parts())
        return PartedRows(lambda: iter(kept), weights.shape[1])

    def score(self, eta: Array) -> Array:
        """As in `PropensityModel`."""
        return _finite(self.likelihood.derivatives(eta)[0][..., 0])

    def inverse(self, gamma: Array, weights: Array, whole: Array | None = None) -> Array:
        """As in `PropensityModel`."""
        # A separated fit has no information left, or overflows; its influence function is never used, so that a
        # pseudoinverse of what is finite is enough.
        finite = _finite(self._mean_information(gamma, weights) if whole is None else whole)
        inverse = np.linalg.pinv(finite, rcond=len(finite) * np.finfo(float).eps, hermitian=True)
        return np.stack(np.split(inverse, self.n_predictors))

    def _mean_information(self, gamma: Array, weights: Array) -> Array:
        total, parts = weights.sum(), list[Array]()
        for rows in row_blocks(len(self.columns), ALONE):
            part, share = self.part(rows), weights[rows, None] / total
            _, curvature = part.likelihood.derivatives(part.predictors(gamma[:, None]))
            parts += [information(part.columns, None, curvature, share, n_predictors=self.n_predictors)[0]]
        return add_up(parts)


class BinaryModel(LikelihoodModel):
    """Two arms under any link, by maximum likelihood.

    Parameters
    ----------
    columns, arm
        As in `PropensityModel`.
    link_name : {"logit", "probit", "cloglog"}
        The link.
    """

    n_predictors = 1

    def __init__(self, columns: Array, arm: Arms, link_name: str) -> None:
        super().__init__(columns, arm, 2)
        self.link, self.link_name, self.log_linear = BINARY_LINKS[link_name], link_name, link_name == "logit"
        self.likelihood: BinaryLikelihood = BinaryLikelihood(self.link, arm)

    def part(self, rows: Rows) -> BinaryModel:
        """As in `LikelihoodModel`."""
        return BinaryModel(self.columns[rows], self.arm[rows], self.link_name)

    def odds(self, eta: Array, toward: int | None) -> Array:
        """Odds of the other arm."""
        return _without(self.link.own_odds(eta, self.likelihood.treated), self.arm, toward)

    def odds_slopes(self, eta: Array, toward: int | None) -> Array:
        """Return derivatives of the odds of the other arm."""
        return _without(self.link.own_odds_slope(eta, self.likelihood.treated), self.arm, toward)

    def probabilities(self, eta: Array) -> Array:
        """Probability of each arm."""
        return self.link.probabilities(eta[0])

    def probability_slopes(self, eta: Array) -> Array:
        """Return derivatives of the probabilities: the score of a control row is -p' / (1 - p)."""
        slope = -self.link.probabilities(eta[0])[0] * self.link.score(eta[0], np.zeros((1, 1)))[0]
        return np.stack([-slope, slope])[:, None]


class MultinomialModel(LikelihoodModel):
    """K arms by multinomial logit."""

    log_linear = True

    def __init__(self, columns: Array, arm: Arms, n_arms: int) -> None:
        super().__init__(columns, arm, n_arms)
        self.n_predictors = n_arms - 1
        self.likelihood = MultinomialLikelihood(arm, n_arms)

    def part(self, rows: Rows) -> MultinomialModel:
        """As in `LikelihoodModel`."""
        return MultinomialModel(self.columns[rows], self.arm[rows], self.n_arms)

    def odds(self, eta: Array, toward: int | None) -> Array:
        """Odds of the other arms, exp(eta_k - eta_own)."""
        return log_linear_odds(eta, self.arm, other_arms(self.arm, self.n_arms, toward))

    def odds_slopes(self, eta: Array, toward: int | None) -> Array:
        """Return derivatives: plus the odds of arm l + 1, minus all of them in that arm itself."""
        terms, others = self.odds(eta, toward), other_arms(self.arm, self.n_arms, toward)
        arms = np.arange(1, self.n_arms)
        plus = np.stack([((others == a)[:, :, None] * terms).sum(axis=0) for a in arms])
        return plus - (self.arm == arms[:, None])[:, :, None] * terms.sum(axis=0)

    def probabilities(self, eta: Array) -> Array:
        """Probability of each arm."""
        return softmax(eta)

    def probability_slopes(self, eta: Array) -> Array:
        """Return derivatives p_k (1{k = l} - p_l)."""
        p = softmax(eta)
        same = np.eye(self.n_arms)[:, 1:, None, None]
        return p[:, None] * (same - p[None, 1:])


class CalibratedModel(LikelihoodModel):
    """A model an arm, each calibrated so that its weights balance the columns exactly.

    Parameters
    ----------
    columns, arm, n_arms
        As in `PropensityModel`.
    toward : int or None
        Arm whose rows are the target; None for everybody.
    """

    log_linear = True

    def __init__(self, columns: Array, arm: Arms, n_arms: int, toward: int | None) -> None:
        super().__init__(columns, arm, n_arms)
        self.toward = toward
        self.arms = np.array([a for a in range(n_arms) if a != toward], dtype=np.intp)
        self.n_predictors = len(self.arms)
        self.likelihood = CalibratedLoss(arm, self.arms, toward)

    def part(self, rows: Rows) -> CalibratedModel:
        """As in `LikelihoodModel`."""
        return CalibratedModel(self.columns[rows], self.arm[rows], self.n_arms, self.toward)

    def odds(self, eta: Array, toward: int | None) -> Array:
        """exp(-eta) of the model of a row's own arm."""
        return -self.odds_slopes(eta, toward).sum(axis=0)[None]

    def odds_slopes(self, eta: Array, toward: int | None) -> Array:
        """Return the derivative by the predictor of a row's own arm."""
        own = (self.arm == self.arms[:, None])[:, :, None]
        return -np.where(own, np.exp(np.where(own, -eta, 0.0)), 0.0)

    def probabilities(self, eta: Array) -> Array:
        """Probability of each arm by its own model; towards everybody they need not add up to one over several arms."""
        if self.toward is not None:
            others, toward = np.split(softmax(eta), [1])[::-1]  # log odds are against the target arm
            return np.insert(others, self.toward, toward[0], axis=0)
        own = expit(eta)
        return np.stack([1 - own[1], own[1]]) if self.n_arms == 2 else own

    def probability_slopes(self, eta: Array) -> Array:
        """Return derivatives of the probabilities."""
        p, rows = self.probabilities(eta), np.arange(self.n_arms)
        if self.toward is None and self.n_arms > 2:
            return (p * (1 - p))[:, None] * np.eye(self.n_arms)[:, :, None, None]
        if self.toward is None:
            slope = p[0] * p[1]
            return np.stack([[0 * slope, -slope], [0 * slope, slope]])
        same = (rows[:, None] == self.arms)[:, :, None, None]
        return p[:, None] * (same - p[self.arms])


class ScoresAlone(PropensityModel):
    """Scores without coefficients that estimating equations know of, and so without derivatives by them."""

    @property
    def n_coefficients(self) -> int:
        """Zero."""
        return 0

    def fit(self, weights: Array) -> NewtonFits:
        """As `refit`."""
        return self.refit(weights, np.empty(0))

    def score(self, eta: Array) -> Array:
        """No coefficients, shape (0, n)."""
        return np.empty((0, len(self.arm)))

    def inverse(self, gamma: Array, weights: Array, whole: Array | None = None) -> Array:
        """No coefficients."""
        return np.empty((0, self.columns.shape[1], 0))

    def odds_slopes(self, eta: Array, toward: int | None) -> Array:
        """No coefficients, shape (0, n, m)."""
        return np.empty((0, *eta.shape[1:]))

    def probability_slopes(self, eta: Array) -> Array:
        """No coefficients, shape (K, 0, n, m)."""
        return np.empty((self.n_arms, 0, *eta.shape[1:]))


class KnownModel(ScoresAlone):
    """Propensity scores that are given and not estimated.

    Parameters
    ----------
    columns, arm
        As in `PropensityModel`.
    scores : ndarray, shape (n, K)
        Probability of each arm.
    """

    n_predictors, log_linear, estimated = 0, False, False

    def __init__(self, columns: Array, arm: Arms, scores: Array) -> None:
        super().__init__(columns, arm, scores.shape[1])
        self.scores = scores

    def refit(self, weights: Array, start: Array) -> NewtonFits:
        """Nothing to refit."""
        m = weights.shape[1]
        return NewtonFits(np.empty((0, m)), np.zeros(m, dtype=np.int8), 0)

    def predictors(self, gamma: Array) -> Array:
        """No predictors, shape (0, n, m)."""
        return np.empty((0, len(self.arm), gamma.shape[1]))

    def odds(self, eta: Array, toward: int | None) -> Array:
        """Odds from the scores."""
        own = self.scores[np.arange(len(self.arm)), self.arm]
        odds = (1 - own) / own if toward is None else self.scores[:, toward] / own
        return _without(np.repeat(odds[None, :, None], eta.shape[2], axis=2), self.arm, toward)

    def probabilities(self, eta: Array) -> Array:
        """Return the scores."""
        return np.repeat(self.scores.T[:, :, None], eta.shape[2], axis=2)


def other_arms(arm: Arms, n_arms: int, toward: int | None) -> NDArray[np.intp]:
    """Arms whose odds against a row's own make up the terms, shape (T, n)."""
    if toward is not None:
        return np.full((1, len(arm)), toward)
    return (arm + np.arange(1, n_arms)[:, None]) % n_arms


def log_linear_odds(eta: Array, arm: Arms, others: NDArray[np.intp]) -> Array:
    """Odds exp(eta_k - eta_own) of arms k, shape (T, n), from log odds against arm 0; zero where k is the own arm."""
    full = np.concatenate([np.zeros_like(eta[:1]), eta])
    rows = np.arange(full.shape[1])
    own = full[arm, rows]
    return np.stack([np.exp(full[k, rows] - own) * (k != arm)[:, None] for k in others])


def _without(odds: Array, arm: Arms, toward: int | None) -> Array:
    return odds if toward is None else odds * (arm != toward)[:, None]


class ClippedModel(PropensityModel):
    """A model whose probabilities are clipped, on request only.

    With two arms the treated arm's probability is clipped, and the other is its complement; with several each is
    clipped by itself, so that those of a row need not add up to one.

    Parameters
    ----------
    model : PropensityModel
        The model.
    low, high : float
        Limits of the probabilities.
    """

    log_linear = False

    def __init__(self, model: PropensityModel, low: float, high: float) -> None:
        super().__init__(model.columns, model.arm, model.n_arms)
        self.model, self.low, self.high = model, low, high
        self.n_predictors, self.arms, self.estimated = model.n_predictors, model.arms, model.estimated

    @property
    def n_coefficients(self) -> int:
        """Number of coefficients of the model."""
        return self.model.n_coefficients

    @property
    def n_gamma(self) -> int:
        """Length of the model's gamma."""
        return self.model.n_gamma

    def part(self, rows: Rows) -> ClippedModel:
        """As in `LikelihoodModel`."""
        return ClippedModel(likelihood_of(self).part(rows), self.low, self.high)

    def fit(self, weights: Array) -> NewtonFits:
        """Fit the model."""
        return self.model.fit(weights)

    def refit(self, weights: Array, start: Array) -> NewtonFits:
        """Refit the model."""
        return self.model.refit(weights, start)

    def predictors(self, gamma: Array) -> Array:
        """Linear predictors of the model."""
        return self.model.predictors(gamma)

    def score(self, eta: Array) -> Array:
        """Score of the model."""
        return self.model.score(eta)

    def inverse(self, gamma: Array, weights: Array, whole: Array | None = None) -> Array:
        """Inverse information of the model."""
        return self.model.inverse(gamma, weights, whole)

    def clipped(self, eta: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Clipped probability of a row's own arm, shape (n, m), and where it was clipped."""
        if self.n_arms > 2:
            own = self._own(self.model.probabilities(eta))
            clipped = np.clip(own, self.low, self.high)
        else:
            own = 1 / (1 + self.model.odds(eta, None).sum(axis=0))
            treated = (self.arm > 0)[:, None]  # the limits are of the treated arm's probability
            low, high = np.where(treated, self.low, 1 - self.high), np.where(treated, self.high, 1 - self.low)
            clipped = np.clip(own, low, high)
        return clipped, clipped != own

    def _own(self, values: Array) -> Array:
        """Values of shape (K, ..., n, m) in each row's own arm, shape (..., n, m)."""
        return np.take_along_axis(values, self.arm.reshape(1, *[1] * (values.ndim - 3), -1, 1), axis=0)[0]

    def odds(self, eta: Array, toward: int | None) -> Array:
        """Odds of the clipped probabilities."""
        own, _ = self.clipped(eta)
        if toward is None or self.n_arms == 2:
            return _without(((1 - own) / own)[None], self.arm, toward)
        return _without((self.probabilities(eta)[toward] / own)[None], self.arm, toward)

    def odds_slopes(self, eta: Array, toward: int | None) -> Array:
        """Return derivatives of the odds, zero where clipped."""
        own, clipped = self.clipped(eta)
        if self.n_arms == 2:
            return self.model.odds_slopes(eta, toward) * ~clipped
        slopes = self.probability_slopes(eta)
        of_own = self._own(slopes)
        if toward is None:
            return -of_own / own**2
        return (slopes[toward] - self.odds(eta, toward) * of_own) / own * (self.arm != toward)[:, None]

    def probabilities(self, eta: Array) -> Array:
        """Probabilities within the limits: of the treated arm, or with several arms of each by itself."""
        p = self.model.probabilities(eta)
        if self.n_arms > 2:
            return np.clip(p, self.low, self.high)
        return np.stack([np.clip(p[0], 1 - self.high, 1 - self.low), np.clip(p[1], self.low, self.high)])

    def probability_slopes(self, eta: Array) -> Array:
        """Return derivatives of the probabilities, zero where clipped."""
        p = self.model.probabilities(eta)
        return self.model.probability_slopes(eta) * (self.probabilities(eta) == p)[:, None]


def likelihood_of(model: PropensityModel) -> LikelihoodModel:
    """Return the model that is fitted by its likelihood: itself, or the one whose probabilities are clipped."""
    own = model.model if isinstance(model, ClippedModel) else model
    if not isinstance(own, LikelihoodModel):
        raise TypeError("this propensity model has no likelihood")
    return own


class ClassifierModel(ScoresAlone):
    """Scores of a classifier, each row's from fits to the other folds.

    Gamma are the log odds of the rows; they are not solutions of estimating equations, so that only the bootstrap,
    which fits the classifier again, knows their sampling error.

    Parameters
    ----------
    columns, arm, n_arms
        As in `PropensityModel`.
    classifier : object
        Has `fit(X, y, sample_weight=...)` and `predict_proba`, as in scikit-learn; it is copied and not changed.
    features : ndarray, shape (n, k)
        Features that it is fitted to.
    fold : ndarray of int, shape (n,)
        Fold of each row.
    limits : tuple of float, or None
        Limits the scores are clipped to later; without them a score of 0 or 1 is an error.
    repeat : int, default 0
        With the fold the seed of a `random_state` that is None.
    """

    log_linear, estimated = True, True

    def __init__(
        self,
        columns: Array,
        arm: Arms,
        n_arms: int,
        classifier: Any,
        features: Array,
        fold: NDArray[np.intp],
        limits: tuple[float, float] | None,
        repeat: int = 0,
    ) -> None:
        super().__init__(columns, arm, n_arms)
        self.n_predictors = n_arms - 1
        self.classifier, self.features, self.limits, self.repeat = classifier, features, limits, repeat
        self.fold = fold
        self.takes_weights = "sample_weight" in inspect.signature(classifier.fit).parameters

    @property
    def n_gamma(self) -> int:
        """Length of gamma: a log odds for each row and arm but the first."""
        return self.n_predictors * len(self.arm)

    def refit(self, weights: Array, start: Array) -> NewtonFits:
        """Fit the classifier once a fold and column of weights."""
        m = weights.shape[1]
        gamma, failures = np.empty((self.n_gamma, m)), np.zeros(m, dtype=np.int8)
        for j in range(m):
            present = np.bincount(self.arm, weights[:, j] > 0, self.n_arms) > 0
            failures[j] = Failure.OK if present.all() else Failure.EMPTY_ARM
            gamma[:, j] = self._log_odds(weights[:, j]) if present.all() else 0.0
        return NewtonFits(gamma, failures, 1)

    def _log_odds(self, weights: Array) -> Array:
        """Cross-fitted log odds under one column of weights, shape (S,)."""
        scores = np.empty((len(self.arm), self.n_arms))
        for fold in range(self.fold.max() + 1):
            out = self.fold == fold
            rows = np.flatnonzero(~out & (weights > 0))
            # The caller's classifier is not changed by a fit.
            fitted = seeded(copy.deepcopy(self.classifier), [self.repeat, self.n_arms, fold])
            if self.takes_weights:
                fitted.fit(self.features[rows], self.arm[rows], sample_weight=weights[rows])
            else:
                repeated = np.repeat(rows, _counts(weights[rows]))
                fitted.fit(self.features[repeated], self.arm[repeated])
            if len(fitted.classes_) < self.n_arms:
                raise SeparationError(
                    f"fold {fold + 1} of {self.fold.max() + 1} leaves an arm without rows to fit the classifier to.\n"
                    "Leave propensity_score= out."
                )
            scores[out] = fitted.predict_proba(self.features[out])
        extreme = ((scores <= 0) | (scores >= 1)).any(axis=1)
        if extreme.any() and self.limits is None:
            raise SeparationError(
                f"{type(self.classifier).__name__} gives {int(extreme.sum())} of {len(scores)} rows a propensity score "
                "of exactly 0 or 1, so no weight exists.\nUse `clip=(0.01, 0.99)`, or regularise the classifier."
            )
        # Scores of 0 come here only with limits, to which they are clipped later; their log odds have to be finite.
        bounded = np.clip(scores, 1e-12, 1.0)
        return np.log(bounded[:, 1:] / bounded[:, :1]).T.ravel()

    def predictors(self, gamma: Array) -> Array:
        """Return gamma itself, shape (K - 1, n, m)."""
        return gamma.reshape(self.n_predictors, len(self.arm), -1)

    def odds(self, eta: Array, toward: int | None) -> Array:
        """Odds of the other arms."""
        return log_linear_odds(eta, self.arm, other_arms(self.arm, self.n_arms, toward))

    def probabilities(self, eta: Array) -> Array:
        """Return the scores."""
        return softmax(eta)


def _counts(weights: Array) -> NDArray[np.intp]:
    """Weights as repetition counts."""
    counts = np.rint(weights).astype(np.intp)
    if not np.allclose(counts, weights):
        raise OptionError(
            "this classifier takes no sample_weight, and the weights are not whole numbers.\n"
            'Use a classifier that does, or `bootstrap="pairs"` and no probability weights.'
        )
    return counts

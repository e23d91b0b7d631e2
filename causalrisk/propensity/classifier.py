"""Propensity scores of a classifier, cross-fitted."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import OptionError, SeparationError
from causalrisk.numerics.failures import Failure
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.newton import NewtonFits
from causalrisk.propensity.models import Arms, PropensityModel, log_linear_odds, other_arms, softmax


class ClassifierModel(PropensityModel):
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
    observed : ndarray, shape (n,)
        1.0 for rows of the sample, 0.0 for those of a target frame.
    n_folds : int
        Number of folds.
    limits : tuple of float, or None
        Limits the scores are clipped to later; without them a score of 0 or 1 is an error.
    clusters : ndarray of int, shape (n,), or None
        Clusters, each of which lies in one fold.
    """

    log_linear, estimated = True, True

    def __init__(
        self,
        columns: Array,
        arm: Arms,
        n_arms: int,
        classifier: Any,
        features: Array,
        observed: Array,
        n_folds: int,
        limits: tuple[float, float] | None,
        clusters: NDArray[np.intp] | None = None,
    ) -> None:
        super().__init__(columns, arm, n_arms)
        self.n_predictors = n_arms - 1
        self.classifier, self.features, self.limits = classifier, features, limits
        self.takes_weights = "sample_weight" in inspect.signature(classifier.fit).parameters
        self.fold = _folds(arm, observed, n_arms, n_folds) if clusters is None else _folds_of(clusters, n_folds)

    @property
    def n_coefficients(self) -> int:
        """Zero: no coefficients that estimating equations know of."""
        return 0

    @property
    def n_gamma(self) -> int:
        """Length of gamma: a log odds for each row and arm but the first."""
        return self.n_predictors * len(self.arm)

    def fit(self, weights: Array) -> NewtonFits:
        """Fit the classifier once a fold."""
        return self.refit(weights, np.empty(0))

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
            fitted = copy.deepcopy(self.classifier)
            if self.takes_weights:
                fitted.fit(self.features[rows], self.arm[rows], sample_weight=weights[rows])
            else:
                repeated = np.repeat(rows, _counts(weights[rows]))
                fitted.fit(self.features[repeated], self.arm[repeated])
            if len(fitted.classes_) < self.n_arms:
                raise SeparationError(
                    f"fold {fold + 1} of {self.fold.max() + 1} leaves an arm without rows to fit the classifier to.\n"
                    "Leave propensity_score= out: the logit is fitted to all rows at once."
                )
            scores[out] = fitted.predict_proba(self.features[out])
        extreme = ((scores <= 0) | (scores >= 1)).any(axis=1)
        if extreme.any() and self.limits is None:
            raise SeparationError(
                f"{type(self.classifier).__name__} gives {int(extreme.sum())} of {len(scores)} rows a propensity score "
                "of exactly 0 or 1, so no weight exists.\nType  clip=(0.01, 0.99), or regularise the classifier."
            )
        # Scores of 0 come here only with limits, to which they are clipped later; their log odds have to be finite.
        bounded = np.clip(scores, 1e-12, 1.0)
        return np.log(bounded[:, 1:] / bounded[:, :1]).T.ravel()

    def predictors(self, gamma: Array) -> Array:
        """Return gamma itself, shape (K - 1, n, m)."""
        return gamma.reshape(self.n_predictors, len(self.arm), -1)

    def score(self, eta: Array) -> Array:
        """No coefficients, shape (0, n)."""
        return np.empty((0, len(self.arm)))

    def inverse(self, gamma: Array, weights: Array, whole: Array | None = None) -> Array:
        """No coefficients."""
        return np.empty((0, self.columns.shape[1], 0))

    def odds(self, eta: Array, toward: int | None) -> Array:
        """Odds of the other arms."""
        return log_linear_odds(eta, self.arm, other_arms(self.arm, self.n_arms, toward))

    def odds_slopes(self, eta: Array, toward: int | None) -> Array:
        """No coefficients, shape (0, n, m)."""
        return np.empty((0, *eta.shape[1:]))

    def probabilities(self, eta: Array) -> Array:
        """Return the scores."""
        return softmax(eta)

    def probability_slopes(self, eta: Array) -> Array:
        """No coefficients, shape (K, 0, n, m)."""
        return np.empty((self.n_arms, 0, *eta.shape[1:]))


def _folds(arm: Arms, observed: Array, n_arms: int, n_folds: int) -> NDArray[np.intp]:
    """Fold of each row, the same for the same data: dealt out within each arm in a fixed shuffled order."""
    fold = np.zeros(len(arm), dtype=np.intp)
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero((arm == a) & (observed > 0)) for a in range(n_arms)] + [np.flatnonzero(observed == 0)]
    for rows in groups:
        fold[rng.permutation(rows)] = np.arange(len(rows)) % n_folds
    return fold


def _folds_of(clusters: NDArray[np.intp], n_folds: int) -> NDArray[np.intp]:
    """Fold of each row with whole clusters dealt out in a fixed shuffled order."""
    count = int(clusters.max()) + 1
    of_cluster = np.empty(count, dtype=np.intp)
    of_cluster[np.random.default_rng(0).permutation(count)] = np.arange(count) % n_folds
    return of_cluster[clusters]


def _counts(weights: Array) -> NDArray[np.intp]:
    """Weights as repetition counts."""
    counts = np.rint(weights).astype(np.intp)
    if not np.allclose(counts, weights):
        raise OptionError(
            "this classifier takes no sample_weight, and the weights are not whole numbers.\n"
            'Use a classifier that does, bootstrap="pairs", and no probability weights.'
        )
    return counts

"""Small learners for tests, and data."""

from __future__ import annotations

import numpy as np
import pandas as pd


def sample(n=240, seed=5):
    """Rows with a curved outcome."""
    rng = np.random.default_rng(seed)
    x1, x2 = rng.standard_normal((2, n))
    d = (rng.random(n) < 1 / (1 + np.exp(-0.6 * x1))).astype(int)
    y = np.exp(x1 / 2) + x2 + d * (1 + 0.5 * x1) + rng.standard_normal(n)
    return pd.DataFrame({"x1": x1, "x2": x2, "d": d, "y": y}, index=pd.RangeIndex(100, 100 + n))


class Line:
    """Least squares with a constant."""

    def fit(self, X, y, sample_weight=None):
        root = np.ones(len(y)) if sample_weight is None else np.sqrt(sample_weight)
        columns = np.column_stack([np.ones(len(y)), X]) * root[:, None]
        self.beta = np.linalg.lstsq(columns, y * root, rcond=None)[0]
        return self

    def predict(self, X):
        return np.column_stack([np.ones(len(X)), X]) @ self.beta


class Square(Line):
    """Least squares with a constant and squares."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(np.hstack([X, X**2]), y, sample_weight)

    def predict(self, X):
        return super().predict(np.hstack([X, X**2]))


class Unweighted:
    """Least squares without weights."""

    def fit(self, X, y):
        self.line = Line().fit(X, y)
        return self

    def predict(self, X):
        return self.line.predict(X)


class Constant:
    """One number, by default the mean."""

    def __init__(self, value=None):
        self.value = value

    def fit(self, X, y, sample_weight=None):
        self.mean = y.mean() if self.value is None else self.value
        return self

    def predict(self, X):
        return np.full(len(X), self.mean)


class Margin(Constant):
    """A classifier without probabilities."""

    def decision_function(self, X):
        return self.predict(X)


class Noisy:
    """One random number."""

    def __init__(self, random_state=None):
        self.random_state = random_state

    def get_params(self):
        return {"random_state": self.random_state}

    def set_params(self, random_state):
        self.random_state = random_state
        return self

    def fit(self, X, y, sample_weight=None):
        self.drawn = np.random.default_rng(self.random_state).standard_normal()
        return self

    def predict(self, X):
        return np.full(len(X), self.drawn)


class Share:
    """Share of ones, as a classifier."""

    def fit(self, X, y, sample_weight=None):
        self.classes_, self.share = np.unique(y), np.mean(y)
        return self

    def predict_proba(self, X):
        return np.tile([1 - self.share, self.share], (len(X), 1))


class FailingClassifier:
    """Cannot be fitted to the treatment."""

    def fit(self, X, y):
        raise KeyError("no such column")

    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)


class Failing:
    """Cannot be fitted."""

    def fit(self, X, y, sample_weight=None):
        return 1 / 0

    def predict(self, X):
        return np.zeros(len(X))

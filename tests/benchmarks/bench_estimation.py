"""Time of a fit, and of 499 resamples, next to the same equations written out in NumPy.

    python -m tests.benchmarks.bench_estimation
    python -m tests.benchmarks.bench_estimation --beside PATH

The first command prints seconds of a processor for AIPW with a logit score, linear outcome models and six covariates:
medians of alternating runs, the package over the few lines below. The second compares fits of a formula with those of
another copy of the package, whose folder is PATH.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

import causalrisk as cr

SIZES, SIZES_OF_RESAMPLES, SIZES_OF_FORMULAS = (1_000, 10_000, 300_000), (300, 1_000, 10_000), (1_000, 10_000, 100_000)
N_BOOT, TOGETHER = 499, 64


def sample(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcome, treatment and covariates, the constant first."""
    rng = np.random.default_rng(1)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 6))])
    treat = (rng.random(n) < 1 / (1 + np.exp(-X[:, 1:] @ np.full(6, 0.2)))).astype(int)
    return X @ np.linspace(1, 2, 7) + treat * (1 + X[:, 1]) + rng.normal(size=n), treat, X


def logit(treat: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of a logit by Newton's method, and minus the second derivatives."""
    gamma = np.zeros(X.shape[1])
    for _ in range(50):
        e = 1 / (1 + np.exp(-(X @ gamma)))
        hessian = X.T @ ((e * (1 - e))[:, None] * X)
        step = np.linalg.solve(hessian, X.T @ (treat - e))
        gamma = gamma + step
        if np.abs(step).max() < 1e-11:
            break
    return gamma, hessian


def aipw(y: np.ndarray, treat: np.ndarray, X: np.ndarray) -> tuple[float, float]:
    """Effect and robust standard error."""
    gamma, hessian = logit(treat, X)
    e = 1 / (1 + np.exp(-(X @ gamma)))
    of_score = ((treat - e)[:, None] * X) @ np.linalg.inv(hessian)
    means, influences = [], []
    for arm, score, sign in ((1 - treat, 1 - e, -1), (treat, e, 1)):
        gram = X.T @ (arm[:, None] * X)
        theta = np.linalg.solve(gram, X.T @ (arm * y))
        left, w = arm * (y - X @ theta), 1 / score
        part = X @ theta + w * left
        slope = X.T @ (1 - arm * w)
        by_score = X.T @ (-sign * w * (1 - score) * left)
        influence = part - part.mean() + (left[:, None] * X) @ np.linalg.solve(gram, slope) + of_score @ by_score
        means.append(part.mean())
        influences.append(influence / len(y))
    return means[1] - means[0], float(np.sqrt(((influences[1] - influences[0]) ** 2).sum()))


def resampled_aipw(y: np.ndarray, treat: np.ndarray, X: np.ndarray, n_boot: int) -> np.ndarray:
    """Effects of resamples, some at once: counts of the rows are columns of weights, shape (n, R)."""
    (n, p), rng, found = X.shape, np.random.default_rng(0), []
    i, j = np.triu_indices(p)
    products, start = X[:, i] * X[:, j], logit(treat, X)[0]

    def solved(weights: np.ndarray, right: np.ndarray, rows: np.ndarray) -> np.ndarray:
        gram = np.empty((weights.shape[1], p, p))
        gram[:, i, j] = gram[:, j, i] = weights.T @ products[rows]
        return np.linalg.solve(gram, right.T[:, :, None])[:, :, 0].T

    for first in range(0, n_boot, TOGETHER):
        width = min(TOGETHER, n_boot - first)
        counts = [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(width)]
        s, gamma = np.stack(counts, axis=1).astype(float), np.repeat(start[:, None], width, axis=1)
        for _ in range(30):
            e = 1 / (1 + np.exp(-(X @ gamma)))
            step = solved(s * e * (1 - e), X.T @ (s * (treat[:, None] - e)), np.arange(n))
            gamma = gamma + step
            if np.abs(step).max() < 1e-9:
                break
        e, means = 1 / (1 + np.exp(-(X @ gamma))), []
        for rows, score in ((treat == 0, 1 - e), (treat == 1, e)):
            theta = solved(s[rows], X[rows].T @ (s[rows] * y[rows, None]), rows)
            left = s[rows] / score[rows] * (y[rows, None] - X[rows] @ theta)
            means.append(((X.T @ s * theta).sum(axis=0) + left.sum(axis=0)) / s.sum(axis=0))
        found.append(means[1] - means[0])
    return np.concatenate(found)


def fit(y: np.ndarray, treat: np.ndarray, X: np.ndarray, **options: Any) -> Any:
    """Results of the package."""
    return cr.AIPW(y, X, treat).fit(**options)


def seconds(run: Callable[[], object]) -> float:
    """Time of a processor for one run."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def medians(runs: Sequence[Callable[[], object]], count: int) -> list[float]:
    """Median times of runs that alternate, after one of each."""
    for run in runs:
        run()
    return np.median([[seconds(run) for run in runs] for _ in range(count)], axis=0).tolist()


def line(what: str, n: int, package: float, other: float) -> None:
    """Print times and their ratio."""
    print(f"{what:<14} n {n:>9,}  package {package * 1e3:9.2f} ms  other {other * 1e3:9.2f} ms  {package / other:5.2f}")


def beside_numpy() -> None:
    """Compare with NumPy; the numbers are the same."""
    for n in SIZES:
        y, treat, X = sample(n)
        res = fit(y, treat, X)
        np.testing.assert_allclose([res.effect, res.effect_se], aipw(y, treat, X), rtol=1e-8)
        runs = (partial(fit, y, treat, X), partial(aipw, y, treat, X))
        line("fit", n, *medians(runs, 41 if n < 10_000 else 21 if n < 100_000 else 7))
    for n in SIZES_OF_RESAMPLES:
        y, treat, X = sample(n)
        runs = (partial(fit, y, treat, X, n_boot=N_BOOT), partial(resampled_aipw, y, treat, X, N_BOOT))
        line("499 resamples", n, *medians(runs, 11 if n < 10_000 else 5))


def of_formula(n: int, count: int) -> float:
    """Median time of a fit of a formula."""
    y, treat, X = sample(n)
    data = pd.DataFrame(X[:, 1:], columns=[f"x{k}" for k in range(1, 7)]).assign(y=y, d=treat)
    formula = "y ~ x1 + x2 + x3 + x4 + x5 + x6"
    return medians([lambda: cr.AIPW.from_formula(formula, data, treat="d").fit()], count)[0]


def beside_copy(path: str) -> None:
    """Compare fits of formulas with another copy of the package, in processes that alternate."""
    for n in SIZES_OF_FORMULAS:
        found = []
        for _ in range(3):
            for folder in (os.path.dirname(os.path.dirname(cr.__file__)), path):
                command = [sys.executable, __file__, "--formula", str(n)]
                environment = os.environ | {"PYTHONPATH": folder}
                made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                found.append(float(made.stdout))
        line("formula", n, *np.median(np.reshape(found, (-1, 2)), axis=0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--beside", metavar="PATH")
    parser.add_argument("--formula", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.formula:
        print(of_formula(chosen.formula, 31 if chosen.formula < 100_000 else 7))
    elif chosen.beside:
        beside_copy(chosen.beside)
    else:
        beside_numpy()

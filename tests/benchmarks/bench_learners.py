"""Time of cross-fitted learners beside DoubleML's: `python -m tests.benchmarks.bench_learners`.

Both are timed in turn in one process, by the time of the processor, with one thread each, the same learners and number
of folds; what counts is the ratio. DoubleML fits an interactive regression model, which is `AIPW`, both with a
cross-fitted logit; `JRE` is the stack, with the package's own logit and robust standard errors.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread a process; must be set before numpy loads
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
import warnings
from functools import partial

import numpy as np
import pandas as pd

from causalrisk import AIPW, JRE

SIZES, TRIALS = (1000, 10_000, 100_000), 3
COVARIATES = [f"x{k}" for k in range(1, 11)]
FORMULA = f"y ~ {' + '.join(COVARIATES)}"


def drawn(n):
    """Rows with a curved outcome and ten covariates."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, len(COVARIATES)))
    d = rng.random(n) < 1 / (1 + np.exp(-0.5 * x[:, 0] + 0.5 * x[:, 1]))
    y = np.sin(x[:, 0]) + x[:, 1] ** 2 + d * (1 + x[:, 2]) + rng.standard_normal(n)
    return pd.DataFrame(x, columns=COVARIATES).assign(d=d.astype(int), y=y)


def ours(model, data, learner, **options):
    """Fit an estimator with a learner and a cross-fitted logit."""
    from sklearn.linear_model import LogisticRegression

    score = LogisticRegression() if model is AIPW else None
    made = model.from_formula(FORMULA, data, treat="d", learner=learner, propensity_score=score)
    return made.fit(cov_type="robust", **options)


def theirs(data, learner):
    """Fit DoubleML's interactive regression model."""
    import doubleml as dml
    from sklearn.linear_model import LogisticRegression

    given = dml.DoubleMLData(data, "y", "d", COVARIATES)
    return dml.DoubleMLIRM(given, learner, LogisticRegression(), n_folds=5).fit()


def seconds(trials, function):
    """Least time of the processor of some trials."""
    found = []
    for _ in range(trials):
        began = time.process_time()
        function()
        found.append(time.process_time() - began)
    return min(found)


def main():
    """Print the times, a row a size and learner."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import LinearRegression

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--trials", type=int, default=TRIALS)
    warnings.simplefilter("ignore")
    learners = {"linear": LinearRegression(), "boosting": HistGradientBoostingRegressor(max_iter=120, max_leaf_nodes=8)}
    print("| n | learner | DoubleML IRM, s | AIPW, s | AIPW smooth, s | JRE stack, s |\n|---|---|---|---|---|---|")
    args = parser.parse_args()
    for n in args.sizes:
        data = drawn(n)
        for name, learner in learners.items():
            times = [
                seconds(args.trials, partial(theirs, data, learner)),
                seconds(args.trials, partial(ours, AIPW, data, learner)),
                seconds(args.trials, partial(ours, AIPW, data, "smooth")),
                seconds(args.trials, partial(ours, JRE, data, learner)),
            ]
            print(f"| {n} | {name} | {' | '.join(f'{value:.3g}' for value in times)} |", flush=True)


if __name__ == "__main__":
    main()

"""How often tests reject what is true: the balance test of a right logit, and the joint Wald test of two effects.

``python -m tests.studies.study_tests`` prints both in some minutes; every sample i is from default_rng([n, i]).
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import pandas as pd
from scipy import stats

from causalrisk import AIPW, IPWRA, CausalRiskWarning

LEVEL, RESAMPLES = 0.05, 199


def balance_pvalues(n: int, target: str, samples: int) -> np.ndarray:
    """P-values of `balance_test` of a right logit of three columns."""
    found = []
    for i in range(samples):
        rng = np.random.default_rng([n, i])
        x = rng.normal(size=(n, 3))
        d = (rng.random(n) < 1 / (1 + np.exp(-(0.5 * x[:, 0] + 0.5 * x[:, 1])))).astype(int)
        data = pd.DataFrame(x, columns=["x1", "x2", "x3"]).assign(d=d, y=x.sum(axis=1) + d + rng.normal(size=n))
        res = IPWRA.from_formula("y ~ x1 + x2 + x3", data, treat="d", target=target).fit()
        found.append(float(res.balance_test().pvalue))
    return np.array(found)


def three_arms(n: int, i: int, square: float) -> pd.DataFrame:
    """Sample i of three arms without effects, whose outcome has a square."""
    rng = np.random.default_rng([n, i])
    x = rng.normal(size=(n, 2))
    utility = np.column_stack([0 * x[:, 0], 0.8 * x[:, 0], -0.8 * x[:, 0]]) + rng.gumbel(size=(n, 3))
    y = x.sum(axis=1) + square * x[:, 0] ** 2 + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x1": x[:, 0], "x2": x[:, 1], "d": utility.argmax(axis=1)})


def wald_rejections(estimator: type, n: int, samples: int, square: float) -> pd.Series:
    """Share of the samples in which the joint test of both effects rejects, by covariance."""
    found = []
    for i in range(samples):
        model = estimator.from_formula("y ~ x1 + x2", three_arms(n, i, square), treat="d", reference=0)
        res = model.fit()
        change = np.column_stack([res.influence(arm=a, method="exact")["change"] for a in (1, 2)])
        change -= change.mean(axis=0)
        robust = res.cov_params().to_numpy()[:2, :2]
        covariances = {"robust": robust, "HC1": robust * n / (n - 9), "jackknife": (n - 1) / n * change.T @ change}
        for kind in ("pairs", "bayesian"):
            boot = model.fit(n_boot=RESAMPLES, rng=i, bootstrap=kind, max_failed=0.5)
            covariances[kind] = boot.cov_params().to_numpy()[:2, :2]
        effects = res.params.to_numpy()[:2]
        w = {name: effects @ np.linalg.solve(matrix, effects) for name, matrix in covariances.items()}
        rejected = {name: value > stats.chi2.ppf(1 - LEVEL, 2) for name, value in w.items()}
        for name, df in (("robust", n - 9), ("HC1", n - 9), ("jackknife", n - 1)):
            rejected[f"{name}, F"] = w[name] / 2 > stats.f.ppf(1 - LEVEL, 2, df)
        found.append(rejected)
    return pd.DataFrame(found).mean()


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=400)
    options = parser.parse_args()
    warnings.simplefilter("ignore", CausalRiskWarning)
    for n in (80, 300, 1000):
        for target in ("all", "treated"):
            share = (balance_pvalues(n, target, options.samples) < LEVEL).mean()
            print(f"balance_test, n = {n}, target {target}: rejects {share:.3f}")
    for square in (1.0, 0.0):
        for n in (100, 300, 1000):
            samples = options.samples if n < 1000 else options.samples // 2
            for estimator in (IPWRA, AIPW):
                shares = wald_rejections(estimator, n, samples, square)
                print(f"wald_test, square {square:g}, n = {n}, {estimator.spec.name}: {shares.round(3).to_dict()}")


if __name__ == "__main__":
    main()

"""Coverage of a correction by leverages, as HC2 and CR2 have it for one regression, in the stacked equations.

The residuals of each arm's outcome model enter the influence function over (I - H)^(1/2), H the leverages of the rows
of a cluster in the (weighted) regression of the arm; everything else is the sandwich. ``python -m
tests.studies.study_leverages`` prints coverage with t(G - 1), for 40 rows and for 12 clusters of 4 to 20 rows, beside
the sandwich and the jackknife; 1000 samples take fifteen minutes.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit

from causalrisk import AIPW, IPWRA, CausalRiskError, CausalRiskWarning, OutcomeRegression

SIZES = np.array([4, 4, 5, 6, 6, 8, 8, 10, 12, 14, 16, 20])
KINDS = (OutcomeRegression, IPWRA, AIPW)


def sample(clustered: bool, rng: np.random.Generator) -> pd.DataFrame:
    """Draw 40 rows, or 12 clusters whose outcomes and effects share an error; the mean effect is 1."""
    sizes = SIZES if clustered else np.ones(40, dtype=int)
    g, n = np.repeat(np.arange(len(sizes)), sizes), sizes.sum()
    x = rng.normal(size=(n, 2))
    effect, shared = 1 + x[:, 0], np.zeros(n)
    if clustered:
        x *= 0.8
        x[:, 0] += 0.6 * rng.normal(size=len(sizes))[g]
        shared = 0.5 * rng.normal(size=len(sizes))[g]
        effect = 1 + x[:, 0] + 0.5 * rng.normal(size=len(sizes))[g]
    d = (rng.random(n) < expit(0.5 * x[:, 0] - 0.4 * x[:, 1])).astype(int)
    noise = rng.normal(size=n) * np.exp(0.2 * x[:, 0])
    y = x[:, 0] + 0.5 * x[:, 1] + 0.3 * x[:, 0] ** 2 + shared + d * effect + noise
    return pd.DataFrame({"y": y, "d": d, "x1": x[:, 0], "x2": x[:, 1], "g": g})


def corrected_influence(res, g: np.ndarray, power: float) -> np.ndarray:
    """Influence function of the effect with residuals times (I - H)^-power.

    Parameters
    ----------
    res : CausalResults
        A fit with Gaussian outcome models, without weights.
    g : ndarray of int, shape (n,)
        Cluster of each row, or its number.
    power : float
        0 for the sandwich, 1/2 as in CR2, 1 as in CR3.

    Returns
    -------
    ndarray, shape (n,)
        The influence function at the estimates, in which only the residuals' own terms change.
    """
    design, n = res._record.design, len(g)
    x, d, moved = design.X, design.arm, np.zeros(n)
    weights = np.ones(n) if res.model.spec.name == "OutcomeRegression" else np.asarray(res.importance_weights)
    trained = weights if res.model.spec.name == "IPWRA" else np.ones(n)
    for arm in (0, 1):
        own = d == arm
        bread = np.linalg.inv((x[own].T * trained[own]) @ x[own] / n)
        residuals = np.where(own, design.y - np.asarray(res.predict())[:, arm], 0.0)
        root, better = x * np.sqrt(trained)[:, None], residuals.copy()
        for cluster in np.unique(g[own]):
            rows = np.flatnonzero(own & (g == cluster))
            values, vectors = np.linalg.eigh(np.eye(len(rows)) - root[rows] @ bread @ root[rows].T / n)
            values = np.where(values > 1e-9, values, np.inf)
            scale = np.sqrt(trained[rows])
            better[rows] = (vectors * values**-power) @ vectors.T @ (scale * residuals[rows]) / scale
        corrected = res.model.spec.name == "AIPW"
        target = x.mean(axis=0) - (weights[own] @ x[own] / n if corrected else 0)
        slope = trained * (x @ bread @ target) + (weights if corrected else 0)
        moved += (1 if arm else -1) * np.where(own, slope * (better - residuals), 0.0)
    return res.estimating_equations().iloc[:, 0].to_numpy() + moved


def errors_of(data: pd.DataFrame, clustered: bool) -> list[tuple[str, str, float, float]]:
    """Effect and each kind of standard error of each estimator."""
    found, units = [], np.unique(data.g).size
    for kind in KINDS:
        model = kind.from_formula("y ~ x1 + x2", data, treat="d", cluster="g" if clustered else None)
        res = model.fit()
        for name, power in (("sandwich", 0.0), ("leverages", 0.5)):
            sums = np.bincount(data.g, corrected_influence(res, data.g.to_numpy(), power), minlength=units)
            found.append((kind.__name__, name, res.effect, np.sqrt(sums @ sums) / len(data)))
        found.append((kind.__name__, "jackknife", res.effect, model.fit(cov_type="jackknife", max_failed=0).effect_se))
    return found


def coverage(clustered: bool, samples: int) -> pd.DataFrame:
    """Shares of the samples whose t(G - 1) interval has the effect, and standard errors over the deviation."""
    rng, rows, made = np.random.default_rng(1 + clustered), [], 0
    while made < samples:
        try:
            rows += errors_of(sample(clustered, rng), clustered)
            made += 1
        except CausalRiskError:
            continue
    found = pd.DataFrame(rows, columns=["estimator", "error", "effect", "se"])
    t = stats.t.ppf(0.975, (len(SIZES) if clustered else 40) - 1)
    found["covered"] = (found["effect"] - 1).abs() <= t * found["se"]
    groups = found.groupby(["estimator", "error"], sort=False)
    return pd.DataFrame({"covered": groups["covered"].mean(), "se / sd": groups["se"].mean() / groups["effect"].std()})


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    samples = parser.parse_args().samples
    warnings.simplefilter("ignore", CausalRiskWarning)
    for clustered in (False, True):
        print(f"\n{'12 clusters' if clustered else '40 rows'}")
        print(coverage(clustered, samples).round(3).to_string())


if __name__ == "__main__":
    main()

"""Coverage of 95% intervals with few clusters, of equal and unequal sizes: by errors, factor, t and jackknife.

``python -m tests.studies.study_few_clusters`` prints a table for each number of clusters; 1000 samples of six, twelve
and thirty clusters take a quarter of an hour.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import pandas as pd
from scipy import stats

from causalrisk import AIPW, IPWRA, CausalRiskError, CausalRiskWarning

SIZE = 20  # rows of a cluster, on average
CELLS = {"IPWRA": (IPWRA, "all"), "AIPW": (AIPW, "all"), "IPWRA, treated": (IPWRA, "treated")}


def sample(clusters: int, equal: bool, assigned: bool, rng: np.random.Generator) -> pd.DataFrame:
    """Rows in clusters whose outcomes and effects share an error; the mean effect is 1.

    The treatment is each row's own, or assigned to half of the clusters. Unequal sizes are exponential, five or more.
    """
    sizes = np.full(clusters, SIZE)
    if not equal:
        sizes = np.maximum(5, np.round(SIZE * rng.gamma(1.0, 1.0, clusters))).astype(int)
    g, n = np.repeat(np.arange(clusters), sizes), int(sizes.sum())
    u, v, c = rng.normal(size=(3, clusters))
    x1, x2 = 0.6 * c[g] + 0.8 * rng.normal(size=n), rng.normal(size=n)
    if assigned:
        arm = np.zeros(clusters, dtype=int)
        arm[rng.permutation(clusters)[: clusters // 2]] = 1
        d = arm[g]
    else:
        d = (rng.random(n) < 1 / (1 + np.exp(-(0.5 * x1 + 0.3 * x2)))).astype(int)
    y = x1 + 0.5 * x2 + 0.5 * u[g] + d * (1 + 0.5 * v[g]) + rng.normal(size=n)
    return pd.DataFrame({"y": y, "d": d, "x1": x1, "x2": x2, "g": g})


def errors_of(data: pd.DataFrame, assigned: bool) -> list[tuple[str, float, float, float, float]]:
    """Of each estimator the effect, the clustered error, the small-sample factor of it, and the jackknife's error."""
    found, clusters, n = [], data.g.nunique(), len(data)
    score = {"propensity": "x2"} if assigned else {}
    base = IPWRA.from_formula("y ~ x1 + x2", data, treat="d", cluster="g", **score)
    for name, (model, target) in CELLS.items():
        of_target = model._of(base.design, base.options).with_options(target=target)
        res = of_target.fit()
        factor = clusters / (clusters - 1) * (n - 1) / (n - res._record.estimate.theta.size)
        jackknife = of_target.fit(cov_type="jackknife").effect_se
        found.append((name, res.effect, res.effect_se, factor**0.5, jackknife))
    return found


def coverage(clusters: int, equal: bool, assigned: bool, samples: int) -> pd.DataFrame:
    """Shares of samples whose interval has the effect, a row an estimator; samples without a fit are drawn again."""
    rng, rows, again = np.random.default_rng(1000 + clusters + 7 * equal + 13 * assigned), [], 0
    while len(rows) < samples * len(CELLS):
        try:
            rows += errors_of(sample(clusters, equal, assigned, rng), assigned)
        except CausalRiskError:
            again += 1
    found = pd.DataFrame(rows, columns=["estimator", "effect", "se", "factor", "jackknife"])
    off, z, t = (found["effect"] - 1).abs(), stats.norm.ppf(0.975), stats.t.ppf(0.975, clusters - 1)
    table = pd.DataFrame(
        {
            "z": off <= z * found["se"],
            "z, factor": off <= z * found["factor"] * found["se"],
            "t": off <= t * found["se"],
            "t, factor": off <= t * found["factor"] * found["se"],
            "t, jackknife": off <= t * found["jackknife"],
        }
    )
    shares = table.groupby(found["estimator"]).mean()
    deviation = found.groupby("estimator")["effect"].std()
    for name in ("se", "jackknife"):
        shares[f"{name} / sd"] = found.groupby("estimator")[name].mean() / deviation
    return shares.assign(**{"drawn again": again})


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--clusters", type=int, nargs="+", default=[6, 12, 30])
    parser.add_argument("--assigned", action="store_true", help="the treatment is assigned to whole clusters")
    options = parser.parse_args()
    warnings.simplefilter("ignore", CausalRiskWarning)
    for equal in (True, False):
        for clusters in options.clusters:
            print(f"\n{clusters} clusters of {'equal' if equal else 'unequal'} sizes")
            print(coverage(clusters, equal, options.assigned, options.samples).round(3).to_string())


if __name__ == "__main__":
    main()

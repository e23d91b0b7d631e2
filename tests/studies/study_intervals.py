"""Coverage of the intervals from resamples, with and without the factor for the choice of the anchor.

Run  python -m tests.studies.study_intervals --design strong  from the root of a copy of the source.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import warnings

import numpy as np
import pandas as pd
from scipy.stats import norm

import causalrisk as cr
from causalrisk.simulation.designs import find_design

METHODS = ("normal", "percentile", "basic", "bc", "bca")


def one_sample(design, n, n_boot, number, seed):
    """Intervals of both estimators on one sample.

    Returns
    -------
    list of tuple
        Estimator, method, whether the limits have the factor, lower and upper limit; empty if a fit was refused.
    """
    data = design.draw(n, np.random.default_rng([seed, number, n])).data
    rows = []
    for model in (cr.IPWRA, cr.JRE):
        try:
            built = model.from_formula(design.formula, data, treat="d", propensity=design.propensity)
            res = built.fit(bootstrap="pairs", n_boot=n_boot, rng=number, max_failed=0.5)
        except cr.CausalRiskError:  # a level in one arm alone, separation, too many failures: counts for neither
            return []
        choice = np.sqrt(res._record.choice_variance)
        factors = {"": 1.0} if model is cr.IPWRA else {"with": 1.0, "without": choice}
        found = {method: res.conf_int(method=method).iloc[0].to_numpy() - res.effect for method in METHODS}
        if model is cr.JRE:
            half = norm.ppf(0.975) * choice * res.boot_params.iloc[:, 0].std()
            found["normal, about the mean"] = np.array([-half, half])
        for method, away in found.items():
            for name, divisor in factors.items():
                low, high = res.effect + away / divisor
                rows.append((model.__name__, method, name, low, high))
    return rows


def coverage(design, n, n_boot, sims, seed):
    """Coverage with its Monte Carlo error and median width; a row an estimator, interval and factor."""
    found = [row for number in range(sims) for row in one_sample(design, n, n_boot, number, seed)]
    frame = pd.DataFrame(found, columns=["estimator", "method", "factor", "low", "high"])
    frame["covers"] = (frame.low <= design.effect) & (design.effect <= frame.high)
    frame["width"] = frame.high - frame.low
    groups = frame.groupby(["estimator", "method", "factor"], sort=False)
    table = groups.agg(samples=("covers", "size"), coverage=("covers", "mean"), width=("width", "median"))
    table.insert(2, "MC error", np.sqrt(table.coverage * (1 - table.coverage) / table.samples))
    return table


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--design", default="strong")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--n-boot", type=int, default=399)
    parser.add_argument("--sims", type=int, default=500)
    parser.add_argument("--seed", type=int, default=20251218)
    args = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        print(coverage(find_design(args.design), args.n, args.n_boot, args.sims, args.seed).round(3).to_string())


if __name__ == "__main__":
    main()

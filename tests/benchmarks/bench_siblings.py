"""Time of other outcomes, links, targets and units over that of linear models with a logit.

    python -m tests.benchmarks.bench_siblings
    python -m tests.benchmarks.bench_siblings --rows 10000 --n-boot 32

Each case has the rows and covariates of the first: the ratios say what a choice costs, with robust standard errors and
a resample. Times are those of the processor.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np

import causalrisk as cr
from tests.conftest import simulate

COVARIATES, REPEATS = 6, 2
CASES = {  # options of the model, options of the fit
    "linear, logit": ({}, {}),
    "binomial outcome, logit": ({"outcome": "event", "family": "binomial"}, {}),
    "binomial outcome, probit": ({"outcome": "event", "family": "binomial", "link": "probit"}, {}),
    "Poisson outcome": ({"outcome": "count", "family": "poisson"}, {}),
    "gamma outcome, log": ({"outcome": "cost", "family": "gamma", "link": "log"}, {}),
    "probit propensity": ({"propensity_link": "probit"}, {}),
    "cloglog propensity": ({"propensity_link": "cloglog"}, {}),
    "target treated": ({"target": "treated"}, {}),
    "target overlap": ({"target": "overlap"}, {}),
    "target entropy": ({"target": "entropy"}, {}),
    "three arms": ({"treat": "three", "reference": 0}, {}),
    "100 clusters": ({"cluster": "site"}, {}),
}


def data(n):
    """Rows with outcomes of every family, three arms and clusters."""
    frame, rng = simulate(n, COVARIATES, seed=1), np.random.default_rng(0)
    mean = np.exp(0.2 * frame.x1 + 0.3 * frame.d)
    return frame.assign(
        event=(frame.y > frame.y.mean()).astype(int),
        count=rng.poisson(mean),
        cost=rng.gamma(2.0, mean),
        three=np.where(rng.random(n) < 1 / 3, 2, frame.d),
        site=rng.integers(0, 100, n),
    )


def shortest(function):
    """Shortest time of a few calls, in seconds."""
    times = []
    for _ in range(REPEATS):
        begun = time.process_time()
        function()
        times.append(time.process_time() - begun)
    return min(times)


def seconds(estimator, frame, case, n_boot):
    """Seconds of a fit with robust standard errors, and of a resample more."""
    options, resampling = CASES[case]
    options = {"treat": "d"} | options
    formula = f"{options.pop('outcome', 'y')} ~ " + " + ".join(f"x{j + 1}" for j in range(COVARIATES))
    model = getattr(cr, estimator).from_formula(formula, frame, **options)
    robust = "cluster" if "cluster" in options else "robust"
    first = shortest(lambda: model.fit(cov_type=robust, rng=0))
    return first, (shortest(lambda: model.fit(n_boot=n_boot, rng=0, **resampling)) - first) / n_boot


def main():
    """Print the table of each estimator."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000, help="rows")
    parser.add_argument("--n-boot", type=int, default=96, help="resamples that are timed")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    frame = data(args.rows)
    for estimator in ("IPWRA", "JRE"):
        print(f"{estimator + f', n = {args.rows}':32}{'robust, s':>11}{'ratio':>7}{'resample, ms':>14}{'ratio':>7}")
        own = None
        for case in CASES if estimator == "JRE" else [case for case in CASES if not CASES[case][1]]:
            found = seconds(estimator, frame, case, args.n_boot)
            own = own or found
            ratios = [time_of / of_first for time_of, of_first in zip(found, own, strict=True)]
            print(f"{case:32}{found[0]:11.3f}{ratios[0]:7.1f}{found[1] * 1e3:14.2f}{ratios[1]:7.1f}", flush=True)


if __name__ == "__main__":
    main()

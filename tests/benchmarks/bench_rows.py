"""Two million rows in memory: time beside statsmodels, and memory beside the data frame.

    python -m tests.benchmarks.bench_rows
    python -m tests.benchmarks.bench_rows --estimator JRE

Time is that of the processor, one thread, of a model of `IPWRA` from arrays and its fit with robust standard errors,
and of statsmodels' `Logit` and the two `WLS` of the arms on the same arrays; they take turns, and the effects have to
agree. Memory is the largest of a process that makes model and fit from a data frame, less what it had before, in
multiples of the design.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import gc
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
import statsmodels.api as sm

import causalrisk as cr
from tests.benchmarks.bench_limits import terms, wide

COVARIATES, REPLICATES = 6, 50


def statsmodels_effect(y, X, d):
    """Effect of two regressions weighted by a logit."""
    score = sm.Logit(d, X).fit(disp=0).predict()
    weights = np.where(d == 1, 1 / score, 1 / (1 - score))
    arms = [sm.WLS(y[d == a], X[d == a], weights=weights[d == a]).fit() for a in (0, 1)]
    return float((X @ (arms[1].params - arms[0].params)).mean())


def times(rows, repeats):
    """Print the seconds of each round."""
    frame = wide(rows, COVARIATES)
    X = np.column_stack([np.ones(rows), frame[[f"x{j + 1}" for j in range(COVARIATES)]].to_numpy()])
    y, d = frame.y.to_numpy(), frame.d.to_numpy()
    cr.IPWRA(y[:1000], X[:1000], d[:1000]).fit()  # imports what fits need
    for _ in range(repeats):
        begun = time.process_time()
        model = cr.IPWRA(y, X, d)
        made = time.process_time()
        effect = model.fit().effect
        fitted = time.process_time()
        other = statsmodels_effect(y, X, d)
        theirs = time.process_time() - fitted
        assert abs(effect / other - 1) < 1e-10, (effect, other)
        print(f"model {made - begun:.2f} s, fit {fitted - made:.2f} s, statsmodels {theirs:.2f} s", flush=True)


def memory(rows, estimator):
    """Print the memory of a model and its fit."""
    frame = wide(rows, COVARIATES)
    formula = f"y ~ {terms(frame)}"
    options = {"cov_type": "robust"} | ({"n_replicates": REPLICATES} if estimator == "JRE" else {})
    make = getattr(cr, estimator).from_formula
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(formula, frame[:1000].copy(), treat="d").fit(**options)
        gc.collect()
        with open("/proc/self/statm") as stream:
            before = int(stream.read().split()[1]) * resource.getpagesize()
        model = make(formula, frame, treat="d")
        model.fit(**options)
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    print(f"{estimator}: {added / 1e6:,.0f} MB beside the data frame, {added / model.design.X.nbytes:.2f} designs")


def main():
    """Measure time here, and memory in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--estimator", default="IPWRA", help="whose memory is measured")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of the comparison in time")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        memory(args.rows, args.estimator)
        return
    command = [sys.executable, "-m", "tests.benchmarks.bench_rows", *sys.argv[1:], "--memory"]
    subprocess.run(command, check=True)
    if args.estimator == "IPWRA":
        times(args.rows, args.repeats)


if __name__ == "__main__":
    main()

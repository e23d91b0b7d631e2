"""Time of `JRE` over that of `IPWRA`, from memory and from files: `python -m tests.benchmarks.bench_joint`.

Robust standard errors and six covariates. Each time goes from the data, a data frame or Parquet files, to the effect.
The fits take turns; the shortest of each counts, in seconds of the processor.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import pandas as pd

import causalrisk as cr
from tests.benchmarks.bench_bootstrap import seconds_of
from tests.benchmarks.bench_scan import write

COVARIATES = 6
FORMULA = "y ~ " + " + ".join(f"x{j + 1}" for j in range(COVARIATES))


def fit(name, data):
    """Make a model of a data frame or scan and fit it."""
    return getattr(cr, name).from_formula(FORMULA, data, treat="d").fit(cov_type="robust", rng=0)


def ratios(n, rounds):
    """Print the seconds of both estimators from both sources."""
    with tempfile.TemporaryDirectory() as folder:
        write(folder, n, COVARIATES)
        sources = {"memory": pd.read_parquet(folder), "scan": cr.scan(f"{folder}/*.parquet")}
        best, effects = {}, {}
        for _ in range(rounds):
            for source, data in sources.items():
                for name in ("IPWRA", "JRE"):
                    seconds, res = seconds_of(lambda: fit(name, data), clock=time.process_time)  # noqa: B023
                    best[source, name] = min(seconds, best.get((source, name), seconds))
                    effects[source, name] = res.effect
    for source in sources:
        ours, plain = best[source, "JRE"], best[source, "IPWRA"]
        numbers = f"{plain:9.2f}{ours:9.2f}{ours / plain:9.1f}{effects[source, 'JRE']:20.15f}"
        print(f"{n:12,}  {source:8}{numbers}", flush=True)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 500_000, 2_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{'rows':>12}  {'from':8}{'IPWRA s':>9}{'JRE s':>9}{'ratio':>9}{'effect of JRE':>20}")
    for n in args.rows:
        ratios(n, args.rounds)


if __name__ == "__main__":
    main()

"""Rows per second and peak memory of a fit to Parquet files: `python -m tests.benchmarks.bench_scan --rows 2000000`.

The files are written first, 1,000,000 rows each, by a process of its own; the fit runs in another, whose peak resident
memory is that of the fit. `--memory` fits the same rows in memory instead, which is what a scan is compared with.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

COVARIATES, FILE_ROWS, GROUP_ROWS = 6, 1_000_000, 250_000
FORMULA = "y ~ " + " + ".join(f"x{j + 1}" for j in range(COVARIATES))


def write(folder, rows):
    """Write the files, a linear outcome and a logit treatment."""
    for k, first in enumerate(range(0, rows, FILE_ROWS)):
        rng, n = np.random.default_rng(k), min(FILE_ROWS, rows - first)
        x = rng.standard_normal((n, COVARIATES))
        d = (rng.random(n) < 1 / (1 + np.exp(-x[:, 0] / 2 + x[:, 1] / 3))).astype(np.int8)
        y = x @ np.linspace(1, 0, COVARIATES) + d * (1 + x[:, 2]) + rng.standard_normal(n)
        frame = pd.DataFrame({"y": y, "d": d} | {f"x{j + 1}": x[:, j] for j in range(COVARIATES)})
        frame.to_parquet(Path(folder) / f"part-{k:04}.parquet", row_group_size=GROUP_ROWS)


def fit(folder, block_rows, in_memory, *, estimator, replicates):
    """Fit once, robust standard errors; print the effect, seconds and peak memory."""
    import causalrisk

    data = causalrisk.scan(f"{folder}/*.parquet", block_rows=block_rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    begun, worked = time.perf_counter(), time.process_time()
    model = getattr(causalrisk, estimator).from_formula(FORMULA, data.collect() if in_memory else data, treat="d")
    made = time.perf_counter()
    res = model.fit(cov_type="robust", **({"n_replicates": replicates} if estimator == "JRE" else {}))
    ended, worked = time.perf_counter(), time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{res!r}")
    print(f"model {made - begun:.1f} s, fit {ended - made:.1f} s, {res.nobs / (ended - begun):,.0f} rows a second")
    print(f"processor {worked:.1f} s, {res.nobs / worked:,.0f} rows a second of it")
    print(f"peak resident memory {peak:,.0f} MB, {before:,.0f} MB of it before the first row")


def main():
    """Write the files and fit, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--block-rows", type=int, default=250_000)
    parser.add_argument("--memory", action="store_true", help="fit in memory instead")
    parser.add_argument("--estimator", default="IPWRA")
    parser.add_argument("--replicates", type=int, default=200, help="propensity replicates of JRE")
    parser.add_argument("--folder", help="where the files are, or are to be; by default a temporary folder")
    parser.add_argument("--step", choices=("write", "fit"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step == "write":
        return write(args.folder, args.rows)
    if args.step == "fit":
        return fit(args.folder, args.block_rows, args.memory, estimator=args.estimator, replicates=args.replicates)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or temporary
        steps = ["fit"] if args.folder and list(Path(folder).glob("*.parquet")) else ["write", "fit"]
        for step in steps:
            own = ["--folder", folder, "--step", step]
            subprocess.run([sys.executable, "-m", "tests.benchmarks.bench_scan", *sys.argv[1:], *own], check=True)
    return None


if __name__ == "__main__":
    main()

"""Rows per second and peak memory of a fit to Parquet files: `python -m tests.benchmarks.bench_scan --rows 2000000`.

The files are written first, 1,000,000 rows each, by a process of its own; the fit runs in another, whose peak resident
memory is that of the fit. `--memory` fits the same rows in memory instead, which is what a scan is compared with.
`--n-boot` asks for the bootstrap, `--n-jobs` for threads, `--workers` for a Dask cluster of so many processes on this
machine.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

import causalrisk

FILE_ROWS, GROUP_ROWS = 1_000_000, 250_000


def write(folder, rows, covariates):
    """Write the files, a linear outcome and a logit treatment."""
    for k, first in enumerate(range(0, rows, FILE_ROWS)):
        rng, n = np.random.default_rng(k), min(FILE_ROWS, rows - first)
        x = rng.standard_normal((n, covariates))
        d = (rng.random(n) < 1 / (1 + np.exp(-x[:, 0] / 2 + x[:, 1] / 3))).astype(np.int8)
        y = x @ np.linspace(1, 0, covariates) + d * (1 + x[:, 2]) + rng.standard_normal(n)
        frame = pd.DataFrame({"y": y, "d": d} | {f"x{j + 1}": x[:, j] for j in range(covariates)})
        frame.to_parquet(Path(folder) / f"part-{k:04}.parquet", row_group_size=GROUP_ROWS)


@contextlib.contextmanager
def cluster(workers):
    """A Dask cluster of this machine, where workers are asked for."""
    if not workers:
        yield
        return
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as made, Client(made):
        yield


def fit(folder, args):
    """Fit once; print the effect, seconds and peak memory."""
    data = causalrisk.scan(f"{folder}/*.parquet")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    formula = "y ~ " + " + ".join(f"x{j + 1}" for j in range(args.covariates))
    options = {"n_jobs": args.n_jobs} | ({"n_boot": args.n_boot} if args.n_boot else {"cov_type": "robust"})
    if args.estimator == "JRE":
        options["n_replicates"] = args.replicates
    with cluster(args.workers):
        begun, worked = time.perf_counter(), time.process_time()
        model = getattr(causalrisk, args.estimator).from_formula(
            formula, data.collect() if args.memory else data, treat="d"
        )
        made, modelled = time.perf_counter(), time.process_time() - worked
        res = model.fit(**options)
        ended, worked = time.perf_counter(), time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{res!r}")
    print(f"model {made - begun:.1f} s, fit {ended - made:.1f} s, {res.nobs / (ended - begun):,.0f} rows a second")
    print(f"processor (this process) {worked:.1f} s, of it the model {modelled:.1f} s")
    print(f"{res.nobs / worked:,.0f} rows a second of the processor")
    print(f"peak resident memory {peak:,.0f} MB, {before:,.0f} MB of it before the first row")


def main():
    """Write the files and fit, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--covariates", type=int, default=6)
    parser.add_argument("--n-boot", type=int, default=0, help="resamples; 0 for robust standard errors")
    parser.add_argument("--n-jobs", type=int, default=1, help="threads")
    parser.add_argument("--workers", type=int, default=0, help="processes of a Dask cluster; 0 for none")
    parser.add_argument("--memory", action="store_true", help="fit in memory instead")
    parser.add_argument("--estimator", default="IPWRA")
    parser.add_argument("--replicates", type=int, default=200, help="propensity replicates of JRE")
    parser.add_argument("--folder", help="where the files are, or are to be; by default a temporary folder")
    parser.add_argument("--step", choices=("write", "fit"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step == "write":
        return write(args.folder, args.rows, args.covariates)
    if args.step == "fit":
        return fit(args.folder, args)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or temporary
        steps = ["fit"] if args.folder and list(Path(folder).glob("*.parquet")) else ["write", "fit"]
        for step in steps:
            own = ["--folder", folder, "--step", step]
            subprocess.run([sys.executable, "-m", "tests.benchmarks.bench_scan", *sys.argv[1:], *own], check=True)
    return None


if __name__ == "__main__":
    main()

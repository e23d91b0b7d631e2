"""Largest relative differences of a scan from a fit in memory: cattaneo2 tiled to a million rows.

    python -m tests.benchmarks.bench_scan_digits
    python -m tests.benchmarks.bench_scan_digits --rows 100000

A factor and a spline that learns its knots; all five estimators, for everybody and for the treated, effects, means and
robust standard errors; blocks of data frames, Parquet files, and a Dask cluster of two processes, whose digits are to
be those of the files in this process. JRE has 10 replicates and a given anchor.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings

import pandas as pd

import causalrisk as cr

FORMULA = "bweight ~ bs(mage, df=5) + medu + C(mrace) + fbaby"
ESTIMATORS = ("OutcomeRegression", "Hajek", "IPWRA", "AIPW", "JRE")
REPLICATES, SPREAD, FILES = 10, 0.5, 4


def fit(estimator, data, target, **joint):
    """Fit with robust standard errors."""
    model = getattr(cr, estimator).from_formula(FORMULA, data, treat="mbsmoke", target=target)
    return model.fit(cov_type="robust", **(joint | {"anchor": 1.0} if estimator == "JRE" else {}))


def difference(found, whole):
    """Largest relative difference of estimates and their standard errors."""
    return max(abs(found.params / whole.params - 1).max(), abs(found.bse / whole.bse - 1).max())


def main():
    """Print a row for each estimator and target."""
    from distributed import Client, LocalCluster

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    n = parser.parse_args().rows
    births = cr.datasets.load_cattaneo2()
    frame = pd.concat([births] * (-(-n // len(births))), ignore_index=True).iloc[:n]
    drawn = {"spread": SPREAD, "n_replicates": REPLICATES}
    with tempfile.TemporaryDirectory() as folder:
        for k in range(FILES):
            part = frame.iloc[k * n // FILES : (k + 1) * n // FILES]
            part.to_parquet(f"{folder}/{k}.parquet", row_group_size=n // 16)
        blocks = cr.scan([frame[: n // 3], frame[n // 3 :]], block_rows=n // 10)
        files = cr.scan(f"{folder}/*.parquet", block_rows=n // 8)
        for estimator in ESTIMATORS:
            for target in ("all", "treated"):
                begun = time.perf_counter()
                whole = fit(estimator, frame, target, **drawn)
                found = [fit(estimator, data, target, **drawn) for data in (blocks, files)]
                with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as made, Client(made):
                    there = fit(estimator, files, target, **drawn)
                same = there.params.equals(found[1].params) and there.bse.equals(found[1].bse)
                far = ", ".join(f"{difference(res, whole):.1e}" for res in found)
                seconds = time.perf_counter() - begun
                print(
                    f"{estimator}, {target}: {far}; the cluster the same digits: {same} ({seconds:.0f} s)", flush=True
                )


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()

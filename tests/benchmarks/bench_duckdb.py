"""Rows a second of DuckDB and duckreg on the files of `bench_scan`.

    python -m tests.benchmarks.bench_duckdb "m/*.parquet"
    python -m tests.benchmarks.bench_duckdb "m/*.parquet" --duckreg

Needs `pip install duckdb`, and `duckreg` for the second. DuckDB sums the products of outcome and covariates by arm in
SQL, which gives the point estimate of two regressions without standard errors; duckreg fits one regression of the
outcome on treatment and covariates to a table made from the files, compressed to distinct rows.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np


def regressions(files, covariates):
    """Effect and rows of a regression in each arm, from sums of products in SQL, by one thread."""
    import duckdb

    duckdb.sql("set threads = 1")
    names = ["1", *covariates, "y"]
    products = [f"sum({a}::double * {b})" for i, a in enumerate(names) for b in names[i:]]
    query = f"select {', '.join(products)} from read_parquet('{files}') group by d order by d"
    grams = np.zeros((2, len(names), len(names)))
    upper = np.triu_indices(len(names))
    for gram, sums in zip(grams, duckdb.sql(query).fetchall(), strict=True):
        gram[upper] = sums
        gram[upper[::-1]] = sums
    theta = [np.linalg.solve(gram[:-1, :-1], gram[:-1, -1]) for gram in grams]
    totals = grams.sum(axis=0)[0]
    return (theta[1] - theta[0]) @ totals[:-1] / totals[0], int(totals[0])


def compressed(files, covariates):
    """Effect and rows of duckreg, seconds of the fit alone."""
    import duckdb
    from duckreg.estimators import DuckRegression

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "rows.db")
        with duckdb.connect(path) as made:
            made.execute(f"create table rows as select * from read_parquet('{files}')")
            n = made.execute("select count(*) from rows").fetchone()[0]
        begun = time.perf_counter()
        formula = f"y ~ d + {' + '.join(covariates)}"
        fit = DuckRegression(path, table_name="rows", formula=formula, cluster_col="", n_bootstraps=0, seed=1)
        fit.fit()
        return fit.summary()["point_estimate"][1], n, time.perf_counter() - begun


def main():
    """Time what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files")
    parser.add_argument("--covariates", type=int, default=6)
    parser.add_argument("--duckreg", action="store_true")
    args = parser.parse_args()
    names = [f"x{j + 1}" for j in range(args.covariates)]
    begun = time.perf_counter()
    if args.duckreg:
        effect, n, seconds = compressed(args.files, names)
    else:
        effect, n = regressions(args.files, names)
        seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"effect {effect:.4f}, {n:,} rows, {n / seconds:,.0f} rows a second, peak resident memory {peak:,.0f} MB")


if __name__ == "__main__":
    main()

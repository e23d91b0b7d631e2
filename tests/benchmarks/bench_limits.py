"""Sizes at the edge: each is fitted, or refused in words at once; time and largest memory of each.

    python -m tests.benchmarks.bench_limits
    python -m tests.benchmarks.bench_limits --cases "IPWRA, 2 million rows" "JRE, 2 million rows"

Each case runs in a process of its own, one after the other. Time is that of the model and its fit, without making the
data; memory is the largest of the process, data and imports included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd

import causalrisk as cr


def wide(rows: int, columns: int) -> pd.DataFrame:
    """Many covariates, of which two matter."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, columns))
    d = (rng.random(rows) < 1 / (1 + np.exp(-0.5 * x[:, 0]))).astype(int)
    names = [f"x{j + 1}" for j in range(columns)]
    return pd.DataFrame(x, columns=names).assign(d=d, y=x[:, 0] + x[:, 1] + d + rng.normal(size=rows))


def terms(frame: pd.DataFrame) -> str:
    return " + ".join(name for name in frame if name not in ("y", "d"))


def thousand_terms() -> Callable[[], object]:
    frame = wide(5000, 1000)
    return lambda: cr.IPWRA.from_formula(f"y ~ {terms(frame)}", frame, treat="d").fit()


def pairwise_products() -> Callable[[], object]:
    frame = wide(5000, 1000)
    return lambda: cr.IPWRA.from_formula(f"y ~ ({terms(frame)})**2", frame, treat="d").fit()


def thousand_columns() -> Callable[[], object]:
    frame = wide(20_000, 1000)
    X = frame.drop(columns=["y", "d"]).assign(const=1.0)
    return lambda: cr.IPWRA(frame["y"], X, frame["d"]).fit()


def many_levels() -> Callable[[], object]:
    frame = wide(20_000, 2)
    frame["g"] = [f"level {k}" for k in np.random.default_rng(1).integers(0, 5000, len(frame))]
    return lambda: cr.IPWRA.from_formula("y ~ x1 + g", frame, treat="d").fit()


def wide_ipwra() -> Callable[[], object]:
    frame = wide(5000, 300)
    X = frame.drop(columns=["y", "d"]).assign(const=1.0)
    return lambda: cr.IPWRA(frame["y"], X, frame["d"]).fit()


def wide_jre() -> Callable[[], object]:
    frame = wide(5000, 300)
    X = frame.drop(columns=["y", "d"]).assign(const=1.0)
    return lambda: cr.JRE(frame["y"], X, frame["d"]).fit(cov_type="robust")


def long_ipwra() -> Callable[[], object]:
    frame = wide(2_000_000, 6)
    return lambda: cr.IPWRA.from_formula(f"y ~ {terms(frame)}", frame, treat="d").fit()


def long_jre() -> Callable[[], object]:
    frame = wide(2_000_000, 6)
    model = cr.JRE.from_formula(f"y ~ {terms(frame)}", frame, treat="d")
    return lambda: model.fit(cov_type="robust", n_replicates=50)


SMALL: dict[str, Callable[[], Callable[[], object]]] = {
    "IPWRA, formula of 1,000 terms, 5,000 rows": thousand_terms,
    "IPWRA, all pairwise products of 1,000 covariates, 5,000 rows": pairwise_products,
    "IPWRA, arrays of 1,000 columns, 20,000 rows": thousand_columns,
    "IPWRA, a factor of 5,000 levels, 20,000 rows": many_levels,
    "IPWRA, 300 columns, 5,000 rows": wide_ipwra,
    "JRE, 300 columns, 5,000 rows": wide_jre,
}
LARGE = {"IPWRA, 2 million rows": long_ipwra, "JRE, 2 million rows": long_jre}


def measure(name: str) -> dict[str, object]:
    """Run a case in this process."""
    work = (SMALL | LARGE)[name]()
    begun = time.perf_counter()
    cpu = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = f"fitted: {work()!r}"
    except cr.CausalRiskError as error:
        outcome = f"refused: {str(error).splitlines()[0]}"
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"seconds": seconds, "cpu": cpu, "MB": memory, "outcome": outcome}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=(*SMALL, *LARGE), default=tuple(SMALL), metavar="CASE")
    parser.add_argument("--here", action="store_true", help="in this process, the first case only")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.cases[0])))
        return
    print("| case | seconds | processor seconds | MB | |\n|---|---|---|---|---|", flush=True)
    for name in options.cases:
        command = [sys.executable, "-m", "tests.benchmarks.bench_limits", "--here", "--cases", name]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        numbers = f"{found['seconds']:.1f} | {found['cpu']:.1f} | {found['MB']:.0f}"
        print(f"| {name} | {numbers} | {found['outcome']} |", flush=True)


if __name__ == "__main__":
    main()

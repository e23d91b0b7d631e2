"""How the time of JRE grows with rows, replicates and resamples: `python -m tests.benchmarks.bench_scaling`."""

from __future__ import annotations

import argparse
import time

import causalrisk as cr
from tests.conftest import simulate

COVARIATES = 8


def seconds(n, n_replicates, n_boot, repeats):
    """Shortest time of several joint fits."""
    rhs = " + ".join(f"x{j + 1}" for j in range(COVARIATES))
    model = cr.JRE.from_formula(f"y ~ {rhs}", simulate(n, COVARIATES, seed=1), treat="d")
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        model.fit(n_replicates=n_replicates, n_boot=n_boot)
        times.append(time.perf_counter() - begun)
    return min(times)


def main():
    """Double each size twice, the others at their base, and print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    base = {"n": 500 if args.quick else 5000, "n_replicates": 200, "n_boot": 256}
    seconds(1000, 200, 32, 1)  # warm up
    print(f"base: {base}, {COVARIATES} covariates; seconds, shortest of {args.repeats}")
    print(f"{'doubled':14}{'x 1':>9}{'x 2':>9}{'x 4':>9}{'x2 / x1':>10}{'x4 / x2':>10}")
    for name in base:
        one, two, four = (seconds(**(base | {name: base[name] * k}), repeats=args.repeats) for k in (1, 2, 4))
        print(f"{name:14}{one:9.3f}{two:9.3f}{four:9.3f}{two / one:10.2f}{four / two:10.2f}", flush=True)


if __name__ == "__main__":
    main()

"""Time and memory of single fits over their floor, and over what was stored: `python -m tests.benchmarks.bench_sizes`.

The floor of a fit is the work of the matrix products and exponentials that its algorithm cannot do without, at the
rates measured in the same process. A time over its floor is what is stored: in `ratios.json`, beside this file, by
`--store`. On one machine a last column well above one is a regression; on another all may be. Times are those of the
processor, which other programs hardly disturb. Each case runs in a process of its own.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import causalrisk as cr
from tests.benchmarks.bench_bootstrap import machine_rates, newton_iterations, peak_memory, work
from tests.conftest import simulate

STORED = Path(__file__).with_name("ratios.json")
RELATIVE = 1e6  # design bytes below which memory is not told in multiples of them
REPEATS, ENOUGH = 5, 1.0  # fits of a case, fewer once they have taken so many seconds
FITS = [  # estimator, covariates, options of the fit, rows of the largest case
    ("Hajek", 6, {}, 2_000_000),
    ("IPWRA", 6, {}, 2_000_000),
    ("AIPW", 6, {}, 2_000_000),
    ("JRE", 6, {}, 100_000),
    ("JRE binary", 6, {}, 10_000),
    ("IPWRA", 6, {"n_boot": 999}, 10_000),
    ("JRE", 6, {"n_boot": 999}, 10_000),
    ("IPWRA", 60, {}, 10_000),
    ("JRE", 60, {}, 10_000),
]
SIZES = (1_000, 10_000, 100_000, 2_000_000)


def model_of(name, n, p):
    """Make the model of a case."""
    estimator, _, binary = name.partition(" ")
    frame, rhs = simulate(n, p, seed=1), " + ".join(f"x{j + 1}" for j in range(p))
    if binary:
        frame = frame.assign(y=(frame.y > frame.y.mean()).astype(int))
    family = {"family": "binomial"} if binary else {}
    return getattr(cr, estimator).from_formula(f"y ~ {rhs}", frame, treat="d", **family)


def separate_work(record, n_boot):
    """Operations of the products of a fit of separate arms, and its exponentials: as `bench_bootstrap.work`."""
    sample = record.sample
    n, p, q = sample.n, record.estimate.theta.shape[1], sample.Z.columns.shape[1]
    steps, width = newton_iterations(record), record.estimate.influence.shape[1]
    fit = steps * 2 * n * (2 * q + q * (q + 1) // 2) + 2 * n * p * (p + 1) // 2 + 4 * n * p
    influence = 2 * n * q * q + 2 * n * q * sample.n_arms * p + n * width * (width + 1)
    return float((1 + n_boot) * fit + influence), float(n * (steps + 1) * (1 + n_boot))


def case(name, n, p, options):
    """Measure one case: seconds, megabytes and floor."""
    model = model_of(name, n, p)
    model_of(name, 500, 2).fit(**(options or {"cov_type": "robust"}) | ({"n_boot": 32} if options else {}))  # warm up
    before, times = peak_memory(), []
    while len(times) < REPEATS and sum(times) < ENOUGH:
        begun = time.process_time()
        record = model.fit(**(options or {"cov_type": "robust"}), rng=0)._record
        times.append(time.process_time() - begun)
    memory = peak_memory() - before
    gemm, exponentials = machine_rates(time.process_time)
    flops, exps = (separate_work if record.joint is None else work)(record, options.get("n_boot", 0))
    design = model.design.X.nbytes / 2**20
    return {"seconds": min(times), "memory": memory, "design": design, "floor": flops / gemm + exps / exponentials}


def cases(largest):
    """Yield the cases up to a number of rows: label, arguments of `case`."""
    for n in SIZES:
        for name, p, options, most in FITS:
            if n <= min(largest, most):
                how = f"{options['n_boot']} resamples" if options else "robust"
                yield f"{name}, {how}, n = {n}, p = {p}", (name, n, p, options)


def main():
    """Measure each case in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--largest", type=int, default=100_000, help="rows of the largest cases")
    parser.add_argument("--only", default="", help="cases whose label has these words")
    parser.add_argument("--store", action="store_true", help="store the ratios to the floor as those to compare with")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(case(*json.loads(args.case))))
        return
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    print(f"{'':44}{'seconds':>9}{'floor':>9}{'ratio':>7}{'MB':>7}{'designs':>9}{'over stored':>13}")
    for label, arguments in cases(args.largest):
        if args.only not in label:
            continue
        command = [sys.executable, "-m", "tests.benchmarks.bench_sizes", "--case", json.dumps(arguments)]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        ratio = found["seconds"] / found["floor"]
        designs = f"{found['memory'] / found['design']:.1f}" if found["design"] * 2**20 > RELATIVE else ""
        change = f"{ratio / stored[label]:.2f}" if label in stored else ""
        numbers = f"{found['seconds']:9.3f}{found['floor']:9.4f}{ratio:7.1f}{found['memory']:7.0f}{designs:>9}"
        print(f"{label:44}{numbers}{change:>13}".rstrip(), flush=True)
        if args.store:
            stored[label] = round(ratio, 2)
    if args.store:
        STORED.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Time of a model with factors and its fit over formulaic's model matrix and that fit.

`python -m tests.benchmarks.bench_factors`: levels of factors are text, categories or integers, of pandas or polars.
Seconds are those of the processor, the shortest of some rounds in one process.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import time
import warnings

import formulaic
import numpy as np
import pandas as pd
import polars

import causalrisk as cr

TERMS = "x + C(g) + C(s)"


def simulated(n, levels):
    """Data of n rows with the factors g, of 20 levels that are stored as told, and s, of 6."""
    rng = np.random.default_rng(0)
    g, s, x = rng.integers(0, 20, n), rng.integers(0, 6, n), rng.normal(size=n)
    d = (rng.random(n) < 1 / (1 + np.exp(-0.3 * x))).astype(int)
    data = pd.DataFrame({"y": x + d + 0.1 * g + rng.normal(size=n), "x": x, "d": d, "g": g, "s": s})
    if levels != "integer":
        shown = [f"level {k:02d}" for k in range(20)]
        data["g"], data["s"] = pd.Categorical.from_codes(g, shown), pd.Categorical.from_codes(s, list("abcdef"))
    return data.astype({"g": str, "s": str}) if levels == "text" else data


def shortest(rounds, function, *args):
    """Shortest time of some calls, and the last value."""
    times = []
    for _ in range(rounds):
        begun = time.process_time()
        value = function(*args)
        times.append(time.process_time() - begun)
    return min(times), value


def model_of(data):
    """Model with the same terms on both sides."""
    return cr.IPWRA.from_formula(f"y ~ {TERMS}", data, treat="d", propensity=TERMS)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    model_of(simulated(1000, "text")).fit()
    print(f"{'levels':10} {'frame':8} {'model':>7} {'fit':>7} {'formulaic':>10} {'ratio':>6}")
    for levels in ("text", "category", "integer"):
        data = simulated(args.rows, levels)
        matrix, _ = shortest(args.rounds, formulaic.model_matrix, TERMS, data)
        for name, frame in (("pandas", data), ("polars", polars.from_pandas(data))):
            made, model = shortest(args.rounds, model_of, frame)
            fit, _ = shortest(args.rounds, model.fit)
            ratio = (made + fit) / (matrix + fit)
            print(f"{levels:10} {name:8} {made:7.2f} {fit:7.2f} {matrix:10.2f} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()

"""Time of balance, Table 1 and report over that of the fit: `python -m tests.benchmarks.bench_balance`.

The fit is `IPWRA` with robust standard errors, of five numbers, a flag and two factors of 20 and 4 levels. Seconds are
those of the processor, the shortest of some rounds in one process.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import causalrisk as cr
from tests.benchmarks.bench_factors import shortest

TERMS = "x1 + x2 + x3 + x4 + x5 + flag + C(g) + C(s)"
MANY = 5000  # levels of a factor that a table has no room for


def simulated(n):
    """Data of n rows."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame(rng.standard_normal((n, 5)), columns=[f"x{k}" for k in range(1, 6)])
    data["flag"] = rng.random(n) < 0.3
    data["g"], data["s"] = rng.integers(0, 20, n), pd.Categorical.from_codes(rng.integers(0, 4, n), list("abcd"))
    data["many"] = rng.integers(0, MANY, n)
    data["d"] = (rng.random(n) < 1 / (1 + np.exp(-0.4 * data.x1 + 0.3 * data.flag))).astype(int)
    data["y"] = data.x1 + 0.2 * data.x2 + data.d + 0.1 * data.g + rng.standard_normal(n)
    return data


def model_of(data):
    """Model with the same terms on both sides."""
    return cr.IPWRA.from_formula(f"y ~ {TERMS}", data, treat="d", propensity=TERMS)


def described(data, covariates):
    """Table 1 before a fit, or the first line of its refusal."""
    try:
        return cr.table_one(covariates, data, by="d")
    except cr.DesignError as error:
        return str(error).partition("\n")[0]


def main():
    """Print the table of each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    page = Path(tempfile.mkdtemp(), "report.html")
    model_of(simulated(2000)).fit().report(page)  # imports
    print(f"{'rows':>9}  {'what':24}{'seconds':>9}{'over the fit':>14}")
    for rows in args.rows:
        data = simulated(rows)
        made, model = shortest(args.rounds, model_of, data)
        fit, res = shortest(args.rounds, model.fit)
        lines = {
            "model": (made, None),
            "fit, robust": (fit, None),
            "balance()": shortest(args.rounds, res.balance),
            "res.table_one()": shortest(args.rounds, res.table_one),
            "table_one()": shortest(args.rounds, described, data, TERMS),
            f"table_one(), {MANY} levels": shortest(args.rounds, described, data, "C(many)"),
            "report()": shortest(args.rounds, res.report, page),
        }
        for name, (seconds, found) in lines.items():
            told = f"  {found}" if isinstance(found, str) else ""
            print(f"{rows:9}  {name:24}{seconds:9.2f}{seconds / fit:14.2f}{told}", flush=True)


if __name__ == "__main__":
    main()

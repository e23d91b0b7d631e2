"""Coverage of event studies where effects grow: each 95% interval by itself, and all of a table together.

Run  python -m tests.studies.study_staggered  from the root of a copy of the source; `--sims` says how many samples.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from causalrisk import OverlapWarning, event_study
from causalrisk.inference.simultaneous import LargestModulus

TABLES = Path(__file__).parent / "tables"
N, YEARS, FIRST = 400, np.arange(2001, 2006), (2003, 2004)
TABLES_BY = ("exposure", "group", "time", "all")
ALPHA, POINTS = 0.05, 13  # binary logarithm of the points of the integral that says whether a table holds


def rows(rng, n=N):
    """Units that begin the more the larger x is, whose trends depend on x, errors are a walk and effects grow."""
    x, slope = rng.normal(size=(2, n))
    begins = np.where(rng.uniform(size=n) < 1 / (1 + np.exp(-x)), rng.choice(FIRST, size=n), 0)
    exposure = np.where(begins[:, None] > 0, YEARS - begins[:, None] + 1, 0).clip(0)
    trend = (0.5 + 0.5 * x)[:, None] * (YEARS - YEARS[0])
    y = x[:, None] + trend + exposure * (1 + 0.3 * slope)[:, None] + rng.normal(size=(n, len(YEARS))).cumsum(axis=1)
    units = pd.DataFrame({"id": np.arange(n), "begins": begins, "x": x})
    return units.merge(pd.DataFrame({"year": YEARS}), how="cross").assign(y=y.ravel(), d=(exposure > 0).ravel() * 1.0)


def truth(index):
    """Effects of the index of a table; the groups are equally likely."""
    first = np.array(FIRST)
    if index.name == "exposure":
        return np.clip(index.to_numpy() + 1, 0, None)
    if index.name == "group":
        return (YEARS[-1] - index.to_numpy()) / 2 + 1
    if index.name == "time":
        return np.array([(year - first[first <= year] + 1).mean() for year in index])
    return np.array([((YEARS[-1] - first) / 2 + 1).mean()])


def fixed_effects(data):
    """Coefficient of the treatment in a regression with fixed effects of units and years, x by year beside it."""
    wide = [data[name].to_numpy().reshape(-1, len(YEARS)) for name in ("y", "d")]
    wide += [data.x.to_numpy().reshape(-1, len(YEARS)) * (year == YEARS) for year in YEARS[1:]]
    within = [w - w.mean(axis=1, keepdims=True) - w.mean(axis=0) + w.mean() for w in wide]
    y, *columns = (w.ravel() for w in within)
    return np.linalg.lstsq(np.column_stack(columns), y, rcond=None)[0][0]


def of_sample(seed, number, n):
    """For each table estimates, errors and whether the intervals hold together; and the fixed-effects coefficient."""
    data = rows(np.random.default_rng([seed, number]), n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OverlapWarning)
        study, found = event_study("y ~ x", data, begins="begins", time="year", unit="id"), {}
    for by in TABLES_BY:
        table, errors = study.effects(by, adjust=None), study._averages(by)[2]
        off = np.abs(table["estimate"] - truth(table.index)) / table["std err"]
        all_off = LargestModulus(np.corrcoef(errors.T).reshape(len(off), -1), np.inf, points=POINTS).tail(off.max())
        found[by] = table.index, table["estimate"], table["std err"], all_off >= ALPHA
    return found, fixed_effects(data)


def coverage(sims, seed=0, n=N):
    """Return a row an effect: bias, standard deviation, mean standard error, coverage; and that of its table.

    The coefficients of the regression with fixed effects come second, a number a sample.
    """
    samples, parts = [of_sample(seed, number, n) for number in range(sims)], []
    for by in TABLES_BY:
        index, estimates, errors, together = zip(*(found[by] for found, _ in samples), strict=True)
        real, estimates, errors = truth(index[0]), np.array(estimates), np.array(errors)
        columns = {
            "by": by,
            "effect": [str(name) for name in index[0]],
            "truth": real,
            "bias": estimates.mean(axis=0) - real,
            "sd": estimates.std(axis=0, ddof=1),
            "mean std err": errors.mean(axis=0),
            "coverage": (np.abs(estimates - real) <= norm.ppf(1 - ALPHA / 2) * errors).mean(axis=0),
            "coverage of the table": np.mean(together),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True), np.array([coefficient for _, coefficient in samples])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sims", type=int, default=500)
    given = parser.parse_args()
    table, coefficients = coverage(given.sims)
    table.round(4).to_csv(TABLES / "staggered.csv", index=False)
    print(table.round(3).to_string())
    print(f"regression with fixed effects: mean {coefficients.mean():.3f}, sd {coefficients.std(ddof=1):.3f}")

"""Coverage of 95% intervals of quantile effects, and of uniform bands of distribution functions, at n = 500.

Run  python -m tests.studies.study_quantiles  from the root of a copy of the source; `--sims` says how many samples.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from causalrisk import AIPW, Hajek

TABLES = Path(__file__).parent / "tables"
N = 500
LEVELS = np.array([0.25, 0.5, 0.75])
FITS = {  # estimator, outcome formula, propensity formula
    "IPW": (Hajek, "y ~ 1", "x"),
    "AIPW": (AIPW, "y ~ x", "x"),
    "AIPW, wrong propensity": (AIPW, "y ~ x", "1"),
    "AIPW, wrong outcome": (AIPW, "y ~ 1", "x"),
}


def rows(rng):
    """Rows whose effects grow with the covariate, so that quantile effects differ."""
    x, u, e = rng.normal(size=(3, N))
    d = (u < norm.ppf(1 / (1 + np.exp(-0.7 * x)))).astype(int)
    return pd.DataFrame({"y": 1 + x + d * (1 + 0.5 * x) + e, "d": d, "x": x})


def truth():
    """Quantiles of both arms, which are normal: effects, then those of arm 0 and of arm 1."""
    zero, one = norm.ppf(LEVELS, 1, np.sqrt(2)), norm.ppf(LEVELS, 2, np.sqrt(3.25))
    return np.concatenate([one - zero, zero, one])


def of_sample(seed, number, values):
    """Estimates, standard errors and whether the band holds at so many values, of each fit to a sample."""
    data, found = rows(np.random.default_rng([seed, number])), []
    for estimator, formula, propensity in FITS.values():
        res = estimator.from_formula(formula, data, treat="d", propensity=propensity, effect="quantile").fit()
        holds = True
        if values:
            band = res.distribution(np.linspace(-0.5, 4.0, values))
            y, first = band.index.get_level_values(1), band.index.get_level_values(0) == "0"
            real = np.where(first, norm.cdf(y, 1, np.sqrt(2)), norm.cdf(y, 2, np.sqrt(3.25)))
            holds = not ((real < band["band low"]) | (band["band high"] < real)).any()  # NaN says nothing
        found.append((res.params.to_numpy(), res.bse.to_numpy(), holds))
    return found


def coverage(sims, seed=0, values=5):
    """Return a row a fit and parameter: bias, standard deviation, mean standard error, coverage; and that of bands."""
    samples, real = [of_sample(seed, number, values) for number in range(sims)], truth()
    parts = []
    for k, name in enumerate(FITS):
        estimates, errors, holds = (np.array(each) for each in zip(*(sample[k] for sample in samples), strict=True))
        covered = np.abs(estimates - real) <= norm.ppf(0.975) * errors
        columns = {
            "fit": name,
            "parameter": [f"{what} q{level:g}" for what in ("QTE", "POQ[0]", "POQ[1]") for level in LEVELS],
            "bias": estimates.mean(axis=0) - real,
            "sd": estimates.std(axis=0, ddof=1),
            "mean std err": errors.mean(axis=0),
            "coverage": covered.mean(axis=0),
            "coverage of the band": holds.mean() if values else np.nan,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sims", type=int, default=1000)
    parser.add_argument("--values", type=int, default=5, help="at which bands are judged; 0 for no bands")
    given = parser.parse_args()
    table = coverage(given.sims, values=given.values)
    table.round(4).to_csv(TABLES / "quantiles.csv", index=False)
    print(table.round(3).to_string())

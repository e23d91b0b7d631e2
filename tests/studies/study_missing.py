"""Outcomes that are missing at random by arm: bias and coverage of 95% intervals at n = 500.

Run  python -m tests.studies.study_missing  from the root of a copy of the source; `--sims` says how many samples.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse

import numpy as np
import pandas as pd

from causalrisk import AIPW, IPWRA, JRE, Hajek

N = 500
RIGHT, WRONG = "x1 + I(x1**2)", "x1"  # outcome formulas
LOGIT, FLAT = "x1 * d", "d"  # observation formulas, right and wrong
FITS = {  # estimator, outcome formula, observation formula; None are complete cases
    "complete cases, Hajek": (Hajek, "1", None),
    "complete cases, AIPW": (AIPW, RIGHT, None),
    "IPW": (Hajek, "1", LOGIT),
    "AIPW": (AIPW, RIGHT, LOGIT),
    "AIPW, wrong outcome": (AIPW, WRONG, LOGIT),
    "AIPW, wrong observation": (AIPW, RIGHT, FLAT),
    "AIPW, both wrong": (AIPW, WRONG, FLAT),
    "IPWRA, wrong outcome": (IPWRA, WRONG, LOGIT),
    "JRE, wrong outcome": (JRE, WRONG, LOGIT),
    "JRE, wrong observation": (JRE, RIGHT, FLAT),
}


def rows(n, rng):
    """Rows whose outcome is missing by covariate and arm, with effect 1; the outcome has the square of x1 too."""
    x1, u, v = rng.normal(size=n), rng.random(n), rng.random(n)
    d = (u < 1 / (1 + np.exp(-0.5 * x1))).astype(int)
    y = x1 + x1**2 + d * (1 + x1) + rng.normal(size=n)
    seen = v < 1 / (1 + np.exp(-(0.5 + x1 * (1 - 1.5 * d))))
    return pd.DataFrame({"x1": x1, "d": d, "y": np.where(seen, y, np.nan)})


def of_sample(seed, number):
    """Effect and standard error of each fit to a sample, shape (fits, 2)."""
    data, found = rows(N, np.random.default_rng([seed, number])), []
    for estimator, formula, observed in FITS.values():
        given = {"treat": "d", "propensity": "x1", "observed": observed}
        res = estimator.from_formula(f"y ~ {formula}", data, **given).fit(cov_type="robust")
        found.append((res.effect, res.effect_se))
    return np.array(found)


def bias(sims, seed=0):
    """Return a row a fit: bias and its Monte Carlo error, standard deviation, mean standard error and coverage."""
    effect, se = np.moveaxis(np.array([of_sample(seed, number) for number in range(sims)]), -1, 0)
    sd = effect.std(axis=0, ddof=1)
    columns = {
        "bias": effect.mean(axis=0) - 1,
        "bias_mc": sd / np.sqrt(sims),
        "sd": sd,
        "mean std err": se.mean(axis=0),
        "coverage": (np.abs(effect - 1) <= 1.96 * se).mean(axis=0),
    }
    return pd.DataFrame(columns, index=pd.Index(FITS, name="fit"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sims", type=int, default=500)
    print(bias(parser.parse_args().sims).round(3).to_string())

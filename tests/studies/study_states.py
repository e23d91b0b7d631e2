"""Coverage of event studies with twelve states, of which two adopt in each of two years.

Run  python -m tests.studies.study_states  from the root of a copy of the source; `--sims` says how many samples.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from causalrisk import event_study

TABLES = Path(__file__).parent / "tables"
STATES, PEOPLE, YEARS = 12, 8, np.arange(2001, 2007)
FIRST = np.array([2003, 2003, 2005, 2005, *[0] * 8])
TRUTH, ALPHA = {"all": [1], "group": [1, 1], "exposure": [0, 0, 0, 1, 1, 1, 1]}, 0.05
ERRORS = {"clustered": {}, "jackknife": {"cov_type": "jackknife", "use_t": True}}


def rows(rng):
    """People of states whose outcomes are walks; the effect is one."""
    first, state = rng.permutation(FIRST), np.repeat(np.arange(STATES), PEOPLE)
    x, level = rng.normal(size=(2, len(state), 1))
    walk = 0.3 * rng.normal(size=(STATES, len(YEARS))).cumsum(axis=1)
    treated = (first[:, None] > 0) & (first[:, None] <= YEARS)
    y = level + (1 + 0.3 * (YEARS - YEARS[0])) * x + (walk + treated)[state]
    y += 0.5 * rng.normal(size=y.shape)
    people = pd.DataFrame({"id": np.arange(len(state)), "state": state, "first": first[state], "x": x[:, 0]})
    return people.merge(pd.DataFrame({"year": YEARS}), how="cross").assign(y=y.ravel())


def of_sample(seed, number):
    """For each kind of errors the tables, and p-values of the placebos: Wald's test, and the least adjusted one."""
    data, found = rows(np.random.default_rng([seed, number])), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, options in ERRORS.items():
            study = event_study("y ~ x", data, begins="first", time="year", unit="id", cluster="state", **options)
            tables = {by: study.effects(by, adjust="holm") for by in TRUTH}
            placebos = tables["exposure"]["adjusted P"].to_numpy()[:3].min()
            found[name] = tables, float(study.pretrend_test().pvalue), placebos
    return found


def coverage(samples):
    """Return a row an effect: standard deviation, and for each kind of errors their mean, coverage by normal and t."""
    parts = []
    for by, truth in TRUTH.items():
        table = {"by": by, "effect": [str(name) for name in samples[0]["clustered"][0][by].index], "truth": truth}
        for name in ERRORS:
            estimates, errors = (
                np.array([one[name][0][by][column] for one in samples]) for column in ("estimate", "std err")
            )
            table["sd"] = estimates.std(axis=0, ddof=1)
            table[f"{name} std err"] = errors.mean(axis=0)
            for kind, threshold in (("normal", norm.ppf(1 - ALPHA / 2)), ("t", t.ppf(1 - ALPHA / 2, STATES - 1))):
                table[f"{name}, {kind}"] = (np.abs(estimates - truth) <= threshold * errors).mean(axis=0)
        parts.append(pd.DataFrame(table))
    return pd.concat(parts, ignore_index=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sims", type=int, default=500)
    samples = [of_sample(0, number) for number in range(parser.parse_args().sims)]
    table = coverage(samples)
    table.round(4).to_csv(TABLES / "states.csv", index=False)
    print(table.round(3).to_string())
    for name in ERRORS:
        joint, least = (np.mean([one[name][k] < ALPHA for one in samples]) for k in (1, 2))
        print(f"{name}: Wald's test rejects {joint:.3f}, the least adjusted p-value of a placebo {least:.3f}")

"""Coverage of 95% intervals with few clusters, few rows and few units of a survey, and the size of joint tests.

Run  python -m tests.studies.study_small_samples clusters  (or rows, surveys, tests) from the root of a copy of the
source. It stores the table that the page on small samples shows; `--sims` says how many samples.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import stats

from causalrisk import AIPW, IPWRA, JRE, CausalRiskError, OutcomeRegression, Survey

TABLES = Path(__file__).parent / "tables"
ESTIMATORS = {
    "IPWRA": (IPWRA, "all"), "IPWRA, treated": (IPWRA, "treated"), "AIPW": (AIPW, "all"), "JRE": (JRE, "all")
}  # fmt: skip
FORMULA = "y ~ x"
REPLICATES = 60  # of JRE, so that thousands of samples take minutes


def expit(values):
    return 1 / (1 + np.exp(-values))


def clusters(count, equal, rng):
    """Rows in clusters that share a part of the outcome, of the effect and of the chance of treatment; the effect is 1.

    Parameters
    ----------
    count : int
        Clusters.
    equal : bool
        Whether all have 20 rows; else from 4 to 60.
    rng : Generator
        Source of randomness.
    """
    sizes = np.full(count, 20) if equal else np.resize([4, 8, 12, 16, 20, 60], count)
    group = np.repeat(np.arange(count), sizes)
    shared, chance = rng.normal(size=(2, count))[:, group]
    x = rng.normal(size=len(group)) + 0.3 * shared
    d = (rng.random(len(group)) < expit(0.5 * x + 0.5 * chance)).astype(int)
    y = x + 0.5 * shared + d * (1 + 0.3 * shared) + rng.normal(size=len(group))
    return pd.DataFrame({"y": y, "x": x, "d": d, "group": group})


def rows(n, rng):
    """Independent rows with errors that grow with the covariate; the effect is 1."""
    x = rng.normal(size=n)
    d = (rng.random(n) < expit(0.5 * x)).astype(int)
    return pd.DataFrame({"y": x + d + rng.normal(size=n) * (1 + 0.3 * np.abs(x)), "x": x, "d": d})


def population(strata, rng):
    """A finite population: strata of 20 units of 30 rows, with effects that differ between strata and units."""
    of_stratum, of_unit = rng.normal(size=strata), rng.normal(size=(strata, 20))
    s, u = (grid.ravel() for grid in np.meshgrid(np.arange(strata), np.arange(20), indexing="ij"))
    s, u = np.repeat(s, 30), np.repeat(u, 30)
    x = rng.normal(size=len(s)) + 0.5 * of_stratum[s]
    d = (rng.random(len(s)) < expit(0.5 * x + 0.3 * of_unit[s, u])).astype(int)
    y = x + of_stratum[s] + 0.5 * of_unit[s, u] + d * (1 + 0.3 * of_stratum[s] + 0.8 * of_unit[s, u])
    return pd.DataFrame({"y": y + rng.normal(size=len(s)), "x": x, "d": d, "stratum": s, "unit": u, "units": 20})


def drawn(everybody, rng):
    """Two units of each stratum, and of each 6 to 15 of the rows."""
    parts = []
    for stratum, own in everybody.groupby("stratum"):
        for unit in rng.choice(20, 2, replace=False):
            taken = 6 + 3 * (stratum % 4)
            parts.append(own[own.unit == unit].sample(taken, random_state=rng).assign(w=10 * 30 / taken))
    return pd.concat(parts, ignore_index=True)


def intervals(fits, truth):
    """Return, for each kind of error that has a fit, whether its interval holds the truth, and its half width.

    Parameters
    ----------
    fits : dict of str to callable
        By kind: a fit and the degrees of freedom of its interval, or a fit and the name of an interval.
    truth : float
        The effect.
    """
    found = {}
    for kind, (fit, df) in fits.items():
        try:
            res = fit()
        except CausalRiskError:
            continue
        if isinstance(df, str):
            low, high = res.conf_int(method=df).iloc[0]
            found[kind] = (low <= truth <= high, (high - low) / 2)
        else:
            half = stats.t.ppf(0.975, df) * res.effect_se if np.isfinite(df) else 1.959964 * res.effect_se
            found[kind] = (abs(res.effect - truth) <= half, half)
    return found


def fitted(estimator, target, data, **options):
    """Return a function of the options of `fit`, which fits once for the same ones."""
    made = estimator.from_formula(FORMULA, data, treat="d", target=target, **options)
    known, more = {}, {"n_replicates": REPLICATES} if estimator is JRE else {}

    def fit(**how):
        key = tuple(how.items())
        if key not in known:
            known[key] = made.fit(**how, **more)
        return known[key]

    return fit


def of_clusters(cell, seed):
    """All kinds of error for clusters, by all estimators, on one sample."""
    data = clusters(*cell, np.random.default_rng(seed))
    count, found = cell[0], {}
    for name, (estimator, target) in ESTIMATORS.items():
        fit = fitted(estimator, target, data, cluster="group")
        kinds = {
            "cluster, z": (lambda fit=fit: fit(cov_type="cluster"), np.inf),
            "cluster, t": (lambda fit=fit: fit(cov_type="cluster"), count - 1),
            "factor, z": (lambda fit=fit: fit(cov_type="cluster", small_sample=True), np.inf),
            "factor, t": (lambda fit=fit: fit(cov_type="cluster", small_sample=True), count - 1),
            "jackknife, z": (lambda fit=fit: fit(cov_type="jackknife"), np.inf),
            "jackknife, t": (lambda fit=fit: fit(cov_type="jackknife"), count - 1),
            "multiplier, studentized": (lambda fit=fit: fit(bootstrap="multiplier", n_boot=399), "studentized"),
        }
        found[name] = intervals(kinds, 1.0)
    return found


def of_rows(cell, seed):
    """All kinds of error for few rows, by all estimators, on one sample."""
    data = rows(*cell, np.random.default_rng(seed))
    n, found = cell[0], {}
    for name, (estimator, target) in ESTIMATORS.items():
        fit = fitted(estimator, target, data)
        kinds = {
            "robust, z": (lambda fit=fit: fit(cov_type="robust"), np.inf),
            "HC1, z": (lambda fit=fit: fit(cov_type="HC1"), np.inf),
            "HC1, t": (lambda fit=fit: fit(cov_type="HC1"), n - 4),
            "jackknife, z": (lambda fit=fit: fit(cov_type="jackknife"), np.inf),
            "jackknife, t": (lambda fit=fit: fit(cov_type="jackknife"), n - 4),
            "multiplier, studentized": (lambda fit=fit: fit(bootstrap="multiplier", n_boot=399), "studentized"),
        }
        found[name] = intervals(kinds, 1.0)
    return found


POPULATIONS = {}  # by number of strata: the population, and the effect in it by each estimator


def known_population(strata):
    """Return a finite population and the effects in it, made once in each process."""
    if strata not in POPULATIONS:
        everybody = population(strata, np.random.default_rng([7, strata]))
        truths = {}
        for name, (estimator, target) in ESTIMATORS.items():
            plain = IPWRA if estimator is JRE else estimator
            truths[name] = plain.from_formula(FORMULA, everybody, treat="d", target=target).fit().effect
        POPULATIONS[strata] = everybody, truths
    return POPULATIONS[strata]


def of_surveys(cell, seed):
    """All kinds of error for a survey, by all estimators, on one sample of a finite population."""
    everybody, truths = known_population(*cell)
    data = drawn(everybody, np.random.default_rng(seed))
    design = Survey(weights="w", strata="stratum", psu="unit", fpc="units", nest=True)
    weights, found = {"weights": "w", "weight_type": "probability"}, {}
    data["both"] = data.stratum * 20 + data.unit
    for name, (estimator, target) in ESTIMATORS.items():
        fit = fitted(estimator, target, data, design=design)
        plain = fitted(estimator, target, data, **weights)
        by_unit = fitted(estimator, target, data, cluster="both", **weights)
        kinds = {
            "weights alone, z": (lambda fit=plain: fit(cov_type="robust"), np.inf),
            "units as clusters, z": (lambda fit=by_unit: fit(cov_type="cluster"), np.inf),
            "design, z": (lambda fit=fit: fit(), np.inf),
            "design, t": (lambda fit=fit: fit(), cell[0]),
            "rescaled bootstrap, t": (lambda fit=fit: fit(n_boot=99), cell[0]),
        }
        found[name] = intervals(kinds, truths[name])
    return found


CELLS = {
    "clusters": (of_clusters, [(count, equal) for count in (6, 12, 30) for equal in (True, False)]),
    "rows": (of_rows, [(n,) for n in (30, 40, 60)]),
    "surveys": (of_surveys, [(strata,) for strata in (6, 12, 30)]),
}


def _one(make, cell, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return make(cell, seed)
        except CausalRiskError:  # the sample itself separates
            return {}


def coverage(kind, sims, jobs=1):
    """Return coverage and mean half width by cell, estimator and kind of error, with Monte Carlo errors.

    Parameters
    ----------
    kind : {"clusters", "rows", "surveys"}
        The study.
    sims, jobs : int
        Samples of each cell, and processes.
    """
    make, cells = CELLS[kind]
    lines = []
    for place, cell in enumerate(cells):
        seeds = [[11, place, number] for number in range(sims)]
        for found in Parallel(jobs)(delayed(_one)(make, cell, seed) for seed in seeds):
            for estimator, kinds in found.items():
                for error, (covered, half) in kinds.items():
                    lines.append((*cell, estimator, error, covered, half))
    names = {"clusters": ["clusters", "equal"], "rows": ["n"], "surveys": ["strata"]}[kind]
    frame = pd.DataFrame(lines, columns=[*names, "estimator", "error", "covered", "half width"])
    by = frame.groupby([*names, "estimator", "error"], sort=False)
    table = by.agg(samples=("covered", "size"), coverage=("covered", "mean"), width=("half width", "median"))
    table["MC error"] = np.sqrt(table.coverage * (1 - table.coverage) / table.samples)
    return table.reset_index()


def sizes(sims, jobs=1):
    """Return how often joint and simultaneous tests at 5% reject where no arm has an effect."""
    lines = []
    for arms in (3, 5):
        for n in (100, 300, 1000):
            seeds = [[13, arms, n, number] for number in range(sims)]
            found = Parallel(jobs)(delayed(_tests)(arms, n, seed) for seed in seeds)
            frame = pd.DataFrame([line for part in found for line in part], columns=["test", "rejected"])
            for test, own in frame.groupby("test", sort=False):
                share = own.rejected.mean()
                lines.append((arms, n, test, len(own), share, np.sqrt(share * (1 - share) / len(own))))
    return pd.DataFrame(lines, columns=["arms", "n", "test", "samples", "size", "MC error"])


def _tests(arms, n, seed):
    """Tests that no arm has an effect, on one sample in which none has and the outcome model is wrong."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    d = (rng.random(n)[:, None] > expit(np.linspace(-1, 1, arms + 1)[1:-1] * 2 + 0.4 * x[:, None])).sum(axis=1)
    data = pd.DataFrame({"y": x + 0.5 * x**2 + rng.normal(size=n), "x": x, "d": d})
    lines = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = OutcomeRegression.from_formula(FORMULA, data, treat="d", reference=0)
            fits = {
                "robust": model.fit(), "HC1, t": model.fit(cov_type="HC1", use_t=True),
                "jackknife, t": model.fit(cov_type="jackknife", use_t=True),
            }  # fmt: skip
        except CausalRiskError:
            return []
        for name, res in fits.items():
            effects = " = ".join([*res.params.index[: arms - 1], "0"])
            test = res.wald_test(", ".join(f"{effect} = 0" for effect in res.params.index[: arms - 1]))
            lines.append((f"Wald, {name}", bool(test.pvalue < 0.05)))
            pairs = res.pairwise(against="reference", adjust="single-step")
            lines.append((f"single-step, {name}", bool(pairs.iloc[:, -3].min() < 0.05)) if effects else None)
    return lines


def main(arguments=None):
    """Run a study and store its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=[*CELLS, "tests"])
    parser.add_argument("--sims", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    made = sizes if options.study == "tests" else lambda *of: coverage(options.study, *of)
    table = made(options.sims, options.jobs)
    table.to_csv(TABLES / f"small_{options.study}.csv", index=False, float_format="%.4f")
    print(table.to_string())


if __name__ == "__main__":
    main()

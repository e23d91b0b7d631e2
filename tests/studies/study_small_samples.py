"""Coverage of 95% intervals with few clusters, rows, or units of a survey, or many columns; and sizes of joint tests.

Run  python -m tests.studies.study_small_samples clusters  (or assigned, overlap, rows, columns, intervals, surveys,
tests) from the root of a copy of the source. It stores the table that the pages on small samples, standard errors and
surveys show; `--sims` says how many samples.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from causalrisk import AIPW, IPWRA, JRE, CausalRiskError, OutcomeRegression, Survey
from causalrisk.inference import simultaneous

TABLES = Path(__file__).parent / "tables"
ESTIMATORS = {
    "IPWRA": (IPWRA, "all"), "IPWRA, treated": (IPWRA, "treated"), "AIPW": (AIPW, "all"), "JRE": (JRE, "all")
}  # fmt: skip
REPLICATES = 60  # of JRE, so that thousands of samples take minutes
SIZE = 20  # rows of a cluster, on average
UNITS, ROWS = 20, 30  # of a stratum in the population, and of a unit

# The errors that are compared: options of `fit`, and the kind of interval.
USUAL = {
    "jackknife, t": ({"cov_type": "jackknife", "use_t": True}, None),
    "multiplier": ({"bootstrap": "multiplier", "n_boot": 399}, "studentized"),
}
OF_CLUSTERS = {
    "z": ({"cov_type": "cluster"}, None),
    "t, factor": ({"cov_type": "cluster", "small_sample": True, "use_t": True}, None),
    **USUAL,
}
OF_ROWS = {
    "z": ({"cov_type": "robust"}, None),
    "z, factor": ({"cov_type": "HC1"}, None),
    "t, factor": ({"cov_type": "HC1", "use_t": True}, None),
    **USUAL,
}
OF_ALL = {
    "robust": {"cov_type": "robust"},
    "HC1, t": {"cov_type": "HC1", "use_t": True},
    "jackknife, t": {"cov_type": "jackknife", "use_t": True},
    "bootstrap": {"n_boot": 199},
}
OF_SURVEYS = {
    "design, z": ({"use_t": False}, None),
    "design, t": ({}, None),
    "rescaled bootstrap, t": ({"n_boot": 99}, None),
}


def expit(values):
    return 1 / (1 + np.exp(-values))


def clusters(count, equal, assigned, rng, size=SIZE):
    """Rows in clusters whose outcomes and effects share an error; the mean effect is 1.

    Parameters
    ----------
    count : int
        Clusters.
    equal : bool
        Whether all have `size` rows; else sizes are exponential, five or more.
    assigned : bool
        Whether the treatment is assigned to half of the clusters; else it is each row's own.
    rng : Generator
        Source of randomness.
    size : int
        Rows of a cluster, on average.
    """
    sizes = np.full(count, size)
    if not equal:
        sizes = np.maximum(5, np.round(size * rng.gamma(1.0, 1.0, count))).astype(int)
    g, n = np.repeat(np.arange(count), sizes), int(sizes.sum())
    u, v, c = rng.normal(size=(3, count))
    x1, x2 = 0.6 * c[g] + 0.8 * rng.normal(size=n), rng.normal(size=n)
    d = (rng.random(n) < expit(0.5 * x1 + 0.3 * x2)).astype(int)
    if assigned:
        d = (rng.permutation(count) < count // 2).astype(int)[g]
    y = x1 + 0.5 * x2 + 0.5 * u[g] + d * (1 + 0.5 * v[g]) + rng.normal(size=n)
    return pd.DataFrame({"y": y, "d": d, "x1": x1, "x2": x2, "g": g})


def rows(n, rng):
    """Independent rows whose errors grow with a covariate; the effect is 1."""
    x1, x2 = rng.normal(size=(2, n))
    d = (rng.random(n) < expit(0.5 * x1)).astype(int)
    y = x1 + 0.5 * x2 + d + rng.normal(size=n) * (1 + 0.3 * np.abs(x1))
    return pd.DataFrame({"y": y, "d": d, "x1": x1, "x2": x2})


def population(strata, rng):
    """A finite population: strata of 20 units of 30 rows, with effects that differ between strata and units."""
    of_stratum, of_unit = rng.normal(size=strata), rng.normal(size=(strata, UNITS))
    s = np.repeat(np.arange(strata), UNITS * ROWS)
    u = np.tile(np.repeat(np.arange(UNITS), ROWS), strata)
    x1, x2 = rng.normal(size=(2, len(s))) + 0.5 * of_stratum[s]
    d = (rng.random(len(s)) < expit(0.5 * x1 + 0.3 * of_unit[s, u])).astype(int)
    y = x1 + 0.5 * x2 + of_stratum[s] + 0.5 * of_unit[s, u] + rng.normal(size=len(s))
    y += d * (1 + 0.3 * of_stratum[s] + 0.8 * of_unit[s, u])
    return pd.DataFrame({"y": y, "d": d, "x1": x1, "x2": x2, "stratum": s, "unit": u, "units": UNITS})


def drawn(everybody, rng):
    """Draw two units of each stratum, and of these 6 to 15 rows."""
    parts = []
    for stratum, own in everybody.groupby("stratum"):
        for unit in rng.choice(UNITS, 2, replace=False):
            taken = 6 + 3 * (stratum % 4)
            found = own[own.unit == unit].sample(taken, random_state=rng)
            parts.append(found.assign(w=UNITS / 2 * ROWS / taken, both=stratum * UNITS + unit))
    return pd.concat(parts, ignore_index=True)


def intervals(model, kinds, truth, joint):
    """Return, for each kind of error that there is, whether its interval holds the truth, and its half width.

    Parameters
    ----------
    model : CausalModel
        The model.
    kinds : dict of str to tuple
        Options of `fit` and of `conf_int`, by the name of the error.
    truth : float
        The effect.
    joint : bool
        Whether it is JRE's.
    """
    found, more = {}, {"n_replicates": REPLICATES} if joint else {}
    for kind, (options, method) in kinds.items():
        try:
            low, high = model.fit(**options, **more).conf_int(method=method).iloc[0]
        except CausalRiskError:
            continue
        found[kind] = (bool(low <= truth <= high), (high - low) / 2)
    return found


def of_estimators(data, kinds, truths, **options):
    """Intervals of every estimator on one sample."""
    return {
        name: intervals(
            estimator.from_formula("y ~ x1 + x2", data, treat="d", target=target, **options),
            kinds, truths if isinstance(truths, float) else truths[name], estimator is JRE,
        )
        for name, (estimator, target) in ESTIMATORS.items()
    }  # fmt: skip


def of_clusters(count, equal, seed):
    """Intervals where each row has its own treatment."""
    return of_estimators(clusters(count, equal, False, np.random.default_rng(seed)), OF_CLUSTERS, 1.0, cluster="g")


def of_assigned(count, size, equal, seed):
    """Intervals where whole clusters were assigned, half of them to each arm."""
    data = clusters(count, equal, True, np.random.default_rng(seed), size)
    model = IPWRA.from_formula("y ~ x1 + x2", data, treat="d", cluster="g", propensity="x2")
    kinds = {kind: OF_CLUSTERS[kind] for kind in ("z", "t, factor", "jackknife, t")}
    return {"IPWRA": intervals(model, kinds, 1.0, False)}


def of_overlap(slope, square, n, seed):
    """Intervals where the score's slope is given and the outcome formula may miss a square.

    The names of the errors say whether the weights leave at least half of the rows of every arm.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    d = (rng.random(n) < expit(slope * x)).astype(int)
    data = pd.DataFrame({"y": d + x + square * x**2 + rng.normal(size=n), "d": d, "x": x})
    kinds = {kind: OF_ROWS[kind] for kind in ("z", "jackknife, t")}
    weights = IPWRA.from_formula("y ~ x", data, treat="d").fit().overlap()
    half = "half" if (weights["effective n"] / weights["n"]).min() >= 0.5 else "less"
    found = {}
    for model in (IPWRA, AIPW):
        made = intervals(model.from_formula("y ~ x", data, treat="d"), kinds, 1.0, False)
        found[model.spec.name] = {f"{kind}, {half}": value for kind, value in made.items()}
    return found


def of_rows(n, seed):
    """Intervals of independent rows."""
    return of_estimators(rows(n, np.random.default_rng(seed)), OF_ROWS, 1.0)


def of_columns(covariates, seed):
    """Intervals of 200 rows where the outcome has more and more covariates, of which two matter."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, covariates))
    d = (rng.random(200) < expit(0.5 * x[:, 0])).astype(int)
    names = [f"x{k}" for k in range(1, covariates + 1)]
    data = pd.DataFrame(x, columns=names).assign(d=d, y=x[:, 0] + 0.5 * x[:, 1] + d + rng.normal(size=200))
    given = {"formula": "y ~ " + " + ".join(names), "data": data, "treat": "d", "propensity": "d ~ x1 + x2"}
    kinds = {kind: OF_ROWS[kind] for kind in ("z", "t, factor", "jackknife, t")}
    return {model.spec.name: intervals(model.from_formula(**given), kinds, 1.0, False) for model in (IPWRA, AIPW)}


def of_intervals(covariates, square, n, seed):
    """Intervals of the estimators and the stack: many covariates and fair overlap, or three and poor overlap."""
    score, outcome = np.zeros((2, covariates))
    if covariates == 3:
        score[:], outcome[:], key = (2.2, 0.66, 0.0), (1.0, 0.5, 0.0), (2200, 7 + square)
    else:
        score[:6], outcome[:10], key = 0.8 / np.sqrt(6), 1 / np.sqrt(10), (1000 * covariates, n)
    rng = np.random.default_rng([*key, seed[-1], 99])
    x = rng.normal(size=(n, covariates))
    d = (rng.random(n) < expit(x @ score)).astype(int)
    y = d + x @ outcome + square * (x[:, 0] ** 2 - 1) + rng.normal(size=n)
    names = [f"x{k}" for k in range(covariates)]
    given = {
        "formula": "y ~ " + " + ".join(names),
        "data": pd.DataFrame(x, columns=names).assign(y=y, d=d),
        "treat": "d",
    }
    models = {model.spec.name: model.from_formula(**given) for model in (IPWRA, AIPW, JRE)}
    models["JRE, stack"] = JRE.from_formula(**given, learner="smooth")
    kinds = {kind: (options, None) for kind, options in OF_ALL.items()}
    return {name: intervals(model, kinds, 1.0, False) for name, model in models.items()}


POPULATIONS = {}  # by number of strata: the population, and the effect in it by each estimator


def of_surveys(strata, seed):
    """Intervals of a sample of a finite population, by its design, and by weights and units alone."""
    if strata not in POPULATIONS:
        everybody, truths = population(strata, np.random.default_rng([7, strata])), {}
        for name, (estimator, target) in ESTIMATORS.items():
            plain = IPWRA if estimator is JRE else estimator
            truths[name] = plain.from_formula("y ~ x1 + x2", everybody, treat="d", target=target).fit().effect
        POPULATIONS[strata] = everybody, truths
    everybody, truths = POPULATIONS[strata]
    data = drawn(everybody, np.random.default_rng(seed))
    design = Survey(weights="w", strata="stratum", psu="unit", fpc="units", nest=True)
    weights = {"weights": "w", "weight_type": "probability"}
    parts = [
        of_estimators(data, {"weights alone, z": ({"cov_type": "robust"}, None)}, truths, **weights),
        of_estimators(data, {"clusters, z": ({"cov_type": "cluster"}, None)}, truths, cluster="both", **weights),
        of_estimators(data, OF_SURVEYS, truths, design=design),
    ]
    return {name: {kind: value for part in parts for kind, value in part[name].items()} for name in ESTIMATORS}


SIZES = [(count, equal) for count in (6, 12, 30) for equal in (True, False)]
ASSIGNED = [(6, 20, True), (8, 15, True), (12, 20, True), (12, 20, False), (30, 20, True), (30, 20, False)]
SLOPES = [(2.2, 1, 100), (2.2, 1, 300), (2.2, 0, 300), (1.2, 1, 100), (1.2, 1, 300), (0.5, 1, 100), (0.5, 1, 300)]
CELLS = {
    "clusters": (of_clusters, ["clusters", "equal"], SIZES),
    "assigned": (of_assigned, ["clusters", "size", "equal"], ASSIGNED),
    "overlap": (of_overlap, ["slope", "square", "n"], SLOPES),
    "rows": (of_rows, ["n"], [(30,), (40,), (60,)]),
    "columns": (of_columns, ["covariates"], [(10,), (20,), (30,), (40,), (60,)]),
    "intervals": (of_intervals, ["covariates", "square", "n"], [(40, 0, 200), (40, 0, 400), (3, 0, 300), (3, 1, 300)]),
    "surveys": (of_surveys, ["strata"], [(6,), (12,), (30,)]),
}


def quietly(make, *arguments):
    """Call a function without warnings; nothing where the sample itself separates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return make(*arguments)
        except CausalRiskError:
            return {}


def coverage(kind, sims, jobs=1):
    """Return coverage and median half width by cell, estimator and kind of error, with Monte Carlo errors.

    Parameters
    ----------
    kind : str
        A name of `CELLS`.
    sims, jobs : int
        Samples of each cell, and processes.
    """
    (make, names, cells), lines = CELLS[kind], []
    for place, cell in enumerate(cells):
        work = (delayed(quietly)(make, *cell, [11, place, number]) for number in range(sims))
        for found in Parallel(jobs)(work):
            for estimator, kinds in found.items():
                lines += [(*cell, estimator, error, *value) for error, value in kinds.items()]
    frame = pd.DataFrame(lines, columns=[*names, "estimator", "error", "covered", "half width"])
    by = frame.groupby([*names, "estimator", "error"], sort=False)
    table = by.agg(samples=("covered", "size"), coverage=("covered", "mean"), width=("half width", "median"))
    return table.assign(mc_error=np.sqrt(table.coverage * (1 - table.coverage) / table.samples)).reset_index()


def rejections(arms, n, seed):
    """Tests at 5% that no arm has an effect, on a sample in which none has and the outcome model is wrong."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    cuts = expit(np.linspace(-2, 2, arms + 1)[1:-1] + 0.4 * x[:, None])
    d = (rng.random(n)[:, None] > cuts).sum(axis=1)
    data = pd.DataFrame({"y": x + 0.5 * x**2 + rng.normal(size=n), "x": x, "d": d})
    model, found = OutcomeRegression.from_formula("y ~ x", data, treat="d", reference=0), {}
    for name, options in {
        "robust": {}, "HC1, t": {"cov_type": "HC1", "use_t": True},
        "jackknife, t": {"cov_type": "jackknife", "use_t": True},
    }.items():  # fmt: skip
        res = model.fit(**options)
        null = ", ".join(f"{effect} = 0" for effect in res.params.index[: arms - 1])
        found[f"Wald, {name}"] = bool(res.wald_test(null).pvalue < 0.05)
        with mock.patch.object(simultaneous, "POINTS", 13):  # whether a p-value is below 0.05 needs four digits
            pairs = res.pairwise(against="reference", adjust="single-step")
        found[f"single-step, {name}"] = bool(pairs["adjusted P"].min() < 0.05)
        found[f"unadjusted, {name}"] = bool(res.pvalues.iloc[: arms - 1].min() < 0.05)
    return found


def sizes(sims, jobs=1):
    """Return how often joint and simultaneous tests at 5% reject where no arm has an effect."""
    lines = []
    for arms in (3, 5):
        for n in (100, 300, 1000):
            work = (delayed(quietly)(rejections, arms, n, [13, arms, n, number]) for number in range(sims))
            frame = pd.DataFrame([found for found in Parallel(jobs)(work) if found])
            lines += [(arms, n, test, len(frame), frame[test].mean()) for test in frame]
    table = pd.DataFrame(lines, columns=["arms", "n", "test", "samples", "rejected"])
    return table.assign(mc_error=np.sqrt(table.rejected * (1 - table.rejected) / table.samples))


def main(arguments=None):
    """Run a study and store its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=[*CELLS, "tests"])
    parser.add_argument("--sims", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--tables", type=Path, default=TABLES)
    options = parser.parse_args(arguments)
    path, sample = options.tables / f"small_{options.study}.csv", (options.sims, options.jobs)
    stored = pd.read_csv(path)["samples"].max() if path.exists() else 0
    if options.sims < stored:
        parser.error(f"{path} has {stored} samples of each cell; use --sims {stored}, or --tables with another folder")
    table = sizes(*sample) if options.study == "tests" else coverage(options.study, *sample)
    table.to_csv(path, index=False, float_format="%.4f")
    print(table.to_string())


if __name__ == "__main__":
    main()

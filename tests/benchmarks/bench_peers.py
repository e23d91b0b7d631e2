"""Time and memory of fits against other packages, all in one run: `python -m tests.benchmarks.bench_peers`.

From arrays, or the data frame where a package takes nothing else, to the effect and its standard error, making the
model included. Each fit runs in a process of its own, forked once all packages are imported, the packages in turn and
over again, so that the ratios to IPWRA share the state of the machine. Times are those of the processor, on one thread,
medians over the turns. Where two packages have the same estimator their effects must agree, or the run ends with an
error. A package that is missing is said and skipped, and so is a fit that the size before says would take too long.
`--figure FILE` draws time against rows. `simulation.competitors` is not what is timed here: it makes this package's
design on the way to the others.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from statsmodels.api import OLS, Logit
from statsmodels.treatment.treatment_effects import TreatmentEffect

import causalrisk as cr
from tests.conftest import simulate
from tests.studies.readme_figure import STYLE

SIZES = (1_000, 10_000, 100_000, 1_000_000)
COVARIATES = 6
TAKEN = 5  # covariates beside the constant: statsmodels' aipw_wls and ipw_ra take just six coefficients
N_BOOT = 199
TURNS, LONGEST = 5, 60.0  # turns, and seconds that a fit may take
REPEATS, ENOUGH = 5, 0.1  # further fits in the process of a case that took fewer seconds
SLOW = 10_000  # rows up to which fits are run that are slow, and no line of the figure
DIGITS = 1e-6  # relative difference allowed between effects of the same estimator


class Data(NamedTuple):
    """Outcome, treatment, covariates with a constant, and a data frame of the same."""

    y: np.ndarray
    d: np.ndarray
    X: np.ndarray
    frame: pd.DataFrame

    def head(self, n):
        """Return the first rows."""
        return Data(*(part[:n] for part in self))


def seconds_of(function, repeats=1):
    """Shortest time of several calls, and the last value."""
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        value = function()
        times.append(time.process_time() - begun)
    return min(times), value


def peak_memory():
    """Largest resident memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def statsmodels_effect(y, d, X):
    """Make statsmodels' treatment effect of given rows, its Logit included."""
    return TreatmentEffect(OLS(y, X), d, results_select=Logit(d, X).fit(disp=0))


def rhs_of(frame):
    """Right-hand side of the formulas."""
    return " + ".join(frame.columns.drop(["y", "d"]))


def fit_causalrisk(name, data, **options):
    """Effect and standard error of an estimator of this package."""
    res = getattr(cr, name)(data.y, data.X, data.d).fit(**(options or {"cov_type": "robust"}), rng=0)
    return res.params["ATE"], res.bse["ATE"]


def fit_statsmodels(method, data):
    """Effect and standard error of a method of statsmodels' TreatmentEffect."""
    row = getattr(statsmodels_effect(data.y, data.d, data.X), method)(disp=False).summary_frame().iloc[0]
    return row["coef"], row["std err"]


def fit_doubleml(data):
    """Effect and standard error of DoubleML's interactive regression, five folds."""
    from doubleml import DoubleMLData, DoubleMLIRM
    from sklearn.linear_model import LinearRegression, LogisticRegression

    rows = DoubleMLData.from_arrays(data.X[:, 1:], data.y, data.d)
    res = DoubleMLIRM(rows, LinearRegression(), LogisticRegression(C=np.inf), n_folds=5).fit()
    return res.coef[0], res.se[0]


def fit_aiptw(data):
    """Effect and standard error of zEpid's AIPTW, with a linear model for each arm."""
    from zepid.causal.doublyrobust import AIPTW

    res, rhs = AIPTW(data.frame, exposure="d", outcome="y"), rhs_of(data.frame)
    res.exposure_model(rhs, print_results=False)
    res.outcome_model(f"d * ({rhs})", print_results=False)
    res.fit()
    return res.average_treatment_effect, res.average_treatment_effect_se


def fit_iptw(data):
    """Effect and standard error of zEpid's IPTW, by GEE; the weights count as known."""
    from zepid.causal.ipw import IPTW

    res = IPTW(data.frame, treatment="d", outcome="y")
    res.treatment_model(rhs_of(data.frame), print_results=False)
    res.marginal_structural_model("d")
    res.fit()
    return res.average_treatment_effect.loc["d", ["ATE", "SE(ATE)"]]


def refit(data, rows):
    """statsmodels' point estimate on some rows."""
    return statsmodels_effect(data.y[rows], data.d[rows], data.X[rows]).ipw_ra(return_results=False)[0]


def fit_loop(data):
    """Effect and bootstrap standard error of statsmodels' ipw_ra, by a loop with joblib."""
    from joblib import Parallel, delayed

    rng, n = np.random.default_rng(0), len(data.y)
    resamples = (rng.integers(0, n, n) for _ in range(N_BOOT))
    effects = Parallel(n_jobs=1)(delayed(refit)(data, rows) for rows in resamples)
    return refit(data, np.arange(n)), np.std(effects, ddof=1)


class Case(NamedTuple):
    """A fit; `same` is shared by those whose effects must agree; `shown` is its line in the figure."""

    fit: Callable
    same: str | None = None
    covariates: int = COVARIATES
    largest: int = SIZES[-1]
    shown: str = ""


CASES = {  # the packages in turn
    "causalrisk IPWRA": Case(partial(fit_causalrisk, "IPWRA"), "weighted regressions", shown="C0o-"),
    "causalrisk IPW": Case(partial(fit_causalrisk, "IPW"), "weighted means"),
    "statsmodels ipw": Case(partial(fit_statsmodels, "ipw"), "weighted means", shown="C1s--"),
    "zEpid IPTW": Case(fit_iptw, "weighted means", largest=SLOW),
    "causalrisk OutcomeRegression": Case(partial(fit_causalrisk, "OutcomeRegression"), "regressions"),
    "statsmodels ra": Case(partial(fit_statsmodels, "ra"), "regressions", largest=SLOW),
    "causalrisk AIPW": Case(partial(fit_causalrisk, "AIPW"), "augmented", shown="C0^-"),
    "statsmodels aipw": Case(partial(fit_statsmodels, "aipw"), "augmented", shown="C1^--"),
    "zEpid AIPTW": Case(fit_aiptw, "augmented", shown="C2^--"),
    "DoubleML IRM, 5 folds": Case(fit_doubleml, shown="C3D--"),
    f"causalrisk IPWRA, p = {TAKEN}": Case(partial(fit_causalrisk, "IPWRA"), "fewer covariates", TAKEN),
    f"statsmodels ipw_ra, p = {TAKEN}": Case(partial(fit_statsmodels, "ipw_ra"), "fewer covariates", TAKEN, SLOW),
    f"statsmodels aipw_wls, p = {TAKEN}": Case(partial(fit_statsmodels, "aipw_wls"), None, TAKEN, SLOW),
    "causalrisk JRE": Case(partial(fit_causalrisk, "JRE"), "JRE", shown="k*-"),
    "causalrisk JRE, 999 resamples": Case(partial(fit_causalrisk, "JRE", n_boot=999), "JRE", shown="k.:"),
    f"causalrisk IPWRA, {N_BOOT} resamples": Case(
        partial(fit_causalrisk, "IPWRA", n_boot=N_BOOT), "weighted regressions", largest=SLOW
    ),
    f"joblib, {N_BOOT} x statsmodels ipw_ra": Case(fit_loop, "weighted regressions", largest=SLOW),
}


def simulated(n, p):
    """Rows of a size with some covariates."""
    frame = simulate(n, p, seed=1)
    y, d = frame.y.to_numpy(), frame.d.to_numpy()
    return Data(y, d, np.column_stack([np.ones(n), frame.drop(columns=["y", "d"])]), frame)


def measure(fit, data, told):
    """Tell seconds, megabytes above the data, effect and standard error of a case; or why there are none."""
    warnings.simplefilter("ignore")  # deprecations, and Nelder-Mead that ran out of iterations
    fit(data.head(500))  # warm up: memory of code that the fork has not read yet is not that of the fit
    before = peak_memory()
    seconds, (effect, error) = seconds_of(lambda: fit(data))
    memory = peak_memory() - before
    if seconds < ENOUGH:
        seconds = min(seconds, seconds_of(lambda: fit(data), REPEATS)[0])
    told.send({"seconds": seconds, "memory": memory, "effect": float(effect), "error": float(error)})


def forked(label, data):
    """Measure a case in a process of its own."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=measure, args=(CASES[label].fit, data, there))
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()


def missing():
    """Import what the cases need; why some cannot be run."""
    data, found = {p: simulated(500, p) for p in (COVARIATES, TAKEN)}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for label, case in CASES.items():
            try:
                case.fit(data[case.covariates])
            except ImportError as reason:
                found[label] = f"not run: {reason}"
    return found


def turns(n, labels):
    """Measure cases of a size in turn; the median seconds of each, and its largest memory."""
    data, found = {p: simulated(n, p) for p in (COVARIATES, TAKEN)}, {label: [] for label in labels}
    for _ in range(TURNS):
        for label, rows in found.items():
            rows.append(forked(label, data[CASES[label].covariates]))
    return {
        label: rows[0]
        | {
            "seconds": float(np.median([row["seconds"] for row in rows])),
            "memory": max(row["memory"] for row in rows),
        }
        for label, rows in found.items()
    }


def check(found):
    """Refuse effects that differ where the estimator is the same."""
    first = {}
    for label, row in found.items():
        same = CASES[label].same
        if same:
            ours, effect = first.setdefault(same, (label, row["effect"]))
            if not abs(row["effect"] / effect - 1) < DIGITS:
                raise AssertionError(f"{label} has the effect {row['effect']}, {ours} has {effect}")


def show(n, found, notes):
    """Print the table of a size."""
    unit = found["causalrisk IPWRA"]["seconds"]
    print(f"n = {n:<36}{'seconds':>9}{'over IPWRA':>12}{'MB':>7}{'effect':>10}{'std err':>10}")
    for label in CASES:
        if label in notes:
            print(f"  {label:38}  {notes[label]}")
            continue
        row = found[label]
        numbers = f"{row['seconds']:9.3f}{row['seconds'] / unit:12.2f}"
        print(f"  {label:38}{numbers}{row['memory']:7.0f}{row['effect']:10.5f}{row['error']:10.5f}", flush=True)


def draw(path, found):
    """Draw seconds against rows on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(7.6, 3.9), layout="constrained")
        for label, case in CASES.items():
            points = [(n, rows[label]["seconds"]) for n, rows in found.items() if label in rows]
            if case.shown and points:
                ax.loglog(*zip(*points, strict=True), case.shown, ms=5, lw=1.2, label=label)
        ax.set_xlabel("rows, six covariates")
        ax.set_title("Seconds of a processor, effect and standard error", loc="left")
        figure.legend(loc="outside right center", frameon=False, fontsize=9)
        figure.savefig(path, dpi=150, metadata={"Software": None})


def main():
    """Measure each size, print its table, and draw all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="rows of the largest size")
    parser.add_argument("--longest", type=float, default=LONGEST, help="seconds that a fit may take")
    parser.add_argument("--figure", help="file of the picture")
    args = parser.parse_args()
    notes, all_found = missing(), {}
    for n in [size for size in SIZES if size <= args.largest]:
        notes |= {label: "not run" for label, case in CASES.items() if label not in notes and n > case.largest}
        found = all_found[n] = turns(n, [label for label in CASES if label not in notes])
        check(found)
        show(n, found, notes)
        late = {label: row for label, row in found.items() if row["seconds"] * SIZES[1] / SIZES[0] > args.longest}
        notes |= {label: f"not run: {row['seconds']:.2g} s for {n:,} rows" for label, row in late.items()}
    if args.figure:
        draw(args.figure, all_found)


if __name__ == "__main__":
    main()

"""Time and memory of fits against other packages, all in one run: `python -m tests.benchmarks.bench_peers`.

From arrays, or the data frame where a package takes nothing else, to the effect and its standard error, making the
model included. Each fit runs in a process of its own, the packages in turn and over again, so that the ratios to IPWRA
share the state of the machine. Times are those of the processor, on one thread. Where two packages have the same
estimator their effects must agree, or the run ends with an error. A package that is missing is said and skipped.
`simulation.competitors` is not what is timed here: it makes this package's design on the way to the others.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import causalrisk as cr
from tests.benchmarks.bench_bootstrap import peak_memory, seconds_of, statsmodels_effect
from tests.conftest import simulate

SIZES = (1_000, 100_000, 1_000_000)
COVARIATES = 6
TAKEN = 5  # covariates beside the constant: statsmodels' aipw_wls and ipw_ra take just six coefficients
N_BOOT = 199
MINUTES = 100_000  # rows up to which fits are run that take minutes at the largest size
REPEATS, ENOUGH = 5, 1.0  # further fits in the process of a case that took fewer seconds
ROUNDS, LONG = 3, 5.0  # rounds over the cases, but one only for those that took more seconds
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
    """A fit; `same` is shared by those whose effects must agree."""

    fit: Callable
    same: str | None = None
    largest: int = SIZES[-1]
    covariates: int = COVARIATES


CASES = {  # the packages in turn
    "causalrisk IPWRA": Case(partial(fit_causalrisk, "IPWRA"), "weighted regressions"),
    "causalrisk Hajek": Case(partial(fit_causalrisk, "Hajek"), "weighted means"),
    "statsmodels ipw": Case(partial(fit_statsmodels, "ipw"), "weighted means"),
    "zEpid IPTW": Case(fit_iptw, "weighted means"),
    "causalrisk OutcomeRegression": Case(partial(fit_causalrisk, "OutcomeRegression"), "regressions"),
    "statsmodels ra": Case(partial(fit_statsmodels, "ra"), "regressions"),
    "causalrisk AIPW": Case(partial(fit_causalrisk, "AIPW"), "augmented"),
    "statsmodels aipw": Case(partial(fit_statsmodels, "aipw"), "augmented", MINUTES),
    "zEpid AIPTW": Case(fit_aiptw, "augmented"),
    "DoubleML IRM, 5 folds": Case(fit_doubleml),
    f"causalrisk IPWRA, p = {TAKEN}": Case(partial(fit_causalrisk, "IPWRA"), "fewer covariates", covariates=TAKEN),
    f"statsmodels ipw_ra, p = {TAKEN}": Case(partial(fit_statsmodels, "ipw_ra"), "fewer covariates", MINUTES, TAKEN),
    f"statsmodels aipw_wls, p = {TAKEN}": Case(partial(fit_statsmodels, "aipw_wls"), None, MINUTES, TAKEN),
    "causalrisk JRE": Case(partial(fit_causalrisk, "JRE"), largest=MINUTES),
    f"causalrisk IPWRA, n_boot={N_BOOT}": Case(
        partial(fit_causalrisk, "IPWRA", n_boot=N_BOOT), "weighted regressions", SIZES[0]
    ),
    f"joblib, {N_BOOT} x statsmodels ipw_ra": Case(fit_loop, "weighted regressions", SIZES[0]),
}


def write(path, n, p):
    """Write the rows of a size, so that reading them takes no more memory than they do."""
    frame = simulate(n, p, seed=1)
    X = np.column_stack([np.ones(n), frame.drop(columns=["y", "d"])])
    np.savez(path, y=frame.y.to_numpy(), d=frame.d.to_numpy(), X=X)


def read(path):
    """Read the rows of a size."""
    with np.load(path) as file:
        y, d, X = file["y"], file["d"], file["X"]
    frame = pd.DataFrame(X[:, 1:], columns=[f"x{j}" for j in range(1, X.shape[1])])
    return Data(y, d, X, frame.assign(y=y, d=d))


def measure(fit, path):
    """Seconds, megabytes above the data, effect and standard error of a case; or why there are none."""
    data = read(path)
    warnings.simplefilter("ignore")  # deprecations, and Nelder-Mead that ran out of iterations
    try:
        fit(data.head(500))  # warm up
    except ImportError as reason:
        return {"note": f"not run: {reason}"}
    before = peak_memory()
    seconds, (effect, error) = seconds_of(lambda: fit(data), clock=time.process_time)
    memory = peak_memory() - before
    if seconds < ENOUGH:
        seconds = min(seconds, seconds_of(lambda: fit(data), REPEATS, time.process_time)[0])
    return {"seconds": seconds, "memory": memory, "effect": float(effect), "error": float(error)}


def rounds(n, folder):
    """Measure every case of a size in processes of their own, several times; the best of each."""
    paths = {p: Path(folder) / f"{n}_{p}.npz" for p in (COVARIATES, TAKEN)}
    for p, path in paths.items():
        write(path, n, p)
    found = {}
    for _ in range(ROUNDS):
        for label, case in CASES.items():
            last = found.get(label, {"seconds": 0.0})
            if n > case.largest or last.get("seconds", LONG) >= LONG:  # without seconds it is missing
                continue
            own = ["--case", label, "--path", str(paths[case.covariates])]
            command = [sys.executable, "-m", "tests.benchmarks.bench_peers", *own]
            now = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            found[label] = now if label not in found or now["seconds"] < last["seconds"] else last
    return found


def check(found):
    """Refuse effects that differ where the estimator is the same."""
    first = {}
    for label, case in CASES.items():
        if case.same and "effect" in found.get(label, {}):
            ours, effect = first.setdefault(case.same, (label, found[label]["effect"]))
            if not abs(found[label]["effect"] / effect - 1) < DIGITS:
                raise AssertionError(f"{label} has the effect {found[label]['effect']}, {ours} has {effect}")


def main():
    """Measure each size and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="rows of the largest size")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(CASES[args.case].fit, args.path)))
        return
    for n in [size for size in SIZES if size <= args.largest]:
        with tempfile.TemporaryDirectory() as folder:
            found = rounds(n, folder)
        print(f"n = {n:<36}{'seconds':>9}{'over IPWRA':>12}{'MB':>7}{'effect':>10}{'std err':>10}")
        for label, row in found.items():
            if "note" in row:
                print(f"  {label:38}  {row['note']}", flush=True)
                continue
            numbers = f"{row['seconds']:9.3f}{row['seconds'] / found['causalrisk IPWRA']['seconds']:12.2f}"
            numbers += f"{row['memory']:7.0f}{row['effect']:10.5f}{row['error']:10.5f}"
            print(f"  {label:38}{numbers}", flush=True)
        check(found)


if __name__ == "__main__":
    main()

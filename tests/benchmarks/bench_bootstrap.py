"""Time and memory of the bootstrap against loops of statsmodels fits: `python -m tests.benchmarks.bench_bootstrap`.

Each size runs in a process of its own, everything that is compared within the same one. Loops that would take too long
are timed for a part and scaled up; how much was timed is printed. The loops of Logit fits stand for the propensity part
alone: they leave out the outcome models, and so flatter themselves.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
from statsmodels.api import OLS, Logit
from statsmodels.treatment.treatment_effects import TreatmentEffect

import causalrisk as cr
from tests.conftest import simulate

COVARIATES = {1_000: 5, 10_000: 10, 100_000: 20}  # 5 and the constant: statsmodels' ipw_ra takes just six coefficients
N_REPLICATES = 200
STATSMODELS_SINGLE = 100_000  # rows up to which statsmodels' minutes of Nelder-Mead are waited for


def seconds_of(function, repeats=1, clock=time.perf_counter):
    """Shortest time of several calls, and the last value."""
    times = []
    for _ in range(repeats):
        begun = clock()
        value = function()
        times.append(clock() - begun)
    return min(times), value


def seconds_per_fit(fits, count, budget):
    """Mean time of the steps of an iterator, at most `count` of them and about `budget` seconds.

    Parameters
    ----------
    fits : iterator
        A fit a step.
    count : int
        Steps wanted.
    budget : float
        Seconds after which no further step is begun.

    Returns
    -------
    seconds : float
        Mean time.
    done : int
        Steps timed.
    """
    begun, done = time.perf_counter(), 0
    while done < count and time.perf_counter() - begun < budget:
        next(fits)
        done += 1
    return (time.perf_counter() - begun) / done, done


def plain_loop(d, X, rng):
    """Logit fits to resamples: all that the propensity part needs."""
    while True:
        rows = rng.integers(0, len(d), len(d))
        yield Logit(d[rows], X[rows]).fit(disp=0)


def statsmodels_effect(y, d, X):
    """Make statsmodels' treatment effect of given rows, its Logit included."""
    return TreatmentEffect(OLS(y, X), d, results_select=Logit(d, X).fit(disp=0))


def bootstrap_loop(y, d, X, method, rng):
    """statsmodels' point estimate on resamples."""
    while True:
        rows = rng.integers(0, len(d), len(d))
        yield getattr(statsmodels_effect(y[rows], d[rows], X[rows]), method)(return_results=False)


def machine_rates(clock=time.perf_counter):
    """Floating-point operations a second of matrix products, and exponentials a second."""
    a, x = np.random.default_rng(0).normal(size=(1000, 1000)), np.linspace(-5, 5, 100_000)
    gemm, exponentials = seconds_of(lambda: np.dot(a, a), 7, clock)[0], seconds_of(lambda: np.exp(x), 50, clock)[0]
    return 2e9 / gemm, len(x) / exponentials


def newton_iterations(record, m=32):
    """Newton iterations that a block of refits of the propensity model takes."""
    n = record.sample.n
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=m).T.astype(float)
    return record.weight_fit.refit(weights).iterations


def work(record, n_boot):
    """Operations of the dominant products of a fit, and its exponentials.

    Parameters
    ----------
    record : FitRecord
        A fit of the Joint Robust Estimator with logit replicates.
    n_boot : int
        Resamples.

    Returns
    -------
    flops, exponentials : float
        Floating-point operations and exponentials.
    """
    sample, count = record.sample, record.joint.replicates.count
    n, p, q = sample.n, sample.X.columns.shape[1], sample.Z.columns.shape[1]
    steps = newton_iterations(record)
    newton = steps * 2 * n * (2 * q + q * (q + 1) // 2)  # linear predictor, score, information
    replicate = newton + 2 * n * (3 * q + (p + 1) + (q + 3 * p))  # shift; forms; moments of the estimating equations
    rows = count + 2 * p
    resample = newton + 2 * n * q
    resample += 2 * n * count * (p + 1)  # forms of the biases
    resample += n * p * (p + 1) + 3 * n * p * (p + 1)  # Gram matrices of the fit and of the variance
    resample += 4 * n * p  # fitted means
    resample += 2 * rows * (2 * p + 1) ** 2  # QR
    return float(count * replicate + n_boot * resample), float(n * (count * (steps + 4) + n_boot * (steps + 1)))


def peak_memory():
    """Largest resident memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def joint_case(frame, formula, n_boot, repeats):
    """Time and memory of the joint fit, and its distance to the rates of the machine."""
    model = cr.JRE.from_formula(formula, frame, treat="d")
    before = peak_memory()
    fit = lambda: model.fit(n_replicates=N_REPLICATES, n_boot=n_boot)  # noqa: E731
    first, res = seconds_of(fit)
    found = {"memory": peak_memory() - before}
    found["jre"] = min([first, *(seconds_of(fit)[0] for _ in range(repeats - 1))])
    gemm, exponentials = machine_rates()
    flops, exps = work(res._record, n_boot)
    return found | {
        "gemm": flops / gemm,
        "exp": exps / exponentials,
        "gemm_rate": gemm / 1e9,
        "exp_rate": exponentials / 1e6,
    }


def case(n, n_boot, budget):
    """Measure one size.

    Parameters
    ----------
    n : int
        Rows.
    n_boot : int
        Resamples of every bootstrap.
    budget : float
        Seconds for each loop.

    Returns
    -------
    dict
        Seconds, megabytes and counts.
    """
    frame = simulate(n, COVARIATES[n], seed=1)
    rhs = " + ".join(f"x{j + 1}" for j in range(COVARIATES[n]))
    formula, repeats = f"y ~ {rhs}", 3 if n <= 1_000 else 1
    cr.JRE.from_formula("y ~ x1", simulate(200, 2), treat="d").fit(n_boot=32, n_replicates=N_REPLICATES)  # warm up
    found = {"n": n, "n_boot": n_boot} | joint_case(frame, formula, n_boot, repeats)
    y, d = frame.y.to_numpy(), frame.d.to_numpy()
    X = np.column_stack([np.ones(n), frame.iloc[:, 2:]])
    rng = np.random.default_rng(0)
    plain, found["plain_done"] = seconds_per_fit(plain_loop(d, X, rng), 50, budget)
    found["plain"] = plain * (n_boot + N_REPLICATES)
    for model, method in ((cr.IPWRA, "ipw_ra"), (cr.AIPW, "aipw")):
        ours = model.from_formula(formula, frame, treat="d")
        name = model.__name__
        found[f"{name}_robust"] = seconds_of(lambda ours=ours: ours.fit(cov_type="robust"), 3)[0]
        boot = lambda ours=ours: ours.fit(cov_type="bootstrap", n_boot=n_boot)  # noqa: E731
        found[f"{name}_bootstrap"] = seconds_of(boot, repeats)[0]
        each, found[f"{name}_done"] = seconds_per_fit(bootstrap_loop(y, d, X, method, rng), 20, budget)
        found[f"{name}_loop"] = each * n_boot
        found[f"{name}_single"] = single_seconds(y, d, X, method)
    return found


def single_seconds(y, d, X, method):
    """Time of statsmodels' single fit with its standard errors; None where it raises or is not waited for."""
    if len(d) > STATSMODELS_SINGLE or (method == "ipw_ra" and X.shape[1] != 6):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Nelder-Mead says that it ran out of iterations
        return seconds_of(lambda: getattr(statsmodels_effect(y, d, X), method)(disp=False))[0]


def joint_rows(found):
    """Rows of the table of the joint fit."""
    floor, jre = found["gemm"] + found["exp"], found["jre"]
    yield f"JRE, {N_REPLICATES} replicates, {found['n_boot']} resamples", jre, None, f"{found['memory']:.0f} MB"
    yield "  matrix products at the machine's rate", found["gemm"], None, f"{found['gemm_rate']:.1f} GFlop/s"
    yield "  exponentials at the machine's rate", found["exp"], None, f"{found['exp_rate']:.0f} M/s"
    yield "  floor, the sum of both", floor, None, f"JRE takes {jre / floor:.1f} x the floor"
    n_fits = found["n_boot"] + N_REPLICATES
    yield f"loop of {n_fits} Logit fits", found["plain"], jre, f"{found['plain_done']} timed"


def separate_rows(found, name):
    """Rows of the table of IPWRA or AIPW."""
    robust, boot, single = (found[f"{name}_{kind}"] for kind in ("robust", "bootstrap", "single"))
    yield f"{name}, robust", robust, None, ""
    note = "" if single else "raises" if name == "IPWRA" and COVARIATES[found["n"]] != 5 else "not run"
    yield "  statsmodels' single fit", single, robust, note
    yield f"{name}, bootstrap of {found['n_boot']}", boot, None, ""
    yield "  loop over statsmodels' point estimate", found[f"{name}_loop"], boot, f"{found[f'{name}_done']} timed"


def main():
    """Measure each size in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two small sizes, short loops")
    parser.add_argument("--budget", type=float, default=40.0, help="seconds for each loop of statsmodels fits")
    parser.add_argument("--case", type=int, choices=COVARIATES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    budget = min(args.budget, 5.0) if args.quick else args.budget
    if args.case:
        print(json.dumps(case(args.case, 499 if args.case >= 100_000 else 999, budget)))
        return
    quick = ["--quick"] if args.quick else []
    print(f"{'':47}{'seconds':>10}{'ratio':>9}")
    for n in list(COVARIATES)[: 2 if args.quick else 3]:
        command = [sys.executable, "-m", "tests.benchmarks.bench_bootstrap", "--case", str(n), *quick]
        done = subprocess.run([*command, "--budget", str(args.budget)], stdout=subprocess.PIPE, check=True)
        found = json.loads(done.stdout)
        threads = os.environ["OPENBLAS_NUM_THREADS"]
        print(f"n = {n}, {COVARIATES[n]} covariates and a constant, {threads} BLAS thread(s)")
        for label, seconds, ours, note in (
            *joint_rows(found),
            *separate_rows(found, "IPWRA"),
            *separate_rows(found, "AIPW"),
        ):
            time_text = "" if seconds is None else f"{seconds:.4g}"
            ratio = "" if seconds is None or ours is None else f"{seconds / ours:.1f}"
            print(f"  {label:45}{time_text:>10}{ratio:>9}  {note}".rstrip(), flush=True)


if __name__ == "__main__":
    main()

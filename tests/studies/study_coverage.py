"""Simulated coverage of 95% intervals: `python -m tests.studies.study_coverage --sims 500 --jobs 2`.

Every standard error is computed on the same samples. Those that the package does not offer are candidates for a
small-sample correction of the robust standard error of the Joint Robust Estimator.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread a process; must be set before numpy loads

import argparse
import functools
import multiprocessing
import time
import warnings

import numpy as np
import pandas as pd

import causalrisk as cr
from causalrisk.estimation.record import robust_covariance
from tests.conftest import LALONDE_RHS
from tests.studies.designs import RHS, kang_schafer, lalonde_redrawn, mild, strong

DESIGNS = {"mild": mild, "strong": strong, "kang_schafer": kang_schafer, "lalonde_redrawn": lalonde_redrawn}
BLOCK = 64  # leave-one-out fits at a time
GROUPS = 100  # of the grouped jackknife


def weighted_leverage(columns, weights):
    """Diagonal of the hat matrix of a weighted regression.

    Parameters
    ----------
    columns : ndarray, shape (n, p)
        Regressors.
    weights : ndarray, shape (n,)
        Weights.

    Returns
    -------
    ndarray, shape (n,)
        Leverages; they sum to p.
    """
    return (np.linalg.qr(columns * np.sqrt(weights)[:, None])[0] ** 2).sum(axis=1)


def separate_leverage(record):
    """Leverages of each row in the weighted regression of its own arm and in the propensity model.

    Parameters
    ----------
    record : FitRecord
        A fit.

    Returns
    -------
    outcome, propensity : ndarray, shape (n,)
        Leverages, rows in the order of the sample.
    """
    sample, fit = record.sample, record.weight_fit
    arms = [weighted_leverage(sample.X.columns[rows], fit.w[rows]) for rows in sample.slices]
    score = fit.probabilities[1]
    return np.concatenate(arms), weighted_leverage(sample.Z.columns, score * (1 - score))


def jackknife_se(record, groups=None, seed=0):
    """Jackknife standard error of the effect: every step redone without each row, or each random group of rows.

    Parameters
    ----------
    record : FitRecord
        A fit without observation weights.
    groups : int, optional
        Number of groups; by default every row is one.
    seed : int, default 0
        Seed of the grouping.

    Returns
    -------
    float
        Standard error.
    """
    n = record.sample.n
    group = np.arange(n) if groups is None else np.random.default_rng(seed).permutation(n) % groups
    total, refitter = int(group.max()) + 1, record.estimate.rows
    parts = []
    for first in range(0, total, BLOCK):
        left_out = np.arange(first, min(first + BLOCK, total))
        parts.append(refitter.refit((group[:, None] != left_out).astype(float)).values[:, 0])
    values = np.concatenate(parts)
    return float(np.sqrt((total - 1) * np.nanvar(values)))


def inflated_se(record, leverage, power=1.0):
    """Robust standard error of the effect with each influence value over (1 - leverage)^power, times n / (n - 1).

    Parameters
    ----------
    record : FitRecord
        A fit without observation weights.
    leverage : ndarray, shape (n,)
        Leverages below 1.
    power : float, default 1.0
        1 as in HC3, 0.5 as in HC2.

    Returns
    -------
    float
        Standard error.
    """
    n = record.sample.n
    influence = record.estimate.influence[:, 0] * n / (n - 1) / (1 - np.minimum(leverage, 0.99)) ** power
    return float(np.linalg.norm(influence) / n)


def standard_errors(record, quick=False):
    """All standard errors of the effect of a bootstrapped fit.

    Parameters
    ----------
    record : FitRecord
        The fit.
    quick : bool, default False
        Whether to do without the jackknife of single rows, which takes most of the time.

    Returns
    -------
    dict
        Standard errors by name.
    """
    outcome, propensity = separate_leverage(record)
    largest = np.maximum(outcome, propensity)
    found = {
        "bootstrap": np.sqrt(record.covariance[0, 0]),
        "robust": np.sqrt(robust_covariance(record, False)[0, 0]),
        "HC1 (n - 2p)": np.sqrt(robust_covariance(record, True)[0, 0]),
        "HC2, max h": inflated_se(record, largest, 0.5),
        "HC3, max h": inflated_se(record, largest),
        "HC3, h <= 0.5": inflated_se(record, np.minimum(largest, 0.5)),
        "HC3, product": inflated_se(record, 1 - (1 - outcome) * (1 - propensity)),
    }
    if not quick:
        found["jackknife"] = jackknife_se(record)
    found[f"jackknife, {GROUPS} groups"] = jackknife_se(record, GROUPS)
    return found


def one_sample(number, design, args):
    """Fit both estimators to one simulated sample.

    Parameters
    ----------
    number : int
        Number of the sample, which with the seed of the study makes its own.
    design : str
        A key of `DESIGNS`.
    args : Namespace
        Command line.

    Returns
    -------
    list of dict
        For each estimator and standard error the error of the estimate and the standard error; empty if a fit was
        refused.
    """
    rng = np.random.default_rng([args.seed, number])
    options = {"strength": args.strength} if design == "strong" else {}
    frame, effect = DESIGNS[design](args.n, rng, **options)
    formula = f"y ~ {LALONDE_RHS if design == 'lalonde_redrawn' else RHS}"
    joint = {"n_replicates": args.n_replicates, "objective": args.objective}
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)  # overlap and Monte Carlo error, sample after sample
        for model, more in ((cr.IPWRA, {}), (cr.JRE, joint)):
            fitted = model.from_formula(formula, frame, treat="d")
            try:
                res = fitted.fit(bootstrap="pairs", n_boot=args.n_boot, rng=number, max_failed=0.5, **more)
            except cr.CausalRiskError:  # separation, too many failures: such a sample counts for neither estimator
                return []
            for name, se in standard_errors(res._record, args.quick).items():
                rows.append({"estimator": model.__name__, "se": name, "error": res.effect - effect, "value": se})
    return rows


def resampled_error(statistic, *columns, draws=400, seed=0):
    """Monte Carlo error of a statistic of paired columns, by resampling the samples.

    Parameters
    ----------
    statistic : callable
        Columns of shape (m, draws) -> values, shape (draws,).
    *columns : ndarray, shape (m,)
        Paired values of the samples.
    draws : int, default 400
        Resamples.
    seed : int, default 0
        Seed of the resamples.

    Returns
    -------
    float
        Standard deviation of the statistic over the resamples.
    """
    picked = np.random.default_rng(seed).integers(0, len(columns[0]), size=(len(columns[0]), draws))
    return float(np.std(statistic(*(column[picked] for column in columns)), ddof=1))


def se_over_sd(se, error):
    """Mean standard error over the standard deviation of the estimates."""
    return se.mean(axis=0) / error.std(axis=0, ddof=1)


def mse_ratio(error, reference):
    """Mean squared error relative to that of the reference."""
    return (error**2).mean(axis=0) / (reference**2).mean(axis=0)


def table(found):
    """Summarise the samples of one design.

    Parameters
    ----------
    found : DataFrame
        Rows of `one_sample`.

    Returns
    -------
    DataFrame
        A row for each estimator and standard error, as text, Monte Carlo errors in parentheses.
    """
    reference = found[(found.estimator == "IPWRA") & (found.se == "robust")].error.to_numpy()
    rows = []
    for (estimator, name), part in found.groupby(["estimator", "se"], sort=False):
        error, se = part.error.to_numpy(), part.value.to_numpy()
        covered, ratio = np.mean(np.abs(error) <= 1.959964 * se), mse_ratio(error, reference)
        rows.append(
            {
                "estimator": estimator,
                "standard error": name,
                "coverage": f"{covered:.3f} ({np.sqrt(covered * (1 - covered) / len(se)):.3f})",
                "SE / SD": f"{se_over_sd(se, error):.3f} ({resampled_error(se_over_sd, se, error):.3f})",
                "bias": f"{error.mean():+.4f}",
                "RMSE": f"{np.sqrt(np.mean(error**2)):.4f}",
                "MSE / IPWRA": f"{ratio:.3f} ({resampled_error(mse_ratio, error, reference):.3f})",
            }
        )
    return pd.DataFrame(rows)


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sims", type=int, default=500, help="samples of each design")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--n", type=int, default=500, help="rows of a sample")
    parser.add_argument("--n-boot", type=int, default=299)
    parser.add_argument("--n-replicates", type=int, default=200)
    parser.add_argument("--objective", choices=("risk", "erm"), default="risk")
    parser.add_argument("--strength", type=float, default=1.0, help="of the confounding in the strong design")
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=["mild", "strong"])
    parser.add_argument("--quick", action="store_true", help="without the jackknife of single rows")
    parser.add_argument("--seed", type=int, default=20251218)
    return parser.parse_args()


def main():
    """Run the study and print a table for each design."""
    args = arguments()
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for design in args.designs:
            begun = time.perf_counter()
            work = functools.partial(one_sample, design=design, args=args)
            samples = pool.map(work, range(args.sims), chunksize=5)
            seconds = time.perf_counter() - begun
            strength = f" (strength {args.strength:g})" if design == "strong" else ""
            print(
                f"\n{design}{strength}: n={args.n}, {args.sims} samples ({samples.count([])} refused), "
                f"n_boot={args.n_boot}, n_replicates={args.n_replicates}, objective={args.objective!r};\n"
                f"data of sample i from default_rng([{args.seed}, i]), fits with rng=i; {seconds:.0f} s"
            )
            print(table(pd.DataFrame([row for rows in samples for row in rows])).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()

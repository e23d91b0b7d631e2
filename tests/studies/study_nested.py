"""Shifted against nested replicates in the bootstrap: `python -m tests.studies.study_nested`.

Both fits get the same outer resamples, so that their standard errors differ by the treatment of the propensity
replicates alone.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import itertools
import time
import warnings

import numpy as np
import pandas as pd

import causalrisk as cr
from tests.studies.designs import RHS, kang_schafer, lalonde, lalonde_redrawn, strong

DESIGNS = {"strong": strong, "kang_schafer": kang_schafer, "lalonde_redrawn": lalonde_redrawn, "lalonde614": None}


def effects(frame, rhs, resamples, kind, objective, n_replicates, seed):
    """Bootstrapped effects under given outer resamples.

    Parameters
    ----------
    frame : DataFrame
        The data.
    rhs : str
        Covariates of both models.
    resamples : ndarray, shape (n, n_boot)
        Multiplicities.
    kind : {"shifted", "nested"}
        How the resamples get their propensity replicates.
    objective : {"risk", "erm"}
        What is minimised.
    n_replicates : int
        Propensity replicates.
    seed : int
        Seed of the replicates.

    Returns
    -------
    values : ndarray, shape (n_boot,)
        Effects; NaN where a resample failed.
    seconds : float
        Time taken.
    """
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        res = cr.JRE.from_formula(f"y ~ {rhs}", frame, treat="d").fit(
            resamples=resamples,
            objective=objective,
            n_replicates=n_replicates,
            bootstrap_replicates=kind,
            rng=seed,
            max_failed=0.5,
        )
    return res._record.boot.values[:, 0], time.perf_counter() - begun


def log_ratio(pairs):
    """Log of the standard error of the second column over that of the first; pairs, shape (n_boot, 2)."""
    sd = pairs.std(axis=0, ddof=1)
    return np.log(sd[1] / sd[0])


def compare(name, frames, rhs, args, objective):
    """Compare the two bootstraps on the samples of one design.

    Parameters
    ----------
    name : str
        Name of the design.
    frames : list of DataFrame
        Its samples; each gets resamples and propensity replicates of its own.
    rhs : str
        Covariates of both models.
    args : Namespace
        Command line.
    objective : {"risk", "erm"}
        What is minimised.

    Returns
    -------
    dict
        A row of the table, as text.
    """
    ratios, seconds, failed, correlations = [], np.zeros(2), 0, []
    for number, frame in enumerate(frames):
        rng = np.random.default_rng([args.seed, number, 1])
        n = len(frame)
        resamples = rng.multinomial(n, np.full(n, 1 / n), size=args.n_boot).T
        fits = [effects(frame, rhs, resamples, k, objective, args.n_replicates, number) for k in ("nested", "shifted")]
        pairs = np.column_stack([values for values, _ in fits])
        seconds += [taken for _, taken in fits]
        failed += int(np.isnan(pairs).any(axis=1).sum())
        pairs = pairs[~np.isnan(pairs).any(axis=1)]
        ratios.append(log_ratio(pairs))
        correlations.append(np.corrcoef(pairs.T)[0, 1])
    ratio, spread = np.exp(np.mean(ratios)), np.std(ratios, ddof=1)
    return {
        "design": name,
        "objective": objective,
        "samples": len(frames),
        "SE shifted / nested": f"{ratio:.3f} ({ratio * spread / np.sqrt(len(frames)):.3f})",
        "range": f"{np.exp(min(ratios)):.3f} .. {np.exp(max(ratios)):.3f}",
        "correlation": f"{np.mean(correlations):.3f}",
        "failed": failed,
        "time nested / shifted": f"{seconds[0] / seconds[1]:.0f}",
    }


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=10, help="samples of each simulated design")
    parser.add_argument("--sets", type=int, default=10, help="sets of resamples and replicates of LaLonde's data")
    parser.add_argument("--n", type=int, default=500, help="rows of a simulated sample")
    parser.add_argument("--n-boot", type=int, default=300)
    parser.add_argument("--n-replicates", type=int, default=100)
    parser.add_argument("--objectives", nargs="+", choices=("risk", "erm"), default=["risk", "erm"])
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=["strong", "kang_schafer", "lalonde614"])
    parser.add_argument("--seed", type=int, default=20251218)
    return parser.parse_args()


def main():
    """Run the study and print its table."""
    args = arguments()
    begun = time.perf_counter()
    rows = []
    for objective, design in itertools.product(args.objectives, args.designs):
        name, rhs = f"{design}, n={args.n}", lalonde()[1] if design.startswith("lalonde") else RHS
        if design == "lalonde614":
            name, frames = design, [lalonde()[0]] * args.sets
        else:
            frames = [DESIGNS[design](args.n, np.random.default_rng([args.seed, i]))[0] for i in range(args.samples)]
        rows.append(compare(name, frames, rhs, args, objective))
    print(
        f"n_boot={args.n_boot}, n_replicates={args.n_replicates}; data of sample i from default_rng([{args.seed}, i]), "
        f"resamples from default_rng([{args.seed}, i, 1]), fits with rng=i; {time.perf_counter() - begun:.0f} s\n"
        "Ratios are geometric means over the samples, Monte Carlo errors in parentheses from the spread between them."
    )
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()

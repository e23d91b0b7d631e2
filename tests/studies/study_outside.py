"""Benchmarks that others made: `python -m tests.studies.study_outside --data FOLDER`.

Nie and Wager's setups and DoubleML's interactive model are drawn here. Samples of IHDP, of ACIC 2016 and 2017 and of
RealCause's PSID come from a folder that `tests/studies/outside_samples.R` writes; its head says from what. Any folder
in it with files of columns y, d, tau (the expected effect of the row) and covariates is a benchmark.

Main effects of all covariates are in both models. Rows are the estimators' errors over those of IPWRA on the same
samples. `--store FOLDER` keeps each finished group of estimators. DoubleML takes `pip install doubleml lightgbm`;
without it its rows are left out, and a line says so.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread a process; must be set before numpy loads
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from causalrisk.simulation.designs import Design, Draw, Population
from causalrisk.simulation.results import StudyResults, mse_ratio
from causalrisk.simulation.study import choose_estimators, run_samples
from tests.studies.competitors import cross_fitted, doubleml_irm
from tests.studies.groups import run_in_groups
from tests.studies.study_robust import joint

DRAWN = 500  # rows of the benchmarks that are drawn
EFFECTS = {"A": 0.5, "B": 0.80605918, "C": 1.0, "D": 0.12679872}  # E log(1 + exp Z), (sqrt 3 - sqrt 2) / sqrt(2 pi)
SEED = 0


@dataclass(frozen=True)
class NieWager(Design):
    """A setup of Nie and Wager (2021, Biometrika 108): six covariates, of which one has no part, noise of variance 1.

    Parameters
    ----------
    setup : {"A", "B", "C", "D"}
        A: hard score, easy effect; B: a trial; C: logit score, bent outcome; D: unrelated arms.
    """

    setup: str

    @property
    def name(self):
        """Name in tables."""
        return f"Nie-Wager {self.setup}"

    @property
    def formula(self):
        """Main effects."""
        return "y ~ x1 + x2 + x3 + x4 + x5 + x6"

    @property
    def effect(self):
        """True average effect."""
        return EFFECTS[self.setup]

    def population(self, n, rng):
        """Draw units; see `Design.population`."""
        x = rng.uniform(size=(n, 6)) if self.setup == "A" else rng.normal(size=(n, 6))
        x1, x2, x3, x4, x5, _ = x.T
        if self.setup == "A":
            wave = np.sin(np.pi * x1 * x2)
            score, effect = np.clip(wave, 0.1, 0.9), (x1 + x2) / 2
            base = wave + 2 * (x3 - 0.5) ** 2 + x4 + x5 / 2
        elif self.setup == "B":
            score, effect = np.full(n, 0.5), x1 + np.logaddexp(0, x2)
            base = np.maximum(np.maximum(0, x1 + x2), x3) + np.maximum(0, x4 + x5)
        elif self.setup == "C":
            score, effect = expit(-(x2 + x3)), np.ones(n)
            base = 2 * np.logaddexp(0, x1 + x2 + x3)
        else:
            first, second = np.maximum(x1 + x2 + x3, 0), np.maximum(x4 + x5, 0)
            score, effect, base = 1 / (1 + np.exp(-x1) + np.exp(-x2)), first - second, (first + second) / 2
        columns = pd.DataFrame(x, columns=[f"x{j + 1}" for j in range(6)])
        return Population(columns, score, base + np.array([[-0.5], [0.5]]) * effect, np.ones((2, n)))


@dataclass(frozen=True)
class InteractiveModel(Design):
    """`make_irm_data` of DoubleML with 20 covariates, effect 1/2 and both R^2 1/2: both models are right."""

    n_covariates: int = 20
    effect = 0.5

    @property
    def name(self):
        """Name in tables."""
        return "make_irm_data"

    @property
    def formula(self):
        """Main effects."""
        return "y ~ " + " + ".join(f"x{j + 1}" for j in range(self.n_covariates))

    def population(self, n, rng):
        """Draw units; see `Design.population`."""
        numbers = np.arange(1, self.n_covariates + 1)
        covariance, slopes = 0.5 ** np.abs(numbers[:, None] - numbers), 1 / numbers**2
        x = rng.multivariate_normal(np.zeros(self.n_covariates), covariance, n)
        index = x @ slopes / np.sqrt(slopes @ covariance @ slopes)  # variance 1; both R^2 are 1/2
        mean = np.stack([np.zeros(n), 0.5 + index])
        columns = pd.DataFrame(x, columns=[f"x{j}" for j in numbers])
        return Population(columns, expit(np.pi / np.sqrt(3) * index), mean, np.ones((2, n)))


@dataclass(frozen=True)
class Stored(Design):
    """A sample of a file, in standard deviations of its outcome and with its mean effect taken off the treated.

    Estimators of linear models move with such a shift, so that the effect is 0 in every sample.
    """

    file: Path

    @property
    def name(self):
        """Name of the benchmark."""
        return self.file.parent.name.replace("_", " ")

    @cached_property
    def frame(self):
        """Columns y, d, covariates."""
        data = pd.read_csv(self.file)
        shifted = data["y"] - data["tau"].mean() * data["d"]
        return data.drop(columns="tau").assign(y=shifted / data["y"].std())

    @property
    def formula(self):
        """Main effects of all covariates."""
        return "y ~ " + " + ".join(self.frame.columns.drop(["y", "d"]))

    def draw(self, n, rng):
        """Return the sample."""
        unknown = np.full(len(self.frame), np.nan)
        return Draw(self.frame, unknown, unknown, unknown)

    effect = 0.0
    efficiency_bound = np.nan


def run_stored(samples, estimators, n_jobs=1, progress=False, n_sims=None):
    """Fit estimators to samples of files.

    Parameters
    ----------
    samples : sequence of Stored
        The samples, benchmark by benchmark.
    estimators, n_jobs, progress
        As in `run_study`.
    n_sims : int, optional
        Fit the first so many of each benchmark only. A sample keeps its number.

    Returns
    -------
    StudyResults
        A design a benchmark.
    """
    numbered = [list(group) for _, group in groupby(enumerate(samples), key=lambda item: item[1].name)]
    chosen = [(sample, len(sample.frame), number) for group in numbered for number, sample in group[:n_sims]]
    raw = run_samples(chosen, choose_estimators(estimators), 0, SEED, n_jobs, progress)
    return StudyResults(raw, tuple({sample.name: sample for sample in samples}.values()), "IPWRA", SEED, 0)


def entropy_balancing(trial):
    """Difference of means under the weights of least entropy that give each arm the covariate means of the sample.

    Parameters
    ----------
    trial : Trial
        The sample.

    Returns
    -------
    estimate, se : float
        Effect; no standard error.
    """
    design = trial.model().design
    x = design.X[:, np.ptp(design.X, axis=0) > 0]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    means = []
    for arm in (0, 1):
        own, y = x[design.arm == arm], design.y[design.arm == arm]

        def dual(c, own=own):
            total = logsumexp(own @ c)
            return total, own.T @ np.exp(own @ c - total)

        with np.errstate(over="ignore", invalid="ignore"):  # where no weights balance, the steps grow without end
            fit = minimize(dual, np.zeros(x.shape[1]), jac=True, method="BFGS", options={"maxiter": 2000})
        if not np.abs(fit.jac).max() < 1e-3:  # nor where it is no number
            raise RuntimeError(f"no weights balance arm {arm}")
        means.append(np.exp(own @ fit.x - logsumexp(own @ fit.x)) @ y)
    return means[1] - means[0], np.nan


def boosted_irm(trial):
    """Interactive regression model of DoubleML with boosted trees: LightGBM, 120 trees of 8 leaves, slow learning."""
    from lightgbm import LGBMClassifier, LGBMRegressor

    trees = {"n_estimators": 120, "num_leaves": 8, "learning_rate": 0.03}
    trees |= {"n_jobs": 1, "verbose": -1, "random_state": SEED}
    return cross_fitted(trial, LGBMRegressor(**trees), LGBMClassifier(**trees))


def estimator_groups(n_replicates):
    """Groups of estimators; DoubleML's are left out where it or its learner is not installed."""
    groups = {"usual": {name: name for name in ("OutcomeRegression", "IPWRA", "AIPW")}, **joint(n_replicates)}
    groups["usual"]["EB"] = entropy_balancing
    if find_spec("doubleml") and find_spec("lightgbm"):
        groups["doubleml"] = {"IRM linear": doubleml_irm, "IRM boosted": boosted_irm}
    else:
        print("Without DoubleML's estimators: type  pip install doubleml lightgbm.")
    return groups


def compared(study):
    """Errors beside those of IPWRA, losses of JRE first.

    Parameters
    ----------
    study : StudyResults
        A design a benchmark.

    Returns
    -------
    DataFrame
        A row a benchmark and estimator: `StudyResults.table`, root mean squared error and mean absolute error over
        those of IPWRA on the same samples (`rmse_ratio`, `absolute_ratio`), and their Monte Carlo errors.
    """
    table = study.table
    table["rmse_ratio"] = np.sqrt(table["mse_ratio"])
    table["rmse_ratio_mc"] = table["mse_ratio_mc"] / 2 / table["rmse_ratio"]
    for design, n, errors, _ in study.cells():
        roots = np.sqrt(errors.abs())
        for label in errors:
            ratio = mse_ratio(roots[label].to_numpy(), roots["IPWRA"].to_numpy())
            table.loc[(design.name, n, label), ["absolute_ratio", "absolute_ratio_mc"]] = ratio
    table = table.reset_index()
    losses = table[table["estimator"] == "JRE"].set_index("design")["rmse_ratio"]
    return table.sort_values("design", key=lambda names: -names.map(losses), kind="stable", ignore_index=True)


def wide(table, column):
    """A column as text with its Monte Carlo error, a row a benchmark and a column an estimator."""
    text = ["" if np.isnan(v) else f"{v:.2f} ({mc:.2f})" for v, mc in table[[column, f"{column}_mc"]].to_numpy()]
    cells = table.assign(text=text).pivot(index="design", columns="estimator", values="text")
    cells = cells.loc[table["design"].unique(), table["estimator"].unique()]
    cells.insert(0, "samples", table.groupby("design")["samples"].max())
    return cells


def run_benchmarks(groups, args):
    """Fit groups of estimators to the benchmarks that are drawn and to those of a folder.

    Parameters
    ----------
    groups : mapping of str to estimators
        As in `run_in_groups`.
    args : Namespace
        Command line.

    Returns
    -------
    StudyResults
        A design a benchmark.
    """
    options = {"n_jobs": args.jobs, "progress": True}
    drawn = [*(NieWager(setup) for setup in EFFECTS), InteractiveModel()]
    studies = [run_in_groups(drawn, groups, args.store, n=DRAWN, n_sims=args.sims, **options)]
    if args.data:
        stored = [Stored(file) for file in sorted(args.data.glob("*/*.csv.gz"))]
        studies.append(run_in_groups(stored, groups, args.store, run=run_stored, n_sims=args.stored, **options))
    designs = tuple(design for study in studies for design in study.designs)
    return StudyResults(pd.concat([study.raw for study in studies]), designs, "IPWRA", SEED, 0)


def parser_of(description):
    """Command line of a study of benchmarks."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder that outside_samples.R wrote; by default what is drawn only")
    parser.add_argument("--sims", type=int, default=100, help="samples of each benchmark that is drawn")
    parser.add_argument("--stored", type=int, help="samples of each benchmark of the folder; by default all")
    parser.add_argument("--n-replicates", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--store", type=Path, help="folder for finished studies")
    parser.add_argument("--table", type=Path, help="file for the table, in tests/studies/tables for instance")
    return parser


def main():
    """Print the tables."""
    args = parser_of(__doc__).parse_args()
    table = compared(run_benchmarks(estimator_groups(args.n_replicates), args))
    if args.table:
        table.to_csv(args.table, index=False, float_format="%.6g")
    print(f"Errors over those of IPWRA, JRE with {args.n_replicates} replicates")
    for column in ("rmse_ratio", "absolute_ratio", "coverage"):
        print(f"\n{column}\n{wide(table, column).to_string()}")


if __name__ == "__main__":
    main()

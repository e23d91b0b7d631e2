"""Cross-fitted learners: `python -m tests.studies.study_learners benchmarks --data FOLDER`, or `coverage`.

The first are the benchmarks of `study_outside`, main effects in both formulas, errors over those of IPWRA on the same
samples. Each learner is used in three ways: its predictions join the terms of JRE (and of IPWRA), they are the outcome
model (AIPW, which then is the interactive regression model of DoubleML), and JRE averages the three fits. The fits of
DoubleML with the boosted trees take `pip install doubleml`; without it their rows are left out, and a line says so.

The second are designs with a smooth, a stepped and a high-dimensional truth, with robust standard errors and with those
of the bootstrap that keeps the predictions.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread a process; must be set before numpy loads
os.environ.setdefault("OMP_NUM_THREADS", "1")

from dataclasses import dataclass
from importlib.util import find_spec

import joblib
import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.linear_model import LogisticRegression

from causalrisk.learners.cross_fitting import of_scikit_learn
from causalrisk.simulation.designs import Design, Population
from tests.studies.averages import geometric_mean
from tests.studies.competitors import cross_fitted
from tests.studies.groups import run_in_groups
from tests.studies.study_coverage import mse_ratio, resampled_error
from tests.studies.study_outside import compared, parser_of, run_benchmarks, wide
from tests.studies.study_robust import joint

TAILS = "realcause psid"  # judged by its absolute errors: a few samples make its mean square
KEYS = ["design", "n", "estimator"]
SIZES = (200, 500, 2000)
KEPT = {}


class Remembered(RegressorMixin, BaseEstimator):
    """A learner whose fits are kept: estimators of one sample ask for the same ones, and get them for nothing.

    Parameters
    ----------
    learner : estimator
        The learner.
    """

    most = 100  # fits that are kept, those of a sample and a few more

    def __init__(self, learner):
        self.learner = learner

    def fit(self, X, y, sample_weight=None):
        """Fit, or take the fit to the same rows."""
        key = joblib.hash((repr(self.learner), np.asarray(X), np.asarray(y), sample_weight))
        if key not in KEPT:
            if len(KEPT) >= self.most:
                KEPT.clear()
            KEPT[key] = clone(self.learner).fit(X, y, sample_weight=sample_weight)
        self.fitted_ = KEPT[key]
        return self

    def predict(self, X):
        """Predictions."""
        return self.fitted_.predict(X)


def trees(classifier=False):
    """The package's boosted trees, with a seed."""
    return of_scikit_learn("hist-gradient-boosting", binary=classifier).set_params(random_state=0)


LEARNERS = {"boosting": Remembered(trees()), "smooth": "smooth"}


def boosted(trial):
    """DoubleML's model with the same trees for outcome and treatment."""
    return cross_fitted(trial, trees(), trees(classifier=True))


def boosted_with_logit(trial):
    """DoubleML's model with the same trees for the outcome and a logit for the treatment."""
    return cross_fitted(trial, trees(), LogisticRegression(C=np.inf, solver="newton-cholesky"))


def learner_groups(n_replicates):
    """Groups of estimators: those without learners, each learner's, both learners in one stack."""
    groups = {"usual": {"IPWRA": "IPWRA"}, "joint": joint(n_replicates)["joint"]}
    replicates = {"n_replicates": n_replicates}
    for name, learner in LEARNERS.items():
        groups[name] = {
            f"IPWRA + {name}": ("IPWRA", {"learner": learner}),
            f"JRE + {name}": ("JRE", {"learner": learner, "learner_use": "terms", **replicates}),
            f"{name} alone": ("AIPW", {"learner": learner}),
            f"JRE, stack of {name}": ("JRE", {"learner": learner, **replicates}),
        }
    groups["both"] = {"JRE, stack of both": ("JRE", {"learner": list(LEARNERS.values()), **replicates})}
    return groups


def with_doubleml(groups):
    """Add the fits of DoubleML, where it is installed."""
    if find_spec("doubleml"):
        return groups | {"doubleml": {"DoubleML": boosted, "DoubleML, logit score": boosted_with_logit}}
    print("Without DoubleML's fits: type  pip install doubleml.")
    return groups


def root_ratio(error, reference):
    """Root mean squared error relative to that of the reference."""
    return np.sqrt(mse_ratio(error, reference))


def absolute_ratio(error, reference):
    """Mean absolute error relative to that of the reference."""
    return np.abs(error).mean(axis=0) / np.abs(reference).mean(axis=0)


def with_resampled_errors(study):
    """Return `compared` with Monte Carlo errors of the ratios by resampling the samples."""
    rows = {}
    for design, n, errors, _ in study.cells():
        for label in errors:
            pair = errors[[label, "IPWRA"]].dropna().to_numpy().T
            rows[design.name, n, label] = [resampled_error(ratio, *pair) for ratio in (root_ratio, absolute_ratio)]
    table = compared(study)
    found = pd.MultiIndex.from_frame(table[KEYS])
    table[["rmse_ratio_mc", "absolute_ratio_mc"]] = [rows[key] for key in found]
    return table


def averages(table):
    """Geometric mean over the benchmarks and the worst of them, a row an estimator.

    Parameters
    ----------
    table : DataFrame
        Of `with_resampled_errors`.

    Returns
    -------
    DataFrame
        Columns mean, mean_mc, worst, worst_mc, of: geometric mean, worst and its benchmark; PSID counts by its absolute
        error.
    """
    tails = table["design"] == TAILS
    chosen = {end: table[f"rmse_ratio{end}"].where(~tails, table[f"absolute_ratio{end}"]) for end in ("", "_mc")}
    rows = {}
    for label, part in table.assign(ratio=chosen[""], ratio_mc=chosen["_mc"]).groupby("estimator", sort=False):
        mean, mean_mc = geometric_mean(part["ratio"].to_numpy(), part["ratio_mc"].to_numpy())
        worst = part.loc[part["ratio"].idxmax()]
        rows[label] = (mean, mean_mc, worst["ratio"], worst["ratio_mc"], worst["design"])
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "mean_mc", "worst", "worst_mc", "of"])


def benchmarks(args):
    """Print the benchmarks' tables."""
    table = with_resampled_errors(run_benchmarks(with_doubleml(learner_groups(args.n_replicates)), args))
    if args.table:
        table.to_csv(args.table, index=False, float_format="%.6g")
    settings = " ".join(repr(trees()).split())
    print(f"Errors over those of IPWRA, JRE with {args.n_replicates} replicates, boosting by {settings}")
    for column in ("rmse_ratio", "absolute_ratio", "coverage"):
        print(f"\n{column}\n{wide(table, column).T.to_string()}")
    print(f"\nOver the benchmarks, {TAILS} by its mean absolute error\n{averages(table).round(3).to_string()}")


@dataclass(frozen=True)
class Shaped(Design):
    """Normal covariates, a logit score, and outcomes of some shape: the effect is 1 on average.

    Parameters
    ----------
    shape : {"smooth", "stepped", "high-dimensional"}
        A wave and a square; four steps; or forty covariates with slopes 1, 1/4, 1/9, ... Main effects miss the first
        two, and the third has nearly as many columns as an arm of the smallest size has rows.
    """

    shape: str

    @property
    def name(self):
        """Name in tables."""
        return self.shape

    @property
    def n_covariates(self):
        """Number of covariates."""
        return 40 if self.shape == "high-dimensional" else 4

    @property
    def formula(self):
        """Main effects."""
        return "y ~ " + " + ".join(f"x{j + 1}" for j in range(self.n_covariates))

    effect = 1.0

    def population(self, n, rng):
        """Draw units; see `Design.population`."""
        x = rng.normal(size=(n, self.n_covariates))
        score = expit(0.8 * x[:, 0] + 0.4 * x[:, 1])
        if self.shape == "smooth":
            untreated, more = np.sin(2 * x[:, 0]) + x[:, 1] + 0.5 * (x[:, 2] ** 2 - 1), 0.5 * (x[:, 0] ** 2 - 1)
        elif self.shape == "stepped":
            steps = (x[:, :3] > [0.5, 0, -0.5]) - 0.5
            untreated, more = 2 * steps[:, 0] + steps[:, 1] + steps[:, 2], steps[:, 1]
        else:
            untreated, more = x @ (1 / np.arange(1, self.n_covariates + 1) ** 2), 0.5 * x[:, 0]
        columns = pd.DataFrame(x, columns=[f"x{j + 1}" for j in range(self.n_covariates)])
        return Population(columns, score, np.stack([untreated, untreated + 1 + more]), np.ones((2, n)))


SHAPES = ("smooth", "stepped", "high-dimensional")


def coverage(args):
    """Print coverage, and standard errors over the spread of the estimates."""
    designs, parts, groups = [Shaped(shape) for shape in SHAPES], [], learner_groups(args.n_replicates)
    if args.only:
        groups = {label: {label: own[label]} for own in groups.values() for label in own if label in args.only}
    for errors, n_boot in (("robust", 0), ("bootstrap", args.n_boot))[: 1 + (args.n_boot > 0)]:
        study = run_in_groups(
            designs, groups, args.store,
            n=args.n, n_sims=args.sims, n_boot=n_boot, n_jobs=args.jobs, progress=True,
        )  # fmt: skip
        parts.append(study.table.reset_index().assign(errors=errors))
    table = pd.concat(parts, ignore_index=True).drop(columns=["mse_over_bound"])
    table["se_over_sd"] = table["mean_se"] / table["sd"]
    if args.table:
        table.to_csv(args.table, index=False, float_format="%.6g")
    print(f"{args.sims} samples, bootstrap of {args.n_boot} resamples, JRE with {args.n_replicates} replicates")
    shown = table.pivot(index=KEYS, columns="errors", values=["coverage", "se_over_sd"])
    shown.columns = [f"{name}, {errors}" for name, errors in shown.columns]
    print(shown.join(table.groupby(KEYS)[["bias", "rmse", "failed"]].first()).round(3).to_string())


def main():
    """Print the tables that were asked for."""
    parser = parser_of(__doc__)
    parser.add_argument("study", choices=("benchmarks", "coverage"))
    parser.add_argument("--n", type=int, nargs="+", default=SIZES, help="sizes of the samples of coverage")
    parser.add_argument("--n-boot", type=int, default=199, help="resamples of the bootstrap of coverage; 0 for none")
    parser.add_argument("--only", nargs="+", help='estimators of coverage, such as "smooth alone"; IPWRA among them')
    args = parser.parse_args()
    {"benchmarks": benchmarks, "coverage": coverage}[args.study](args)


if __name__ == "__main__":
    main()

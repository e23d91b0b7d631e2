"""Correct digits of least squares on NIST's Statistical Reference Datasets.

    python -m tests.benchmarks.bench_digits

prints a table: for each data set the digits of the worst coefficient, of the outcome models of the package and of two
programs of least squares beside it, and those of the arm means. Both arms of a model hold the data once, so that the
certified coefficients are those of either arm, with an effect of zero.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm

import causalrisk as cr

FOLDER = Path(__file__).parents[1] / "reference"
SETS = ("Norris", "Pontius", "Longley", "Filip", "Wampler1", "Wampler2", "Wampler3", "Wampler4", "Wampler5")
MOST = 15.0  # digits that are certified


def certified(name: str) -> np.ndarray:
    """Certified coefficients of a data set, the constant first."""
    table = pd.read_csv(FOLDER / "nist_strd_certified.csv")
    return table.loc[table["set"] == name, "certified"].to_numpy()


def data_of(name: str) -> tuple[pd.DataFrame, str]:
    """A data set as two arms, and the formula of its model."""
    table = pd.read_csv(FOLDER / "nist_strd.csv")
    frame = table[table["set"] == name].drop(columns="set").dropna(axis=1).reset_index(drop=True)
    columns, degree = [c for c in frame if c != "y"], len(certified(name)) - 1
    terms = columns if len(columns) > 1 else ["x1", *(f"I(x1**{k})" for k in range(2, degree + 1))]
    return pd.concat([frame.assign(d=0), frame.assign(d=1)], ignore_index=True), "y ~ " + " + ".join(terms)


def digits(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Minus the decimal logarithm of the relative error, between 0 and the digits that are certified."""
    error = np.abs(np.asarray(found) - wanted) / np.abs(wanted)
    return np.clip(-np.log10(np.maximum(error, 10.0**-MOST)), 0, MOST)


def fit(name: str, estimator: str) -> Any:
    """Results of a model whose arms hold the data once each."""
    frame, formula = data_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.DesignWarning)  # of the condition number
        return getattr(cr, estimator).from_formula(formula, frame, treat="d", propensity="1").fit()


def worst_digits(name: str) -> list[float]:
    """Digits of the worst coefficient and of the worse arm mean: two estimators, and numpy's and statsmodels' OLS."""
    wanted = certified(name)
    frame, formula = data_of(name)
    once = frame[frame["d"] == 0]
    if "I(" in formula:
        X = np.column_stack([once["x1"] ** k for k in range(len(wanted))])
    else:
        X = sm.add_constant(once.drop(columns=["y", "d"]).to_numpy())
    y = once["y"].to_numpy()
    ours = [fit(name, estimator) for estimator in ("OutcomeRegression", "IPWRA")]
    found = [digits(res.outcome_params.to_numpy(), wanted[:, None]) for res in ours]
    found.append(digits(ours[0].params.iloc[1:], np.array([math.fsum(y) / len(y)])))
    found += [digits(b, wanted) for b in (np.linalg.lstsq(X, y, rcond=None)[0], sm.OLS(y, X).fit(method="qr").params)]
    return [float(values.min()) for values in found]


def table() -> str:
    """The table of tests/reference/nist_digits.csv."""
    lines = ["set,coefficients,OutcomeRegression,IPWRA,means,numpy_lstsq,statsmodels_ols"]
    for name in SETS:
        row = ",".join(f"{value:.1f}" for value in worst_digits(name))
        lines.append(f"{name},{len(certified(name))},{row}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())

"""Double robustness, measured: `python -m tests.studies.study_robust`.

The first table has a wrong propensity model and a right outcome model, in three designs whose effects differ from unit
to unit. The second has the four cells, each of the two models right or wrong. `share=0` is the objective without the
subtraction that makes JRE doubly robust.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread a process; must be set before numpy loads

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from causalrisk.simulation import four_cells
from causalrisk.simulation.designs import DESIGNS, Linear, Specified
from tests.studies.groups import run_in_groups

SIZES = (500, 2000, 8000)
MISSED = {
    "a square": Linear(confounding=0.7, score_curvature=0.5, heterogeneity=1.5),
    "a concave square": Linear(confounding=0.7, score_curvature=-0.5, heterogeneity=1.5),
    "a square, weak overlap": Linear(confounding=1.0, score_curvature=0.5, heterogeneity=1.5, baseline=-1.0),
}
CELLS = replace(DESIGNS["doubly_wrong"], curvature=0.5)
CELL_SIZE = 1000
KEYS = ["design", "n", "estimator"]


def joint(n_replicates):
    """Groups of JRE: as it is, and without the subtraction."""
    options = {"n_replicates": n_replicates}
    return {"joint": {"JRE": ("JRE", options)}, "without": {"JRE, share=0": ("JRE", options | {"share": 0})}}


def wrong_scores(sims=500, n=SIZES, n_replicates=60, folder=None, **options):
    """Fit samples of the designs whose scores the analyst's propensity model misses and whose outcomes are linear.

    Parameters
    ----------
    sims : int, default 500
        Samples of each design and size.
    n : sequence of int
        Sizes.
    n_replicates : int, default 60
        Propensity replicates of JRE.
    folder, **options
        Further options of `run_in_groups`.

    Returns
    -------
    DataFrame
        A row a design, size and estimator: `StudyResults.table`, and the bias less that of IPWRA on the same samples
        with its Monte Carlo error.
    """
    designs = [Specified(design, name, design.formula, design.propensity) for name, design in MISSED.items()]
    groups = {"usual": ["IPWRA", "AIPW"], **joint(n_replicates)}
    return with_differences(run_in_groups(designs, groups, folder, n=n, n_sims=sims, **options))


def with_differences(study):
    """Return the table of a study with the bias less that of IPWRA, columns `apart` and `apart_mc`."""
    table = study.table
    for design, n, errors, _ in study.cells():
        for label in errors:
            apart = (errors[label] - errors["IPWRA"]).dropna()
            row = (design.name, n, label)
            table.loc[row, ["apart", "apart_mc"]] = apart.mean(), apart.std(ddof=1) / np.sqrt(len(apart))
    return table.reset_index()


def cells(sims=500, n_replicates=60, folder=None, **options):
    """Fit the same samples with each of the two models right or wrong; the rest is as in `wrong_scores`."""
    usual = {"usual": ["OutcomeRegression", "IPW", "IPWRA", "AIPW"], **joint(n_replicates)}
    return with_differences(run_in_groups(CELLS, usual, folder, run=four_cells, n=CELL_SIZE, n_sims=sims, **options))


def shown(table):
    """Columns of the printed tables as text, Monte Carlo errors in parentheses."""
    text = table[KEYS].copy()
    for name, column, digits in (
        ("bias", "bias", 4), ("less IPWRA's", "apart", 4), ("MSE / IPWRA", "mse_ratio", 3), ("coverage", "coverage", 3)
    ):  # fmt: skip
        text[name] = [f"{v:.{digits}f} ({mc:.{digits}f})" for v, mc in table[[column, f"{column}_mc"]].to_numpy()]
    text.insert(4, "/ MC error", (table["bias"] / table["bias_mc"]).map("{:+.1f}".format))
    text.insert(6, "RMSE", table["rmse"].map("{:.4f}".format))
    text["failed"] = table["failed"]
    return text


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sims", type=int, default=500, help="samples of each design and size")
    parser.add_argument("--n", type=int, nargs="+", default=SIZES, help="sizes of the first table")
    parser.add_argument("--n-replicates", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--store", type=Path, help="folder for finished studies")
    parser.add_argument("--tables", type=Path, help="folder for the tables, tests/studies/tables for instance")
    return parser.parse_args()


def main():
    """Print both tables."""
    args = arguments()
    options = {"sims": args.sims, "n_replicates": args.n_replicates, "n_jobs": args.jobs, "progress": True}
    for name, study, more in (("wrong_scores", wrong_scores, {"n": args.n}), ("cells", cells, {})):
        table = study(folder=args.store, **options, **more)
        if args.tables:
            table.to_csv(args.tables / f"{name}.csv", index=False, float_format="%.6g")
        print(f"\n{name}, {args.sims} samples, JRE with {args.n_replicates} replicates")
        print(shown(table).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()

"""The evidence behind the defaults: `python -m tests.studies.evidence --quick --jobs 2` writes two pages of docs.

Every table is a study of `causalrisk.simulation` and is stored beside this file; `--pages` writes the pages and the
figure from what is stored. `--store FOLDER` keeps each finished study, so that a run that was interrupted
goes on with the next.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread a process; must be set before numpy loads

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import causalrisk as cr
from tests.studies.designs import MISSPECIFIED, RIGHT
from tests.studies.evidence_pages import SIZES, TABLES, write_pages
from tests.studies.groups import run_in_groups
from tests.studies.own_designs import KangSchaferMean, LalondeLike
from tests.studies.study_real import compare_on_real_data

MORE = (
    "quadratic",
    "interaction",
    "binary_outcome",
    "heavy_tails",
    "rare_treatment",
    LalondeLike(),
    "forty_covariates",
)
KEYS = ["estimator", "design", "n"]
DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass(frozen=True)
class Grid:
    """How much work a run does.

    Parameters
    ----------
    misspecified, right, more : int
        Samples of each design of these groups.
    covered : int
        Samples of the coverage study.
    n_boot : int
        Resamples there.
    mean : int
        Samples of Kang and Schafer's mean problem.
    n_replicates : int
        Propensity replicates of JRE.
    n_boot_real : int
        Resamples of the comparison on real data.
    """

    misspecified: int
    right: int
    more: int
    covered: int
    n_boot: int
    mean: int
    n_replicates: int
    n_boot_real: int


QUICK = Grid(300, 800, 150, 500, 99, 600, 60, 999)
FULL = Grid(2000, 5000, 2000, 2000, 399, 5000, 500, 999)


def gains(args, grid, estimators):
    """Mean squared error of JRE over that of IPWRA, for every design and size."""
    groups = ((MISSPECIFIED, grid.misspecified), (RIGHT, grid.right), (MORE, grid.more))
    fitted = {"start": "IPWRA", "joint": estimators}
    options = {"n": SIZES, "n_jobs": args.jobs, "progress": True}
    found = [run_in_groups(list(names), fitted, args.store, n_sims=count, **options).table for names, count in groups]
    table = pd.concat(found).reset_index()
    return table.loc[table["estimator"] != "IPWRA", [*KEYS, "samples", "failed", "mse_ratio", "mse_ratio_mc"]]


def coverage(args, grid):
    """Coverage of the bootstrap's intervals, JRE beside IPWRA."""
    joint = ("JRE", {"n_replicates": min(grid.n_replicates, 200), "bootstrap": "pairs"})
    study = run_in_groups(
        [LalondeLike(), "rare_treatment", *MISSPECIFIED, *RIGHT, "interaction"],
        {"start": "IPWRA", "joint": {"JRE": joint}}, args.store, n=SIZES[:2],
        n_sims=grid.covered, n_boot=grid.n_boot, n_jobs=args.jobs, progress=True,
    )  # fmt: skip
    table = study.table.reset_index().sort_values("n", kind="stable")
    table["se_over_sd"] = table["mean_se"] / table["sd"]
    return table[[*KEYS, "samples", "failed", "coverage", "coverage_mc", "se_over_sd"]]


def mean_problem(args, grid):
    """Kang and Schafer's mean of an outcome that is missing."""
    groups = {"usual": ["OutcomeRegression", "IPW", "IPWRA", "AIPW"], "joint": "JRE"}
    study = run_in_groups(
        KangSchaferMean(), groups, args.store, n=200, n_sims=grid.mean, n_jobs=args.jobs,
        progress=True,
    )  # fmt: skip
    return study.table.reset_index()[["estimator", "samples", "failed", "bias", "bias_mc", "rmse"]]


def store_tables(args, folder):
    """Run every study and write its table."""
    grid = FULL if args.full else QUICK
    joint = {"n_replicates": grid.n_replicates}
    estimators = {"JRE": ("JRE", joint)}
    if args.full:
        estimators["JRE erm"] = ("JRE", joint | {"objective": "erm"})
    tables = {
        "gains": gains(args, grid, estimators),
        "mean": mean_problem(args, grid),
        "coverage": coverage(args, grid),
        "real": compare_on_real_data(grid.n_boot_real).rename_axis("data").reset_index(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    made = {
        "command": f"python -m tests.studies.evidence --{'full' if args.full else 'quick'} --jobs {args.jobs}",
        "version": cr.__version__, "replicates": grid.n_replicates, "n_boot": grid.n_boot,
    }  # fmt: skip
    (folder / "made.json").write_text(json.dumps(made, indent=1) + "\n", "utf-8")


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a small grid, in minutes (the default)")
    size.add_argument("--full", action="store_true", help="the full grid, in hours, with objective erm beside")
    size.add_argument("--pages", action="store_true", help="no study: the pages and the figure from the stored tables")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--store", type=Path, help="folder for finished studies")
    parser.add_argument("--tables", type=Path, default=TABLES, help="folder of the tables")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the documentation")
    return parser.parse_args()


def main():
    """Run the studies and write the pages."""
    args, begun = arguments(), time.perf_counter()
    if not args.pages:
        store_tables(args, args.tables)
    write_pages(args.tables, args.out / "explanation", args.out / "development")
    print(f"{args.out}: {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()

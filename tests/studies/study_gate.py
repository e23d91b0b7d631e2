"""Where the stack, `JRE(learner="smooth")`, stands beside IPWRA: `python -m tests.studies.study_gate --data FOLDER`.

First benchmarks that others made: published designs with 500 and 1,000 rows, and samples of a folder as in
`study_outside`. Main effects are in both models. Then designs whose models are right, with few rows for a covariate;
there standard errors of the stack are from the bootstrap. `--store FOLDER` keeps each finished study.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread a process; must be set before numpy loads

import numpy as np
import pandas as pd

from tests.studies.groups import kept
from tests.studies.own_designs import LalondeLike
from tests.studies.study_everybody import PUBLISHED
from tests.studies.study_outside import EFFECTS, InteractiveModel, NieWager, Stored, parser_of, run_stored

DRAWN = ["kang_schafer", LalondeLike(), *PUBLISHED, *map(NieWager, EFFECTS), InteractiveModel()]
SIZES = (500, 1000)
FEW_ROWS = ((25, 150), (40, 200), (40, 400), (90, 300))  # covariates and rows
SMOOTH = {"learner": "smooth"}
BENCHMARK = r"^([\w-]+)"  # the name without setting: IHDP of "IHDP A"


def ratios(table):
    """Root mean squared error over IPWRA's, with its Monte Carlo error, of the table of a study."""
    ratio = np.sqrt(table["mse_ratio"])
    return pd.DataFrame({"samples": table["samples"], "ratio": ratio, "mc": table["mse_ratio_mc"] / 2 / ratio})


def benchmarks(args):
    """Print the errors in each benchmark, and their geometric mean."""
    estimators, options = {"IPWRA": "IPWRA", "JRE": "JRE", "smooth": ("JRE", SMOOTH)}, {"n_jobs": args.jobs}
    tables = [kept(args.store, DRAWN, estimators=estimators, n=SIZES, n_sims=args.sims, **options).table]
    if args.data:
        stored = [Stored(file) for file in sorted(args.data.glob("*/*.csv.gz"))]
        tables.append(kept(args.store, stored, run_stored, estimators=estimators, n_sims=args.stored, **options).table)
    cells = ratios(pd.concat(tables)).drop("IPWRA", level="estimator")
    print(cells.round(3).to_string())
    logs = np.log(cells["ratio"]).rename("log").reset_index().assign(share=(cells["mc"] / cells["ratio"]).to_numpy())
    logs["benchmark"] = logs["design"].str.extract(BENCHMARK, expand=False)
    settings = logs.groupby(["estimator", "benchmark"])
    errors = settings["share"].agg(np.linalg.norm) / settings.size()
    found = pd.DataFrame({"log": settings["log"].mean(), "error": errors})
    for estimator, own in found.groupby("estimator"):
        mean, error = np.exp(own["log"].mean()), np.linalg.norm(own["error"]) / len(own)
        print(f"{estimator}: geometric mean of {len(own)} benchmarks {mean:.3f} ({mean * error:.3f})")
        print(np.exp(own["log"]).round(3).droplevel("estimator").sort_values().to_string())


def right_models(args):
    """Print errors and coverage where both models are right and rows are few."""
    estimators = {"IPWRA": "IPWRA", "smooth": ("JRE", SMOOTH | {"cov_type": "bootstrap", "n_boot": 99})}
    for count, n in FEW_ROWS:
        design, options = InteractiveModel(count), {"n_sims": args.sims, "n_jobs": args.jobs}
        study = kept(args.store, design, estimators=estimators, n=n, **options)
        print(f"\n{count} covariates\n{ratios(study.table).join(study.table['coverage']).round(3).to_string()}")


def main():
    """Print the tables."""
    args = parser_of(__doc__).parse_args()
    benchmarks(args)
    right_models(args)


if __name__ == "__main__":
    main()

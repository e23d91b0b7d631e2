"""Mean squared error of JRE over that of IPWRA for binary outcomes with logit outcome models.

Run  python -m tests.studies.study_binary --sims 400 --jobs 2  from the root of a copy of the source.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse

import causalrisk as cr
from causalrisk.simulation.designs import BinaryOutcome

LOGIT = {"family": "binomial"}
ESTIMATORS = {
    "IPWRA": ("IPWRA", LOGIT),
    "OutcomeRegression": ("OutcomeRegression", LOGIT),
    "JRE": ("JRE", LOGIT),
    "JRE erm": ("JRE", LOGIT | {"objective": "erm"}),
}
DESIGNS = [BinaryOutcome(), BinaryOutcome(curvature=1.0), BinaryOutcome(curvature=2.0)]


def study(n, sims, jobs=1):
    """Run the study.

    Parameters
    ----------
    n : sequence of int
        Sample sizes.
    sims : int
        Samples a cell.
    jobs : int, default 1
        Processes.

    Returns
    -------
    StudyResults
        Three designs: the logit is right, misses a square, misses a larger one.
    """
    return cr.simulation.run_study(DESIGNS, n=n, n_sims=sims, estimators=ESTIMATORS, rng=20251218, n_jobs=jobs)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[500, 1500])
    parser.add_argument("--sims", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    found = study(args.n, args.sims, args.jobs)
    print(found.table[["bias", "sd", "rmse", "mse_ratio", "mse_ratio_mc", "failed"]].round(4).to_string())


if __name__ == "__main__":
    main()

"""Bootstrap standard errors of a scan over those in memory: `python -m tests.studies.study_poisson`.

Resamples of a scan have independent Poisson weights, those in memory multinomial ones, which add up to n.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse

import numpy as np
import pandas as pd

import causalrisk as cr

FORMULA = "bweight ~ mage + medu + mmarried + fbaby"
MODELS = (cr.IPWRA, cr.AIPW, cr.Hajek)


def ratios(frame, n_boot, seeds):
    """Standard errors by Poisson over those by multinomial weights, a row a seed, a column an estimator."""
    found = {}
    for model in MODELS:
        errors = [
            [
                model.from_formula(FORMULA, data, treat="mbsmoke").fit(n_boot=n_boot, rng=seed).effect_se
                for data in (cr.scan([frame]), frame)
            ]
            for seed in range(seeds)
        ]
        found[model.__name__] = np.divide(*np.array(errors).T)
    return pd.DataFrame(found)


def main():
    """Print the mean over seeds and its Monte Carlo error, for the births and for some of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[4642, 500, 150])
    parser.add_argument("--n-boot", type=int, default=999)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    births = cr.datasets.load_cattaneo2()
    for rows in args.rows:
        found = ratios(births.sample(rows, random_state=0), args.n_boot, args.seeds)
        table = pd.DataFrame({"ratio": found.mean(), "MC error": found.std() / np.sqrt(args.seeds)})
        print(f"{rows} rows\n{table.round(3).to_string()}")


if __name__ == "__main__":
    main()

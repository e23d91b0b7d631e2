"""JRE on large samples: points in the place of draws of the score, and a part of the rows to choose the anchor by.

Run  python -m tests.studies.study_large --n 20000 --sims 40  from the root of a copy of the source. It prints, for each
design, squared errors and standard errors of JRE as it is over those of JRE by 200 draws and all rows on the same
samples, and how far the two are apart in standard errors.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import warnings
from unittest import mock

import numpy as np
import pandas as pd
from causalrisk.estimators.joint import problem, train

from causalrisk import IPWRA, JRE
from causalrisk.simulation.designs import DESIGNS
from tests.studies.designs import MISSPECIFIED, RIGHT
from tests.studies.study_robust import MISSED

EVERY = {name: DESIGNS[name] for name in (*MISSPECIFIED, *RIGHT)} | MISSED


def both_ways(design, n, rng):
    """Errors and standard errors of IPWRA, of JRE as it is, and of JRE by draws and all rows, on one sample."""
    data, found = design.draw(n, rng).data, []
    given = {"data": data, "treat": "d", "propensity": design.propensity}
    joint = JRE.from_formula(design.formula, **given)
    with mock.patch.multiple(train, ENOUGH=n), mock.patch.multiple(problem, ENOUGH=n):
        by_draws = joint.fit(cov_type="robust", n_replicates=200, rng=1)
    for res in (IPWRA.from_formula(design.formula, **given).fit(), joint.fit(cov_type="robust", rng=1), by_draws):
        found += [res.effect - design.effect, res.bse.iloc[0]]
    return found


def compared(n, sims, designs=EVERY):
    """Return the table, a row a design."""
    rows = {}
    for place, (name, design) in enumerate(designs.items()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            samples = [both_ways(design, n, np.random.default_rng([17, place, k])) for k in range(sims)]
        start, _start_se, points, points_se, draws, draws_se = np.array(samples).T
        rows[name] = {
            "MSE over draws": np.mean(points**2) / np.mean(draws**2),
            "MSE over IPWRA": np.mean(points**2) / np.mean(start**2),
            "SE over draws": np.mean(points_se / draws_se),
            "root mean square apart, SE": np.sqrt(np.mean(((points - draws) / draws_se) ** 2)),
            "most apart, SE": np.abs((points - draws) / draws_se).max(),
        }
    return pd.DataFrame(rows).T


def main(arguments=None):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--sims", type=int, default=40)
    options = parser.parse_args(arguments)
    print(compared(options.n, options.sims).round(4).to_string())


if __name__ == "__main__":
    main()

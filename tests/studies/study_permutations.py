"""How often tests of a trial reject where there is no effect: the normal test, and permutations of the treatment.

``python -m tests.studies.study_permutations`` prints the shares in some minutes; sample i is from default_rng([design,
i]).
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd

from causalrisk import CausalRiskWarning, OutcomeRegression

LEVEL, PERMUTATIONS = 0.05, 999


def skewed(rng: np.random.Generator) -> pd.DataFrame:
    """40 rows with a lognormal outcome that the treatment does not change, 12 of them treated."""
    x, d = rng.normal(size=40), rng.permutation(np.arange(40) < 12).astype(int)
    return pd.DataFrame({"x": x, "d": d, "y": np.exp(x + rng.normal(size=40))})


def spread(rng: np.random.Generator) -> pd.DataFrame:
    """80 rows, 20 of them treated: no average effect, and three times the standard deviation under treatment."""
    x, d = rng.normal(size=80), rng.permutation(np.arange(80) < 20).astype(int)
    return pd.DataFrame({"x": x, "d": d, "y": x + np.where(d == 1, 3, 1) * rng.normal(size=80)})


def villages(rng: np.random.Generator) -> pd.DataFrame:
    """12 villages of 5 to 60 rows, 4 of them treated as a whole, without effect."""
    sizes = rng.integers(5, 61, size=12)
    village = np.repeat(np.arange(12), sizes)
    treated = rng.permutation(np.arange(12) < 4)
    x = rng.normal(size=len(village))
    y = x + rng.normal(size=12)[village] + rng.normal(size=len(village))
    return pd.DataFrame({"x": x, "d": treated[village].astype(int), "y": y, "village": village})


DESIGNS: tuple[Callable[[np.random.Generator], pd.DataFrame], ...] = (skewed, spread, villages)


def rejections(number: int, samples: int) -> pd.Series:
    """Shares of the samples of a design in which each test rejects."""
    found = []
    for i in range(samples):
        data = DESIGNS[number](np.random.default_rng([number, i]))
        cluster = "village" if "village" in data else None
        res = OutcomeRegression.from_formula("y ~ x", data, treat="d", cluster=cluster).fit()
        pvalues = {"normal": res.pvalues.iloc[0]}
        for statistic in ("difference", "studentized"):
            pvalues[statistic] = res.permutation_test(PERMUTATIONS, statistic=statistic, rng=i).pvalue
        found.append(pvalues)
    return (pd.DataFrame(found) <= LEVEL).mean()


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    options = parser.parse_args()
    warnings.simplefilter("ignore", CausalRiskWarning)
    for number, design in enumerate(DESIGNS):
        shares = rejections(number, options.samples)
        print(f"{design.__name__}: {shares.round(3).to_dict()}", flush=True)


if __name__ == "__main__":
    main()

"""Coverage of the intervals from resamples of rows and from fractional weights of rows, on the same samples.

Run  python -m tests.studies.study_bootstraps  from the root of a copy of the source. It stores the table that the page
on standard errors shows.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import causalrisk as cr
from causalrisk.simulation.designs import find_design
from tests.studies.own_designs import LalondeLike

CELLS = (("linear", 100), ("linear_strong", 200), ("strong", 300), ("rare_treatment", 150), (LalondeLike(), 200))
KINDS = ("pairs", "bayesian")
TABLE = Path(__file__).parent / "tables" / "bootstraps.csv"


def one_sample(design, n, n_boot, number, seed):
    """Fit both estimators with both bootstraps to one sample.

    Parameters
    ----------
    design : Design
        The design.
    n, n_boot : int
        Rows and resamples.
    number, seed : int
        Number of the sample, and the seed of the study.

    Returns
    -------
    list of tuple
        Estimator, kind of bootstrap, error of the estimate and standard error, NaN where the bootstrap was refused;
        empty where the estimate was.
    """
    data = design.draw(n, np.random.default_rng([seed, number, n])).data
    rows = []
    for model in (cr.IPWRA, cr.JRE):
        for kind in KINDS:
            try:
                built = model.from_formula(design.formula, data, treat="d", propensity=design.propensity)
                res = built.fit(bootstrap=kind, n_boot=n_boot, rng=number)
            except cr.BootstrapError:
                rows.append((model.__name__, kind, np.nan, np.nan))
            except cr.CausalRiskError:  # a level in one arm alone, or the sample itself separates
                return []
            else:
                rows.append((model.__name__, kind, res.effect - design.effect, res.effect_se))
    return rows


def coverages(found):
    """Compare the bootstraps of one design and estimator.

    Parameters
    ----------
    found : DataFrame
        A row a sample; columns error and se, each for both kinds.

    Returns
    -------
    dict
        Samples; share that each kind refused; coverage of both where both have standard errors, with the Monte Carlo
        error of the first and of the difference, and of "bayesian" in all samples; median ratio of the widths; mean
        standard errors over the standard deviation of the estimates, where both have standard errors.
    """
    refused, error = found["se"].isna().mean(), found["error"]
    covers = (error.abs() <= 1.959964 * found["se"]).where(found["se"].notna())
    both = covers.dropna().astype(float)
    used, difference = found.loc[both.index], both["bayesian"] - both["pairs"]
    return {
        "samples": len(found),
        **{f"{kind} refused": refused[kind] for kind in KINDS},
        **{f"{kind} coverage": both[kind].mean() for kind in KINDS},
        "MC error": both["pairs"].std(ddof=0) / np.sqrt(len(both)),
        "MC error of difference": difference.std(ddof=0) / np.sqrt(len(both)),
        "bayesian coverage, all": covers["bayesian"].mean(),
        "width ratio": (used["se"]["bayesian"] / used["se"]["pairs"]).median(),
        **{f"{kind} se/sd": used["se"][kind].mean() / used["error"][kind].std() for kind in KINDS},
    }


def study(cells, n_boot, sims, seed):
    """Compare the bootstraps on designs and sizes; a row a cell and estimator."""
    table = []
    for given, n in cells:
        design = find_design(given)
        found = pd.DataFrame(
            [(number, *row) for number in range(sims) for row in one_sample(design, n, n_boot, number, seed)],
            columns=["sample", "estimator", "kind", "error", "se"],
        )
        for estimator, own in found.groupby("estimator"):
            table.append({"design": design.name, "n": n, "estimator": estimator} | coverages(own.pivot(
                index="sample", columns="kind", values=["error", "se"]
            )))  # fmt: skip
    return pd.DataFrame(table)


def markdown(table):
    """Return the table that the page on standard errors shows, as Markdown.

    Parameters
    ----------
    table : DataFrame
        As of `study`.
    """
    lines = [
        "| design | n | estimator | refused: pairs | coverage: pairs | bayesian | SE / SD: pairs | bayesian |",
        "|---" * 8 + "|",
    ]
    for row in table.to_dict("records"):
        lines.append(
            f"| `{row['design']}` | {row['n']} | {row['estimator']} | {row['pairs refused']:.3f} | "
            f"{row['pairs coverage']:.3f} ({row['MC error']:.3f}) | {row['bayesian coverage']:.3f} | "
            f"{row['pairs se/sd']:.3f} | {row['bayesian se/sd']:.3f} |"
        )
    return "\n".join(lines)


def main():
    """Store the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sims", type=int, default=300)
    parser.add_argument("--n-boot", type=int, default=199)
    parser.add_argument("--seed", type=int, default=20251218)
    args = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        table = study(CELLS, args.n_boot, args.sims, args.seed)
    table.to_csv(TABLE, index=False, float_format="%.4f")
    print(markdown(table))


if __name__ == "__main__":
    main()

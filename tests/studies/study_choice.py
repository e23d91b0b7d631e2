"""What the choice of the anchor adds to standard errors: `python -m tests.studies.study_choice --designs strong`.

By the prototype of `study_defaults`: standard errors from resamples that keep the anchor of the sample, the same times
factors for the choice, and from resamples that choose it anew; and those of psi held out, times the same factors.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse

import numpy as np
import pandas as pd

from causalrisk.simulation.designs import find_design
from tests.studies.study_defaults import LADDER, SEED, Rows, Setting, anchor_of, fractional_weights, held_out, solve

N_REPLICATES = 60
ENOUGH = 0.8  # share of the resamples that has to be fitted


def chosen(rows):
    """The anchor chosen, and the squares of psi held out there and under the first."""
    anchor = anchor_of(rows, Setting())
    return anchor, held_out(rows, anchor) ** 2, held_out(rows, LADDER[0]) ** 2


def factors(own, first):
    """Factors of the standard error by the error of the variance's difference to the first, and that of the package.

    Parameters
    ----------
    own, first : ndarray, shape (n,)
        Squares of psi held out under the anchor chosen and under the first.
    """
    to_first, of_own = (part.std() / np.sqrt(len(own)) for part in (own - first, own))
    return np.sqrt(1 + to_first / own.mean()), np.sqrt(1 + min(to_first, of_own) / own.mean())


def effects_of_resamples(rows, anchor, n_boot, rng):
    """Effects of resamples at the anchor of the sample, at their own and by IPWRA, and how far theirs is from it."""
    found, apart = [], []
    for _ in range(n_boot):
        try:
            again = rows.resampled(rng.integers(0, rows.n, rows.n))
            own = anchor_of(again, Setting())
        except np.linalg.LinAlgError:
            continue
        kept, anew = (again.effect(solve(again, one)) for one in (anchor, own))
        found.append((kept, anew, again.start))
        apart.append(abs(np.log(own / anchor)))
    if len(found) < ENOUGH * n_boot:
        raise np.linalg.LinAlgError("too few resamples")
    return np.array(found), np.median(apart)


def one_sample(design, n, n_boot, number):
    """Errors of JRE and IPWRA, and standard errors by name; a LinAlgError where a fit is refused."""
    rng = np.random.default_rng([SEED, number, n])
    data = design.draw(n, rng).data
    columns = [design.formula.partition("~")[2], design.propensity]
    outcome, propensity = ([term.strip() for term in part.split("+")] for part in columns)
    rows = Rows(data, outcome, propensity, fractional_weights(n, N_REPLICATES, 0.5, rng))
    anchor, own, first = chosen(rows)
    effect, held = rows.effect(solve(rows, anchor)), rows.scale * np.sqrt(own.mean() / n)
    by_difference, of_package = factors(own, first)
    found = {
        "JRE": effect - design.effect, "IPWRA": rows.start - design.effect,
        "held out": held, "held out, difference": held * by_difference, "held out, package": held * of_package,
    }  # fmt: skip
    if n_boot:
        effects, apart = effects_of_resamples(rows, anchor, n_boot, rng)
        kept, anew = (np.sqrt(((drawn - effect) ** 2).mean()) for drawn in effects[:, :2].T)
        found |= {"kept": kept, "kept, difference": kept * by_difference, "kept, package": kept * of_package}
        found |= {"anew": anew, "IPWRA resampled": effects[:, 2].std(ddof=1), "apart": apart}
    return found


def table(design, n, n_boot, sims):
    """Coverage of each standard error, its mean over the standard deviation of the estimates, and its spread."""
    samples = []
    for number in range(sims):
        try:
            samples.append(one_sample(design, n, n_boot, number))
        except np.linalg.LinAlgError:  # separation
            continue
    frame, rows = pd.DataFrame(samples), {}
    for name in frame.columns.difference(["JRE", "IPWRA", "apart"], sort=False):
        error, se = frame["IPWRA" if name.startswith("IPWRA") else "JRE"], frame[name]
        ratio, covers = se / error.std(), error.abs() <= 1.959964 * se
        rows[name] = {"coverage": covers.mean(), "SE / SD": ratio.mean(), "its SD": ratio.std()}
    note = f"; in the median resample its own anchor is times {np.exp(frame['apart'].median()):.1f}" if n_boot else ""
    return f"{design.name}, n={n}, {len(frame)} of {sims} samples{note}", pd.DataFrame(rows).T


def main():
    """Print a table for each design."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--designs", nargs="+", default=["strong", "lalonde_like", "linear"])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--n-boot", type=int, default=60, help="resamples; 0 for psi held out alone")
    parser.add_argument("--sims", type=int, default=250)
    args = parser.parse_args()
    for name in args.designs:
        head, found = table(find_design(name), args.n, args.n_boot, args.sims)
        print(f"{head}\n{found.round(3).to_string()}", flush=True)


if __name__ == "__main__":
    main()

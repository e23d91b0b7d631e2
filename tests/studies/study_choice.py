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
from tests.studies.study_defaults import LADDER, SEED, Rows, Setting, fractional_weights, mixture, path, solve

N_REPLICATES = 60
ENOUGH = 0.8  # share of the resamples that has to be fitted


def chosen(rows):
    """Number of the anchor chosen, and the squares of psi held out under each."""
    squares = path(rows, LADDER)[0] ** 2
    return mixture(squares, Setting())[1], squares


def factors(squares, best):
    """Factors of the standard error: that of the package, and one by the error of the chosen variance alone."""
    n, own = squares.shape[1], squares[best].mean()
    to_first, of_own = ((part.std() / np.sqrt(n)) for part in (squares[best] - squares[0], squares[best]))
    return np.sqrt(1 + to_first / own), np.sqrt(1 + (best > 0) * of_own / own)


def effects_of_resamples(rows, best, n_boot, rng):
    """Effects of resamples at the anchor of the sample, at their own and by IPWRA, and the share of other anchors."""
    found, other = [], 0
    for _ in range(n_boot):
        try:
            again = rows.resampled(rng.integers(0, rows.n, rows.n))
            own = chosen(again)[0]
        except np.linalg.LinAlgError:
            continue
        kept, anew = (again.effect(solve(again, LADDER[k])) for k in (best, own))
        found.append((kept, anew, again.start))
        other += own != best
    if len(found) < ENOUGH * n_boot:
        raise np.linalg.LinAlgError("too few resamples")
    return np.array(found), other / len(found)


def one_sample(design, n, n_boot, number):
    """Errors of JRE and IPWRA, and standard errors by name; a LinAlgError where a fit is refused."""
    rng = np.random.default_rng([SEED, number, n])
    data = design.draw(n, rng).data
    columns = [design.formula.partition("~")[2], design.propensity]
    outcome, propensity = ([term.strip() for term in part.split("+")] for part in columns)
    rows = Rows(data, outcome, propensity, fractional_weights(n, N_REPLICATES, 0.5, rng))
    best, squares = chosen(rows)
    held = rows.scale * np.sqrt(squares[best].mean() / n)
    of_package, of_own = factors(squares, best)
    found = {
        "JRE": rows.effect(solve(rows, LADDER[best])) - design.effect, "IPWRA": rows.start - design.effect,
        "held out": held, "held out, factor": held * of_package, "held out, own": held * of_own,
    }  # fmt: skip
    if n_boot:
        effects, other = effects_of_resamples(rows, best, n_boot, rng)
        kept, anew, start = effects.std(axis=0, ddof=1)
        found |= {"kept": kept, "kept, factor": kept * of_package, "kept, own": kept * of_own, "anew": anew}
        found |= {"IPWRA resampled": start, "other anchor": other}
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
    for name in frame.columns.difference(["JRE", "IPWRA", "other anchor"], sort=False):
        error, se = frame["IPWRA" if name.startswith("IPWRA") else "JRE"], frame[name]
        ratio, covers = se / error.std(), error.abs() <= 1.959964 * se
        rows[name] = {"coverage": covers.mean(), "SE / SD": ratio.mean(), "its SD": ratio.std()}
    note = f"; {frame['other anchor'].mean():.2f} of the resamples choose another anchor" if n_boot else ""
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

"""Rows left out with the anchor chosen anew: `python -m tests.studies.study_left_out`.

How many rows move the effect by more than a fifth of its standard error when they are left out, JRE beside IPWRA. Every
step is redone without the row, the anchor chosen again; the other rows keep their weights in the propensity replicates.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import warnings

import numpy as np
import pandas as pd

import causalrisk as cr
from causalrisk.estimators.resampling import replicate_counts
from causalrisk.simulation.designs import find_design
from tests.studies.study_real import cases

NOTICED = 0.2  # standard errors
LARGEST, AT_RANDOM = 50, 150  # rows of a large data set that are left out


def changes_without(case, rows, drawn, anchor=None):
    """Change of JRE's effect without each of some rows, and the anchors chosen.

    Parameters
    ----------
    case : tuple
        Data frame, outcome formula, treatment, propensity formula or None; rows numbered from 0.
    rows : sequence of int
        The rows.
    drawn : ndarray, shape (n, B)
        Weights of the propensity replicates.
    anchor : float, optional
        Anchor to keep; by default it is chosen for each.

    Returns
    -------
    effects, anchors : ndarray, shape (m,)
        Effects without the rows, and their anchors.
    """
    data, formula, treat, propensity = case
    found = []
    for row in rows:
        model = cr.JRE.from_formula(formula, data.drop(index=row), treat=treat, propensity=propensity)
        res = model.fit(cov_type="robust", replicates=np.delete(drawn, row, axis=0), anchor=anchor)
        found.append((res.effect, res._record.joint.anchor))
    return np.array(found).T


def picked_rows(fits, n, rng):
    """All rows up to a thousand; else those of the largest influence on either estimate and some at random."""
    if n <= 1000:
        return np.arange(n)
    influence = [np.abs(fit.influence(method="influence")["in std errors"].to_numpy()) for fit in fits]
    order = np.argsort(-np.maximum(*influence))
    return np.r_[order[:LARGEST], rng.choice(np.sort(order[LARGEST:]), AT_RANDOM, replace=False)]


def compare(case, seed):
    """Leave rows of a data set out of both fits.

    Parameters
    ----------
    case : tuple
        Data frame, outcome formula, treatment, propensity formula or None.
    seed : int
        Seed of the fits.

    Returns
    -------
    dict
        Counts of rows: left out, that move JRE, IPWRA, and JRE at the anchor of all rows by more than `NOTICED`
        standard errors of their own, and that make JRE choose another anchor.
    """
    data, formula, treat, propensity = case
    ipwra = cr.IPWRA.from_formula(formula, data, treat=treat, propensity=propensity)
    start = ipwra.fit(cov_type="bootstrap", n_boot=999, rng=seed)
    jre = cr.JRE.from_formula(formula, data, treat=treat, propensity=propensity)
    jre = jre.fit(bootstrap="pairs", n_boot=999, rng=seed)
    record, used = jre._record, data.loc[jre._record.design.index].reset_index(drop=True)
    case = used, formula, treat, propensity
    joint = record.joint
    drawn = replicate_counts(record.resampler(), len(joint.replicates.failures), joint.options.replicate_spread)
    drawn = record.sample.restore(drawn)
    rows = picked_rows((jre, start), len(used), np.random.default_rng(seed))
    effects, anchors = changes_without(case, rows, drawn)
    other = anchors != joint.anchor
    kept = effects.copy()
    kept[other] = changes_without(case, rows[other], drawn, joint.anchor)[0] if other.any() else []
    of_start = start.influence(method="exact")["change"].to_numpy()[rows]
    return {
        "n": len(used),
        "rows": len(rows),
        "anchor": joint.anchor,
        "JRE": int((np.abs(effects - jre.effect) > NOTICED * jre.effect_se).sum()),
        "IPWRA": int((np.abs(of_start) > NOTICED * start.effect_se).sum()),
        "JRE, anchor kept": int((np.abs(kept - jre.effect) > NOTICED * jre.effect_se).sum()),
        "other anchor": int(other.sum()),
    }


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", nargs="*", default=["LaLonde, 614 rows", "cattaneo2"], help="of study_real")
    parser.add_argument("--design", default="strong")
    parser.add_argument("--n", type=int, default=200, help="rows of a simulated sample")
    parser.add_argument("--samples", type=int, default=6, help="simulated samples")
    parser.add_argument("--seed", type=int, default=20251218)
    return parser.parse_args()


def main():
    """Print a table."""
    args, named = arguments(), cases()
    design = find_design(args.design)
    found = {name: (named[name], 0) for name in args.data}
    for sample in range(args.samples):
        data = design.draw(args.n, np.random.default_rng([args.seed, sample, args.n])).data
        found[f"{args.design} {sample}"] = (data, design.formula, "d", design.propensity), sample
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        table = pd.DataFrame({name: compare(case, seed) for name, (case, seed) in found.items()}).T
    print(table.to_string())


if __name__ == "__main__":
    main()

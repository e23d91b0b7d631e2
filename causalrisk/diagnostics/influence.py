"""Influence of each row or cluster on the effect, and the variance of the effect by parts of its influence function."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.errors import OptionError, one_of, whole_number
from causalrisk.estimation.options import InferenceOptions
from causalrisk.estimation.record import FitRecord, sum_within_units
from causalrisk.estimation.sample import unit_count
from causalrisk.inference.covariance import leave_one_out

EXACT_ROWS, QUICK_ROWS = 5000, 1000  # up to so many rows `influence` leaves each of them out


def influence(
    record: FitRecord, top: int | None = None, method: str | None = None, arm: Any = None, clusters: bool = False
) -> pd.DataFrame:
    """Influence of each row, or of each cluster, on the effect.

    Parameters
    ----------
    top : int, optional
        Show only this number of rows, the most influential first. By default all rows, in the order of the data.
    method : {"exact", "influence"}, optional
        "exact" repeats every step without the row; JRE keeps its shrinkage. "influence" uses the influence function. It
        is faster, but understates the most influential rows. By default "exact" up to 5000 rows.
    arm : level or label, optional
        The treatment group whose effect is studied. By default the first that is not the reference.
    clusters : bool, default False
        Whether to leave out whole clusters instead of rows.

    Returns
    -------
    DataFrame
        One row per row of the data: its treatment group, "change" (the effect without the row minus the effect), "in
        std errors", and "weight share", its share of its group's weight. With clusters, one row per cluster: also "n",
        its observations. The group is then where its weight share is largest.

    Raises
    ------
    OptionError
        If the fit has no clusters.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> jobs = datasets.load_lalonde()
    >>> res = IPWRA.from_formula(
    ...     "re78 ~ age + educ + re75", jobs, treat="treat"
    ... ).fit()
    >>> changes = res.influence()["change"]
    >>> bool((changes.abs() > res.effect_se).any())
    False
    """
    record.check_means("influence()")
    if top is not None:
        whole_number("top", top, 1)
    position = record.contrast_position(arm)
    frame = influence_tables(record, influence_method(record, method, clusters), clusters)[position - 1]
    return frame if top is None else most_influential(frame, top)


def influence_method(record: FitRecord, method: str | None, clusters: bool, quick: bool = False) -> str:
    """Check the method of `influence`; by default choose it by the number of rows, `quick` for many diagnostics."""
    one_of("method", method, (None, "exact", "influence"))
    design = record.design
    if clusters and design.cluster is None:
        raise OptionError("clusters=True, but the fit has no clusters.\nUse `cluster=` in the model.")
    rows = np.sqrt(design.n * design.n_clusters) if clusters else design.n  # which take as much time
    slow = quick and record.options.propensity_score is not None
    exact = rows <= (QUICK_ROWS if quick else EXACT_ROWS) and not slow
    return method or ("exact" if exact else "influence")


def influence_tables(record: FitRecord, method: str, clusters: bool = False) -> list[pd.DataFrame]:
    """Return the table of `influence` for the effect of each arm but the reference, from one computation."""
    design, fit = record.design, record.weight_fit if record.spec.uses_propensity else None
    sample, count = record.sample, len(record.effect_names)
    weight = design.weights * (1.0 if fit is None else sample.restore(fit.undivided))
    share, arm, index = weight / np.bincount(design.arm, weight)[design.arm], design.arm, design.index
    common = {}
    if clusters and design.cluster is not None:
        shares = np.zeros((design.n_clusters, design.n_arms))
        np.add.at(shares, (design.cluster, design.arm), share)
        share, arm = shares.max(axis=1), shares.argmax(axis=1)
        index = pd.RangeIndex(design.n_clusters) if design.clusters is None else design.clusters
        common["n"] = np.bincount(design.cluster, design.units).astype(int)
    common["arm"] = np.array(design.labels)[arm]
    if method == "influence":
        sums, weights = sample.s[:, None] * record.estimate.influence[:, :count], sample.s[:, None]
        if clusters:
            sums, weights = (sum_within_units(record, part)[: design.n_clusters] for part in (sums, weights))
        changes = -sums / (sample.total - weights)
        changes = changes if clusters else sample.restore(changes)
    else:  # rows in the order of the design
        at = record
        if not clusters:
            alone, rows = dataclasses.replace(design, cluster=None), dataclasses.replace(sample, cluster=None)
            at = dataclasses.replace(record, design=alone, sample=rows)
        left_out = leave_one_out(at, InferenceOptions(), whole=True)
        changes = left_out.values[: unit_count(at.design), :count] - record.estimate.params[:count]
    tables = []
    for change, se in zip(changes.T, record.std_errors, strict=False):
        moved = {"change": change, "in std errors": change / se if se > 0 else np.nan, "weight share": share}
        tables.append(pd.DataFrame({**common, **moved}, index=index))
    return tables


def most_influential(frame: pd.DataFrame, top: int) -> pd.DataFrame:
    """Return the rows that move the effect most, those that cannot be left out first."""
    return frame.iloc[np.argsort(-frame["change"].abs().fillna(np.inf).to_numpy(), kind="stable")[:top]]

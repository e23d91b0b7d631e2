"""Influence of each row or cluster on the effect, and the variance of the effect by parts of its influence function."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design.design import rows_not_kept
from causalrisk.errors import OptionError, UnavailableError, one_of, whole_number
from causalrisk.estimation.fits import SeparateRows, weights_of
from causalrisk.estimation.options import InferenceOptions
from causalrisk.estimation.record import FitRecord, influence_covariance, of_means, sum_within_units
from causalrisk.estimation.resampling import unit_count
from causalrisk.estimation.specification import DIFFERENCE
from causalrisk.inference.covariance import leave_one_out
from causalrisk.joint.fit import JointEstimateRows
from causalrisk.numerics.linalg import Array

EXACT_ROWS, QUICK_ROWS = 5000, 1000  # up to so many rows `influence` leaves each of them out


@of_means
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
    if top is not None:
        whole_number("top", top, 1)
    position = record.contrast_position(arm)
    frame = influence_tables(record, influence_method(record, method, clusters), clusters)[position - 1]
    return frame if top is None else most_influential(frame, top)


def influence_method(record: FitRecord, method: str | None, clusters: bool) -> str:
    """Check the method of `influence`; by default choose it by the number of rows or clusters."""
    one_of("method", method, (None, "exact", "influence"))
    if clusters and record.design.cluster is None:
        raise OptionError("clusters=True, but the fit has no clusters.\nUse `cluster=` in the model.")
    return method or ("exact" if _left_out(record, clusters) <= EXACT_ROWS else "influence")


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


def quick_method(record: FitRecord, clusters: bool = False) -> str:
    """Return the method of `influence` for a page of many diagnostics."""
    quick = _left_out(record, clusters) <= QUICK_ROWS and record.options.propensity_score is None
    return "exact" if quick else "influence"


def _left_out(record: FitRecord, clusters: bool) -> float:
    """Return n, or under clusters sqrt(n times clusters), the number of rows that takes as much time."""
    return float(np.sqrt(record.design.n * record.design.n_clusters)) if clusters else record.design.n


PARTS = ("sampling of X", "outcome model", "propensity score")
OBSERVATION = "observation model"  # a fourth part, where outcomes are missing


def effect_parts(record: FitRecord) -> Array:
    """Split the influence function of the effects, shape (3 or 4, n, K - 1), rows in the order of the sample.

    Parts of the covariates at the fitted models, of the outcomes at the fitted weights, of the estimation of the score,
    through everything it enters, and where outcomes are missing of the observation model.
    """
    count = len(record.effect_names)
    estimate, scale = record.estimate, record.options.effect_scale
    if record.stack is not None:
        if scale != DIFFERENCE:
            typed = 'model.with_options(effect="difference").fit()'
            raise UnavailableError(f'a stack has these parts for `effect="difference"` only.\nUse `{typed}`.')
        pairs = zip(record.stack.weights, record.stack.records, strict=True)
        return np.sum([weight * effect_parts(of) for weight, of in pairs], axis=0)
    rows, weights = estimate.rows, weights_of(record)
    if not isinstance(rows, SeparateRows | JointEstimateRows):
        raise rows_not_kept()
    whole, rest = estimate.influence[:, :count], rows.given_weights()[:, :count]
    means = estimate.params[estimate.block("means")] if record.joint is None else estimate.model_means
    sampling = weights.tilt[:, None] * (estimate.predicted.T - estimate.model_means) @ scale.jacobian(means)[:count].T
    if "observed" not in weights.beta:
        return np.stack([sampling, rest - sampling, whole - rest])
    scored = rows.given_weights(len(weights.beta) - 1)[:, :count]
    return np.stack([sampling, rest - sampling, scored - rest, whole - scored])


@of_means
def se_decomposition(record: FitRecord) -> pd.DataFrame:
    """Decomposition of the robust variance of the effect.

    Returns
    -------
    DataFrame
        Columns "variance", "std err" and "share". Rows: "sampling of X", from the covariates in the sample; "outcome
        model", from the outcomes at the fitted score; "propensity score", from estimating it; if outcomes are missing,
        "observation model", from estimating it; twice the covariance of each pair; and "total". Estimating the score
        often lowers the total, by a negative covariance.
    """
    parts = effect_parts(record)[:, :, 0].T
    names = (*PARTS, OBSERVATION)[: parts.shape[1]]
    covariance = record.choice_variance * influence_covariance(record, parts)
    rows = dict(zip(names, np.diag(covariance), strict=True))
    for (i, first), (j, second) in combinations(enumerate(names), 2):
        rows[f"2 cov({first}, {second})"] = 2 * covariance[i, j]
    rows["total"] = total = float(covariance.sum())
    table = pd.DataFrame({"variance": pd.Series(rows)}).rename_axis("part")
    table["std err"] = np.sqrt(table["variance"].loc[[*names, "total"]])
    table["share"] = table["variance"] / total if total > 0 else np.nan
    return table

"""Matrices of the two models, outcome and propensity, and checks of their formulas and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causalrisk.design.design import Design
from causalrisk.design.known_scores import score_matrix
from causalrisk.design.offsets import read_offset
from causalrisk.design.rows import ByRows, ColumnOptions, Named, Rows, Source, cluster_codes, relative_weights
from causalrisk.design.support.columns import Matrices, Rules, supported
from causalrisk.design.support.rank import check_magnitude
from causalrisk.design.support.size import check_size
from causalrisk.design.treatment import Coding, code_levels
from causalrisk.errors import DesignWarning, warn_user
from causalrisk.numerics.linalg import all_ones


@dataclass(frozen=True)
class Models:
    """The two models on the estimation sample, all columns.

    Parameters
    ----------
    y : ndarray of float64, shape (n,)
        Outcome.
    matrices : Matrices
        Outcome and propensity designs, and how new rows are coded.
    endog_name : str
        Name of the outcome.
    formula, propensity_formula : str or None
        As displayed.
    """

    y: np.ndarray
    matrices: Matrices
    endog_name: str
    formula: str | None
    propensity_formula: str | None


def merge_sources(outcome: Mapping[str, pd.Series], propensity: Mapping[str, pd.Series]) -> list[Source]:
    """List each variable once, with the models that use it.

    Parameters
    ----------
    outcome, propensity : mapping of str to Series
        Variables of either model.

    Returns
    -------
    list of Source
        Variables of the outcome model first; one that is the same in both is used in "outcome, propensity".
    """
    sources = []
    for name, values in outcome.items():
        both = name in propensity and (values is propensity[name] or values.equals(propensity[name]))
        sources.append(Source("outcome, propensity" if both else "outcome", name, values))
    listed = {s.name for s in sources if s.used_in != "outcome"}
    return [*sources, *(Source("propensity", name, v) for name, v in propensity.items() if name not in listed)]


def code_treatment(treat: Named, rows: Rows, columns: ColumnOptions, call: str) -> Coding:
    """Code the treatment of the rows in the sample; `call` is how messages begin the call to type."""
    return code_levels(
        rows.of(treat.values),
        treat.name,
        treated=columns.treated,
        reference=columns.reference,
        levels=columns.levels,
        call=call,
    )


def kept_weights(by: ByRows, rows: Rows, observed: np.ndarray | None) -> np.ndarray:
    """Return the observation weights of the rows that are used, ones where there are none."""
    weights = all_ones(rows.n) if observed is None else rows.of(observed)
    return relative_weights(weights, by.weight_type, None if by.weights is None else by.weights.name)


def kept_offset(by: ByRows, keep: np.ndarray, roles: tuple[str, str], *, scanned: bool = False) -> np.ndarray | None:
    """Return the offset of the rows to keep, maybe of a scan; `roles` are the names of treatment and outcome."""
    if by.offset is None or by.offset_kind is None:
        return None
    return read_offset(Named(by.offset.values[keep], by.offset.name), by.offset_kind, roles, scanned=scanned)


def check_models(models: Models) -> None:
    """Refuse models too large for memory, and an outcome too large for its squares."""
    for model, design in (("outcome", models.matrices.X), ("propensity", models.matrices.Z)):
        check_size(len(models.y), design.shape[1], f"the {model} model")
    check_magnitude(models.y, f"outcome {models.endog_name!r}")


def freeze(
    models: Models,
    coding: Coding,
    by: ByRows,
    rows: Rows,
    observed: np.ndarray | None,
    notes: list[str],
    *,
    columns: ColumnOptions,
    constant_outcome: bool,
) -> Design:
    """Drop dependent columns, also within an arm, and freeze the design."""
    weights, rules = kept_weights(by, rows, observed), Rules.of(columns, constant_outcome)
    check_models(models)
    matrices = supported(
        models.matrices,
        coding.arm,
        labels=coding.labels,
        rules=rules,
        notes=notes,
        counts=weights if by.weight_type == "frequency" else None,
    )
    for note in notes:
        warn_user(note, DesignWarning)
    cluster, clusters = None, None
    if by.cluster is not None:
        cluster, clusters = cluster_codes(rows.of(by.cluster.values), by.cluster.name)
    return Design(
        y=models.y,
        X=matrices.X,
        Z=matrices.Z,
        arm=coding.arm,
        weights=weights,
        weight_type=by.weight_type,
        cluster=cluster,
        offset=kept_offset(by, rows.keep, (by.treat.name, models.endog_name)),
        offset_kind=by.offset_kind,
        score=None if by.score is None else score_matrix(by.score, rows.keep, coding),
        labels=coding.labels,
        levels=coding.levels,
        endog_name=models.endog_name,
        treat_name=by.treat.name,
        exog_names=matrices.outcome.names,
        propensity_names=matrices.propensity.names,
        formula=models.formula,
        propensity_formula=models.propensity_formula,
        index=rows.of(by.treat.values.index),
        in_sample=pd.Series(rows.keep, index=by.treat.values.index, name="in_sample"),
        sample_ledger=rows.ledger,
        notes=tuple(notes),
        weights_name=None if by.weights is None else by.weights.name,
        cluster_name=None if by.cluster is None else by.cluster.name,
        offset_name=None if by.offset is None else by.offset.name,
        score_name=None if by.score is None else by.score.name,
        rules=rules,
        missing=columns.missing,
        dropped_terms=matrices.dropped,
        outcome_encoder=matrices.outcome,
        propensity_encoder=matrices.propensity,
        clusters=clusters,
    )

"""Formulas or arrays turned into a design on one estimation sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design.columns import numbers
from causalrisk.design.design import Design
from causalrisk.design.encoders import ArrayEncoder
from causalrisk.design.matrices import common_index, named_columns
from causalrisk.design.pair import Models, check_roles, formula_models, merge_sources, read_formulas
from causalrisk.design.rank import check_arms, usable_columns
from causalrisk.design.rows import ByRows, Rows, Source, by_rows, cluster_codes, draw_sample
from causalrisk.design.scores import score_matrix
from causalrisk.design.tables import Table, align
from causalrisk.design.treatment import Coding, code_treatment, show
from causalrisk.errors import DesignError, DesignWarning, warn_user


def design_from_formula(
    formula: str,
    data: Any,
    *,
    treat: Any,
    propensity: str | None = None,
    treated: Any = None,
    reference: Any = None,
    levels: Mapping[Any, str] | None = None,
    weights: Any = None,
    weight_type: str | None = None,
    cluster: Any = None,
    propensity_score: Any = None,
    missing: str = "drop",
    frame: Mapping[str, Any],
    constant_outcome: bool = False,
) -> Design:
    """Make a design from formulas.

    Parameters
    ----------
    formula : str
        Outcome formula, two-sided; the treatment is not in it.
    data : DataFrame, mapping of str to array-like, or None
        The columns; None takes them from `frame`.
    treat : str or array-like
        Treatment: a column, a variable of `frame`, or one value per row.
    propensity : str, optional
        Propensity formula, one-sided or with the treatment on the left; by default the outcome's right-hand side.
    treated, reference : scalar, optional
        Level of the treatment that is treated, or the reference level.
    levels : mapping, optional
        Printed label of each raw treatment level.
    weights : str or array-like, optional
        Observation weights; rows of weight zero are left out.
    weight_type : {"frequency", "probability"}, optional
        What the weights mean; needed with `weights`.
    cluster : str or array-like, optional
        Clusters.
    propensity_score : str, array-like, shape (N,), or DataFrame or ndarray, shape (N, K), optional
        Known probability of the treated arm, or of each arm: the columns of a DataFrame named after levels or labels,
        those of an array in the order of the labels, reference first.
    missing : {"drop", "raise"}
        What to do with rows that miss any variable used.
    frame : mapping of str to object
        The caller's variables; ``np`` is NumPy unless it is among them.
    constant_outcome : bool
        Whether the estimator's outcome model is one constant per arm (Hajek), so that arms are not checked for more.

    Returns
    -------
    Design
        Frozen arrays on one estimation sample.

    Raises
    ------
    DesignError
        If the data and formulas do not describe a model that can be fitted.
    OptionError
        If an option has a value that is not allowed.
    TypeError
        If an argument is of a type that is not accepted.
    """
    notes: list[str] = []
    frame = {"np": np, **frame}  # what every formula may use, imported by the caller or not
    formulas, table = read_formulas(formula, propensity, data, frame, notes)
    by = by_rows(table, (treat, weights, cluster, propensity_score), weight_type, frame, notes)
    check_roles(formulas, by.treat_name)
    sources = merge_sources({**formulas.left.variables, **formulas.right.variables}, formulas.assign.variables)
    rows, observed = draw_sample(sources, by, table.index, missing, notes)
    coding = code_treatment(
        by.treat[rows.keep],
        by.treat_name,
        treated=treated,
        reference=reference,
        levels=levels,
        call=f"from_formula(..., treat={show(by.treat_name)}, ",
    )
    models = formula_models(formulas, by.treat_name, sources, rows.keep)
    return _finish(models, coding, by, rows, observed, notes, constant_outcome, missing)


def design_from_arrays(
    endog: Any,
    exog: Any,
    treat: Any,
    *,
    exog_propensity: Any = None,
    treated: Any = None,
    reference: Any = None,
    levels: Mapping[Any, str] | None = None,
    weights: Any = None,
    weight_type: str | None = None,
    cluster: Any = None,
    propensity_score: Any = None,
    missing: str = "drop",
    constant_outcome: bool = False,
) -> Design:
    """Make a design from arrays.

    Parameters
    ----------
    endog : array-like, shape (N,)
        Outcome.
    exog : array-like, shape (N, p)
        Outcome design. No constant is added; a missing one is warned of.
    treat : array-like, shape (N,)
        Treatment.
    exog_propensity : array-like, shape (N, q), optional
        Propensity design; `exog` by default.
    treated, reference : scalar, optional
        Level of the treatment that is treated, or the reference level.
    levels : mapping, optional
        Printed label of each raw treatment level.
    weights : array-like, shape (N,), optional
        Observation weights; rows of weight zero are left out.
    weight_type : {"frequency", "probability"}, optional
        What the weights mean; needed with `weights`.
    cluster : array-like, shape (N,), optional
        Clusters.
    propensity_score : array-like, shape (N,), or DataFrame or ndarray, shape (N, K), optional
        Known probability of the treated arm, or of each arm: the columns of a DataFrame named after levels or labels,
        those of an array in the order of the labels, reference first.
    missing : {"drop", "raise"}
        What to do with rows that miss any value.
    constant_outcome : bool
        Whether the estimator's outcome model is one constant per arm (Hajek), so that arms are not checked for more.

    Returns
    -------
    Design
        Frozen arrays on one estimation sample; its formulas are None.

    Raises
    ------
    DesignError
        If the arrays do not describe a model that can be fitted.
    OptionError
        If an option has a value that is not allowed.
    TypeError
        If an argument is of a type that is not accepted.
    """
    notes: list[str] = []
    given = (treat, weights, cluster, propensity_score)
    index = common_index((endog, exog, exog_propensity, *given), _length(endog))
    y = align(endog, index, "endog", notes)
    endog_name = "y" if y.name is None else str(y.name)
    right = named_columns(exog, "exog", index, notes)
    assign = right if exog_propensity is None else named_columns(exog_propensity, "exog_propensity", index, notes)
    by = by_rows(Table(index), given, weight_type, {}, notes)
    for what, columns in (("exog", right), ("exog_propensity", assign)):
        _check_columns(what, columns, by.treat_name, None if y.name is None else endog_name)
    sources = [Source("outcome", endog_name, y), *merge_sources(right, assign)]
    rows, observed = draw_sample(sources, by, index, missing, notes)

    coding = code_treatment(
        by.treat[rows.keep],
        by.treat_name,
        treated=treated,
        reference=reference,
        levels=levels,
        call="Model(endog, exog, treat, ",
    )

    def matrix(columns: Mapping[str, pd.Series]) -> np.ndarray:
        return np.column_stack([numbers(c[rows.keep], f"column {name!r}") for name, c in columns.items()])

    models = Models(
        y=numbers(y[rows.keep].rename(endog_name), f"outcome {endog_name!r}"),
        X=matrix(right),
        Z=matrix(assign),
        outcome=ArrayEncoder(tuple(right), "outcome"),
        propensity=ArrayEncoder(tuple(assign), "propensity"),
        endog_name=endog_name,
        formula=None,
        propensity_formula=None,
        categories={},
    )
    return _finish(models, coding, by, rows, observed, notes, constant_outcome, missing)


def _check_columns(what: str, columns: Mapping[str, pd.Series], treat: str, outcome: str | None) -> None:
    for kind, name in (("treatment", treat), ("outcome", outcome)):
        if name in columns:
            raise DesignError(
                f"the {kind} {name!r} is a column of {what}; expected covariates only.\n"
                f'Leave it out:  {what}.drop(columns="{name}").'
            )


def _length(values: Any) -> int:
    return len(values) if hasattr(values, "__len__") else 0


def _finish(
    models: Models,
    coding: Coding,
    by: ByRows,
    rows: Rows,
    observed: np.ndarray | None,
    notes: list[str],
    constant_outcome: bool,
    missing: str,
) -> Design:
    """Drop dependent columns, check what the arms support, and freeze."""
    n = len(models.y)
    weights = np.ones(n) if observed is None else observed[rows.keep]
    cluster = None
    if by.cluster is not None and by.cluster_name is not None:
        cluster = cluster_codes(by.cluster[rows.keep], by.cluster_name)
    keep = usable_columns(models.X, models.outcome.names, "outcome", notes)
    keep_z = usable_columns(models.Z, models.propensity.names, "propensity", notes)
    X, Z = np.ascontiguousarray(models.X[:, keep]), np.ascontiguousarray(models.Z[:, keep_z])
    outcome, propensity = models.outcome.keeping(keep), models.propensity.keeping(keep_z)
    check_arms(
        X,
        Z,
        coding.arm,
        coding.labels,
        outcome.names,
        counts=weights if by.weight_type == "frequency" else None,
        variables=models.categories,
        constant_outcome=constant_outcome,
    )
    for note in notes:
        warn_user(note, DesignWarning)
    return Design(
        y=models.y,
        X=X,
        Z=Z,
        arm=coding.arm,
        weights=weights,
        weight_type=by.weight_type,
        cluster=cluster,
        score=None if by.score is None else score_matrix(by.score, rows.keep, coding),
        labels=coding.labels,
        levels=coding.levels,
        endog_name=models.endog_name,
        treat_name=by.treat_name,
        exog_names=outcome.names,
        propensity_names=propensity.names,
        formula=models.formula,
        propensity_formula=models.propensity_formula,
        index=by.treat.index[rows.keep],
        in_sample=pd.Series(rows.keep, index=by.treat.index, name="in_sample"),
        sample_ledger=rows.ledger,
        notes=tuple(notes),
        weights_name=by.weights_name,
        cluster_name=by.cluster_name,
        score_name=None if by.score is None else by.score.name,
        constant_outcome=constant_outcome,
        missing=missing,
        outcome_encoder=outcome,
        propensity_encoder=propensity,
    )

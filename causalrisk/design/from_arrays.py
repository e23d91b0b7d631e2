"""Arrays turned into a design on one estimation sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design.build import Models, code_treatment, freeze, merge_sources
from causalrisk.design.columns.dtypes import numbers
from causalrisk.design.columns.tables import Table, align, common_index, named_columns
from causalrisk.design.design import Design
from causalrisk.design.encoders import ArrayEncoder
from causalrisk.design.rows import ColumnOptions, Source, by_rows, draw_sample
from causalrisk.design.support.columns import Matrices
from causalrisk.errors import DesignError


def design_from_arrays(
    endog: Any, exog: Any, columns: ColumnOptions, *, exog_propensity: Any = None, constant_outcome: bool = False
) -> Design:
    """Make a design from arrays.

    Parameters
    ----------
    endog : array-like, shape (N,)
        Outcome.
    exog : array-like, shape (N, p)
        Outcome design. No constant is added; a missing one is warned of.
    columns : ColumnOptions
        The treatment, weights, clusters and scores: one value per row each.
    exog_propensity : array-like, shape (N, q), optional
        Propensity design; `exog` by default.
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
    _check_order(exog, columns.treat)
    by_row = (
        columns.treat,
        columns.weights,
        columns.cluster,
        columns.offset,
        columns.exposure,
        columns.propensity_score,
    )
    index = common_index((endog, exog, exog_propensity, *by_row), _length(endog))
    y = align(endog, index, "endog", notes)
    endog_name = "y" if y.name is None else str(y.name)
    right = named_columns(exog, "exog", index, notes)
    assign = right if exog_propensity is None else named_columns(exog_propensity, "exog_propensity", index, notes)
    by = by_rows(Table(index), columns, {}, notes)
    for what, design in (("exog", right), ("exog_propensity", assign)):
        _check_columns(what, design, by.treat.name, None if y.name is None else endog_name)
    sources = [Source("outcome", endog_name, y), *merge_sources(right, assign)]
    rows, observed = draw_sample(sources, by=by, index=index, missing=columns.missing, notes=notes)
    coding = code_treatment(by.treat, rows, columns, call="Model(endog, exog, treat, ")

    def matrix(given: Mapping[str, pd.Series]) -> np.ndarray:
        return np.column_stack([numbers(rows.of(c), f"column {name!r}") for name, c in given.items()])

    X = matrix(right)
    models = Models(
        y=numbers(rows.of(y).rename(endog_name), f"outcome {endog_name!r}"),
        matrices=Matrices(
            X=X,
            Z=X if assign is right else matrix(assign),
            outcome=ArrayEncoder(tuple(right), "outcome"),
            propensity=ArrayEncoder(tuple(assign), "propensity"),
        ),
        endog_name=endog_name,
        formula=None,
        propensity_formula=None,
    )
    return freeze(
        models,
        coding=coding,
        by=by,
        rows=rows,
        observed=observed,
        notes=notes,
        columns=columns,
        constant_outcome=constant_outcome,
    )


def _check_order(exog: Any, treat: Any) -> None:
    """Refuse the treatment in the place of the covariates, which other packages have second."""
    covariates: tuple[int, ...] = getattr(exog, "shape", ())
    treatment: tuple[int, ...] = getattr(treat, "shape", ())
    if len(covariates) == 1 and len(treatment) == 2 and treatment[1] > 1:
        raise DesignError(
            f"treat has {treatment[1]} columns and exog one; expected them the other way round.\n"
            "Type  endog=y, exog=X, treat=d."
        )


def _check_columns(what: str, columns: Mapping[str, pd.Series], treat: str, outcome: str | None) -> None:
    for kind, name in (("treatment", treat), ("outcome", outcome)):
        if name in columns:
            raise DesignError(
                f"the {kind} {name!r} is a column of {what}; expected covariates only.\n"
                f'Leave it out:  {what}.drop(columns="{name}").'
            )


def _length(values: Any) -> int:
    return len(values) if hasattr(values, "__len__") else 0

"""Propensity scores that are given: as columns, one for the treated or one for each arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design.columns.dtypes import listing, numbers
from causalrisk.design.columns.tables import Table, as_pandas, find_column, named_columns
from causalrisk.design.treatment import Coding
from causalrisk.errors import DesignError, OptionError

SUM_TOLERANCE = 1e-6  # a sum over arms of scores in single precision may be so far from one


@dataclass(frozen=True)
class Score:
    """Propensity scores as they were given, on the caller's index.

    Parameters
    ----------
    name : str or None
        Name of a single column.
    columns : dict of str to Series
        One column, the probability of the treated arm, or one per arm; the keys are the names of the columns.
    matched : bool
        Whether the columns go by their names; else they are in the order of the arms.
    """

    name: str | None
    columns: dict[str, pd.Series]
    matched: bool


def is_classifier(value: Any) -> bool:
    """Return True if a value has the methods of a classifier; an OptionError where it is nearly one."""
    if not hasattr(value, "fit"):
        return False
    if isinstance(value, type):
        raise OptionError(
            f"propensity_score={value.__name__} is a class; expected a classifier.\n"
            f"Type  propensity_score={value.__name__}()."
        )
    if not hasattr(value, "predict_proba"):
        raise OptionError(
            f"propensity_score is a {type(value).__name__}, which has no predict_proba; expected a classifier.\n"
            "Type  propensity_score=sklearn.linear_model.LogisticRegression()  for example."
        )
    return True


def find_score(value: Any, table: Table, frame: Mapping[str, Any], notes: list[str]) -> Score | None:
    """Find the propensity scores.

    Parameters
    ----------
    value : str, array-like of shape (N,), or DataFrame or ndarray of shape (N, K), or None
        A column's name, one value per row, or one column per arm.
    table : Table
        The columns there are.
    frame : mapping of str to object
        The caller's variables.
    notes : list of str
        A line is appended if the rows had to be put into another order.

    Returns
    -------
    Score or None
        None if there are none.
    """
    if value is None:
        return None
    matrix = as_pandas(value)
    if isinstance(matrix, pd.DataFrame | np.ndarray) and matrix.ndim == 2 and matrix.shape[1] > 1:
        found = named_columns(value, "propensity score", table.index, notes)
        matched = isinstance(matrix, pd.DataFrame)
        columns = {key if matched else str(j): column for j, (key, column) in enumerate(found.items())}
        named = {key: column.rename(f"propensity_score[{key}]") for key, column in columns.items()}
        return Score(None, named, matched)
    column, name = find_column(value, "propensity score", "propensity_score", table, frame, notes)
    return Score(name, {name: column.rename(name)}, False)


def score_matrix(score: Score, keep: np.ndarray, coding: Coding) -> np.ndarray:
    """Return the probability of each arm.

    Parameters
    ----------
    score : Score
        The scores.
    keep : ndarray of bool, shape (N,)
        The rows in the sample.
    coding : Coding
        The arms.

    Returns
    -------
    ndarray of float64, shape (n, K)
        Rows sum to one, up to rounding.

    Raises
    ------
    DesignError
        If there is not one column per arm, or the values are not probabilities strictly between 0 and 1.
    """
    columns = [_inside(score.columns[key][keep], arm) for key, arm in _places(score, coding)]
    if len(columns) == 1:
        return np.column_stack([1 - columns[0], columns[0]])
    matrix = np.column_stack(columns)
    total = matrix.sum(axis=1)
    off = np.abs(total - 1) > SUM_TOLERANCE
    if off.any():
        raise DesignError(
            f"the propensity scores of the {len(columns)} arms sum to something else than 1 in {int(off.sum())} rows "
            f"(e.g. {total[off][0]:.6g}); expected one probability per arm.\n"
            "Divide each row by its sum:  scores.div(scores.sum(axis=1), axis=0)."
        )
    return matrix


def _inside(column: pd.Series, arm: str) -> np.ndarray:
    values = numbers(column, f"propensity score {column.name!r}")
    outside = (values <= 0) | (values >= 1)
    if outside.any():
        raise DesignError(
            f"propensity score {column.name!r} is outside the open interval (0, 1) in {int(outside.sum())} rows (e.g. "
            f"{values[outside][0]}); expected the probability of arm {arm!r}, above 0 and below 1 in every row.\n"
            "Leave these rows out:  data[(score > 0) & (score < 1)]  (divide percentages by 100)."
        )
    return values


def _places(score: Score, coding: Coding) -> list[tuple[str, str]]:
    """Column and arm of each score, in the order of the arms; only the treated arm if there is one column."""
    keys, levels = list(score.columns), [str(level) for level in coding.levels]
    expected = f"expected one per level: {listing(coding.levels)}"
    if len(keys) == 1:
        if len(levels) == 2:
            return [(keys[0], coding.labels[1])]
        raise DesignError(
            f"propensity score {score.name!r} is one column for {len(levels)} arms; expected one per arm.\n"
            f"Give a DataFrame with the columns {listing(levels)}."
        )
    if not score.matched:
        if len(keys) == len(levels):
            return list(zip(keys, coding.labels, strict=True))
        raise DesignError(
            f"the propensity score has {len(keys)} columns; {expected}.\n"
            "Give them in this order, or as a DataFrame with columns of these names."
        )
    for names in (levels, list(coding.labels)):
        if sorted(names) == sorted(keys):
            return list(zip(names, coding.labels, strict=True))
    raise DesignError(
        f"the propensity score has the columns {listing(keys)}; {expected}.\n"
        f"Name them:  scores.set_axis([{listing(levels)}], axis=1)."
    )

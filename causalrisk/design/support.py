"""The matrices of both models without their dependent columns, checked for what each arm supports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causalrisk.design.column_moments import ColumnMoments
from causalrisk.design.encoders import ArrayEncoder, FormulaEncoder
from causalrisk.design.rank import check_arms

Encoder = FormulaEncoder | ArrayEncoder


@dataclass(frozen=True)
class Matrices:
    """The matrices of both models, and how new rows are coded.

    Parameters
    ----------
    X, Z : ndarray, shape (n, p) and (n, q)
        Outcome and propensity design; one array where both are the same.
    outcome, propensity : FormulaEncoder or ArrayEncoder
        Coding of their columns.
    """

    X: np.ndarray
    Z: np.ndarray
    outcome: Encoder
    propensity: Encoder


def supported(
    given: Matrices,
    arm: np.ndarray,
    labels: Sequence[str],
    notes: list[str],
    *,
    counts: np.ndarray | None,
    variables: Mapping[str, pd.Series],
    constant_outcome: bool,
) -> Matrices:
    """Drop dependent columns with a note, and check what the arms support.

    Parameters
    ----------
    given : Matrices
        With all columns.
    arm, labels, counts, variables, constant_outcome
        As in `check_arms`.
    notes : list of str
        Lines are appended, as by `ColumnMoments.usable`.

    Raises
    ------
    DesignError
        As in `ColumnMoments.usable` and `check_arms`.
    """
    seen = ColumnMoments.of(given.X, arm, len(labels))
    keep = seen.usable(given.outcome.names, "outcome", notes)
    of_z = seen if given.Z is given.X else ColumnMoments.of(given.Z)
    keep_z = of_z.usable(given.propensity.names, "propensity", notes)
    X = _some(given.X, keep)
    Z = X if given.Z is given.X else _some(given.Z, keep_z)
    found = Matrices(
        X=X,
        Z=X if np.array_equal(X, Z) else Z,  # one array in memory, and one basis of it
        outcome=given.outcome.keeping(keep),
        propensity=given.propensity.keeping(keep_z),
    )
    check_arms(
        X,
        n_propensity=Z.shape[1],
        arm=arm,
        labels=labels,
        names=found.outcome.names,
        factors=seen.arms(keep),
        counts=counts,
        variables=variables,
        constant_outcome=constant_outcome,
    )
    return found


def _some(X: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Columns of a matrix, row by row in memory; the same array where they are all of one that is."""
    return np.ascontiguousarray(X if keep.all() else X[:, keep])

"""Can the coefficients be estimated: dependent columns, conditioning, and what each arm by itself supports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design.columns.dtypes import listing
from causalrisk.errors import DesignError
from causalrisk.numerics.linalg import Array

LARGE_CONDITION = 1e7
SMALLEST, LARGEST = 1e-152, 1e152  # sizes of the largest value of a column whose squares are numbers


def check_magnitude(values: np.ndarray, what: str) -> None:
    """Raise a DesignError where the largest of the values has a square that no float holds.

    Parameters
    ----------
    values : ndarray, shape (n,)
        A column.
    what : str
        What it is, for the message, e.g. ``"outcome 'y'"``.
    """
    largest = float(np.abs(values).max(initial=0))
    if largest and not SMALLEST <= largest <= LARGEST:
        raise DesignError(
            f"{what} has values of the size {largest:.3g}; expected sizes from {SMALLEST:g} to {LARGEST:g}, as their "
            f"squares are needed.\nChange its unit: divide it by {largest:.1g}."
        )


def note_columns(found: ColumnFacts, names: Sequence[str], model: str, notes: list[str]) -> None:
    """Note dependent columns, a missing constant and near-collinearity.

    Parameters
    ----------
    found : ColumnFacts
        Of a design.
    names : sequence of str
        Names of its columns.
    model : {"outcome", "propensity"}
        For messages.
    notes : list of str
        Lines are appended.
    """
    keep = found.keep
    dropped = [name for name, kept in zip(names, keep, strict=True) if not kept]
    if dropped:
        notes.append(
            f"{model} model: dropped {listing(dropped)}, linear combinations of the columns before (a constant column "
            "is one of the intercept). Leave them out of the formula to silence this."
        )
    if not found.constant:
        notes.append(
            f"{model} model: no constant among the columns ({listing(n for n in names if n not in dropped)}). "
            "Add one, unless a model through the origin is meant."
        )
    if found.condition > LARGE_CONDITION:
        notes.append(
            f"{model} model: the columns are nearly dependent (condition number {found.condition:.2g} after centring "
            "and scaling), so coefficients may be imprecise. Leave out one of the near-duplicates."
        )


def check_arms(
    X: np.ndarray,
    n_propensity: int,
    arm: np.ndarray,
    labels: Sequence[str],
    names: Sequence[str],
    *,
    factors: Sequence[np.ndarray],
    counts: np.ndarray | None = None,
    variables: Mapping[str, pd.Series] | None = None,
    constant_outcome: bool = False,
) -> None:
    """Raise if an arm cannot support its outcome coefficients, or the sample the propensity coefficients.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Outcome design of full column rank.
    n_propensity : int
        Coefficients of the propensity model.
    arm : ndarray of int, shape (n,)
        Arm of each row.
    labels : sequence of str
        Printed arm labels.
    names : sequence of str
        Names of the columns of X.
    factors : sequence of ndarray, shape (r, p)
        For each arm, rows with the inner products of its columns.
    counts : ndarray, shape (n,), optional
        How many units each row stands for (frequency weights).
    variables : mapping of str to Series, optional
        Categorical variables of the outcome formula; a level without rows in an arm is then named.
    constant_outcome : bool
        Whether the outcome model is one constant per arm, whatever X holds.

    Raises
    ------
    DesignError
        Naming the arm, its number of rows and of coefficients, or the term that it cannot estimate.
    """
    size = np.bincount(arm, weights=counts, minlength=len(labels))
    check_arm_sizes(size, labels, 1 if constant_outcome else X.shape[1], n_propensity)
    if constant_outcome:
        return
    for k, factor in enumerate(factors):
        dependent = np.flatnonzero(~independent_columns(factor))
        if dependent.size:
            raise _not_estimable(
                X, arm=arm, k=k, labels=labels, names=names, dependent=dependent, variables=variables or {}
            )


def check_arm_sizes(size: np.ndarray, labels: Sequence[str], p: int, q: int) -> None:
    """Raise a DesignError where an arm has no more observations than its outcome model has coefficients.

    Parameters
    ----------
    size : ndarray, shape (K,)
        Observations in each arm.
    labels : sequence of str
        Printed arm labels.
    p, q : int
        Coefficients of the outcome model of an arm, and of the propensity model.
    """
    noun = "coefficient" if p == 1 else "coefficients"
    for k, label in enumerate(labels):
        if size[k] <= p:
            raise DesignError(
                f"arm {label!r} has {size[k]:.0f} rows for {p} outcome {noun}; expected more rows than coefficients.\n"
                "Use fewer outcome terms, or more data."
            )
    n = size.sum()
    if n <= q:
        raise DesignError(
            f"{n:.0f} rows for {q} propensity coefficients; expected more rows than coefficients.\n"
            "Use fewer terms in propensity=, or more data."
        )


def _not_estimable(
    X: np.ndarray,
    arm: np.ndarray,
    k: int,
    labels: Sequence[str],
    names: Sequence[str],
    dependent: np.ndarray,
    variables: Mapping[str, pd.Series],
) -> DesignError:
    label, inside = labels[k], X[arm == k]
    found = [*_empty_levels(arm, k, labels, variables)]
    for j in [] if found else dependent:
        column, everywhere = inside[:, j], X[:, j]
        if np.ptp(column) > 0:
            found.append(f"{names[j]} is a linear combination of the other terms in arm {label!r}")
        elif column[0] == 0 and np.isin(everywhere, (0, 1)).all():
            others = [other for i, other in enumerate(labels) if i != k and X[arm == i, j].any()]
            found.append(f"{names[j]} = 1 has rows only in {_arms(others)} ({int(everywhere.sum())})")
        else:
            found.append(f"{names[j]} is {column[0]:g} in all {len(inside)} rows of arm {label!r}")
    return DesignError(
        f"{'; '.join(found[:5])}, so the outcome model of arm {label!r} cannot be estimated.\n"
        "Merge that level with another, leave the term out of the outcome formula, or restrict the sample to rows that "
        "all arms cover."
    )


def _empty_levels(arm: np.ndarray, k: int, labels: Sequence[str], variables: Mapping[str, pd.Series]) -> list[str]:
    found = []
    for name, values in variables.items():
        values = pd.Series(np.asarray(values, dtype=object))
        inside = set(values[arm == k])
        for level in pd.unique(values):
            if level not in inside:
                others = [other for i, other in enumerate(labels) if level in set(values[arm == i])]
                rows = int((values == level).sum())
                found.append(f"{name} = {level!r} has rows only in {_arms(others)} ({rows})")
    return found


def _arms(labels: Sequence[str]) -> str:
    return ("arm " if len(labels) == 1 else "arms ") + ", ".join(map(repr, labels))


@dataclass(frozen=True)
class ColumnFacts:
    """What the angles between the columns of a design tell.

    Parameters
    ----------
    keep : ndarray of bool, shape (p,)
        Columns that are not linear combinations of earlier ones.
    constant : bool
        Whether the constant is a linear combination of them.
    condition : float
        Condition number of these after centring, if a constant is among them, and scaling; 1.0 for a constant alone.
    """

    keep: NDArray[np.bool_]
    constant: bool
    condition: float


def factor_facts(factor: Array, steady: NDArray[np.bool_]) -> ColumnFacts:
    """Tell what the angles between columns tell, which are those of the columns of their triangular factor.

    Parameters
    ----------
    factor : ndarray, shape (r, 1 + p)
        Triangular factor of a column of ones and the columns of a design.
    steady : ndarray of bool, shape (p,)
        Which of these are constant.
    """
    ones, columns = factor[:, :1], factor[:, 1:]
    keep = independent_columns(columns)
    constant = not independent_columns(np.concatenate([columns[:, keep], ones], axis=1))[-1]
    # the first row of the factor is along the constant: without it the columns are centred
    varying = factor[1:, 1:][:, keep & ~steady] if (keep & steady).any() else columns[:, keep]
    return ColumnFacts(keep, constant, condition_number(varying))


def independent_columns(X: Array, tol: float = 1e-13) -> NDArray[np.bool_]:
    """Mark the columns that are not linear combinations of earlier ones.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Design matrix.
    tol : float, default 1e-13
        A column is dependent when the sine of its angle to the span of the earlier kept ones is below this.

    Returns
    -------
    ndarray of bool, shape (p,)
        True for the columns to keep.
    """
    keep = np.zeros(X.shape[1], dtype=bool)
    norms = np.linalg.norm(X, axis=0)
    unit = X / np.where(norms > 0, norms, 1.0)
    basis, rank = np.empty(X.shape, order="F"), 0
    for j in range(X.shape[1]):
        rest = unit[:, j]
        for _ in range(2):  # twice is enough for orthogonality to working precision
            rest = rest - basis[:, :rank] @ (basis[:, :rank].T @ rest)
        length = np.linalg.norm(rest)
        if norms[j] > 0 and length > tol and rank < X.shape[0]:
            keep[j] = True
            basis[:, rank] = rest / length
            rank += 1
    return keep


def condition_number(columns: Array) -> float:
    """Ratio of the largest to the smallest singular value of scaled columns, shape (r, p); 1.0 where there is none."""
    if columns.shape[1] == 0:
        return 1.0
    norms = np.linalg.norm(columns, axis=0)
    if not norms.all():
        return np.inf
    singular = np.linalg.svd(columns / norms, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else np.inf

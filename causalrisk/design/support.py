"""What the rows support: columns that both models can keep, notes on causes of others, and sizes that memory holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design.dtypes import listing
from causalrisk.design.encoders import Encoder
from causalrisk.design.rank import ColumnMoments, Dependence, check_arm_sizes
from causalrisk.design.rows import ColumnOptions
from causalrisk.errors import DesignError
from causalrisk.numerics.linalg import Array, row_blocks
from causalrisk.runtime.system import memory

SUMS = 6  # matrices of a resample (or cluster) at a time: a block's, the sum before, and copies within the steps
COPIES = 6  # copies of a design: columns as given and as coded, both bases, and arrays of a fit over some rows
SHOWN = 5  # causes named in a message
SIDE = 1e-8  # values of a combination this far beyond zero, relative to the largest, are rounding error


def check_size(rows: int, columns: int, what: str) -> None:
    """Refuse a design, named by `what`, that does not fit the memory with the arrays of a fit."""
    _check_memory(8.0 * COPIES * rows * columns, f"{what}, with {columns:,} columns and {rows:,} rows,", "columns")


def _check_memory(needed: float, what: str, fewer: str) -> None:
    """Refuse what needs more bytes than there are; `fewer` says what to have fewer of."""
    there = memory()
    if needed > there:
        raise DesignError(
            f"{what} needs {needed / 1e9:,.3g} GB, and this computer has {there / 1e9:,.3g} GB.\nUse fewer {fewer}."
        )


def check_pairs(rows: int, columns: int, what: str, why: str = "", advice: str = "Use fewer levels") -> None:
    """Refuse a design, named by `what`, whose products of all pairs of columns do not fit the memory.

    `why` says where the columns are from, `advice` what else than fewer columns helps.
    """
    found = f"{what}, with {columns:,} columns{why} and {rows:,} rows, by the products of all pairs of columns"
    _check_memory(4.0 * rows * columns * (columns + 1), found, f"columns. {advice}")


def check_levels(rows: int, columns: Mapping[str, pd.Series], coded: set[str], model: str) -> None:
    """Refuse variables of a model with too many levels to be fitted; `coded` are numbers that are categories too."""
    levels = {
        name: int(values.nunique())
        for name, values in columns.items()
        if name in coded or values.dtype.kind not in "bif"
    }
    if levels:
        most = max(levels, key=lambda name: levels[name])
        check_pairs(rows, sum(levels.values()), f"the {model} model", f" ({most!r} alone has {levels[most]:,} levels)")


@dataclass(frozen=True)
class Rules:
    """Rules for the columns of both models.

    Parameters
    ----------
    collinear : {"drop", "raise"}
        Whether dependent columns, in all rows or within an arm, are dropped or refused.
    constant_outcome : bool
        Whether the outcome model is one constant per arm, whatever its columns.
    scores : {"likely", "balanced", "as they are"}
        Rule for the columns of the propensity model: one that separates an arm takes its maximum from a
        likelihood; one that does not vary within an arm cannot be balanced by any weights; scores that are given, and
        rows that are to be trimmed because the model separates them, leave the columns as they are.
    of_controls : bool
        Whether only the controls need an outcome model: the outcome is a change, and the mean of the treated is that of
        their rows.
    """

    collinear: str
    constant_outcome: bool
    scores: str
    of_controls: bool = False

    @classmethod
    def of(cls, columns: ColumnOptions, constant_outcome: bool, joint_outcome: bool = False) -> Rules:
        """Return the rules from the options of a call."""
        separated = isinstance(columns.trim, str) and columns.trim == "separated"
        kept = separated or columns.propensity_score is not None
        balanced = columns.propensity_loss == "calibrated"
        scores = "as they are" if kept else "balanced" if balanced else "likely"
        of_controls = columns.did is not None and not columns.did.cross_sections and not joint_outcome
        return cls(columns.collinear, constant_outcome, scores, of_controls)


@dataclass(frozen=True)
class ModelColumns:
    """All columns of a model.

    Parameters
    ----------
    seen : ColumnMoments
        Moments of the columns over the rows.
    encoder : FormulaEncoder or ArrayEncoder
        Their coding.
    labels : tuple of str
        Printed labels of the arms, which are those of `seen`; of repeated cross sections arms in either period.
    """

    seen: ColumnMoments
    encoder: Encoder
    labels: tuple[str, ...]


Spans = Callable[[Array], tuple[Array, Array]]
Lost = tuple[ModelColumns, Sequence[Dependence]]


def supported_columns(
    outcome: ModelColumns,
    propensity: ModelColumns,
    size: np.ndarray,
    rules: Rules,
    notes: list[str],
    spans: Spans,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Mark the columns of both models that can have coefficients, the same in all arms.

    Parameters
    ----------
    outcome, propensity : ModelColumns
        Columns of both models.
    size : ndarray, shape (K,)
        Observations in each arm of the outcome model.
    rules : Rules
        Rules for the columns.
    notes : list of str
        Lines are appended for columns that are dropped, and as by `ColumnMoments.usable`.
    spans : callable
        Combinations of the columns of the propensity model, shape (q, m) -> their limits, as by `arm_spans`.

    Returns
    -------
    keep : ndarray of bool, shape (p,)
        Columns of the outcome models: of dependent ones the earlier, as in R's ``lm``.
    keep_z : ndarray of bool, shape (q,)
        Columns of the propensity model. One that depends on others within an arm is left out where their combination
        has one sign in each other arm, so that the likelihood has no maximum, and where weights have to balance it.

    Raises
    ------
    DesignError
        If an arm has no more rows than coefficients, `collinear` is "raise" and columns are dependent, or none is left.
    """
    x, z = outcome.seen, propensity.seen
    keep = x.usable(outcome.encoder.names, "outcome", notes, rules.collinear)
    keep_z = z.usable(propensity.encoder.names, "propensity", notes, rules.collinear)
    p = 1 if rules.constant_outcome else int(keep.sum())
    check_arm_sizes(size, outcome.labels, p, int(keep_z.sum()), rules.of_controls)
    of_x: list[Dependence] = []
    of_z: list[Dependence] = []
    if not rules.constant_outcome:
        keep, of_x = x.within_arms(keep, n_arms=1 if rules.of_controls else None)
    if of_x and rules.collinear == "raise":
        arm = of_x[0].arm
        raise DesignError(
            f"{_causes(outcome, [found for found in of_x if found.arm == arm])}, so the outcome model of arm "
            f"{outcome.labels[arm]!r} cannot be estimated.\nMerge that level with another, leave out the term or the "
            'rows, or use `collinear="drop"`.'
        )
    if rules.collinear == "drop" and rules.scores == "balanced":
        keep_z, of_z = z.within_arms(keep_z)
    elif rules.collinear == "drop" and rules.scores == "likely":
        keep_z, of_z = _without_separating(z, keep_z, spans)
    for what, model, found, kept in (("outcome", outcome, of_x, keep), ("propensity", propensity, of_z, keep_z)):
        if found and not kept.any():
            raise DesignError(
                f"{_causes(model, found)}, so the {what} model has no column left that every arm tells apart.\n"
                "Add a constant, merge levels that an arm lacks, or leave out the terms that say which arm a row is in."
            )
    notes.extend(_lost_notes((outcome, of_x), (propensity, of_z)))
    return keep, keep_z


def _without_separating(
    seen: ColumnMoments, among: NDArray[np.bool_], spans: Spans
) -> tuple[NDArray[np.bool_], list[Dependence]]:
    """Drop the columns that depend on others within an arm and separate it from the other arms; return both."""
    exempt = np.zeros(len(among), dtype=bool)
    while True:
        keep, found = seen.within_arms(among, exempt)
        if not found:
            return keep, []
        low, high = spans(np.column_stack([one.direction for one in found]))
        side = SIDE * np.maximum(np.abs(low), np.abs(high)).max(axis=0)
        separates = ((low >= -side) | (high <= side)).all(axis=0)
        separating = [one for one, does in zip(found, separates, strict=True) if does]
        harmless = {one.column for one in found} - {one.column for one in separating}
        if not harmless:
            return keep, separating
        exempt[list(harmless)] = True


def arm_spans(columns: Array, arm: np.ndarray, n_arms: int, directions: Array) -> tuple[Array, Array]:
    """Limits in each arm, shape (K, m) each, of combinations, shape (p, m), of columns, shape (n, p)."""
    low = np.full((n_arms, directions.shape[1]), np.inf)
    high = -low
    for rows in row_blocks(len(columns)):
        values = columns[rows] @ directions
        for a in range(n_arms):
            own = values[arm[rows] == a]
            low[a] = np.minimum(low[a], own.min(axis=0, initial=np.inf))
            high[a] = np.maximum(high[a], own.max(axis=0, initial=-np.inf))
    return low, high


def _lost_notes(from_outcome: Lost, from_propensity: Lost) -> list[str]:
    """Return notes on terms left out for what an arm's rows do not tell; one note where both models lose a term."""
    (outcome, of_x), (propensity, of_z) = from_outcome, from_propensity
    names_x, names_z = outcome.encoder.names, propensity.encoder.names
    both = {names_x[one.column] for one in of_x} & {names_z[one.column] for one in of_z}
    groups = (
        ("outcome and propensity models", outcome, [one for one in of_x if names_x[one.column] in both]),
        ("outcome model", outcome, [one for one in of_x if names_x[one.column] not in both]),
        ("propensity model", propensity, [one for one in of_z if names_z[one.column] not in both]),
    )
    return [_lost_note(what, model, found) for what, model, found in groups if found]


def _lost_note(what: str, model: ModelColumns, found: Sequence[Dependence]) -> str:
    names = listing(dict.fromkeys(model.encoder.names[one.column] for one in found))
    return (
        f"{what}: dropped {names} in all arms. {_causes(model, found, dropped=True)}. What an arm has no rows "
        "for is a lack of overlap: its outcome there is extrapolated.\n"
        "Merge such a level with another, or leave its rows out of the data."
    )


def _causes(model: ModelColumns, found: Sequence[Dependence], *, dropped: bool = False) -> str:
    """Clauses that say why the rows of arms do not tell columns apart, and what dropping them implies."""
    texts = list(dict.fromkeys(_cause(model, one, dropped) for one in found))
    more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more


def _cause(model: ModelColumns, found: Dependence, dropped: bool) -> str:
    """Say why the rows of an arm do not tell a column from the ones before: a level, a constant, a combination."""
    seen, names, labels, j, k = model.seen, model.encoder.names, model.labels, found.column, found.arm
    nonzero, value, references = seen.nonzero[:, j], seen.low[k, j] + 0.0, model.encoder.reference_levels()
    factor, level = model.encoder.level_columns().get(names[j], ("", None))
    plain = re.sub(r"^C\((\w+)\)$", r"\1", factor)
    if factor and not nonzero[k]:
        others = [other for of, other, _ in references if of == factor]
        like = f"as those of {plain} = {listing(others)}" if others else f"with 0 for {plain}, as there is no constant"
        like = f", and they are predicted {like}" if dropped else ""
        return f"{plain} = {listing([level])} has rows only in {_arms(nonzero, labels)}{like}"
    if value == seen.high[k, j]:
        elsewhere = "" if value else f", and is not in {_arms(nonzero, labels)}"
        return f"{names[j]} is {value:g} in all {seen.rows[k]} rows of arm {labels[k]!r}{elsewhere}"
    for of, reference, columns in references:
        if of == factor and set(columns) <= set(names):
            rows = seen.rows - seen.nonzero[:, [names.index(column) for column in columns]].sum(axis=1)
            if not rows[k]:
                like = f", and they are predicted as those of {plain} = {listing([level])}" if dropped else ""
                of_level = f"{plain} = {listing([reference])}, the reference level,"
                return f"{of_level} has rows only in {_arms(rows, labels)}{like}"
    combined = [name for name, share in zip(names, found.direction, strict=True) if share and name != names[j]]
    return f"{names[j]} is a linear combination of {listing(combined)} in arm {labels[k]!r}"


def _arms(rows: np.ndarray, labels: Sequence[str]) -> str:
    there = [(label, count) for label, count in zip(labels, rows, strict=True) if count]
    names = ", ".join(repr(label) for label, _ in there)
    return f"arm{'s' if len(there) > 1 else ''} {names} ({sum(count for _, count in there)})"


def left_out(encoder: Encoder, keep: NDArray[np.bool_]) -> list[str]:
    """Names of the columns that are not kept."""
    return [name for name, kept in zip(encoder.names, keep, strict=True) if not kept]

"""Target frame: another population's covariates, coded as in the estimation sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design.columns.dtypes import listing
from causalrisk.design.columns.tables import as_table, nearest
from causalrisk.design.design import Design
from causalrisk.design.rows import Source, estimation_sample
from causalrisk.errors import DesignError


@dataclass(frozen=True, eq=False)
class TargetRows:
    """Rows of another population under the columns of a design.

    Parameters
    ----------
    X : ndarray of float64, shape (m, p)
        Outcome design.
    Z : ndarray of float64, shape (m, q)
        Propensity design.
    index : pandas.Index
        Labels of the m rows.
    dropped : int
        Rows of the frame that miss a covariate.
    notes : tuple of str
        Notes on the rows.
    """

    X: np.ndarray
    Z: np.ndarray
    index: pd.Index
    dropped: int
    notes: tuple[str, ...]


def target_rows(design: Design, data: Any, missing: str = "drop") -> TargetRows:
    """Code the rows of another population.

    Parameters
    ----------
    design : Design
        The design.
    data : DataFrame or mapping of str to array-like
        The target frame: all covariates of both models; outcome and treatment are not needed.
    missing : {"drop", "raise"}
        Whether to leave out rows that miss a covariate, or to refuse them.

    Returns
    -------
    TargetRows
        Coded with the levels, the means of ``center()`` and so on of the estimation sample.

    Raises
    ------
    DesignError
        If the frame has no rows, lacks a column, or has a level that the estimation sample did not have.
    OptionError
        If `missing` is not an option.
    TypeError
        If the target frame is of another type.
    """
    notes: list[str] = []
    table = as_table(data, notes)
    models = {"outcome": design.outcome_encoder, "propensity": design.propensity_encoder}
    _check_names(design)
    sources = {}
    for model, encoder in models.items():
        for name in encoder.variables:
            if name not in table:
                raise DesignError(
                    f"the target frame has no column {name!r}, which the {model} model uses.\n"
                    f"Add it. {nearest(name, table.names)}"
                )
            sources[name] = Source(model, name, table.column(name))
    try:
        rows = estimation_sample(list(sources.values()), table.index, missing)
        columns = {name: source.values[rows.keep] for name, source in sources.items()}
        frame = pd.DataFrame(columns, index=table.index[rows.keep])
        X, Z = (encoder.encode(frame) for encoder in models.values())
    except DesignError as error:
        raise DesignError(f"the target frame cannot be used: {error}") from error
    dropped = int((~rows.keep).sum())
    if dropped:
        names = listing(rows.ledger.variable)
        notes.append(
            f"target frame: {dropped} of {len(rows.keep)} rows miss a covariate ({names}) and are left out. Fill in "
            "these values to keep them."
        )
    X.flags.writeable = Z.flags.writeable = False
    return TargetRows(X=X, Z=Z, index=frame.index, dropped=dropped, notes=tuple(notes))


def _check_names(design: Design) -> None:
    """Refuse arrays in which a name stands for different columns of the two models."""
    if design.formula is not None:
        return
    for i, name in enumerate(design.exog_names):
        for j, other in enumerate(design.propensity_names):
            if name == other and not np.array_equal(design.X[:, i], design.Z[:, j]):
                raise DesignError(
                    f"column {name!r} of exog is not the column {name!r} of exog_propensity, so a target frame cannot "
                    "give both.\nName them apart: make exog and exog_propensity DataFrames."
                )

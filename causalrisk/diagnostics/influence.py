"""How much each row moves the effect."""

from __future__ import annotations

import numpy as np
import pandas as pd

from causalrisk.errors import one_of, whole_number
from causalrisk.estimators.record import FitRecord
from causalrisk.inference.jackknife import effect_changes

EXACT_ROWS, QUICK_ROWS = 5000, 1000  # up to so many rows `influence` leaves each of them out


def influence(record: FitRecord, top: int | None = None, method: str | None = None) -> pd.DataFrame:
    """How much each row moves the effect.

    Parameters
    ----------
    top : int, optional
        Only so many rows, those that move it most first; by default all in their order.
    method : {"exact", "shifted", "influence"}, optional
        "exact" redoes every step without the row, at the anchor of the fit; where JRE is trained over replicates
        ("mse", "erm") those too, the other rows drawn as often as before, and "shifted" moves them as the
        propensity score moves, as the bootstrap does. "influence" is the influence function, for large samples,
        which understates the rows with the most. By default exact up to 5000 rows; with replicates exact up to
        1000, about half a minute, and shifted up to 5000.

    Returns
    -------
    DataFrame
        On the index of the data: arm, "change" (the effect without the row less the effect), "in std errors", and
        "weight share", the share of the weight of its arm.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> jobs = datasets.load_lalonde()
    >>> res = IPWRA.from_formula("re78 ~ age + educ + re75", jobs, treat="treat").fit()
    >>> changes = res.influence()["change"]
    >>> bool((changes.abs() > res.effect_se).any())
    False
    """
    replicated = record.joint is not None and not record.joint.criterion.at_fitted_score
    one_of("method", method, (None, "exact", *(("shifted",) if replicated else ()), "influence"))
    design, fit = record.design, record.weight_fit if record.spec.uses_propensity else None
    chosen = method or _influence_method(design.n, replicated)
    change, se = effect_changes(record, chosen), np.sqrt(record.covariance[0, 0])
    weight = design.weights * (1.0 if fit is None else record.sample.restore(fit.undivided))
    frame = pd.DataFrame(
        {
            "arm": np.array(design.labels)[design.arm],
            "change": change,
            "in std errors": change / se if se > 0 else np.nan,
            "weight share": weight / np.bincount(design.arm, weight)[design.arm],
        },
        index=design.index,
    )
    if top is None:
        return frame
    whole_number("top", top, 1)
    return frame.iloc[np.argsort(-frame["change"].abs().fillna(np.inf).to_numpy(), kind="stable")[:top]]


def quick_method(record: FitRecord) -> str:
    """Return how a page of many diagnostics computes the influence of the rows."""
    classifier = record.options.propensity_score is not None
    return "exact" if record.design.n <= QUICK_ROWS and not classifier else "influence"


def _influence_method(n: int, replicated: bool) -> str:
    """Return how the influence of n rows is computed unless it is said."""
    if n <= (QUICK_ROWS if replicated else EXACT_ROWS):
        return "exact"
    return "shifted" if replicated and n <= EXACT_ROWS else "influence"

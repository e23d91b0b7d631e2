"""The effect along the limits that rows are trimmed to."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design import Design
from causalrisk.errors import CausalRiskError, CausalRiskWarning
from causalrisk.fitting import fit_joint, fit_separate
from causalrisk.options import InferenceOptions
from causalrisk.record import FitRecord


def trim_of(limit: Any) -> Any:
    """Turn a limit into the option `trim`: a number a means (a, 1 - a), and zero no trimming."""
    if isinstance(limit, (int, float, np.number)):
        return (float(limit), 1 - float(limit)) if limit else None
    return limit


def trim_curve(record: FitRecord, design: Design, grid: Sequence[Any]) -> pd.DataFrame:
    """Fit the same estimator to the rows within each limits of the propensity score.

    Parameters
    ----------
    record : FitRecord
        A fit: its estimator, options and seed.
    design : Design
        The rows before any trimming.
    grid : sequence
        Limits: numbers, pairs, "crump" or None.

    Returns
    -------
    DataFrame
        A row for each limits; NaN with the reason in "note" where nothing can be estimated.
    """
    rows = []
    for limit in grid:
        options = dataclasses.replace(record.options, trim=trim_of(limit))
        trimmed = "" if options.trim is None else "trimmed "
        row = {"trim": limit, "estimand": trimmed + options.estimand, "n": np.nan, "effect": np.nan, "std err": np.nan}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CausalRiskWarning)  # their texts are in the table
                at = _refit(record, design, options)
        except CausalRiskError as error:
            rows.append({**row, "note": " ".join(str(error).split())})
            continue
        effect, se = at.estimate.params[0], np.sqrt(at.covariance[0, 0])
        note = " ".join(" ".join(at.notes).split())
        row["estimand"] = at.estimand
        rows.append({**row, "n": at.design.nobs, "effect": effect, "std err": se, "note": note})
    return pd.DataFrame(rows).set_index("trim")


def _refit(record: FitRecord, design: Design, options: Any) -> FitRecord:
    """Fit with robust standard errors, which need no resampling."""
    inference = InferenceOptions(cov_type=record.robust_type, rng=record.seed)
    if record.joint is None:
        return fit_separate(design, record.spec, options, inference)
    return fit_joint(design, options, inference, record.joint.options)

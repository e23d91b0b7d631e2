"""The effect along the limits that rows are trimmed to."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.errors import CausalRiskError, CausalRiskWarning
from causalrisk.estimators.fit import fit_joint, fit_separate
from causalrisk.estimators.options import InferenceOptions, ModelOptions
from causalrisk.estimators.record import FitRecord
from causalrisk.inference.covariance import with_covariance

TRIMS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2)


def trim_of(limit: Any) -> Any:
    """Turn a limit into the option `trim`: a number a means (a, 1 - a), and zero no trimming."""
    if isinstance(limit, (int, float, np.number)):
        return (float(limit), 1 - float(limit)) if limit else None
    return limit


def trim_curve(record: FitRecord, grid: Sequence[Any] = TRIMS) -> pd.DataFrame:
    """Effect and robust standard error as rows are trimmed by their propensity score.

    Parameters
    ----------
    grid : sequence
        Limits: a number a keeps scores in [a, 1 - a], a pair (low, high) those between, "crump" the limits that
        minimise the variance, 0 everybody.

    Returns
    -------
    DataFrame
        A row for each limits: the estimand (trimming changes the population it is about), rows kept, effect,
        standard error, and "note" with the warnings of the fit or why there is none.
    """
    rows = []
    for limit in grid:
        options = dataclasses.replace(record.options, trim=trim_of(limit))
        trimmed = "" if options.trim is None else "trimmed "
        row = {"trim": limit, "estimand": trimmed + options.estimand, "n": np.nan, "effect": np.nan, "std err": np.nan}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CausalRiskWarning)  # their texts are in the table
                at = _refit(record, options)
        except CausalRiskError as error:
            rows.append({**row, "note": " ".join(str(error).split())})
            continue
        effect, se = at.estimate.params[0], np.sqrt(at.covariance[0, 0])
        note = " ".join(" ".join(at.notes).split())
        row["estimand"] = at.estimand
        rows.append({**row, "n": at.design.nobs, "effect": effect, "std err": se, "note": note})
    return pd.DataFrame(rows).set_index("trim")


def _refit(record: FitRecord, options: ModelOptions) -> FitRecord:
    """Fit with robust standard errors, which need no resampling."""
    design = record.full_design
    inference = InferenceOptions(cov_type=record.robust_type, rng=record.seed)
    if record.joint is None:
        return with_covariance(fit_separate(design, record.spec, options, inference), inference)
    return with_covariance(fit_joint(design, options, inference, record.joint.options), inference)

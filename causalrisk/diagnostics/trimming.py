"""The effect as a function of the limit that rows are trimmed to."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.errors import CausalRiskError, CausalRiskWarning, UnavailableError
from causalrisk.estimators.fit import fit_joint, fit_separate
from causalrisk.estimators.options import InferenceOptions, ModelOptions
from causalrisk.estimators.record import FitRecord
from causalrisk.inference.covariance import with_covariance

TRIMS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2)


def usual_grid(n_arms: int) -> list[float]:
    """Default limits of the curve; for K arms scaled by 2 / K, the ratio of the mean scores."""
    return [round(2 * limit / n_arms, 4) for limit in TRIMS]


def trim_of(limit: Any) -> Any:
    """Turn a limit into the option `trim`: a number a means (a, 1 - a), and zero no trimming.

    With several arms the scores of a row add up to one, so that a lower limit of all of them is also an upper one.
    """
    if isinstance(limit, (int, float, np.number)):
        return (float(limit), 1 - float(limit)) if limit else None
    return limit


def trim_curve(record: FitRecord, grid: Sequence[Any] | None = None) -> pd.DataFrame:
    """Effect and robust standard error as rows are trimmed by their propensity score.

    Parameters
    ----------
    grid : sequence, optional
        Limits: a number a keeps rows that are in every arm with probability a or more (two arms: scores in
        [a, 1 - a]), a pair (low, high) scores between, "crump" the limits that minimise the variance, 0 everybody.
        By default 0 to 0.2, of K arms times 2 / K.

    Returns
    -------
    DataFrame
        A row for each limits (of several arms for each and each effect): the estimand (trimming changes the population
        it is about), rows kept, effect, standard error, and "note" with the warnings of the fit or why there is none.
    """
    several = record.design.n_arms > 2
    rows: list[dict[str, Any]] = []
    for limit in usual_grid(record.design.n_arms) if grid is None else grid:
        options = dataclasses.replace(record.options, trim=trim_of(limit))
        trimmed = "" if options.trim is None else "trimmed "
        names = record.design.labels[1:]
        estimand = trimmed + options.estimand
        empty = {"estimand": estimand, "n": np.nan, "effect": np.nan, "std err": np.nan}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CausalRiskWarning)  # their texts are in the table
                at = _refit(record, options)
        except UnavailableError:  # a scan refuses it under any limits
            raise
        except CausalRiskError as error:
            failed = {**empty, "note": " ".join(str(error).split())}
            rows += [{"trim": limit, "arm": name, **failed} for name in names]
            continue
        note, found = " ".join(" ".join(at.notes).split()), {"estimand": at.estimand, "n": at.design.nobs}
        for name, effect, se in zip(names, at.estimate.params, at.std_errors, strict=False):
            rows.append({"trim": limit, "arm": name, **found, "effect": effect, "std err": se, "note": note})
    frame = pd.DataFrame(rows)
    return frame.set_index(["trim", "arm"]) if several else frame.drop(columns="arm").set_index("trim")


def _refit(record: FitRecord, options: ModelOptions) -> FitRecord:
    """Fit with robust standard errors, which need no resampling."""
    design = record.full_design
    inference = InferenceOptions(cov_type=record.robust_type, rng=record.seed)
    if record.joint is None:
        return with_covariance(fit_separate(design, record.spec, options, inference), inference)
    return with_covariance(fit_joint(design, options, inference, record.joint.options), inference)

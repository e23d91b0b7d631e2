"""Results as plain data frames under the column names of broom and marginaleffects, and for table makers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.ledger import Reason
from causalrisk.linalg import Array
from causalrisk.record import FitRecord
from causalrisk.report.summary import covariance_name, has_converged, propensity_text

TIDY = ("term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high")
STATISTICS = {"N": "Observations", "estimator": "Estimator", "estimand": "Estimand", "se_type": "Std. errors"}


def tidy_frame(names: Sequence[str], estimates: Sequence[Array], limits: Array | None) -> pd.DataFrame:
    """Return one row a parameter.

    Parameters
    ----------
    names : sequence of str, length d
        Names of the parameters.
    estimates : sequence of ndarray, each of shape (d,)
        Estimates, standard errors, statistics and p-values.
    limits : ndarray, shape (d, 2), or None
        Limits of the intervals; None leaves their columns out.

    Returns
    -------
    DataFrame
        Columns term, estimate, std_error, statistic, p_value, and conf_low, conf_high.
    """
    columns = [*estimates] if limits is None else [*estimates, *limits.T]
    frame = pd.DataFrame({"term": list(map(str, names))})
    return frame.assign(**dict(zip(TIDY[1:], columns, strict=False)))


def tidy_comparison(effects: pd.DataFrame, names: Sequence[str], conf_int: bool) -> pd.DataFrame:
    """Return one row an estimator (several arms: and effect).

    Parameters
    ----------
    effects : DataFrame
        The table of a comparison, indexed by estimator, or by estimator and effect.
    names : sequence of str
        Names of the effects.
    conf_int : bool
        Whether to keep the limits of the intervals.

    Returns
    -------
    DataFrame
        Columns estimator and those of `tidy_frame`; std_error is the bootstrap's, robust_std_error beside.
    """
    estimators = effects.index.get_level_values("estimator")
    frame = pd.DataFrame({"estimator": estimators, "term": np.resize(list(names), len(estimators))})
    source = ("effect", "std err", "z", "P>|z|", "lower", "upper")
    for name, column in zip(TIDY[1:], source[: None if conf_int else -2], strict=False):
        frame[name] = effects[column].to_numpy()
    frame.insert(4, "robust_std_error", effects["robust se"].to_numpy())
    return frame


def glance_frame(record: FitRecord) -> pd.DataFrame:
    """Return one row that describes a fit; the same columns for every estimator, missing where they do not apply.

    Parameters
    ----------
    record : FitRecord
        The fit.

    Returns
    -------
    DataFrame
        One row.
    """
    design, joint, boot = record.design, record.joint, record.boot
    row: dict[str, Any] = {
        "nobs": design.nobs,
        "n_dropped": len(design.in_sample) - design.n,
        "estimator": record.spec.name,
        "estimand": record.estimand,
        "target": record.options.target_name,
        "outcome": design.endog_name,
        "treatment": design.treat_name,
        "contrast": design.contrast,
        "outcome_model": "constants" if record.spec.constants else record.sample.family.label,
        "propensity_model": propensity_text(record),
        "std_errors": covariance_name(record),
        "n_boot": np.nan if boot is None else len(boot.reasons),
        "n_boot_used": np.nan if boot is None else int((boot.reasons == Reason.OK).sum()),
        "smallest_effective_n": min(arm.effective_n for arm in record.overlap),
        "largest_weight": max(arm.largest for arm in record.overlap),
        "n_replicates": np.nan if joint is None else joint.replicates.count,
        "objective": None if joint is None else joint.options.objective,
        "penalty": np.nan if joint is None else joint.criterion.penalty,
        "anchor": np.nan if joint is None else joint.anchor,
        "expected_ate_risk": np.nan if joint is None else joint.fit.expected_risk,
        "mc_se": np.nan if joint is None else float(joint.fit.mc_se[0]),
        "seed": str(record.seed.entropy),
        "converged": has_converged(record),
    }
    return pd.DataFrame([row])


def table_maker_coefficients(names: Sequence[str], estimates: Sequence[Array], limits: Array) -> pd.DataFrame:
    """Return the coefficient table that maketables reads: b, se, t, p and limits of 95% intervals."""
    columns = dict(zip(("b", "se", "t", "p", "ci95l", "ci95u"), [*estimates, *limits.T], strict=True))
    return pd.DataFrame(columns, index=pd.Index(list(map(str, names)), name="Coefficient"))


def table_maker_statistic(record: FitRecord, key: str) -> Any:
    """Return a statistic for the foot of a table: those of `STATISTICS`, None for any other (there is no R2)."""
    known = {
        "N": record.design.nobs,
        "estimator": record.spec.name,
        "estimand": record.estimand,
        "se_type": covariance_name(record),
    }
    return known.get(key)

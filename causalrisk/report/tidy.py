"""Results as plain data, with the column names of broom and marginaleffects, and data for table packages."""

from __future__ import annotations

import numbers
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from causalrisk.errors import Failure, one_of
from causalrisk.estimation.options import OBSERVED, Interval
from causalrisk.estimation.record import FitRecord
from causalrisk.inference import intervals
from causalrisk.numerics.resampling import seed_text
from causalrisk.report import labels as words

TIDY = ["estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high"]
PVALUES = ("P>|z|", "P>|t|", "adjusted P")
STATISTICS = {"N": "Observations", "estimator": "Estimator", "estimand": "Estimand", "se_type": "Std. errors"}
R = TypeVar("R")


class Values(pd.Series):
    """Series that can be indexed by parameter name or by position."""

    @property
    def _constructor(self) -> type[pd.Series]:
        return Values

    def __getitem__(self, key: Any) -> Any:
        whole = isinstance(key, numbers.Integral) and not isinstance(key, bool)
        return self.iloc[key] if whole and self.index.inferred_type == "string" else super().__getitem__(key)


class Frame(pd.DataFrame):
    """A data frame that prints all its columns, in blocks if it is too wide. It is pickled as a plain data frame."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return Frame

    def __repr__(self) -> str:
        shown = pd.get_option("display.max_columns")
        with pd.option_context("display.max_columns", shown or None):  # 0 leaves out what the terminal has no room for
            return super(Frame, self.round({name: 6 for name in self if name in PVALUES})).__repr__()

    def to_latex(self, *args: Any, **keywords: Any) -> Any:
        """Return the frame as LaTeX, with names such as ``x_1`` escaped. Arguments are as in pandas."""
        return super().to_latex(*args, **{"escape": True, **keywords})

    def __reduce__(self) -> Any:
        return pd.DataFrame, (pd.DataFrame(self),)


def printed_whole(value: R) -> R:
    """Return a data frame as a `Frame`, which prints all columns. Anything else is returned unchanged."""
    return Frame(value).__finalize__(value) if type(value) is pd.DataFrame else value  # with its attrs


def tidy_frame(frame: pd.DataFrame, conf_int: bool) -> pd.DataFrame:
    """Return a table of estimates, tests and limits as one row per parameter, under the column names of broom."""
    made = pd.DataFrame(frame).set_axis(TIDY, axis=1).rename_axis("term").reset_index()
    return made if one_of("conf_int", conf_int, (True, False)) else made.iloc[:, :-2]


def glance(record: FitRecord) -> pd.DataFrame:
    """Return one row that describes the fit: rows, estimator, estimand, models, standard errors, seed.

    Returns
    -------
    DataFrame
        One row, with the same columns for every estimator, so rows of several fits can be concatenated. Values that do
        not apply are missing. There is no R2, because an average effect has none.
    """
    design, boot = record.design, record.boot
    row: dict[str, Any] = {
        "nobs": design.nobs,
        "n_dropped": design.n_dropped,
        "n_without_outcome": design.n_unrecorded,
        "estimator": record.spec.name,
        "estimand": record.estimand,
        "target": record.options.population.name,
        "outcome": design.endog_name,
        "did": None if record.options.did is None else repr(record.options.did),
        "treatment": design.treat_name,
        "contrast": design.contrast,
        "outcome_model": words.outcome_model_text(record),
        "learner": None if record.learned is None else words.learner_text(record),
        "offset": design.offset_name,
        "at_exposure": record.stated_exposure or (None if design.offset_name is None else OBSERVED),
        "propensity_model": words.propensity_text(record),
        "weights": design.weight_type and f"{design.weights_name} ({design.weight_type})",
        "std_errors": words.covariance_name(record),
        "clusters": words.clusters_text(design) or None,
        "survey": None if design.survey is None else words.survey_words(design.survey),
        "df": record.df if np.isfinite(record.df) else np.nan,
        "n_boot": np.nan if boot is None else len(boot.failures),
        "n_boot_used": np.nan if boot is None else int((boot.failures == Failure.OK).sum()),
        "smallest_effective_n": min(arm.effective_n for arm in record.overlap),
        "largest_weight": max(arm.heaviest for arm in record.overlap),
        "seed": seed_text(record.seed),
        "converged": words.has_converged(record),
    }
    return pd.DataFrame([row])


def table_maker_coefficients(record: FitRecord) -> pd.DataFrame:
    """Return the coefficient table that maketables reads: b, se, t, p and limits of 95% intervals."""
    columns = ["b", "se", "t", "p", "ci95l", "ci95u"]
    return intervals.summary_frame(record).set_axis(columns, axis=1).rename_axis("Coefficient")


def table_maker_statistic(record: FitRecord, key: str) -> Any:
    """Return a statistic for the foot of a table by its key in `STATISTICS`. None for other keys (there is no R2)."""
    row = glance(record).rename(columns={"nobs": "N", "std_errors": "se_type"})
    return row[key].item() if key in STATISTICS else None


def tidy(record: FitRecord, conf_int: bool = True, alpha: float = 0.05, method: Interval | None = None) -> pd.DataFrame:
    """Return the estimates as plain data, under the column names of broom and marginaleffects.

    Parameters
    ----------
    conf_int : bool, default True
        Whether to add the limits of confidence intervals.
    alpha : float, default 0.05
        Significance level of the intervals; 0.05 gives 95% intervals.
    method : str, optional
        Kind of interval, as in `conf_int`. With "delta", statistics and p-values are on the reported scale too.

    Returns
    -------
    DataFrame
        One row per parameter, the effect first: term, estimate, std_error, statistic (z or t), p_value (two-sided),
        conf_low, conf_high, and df if the fit uses the t distribution.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula("bweight ~ mage", births, treat="mbsmoke").fit()
    >>> res.tidy().columns.tolist()
    ['term', 'estimate', 'std_error', 'statistic', 'p_value', 'conf_low', 'conf_high']
    """
    frame = tidy_frame(intervals.summary_frame(record, alpha), conf_int)
    if conf_int:
        frame[TIDY[-2:]] = intervals.conf_int(record, alpha, method).to_numpy()
    if method == "delta":
        tests = intervals.ratio_and_p(record.estimate.params, record.std_errors, record.null, record.df)
        frame["statistic"], frame["p_value"] = tests
    return frame.assign(df=record.df) if np.isfinite(record.df) else frame

"""Results as plain data: tidy frames, tables for makers of tables, and every row in a Parquet file.

Column names are those of broom and marginaleffects. The rows of the file have scores, weights and predictions.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from causalrisk.design import DesignOnDisk
from causalrisk.design.design import rows_not_kept, unit_level
from causalrisk.design.scan.source import PARQUET
from causalrisk.design.tables import listing
from causalrisk.errors import Failure, OptionError, UnavailableError
from causalrisk.estimation.beyond_memory import places_of_parts
from causalrisk.estimation.options import OBSERVED, Interval
from causalrisk.estimation.record import FitRecord, of_means
from causalrisk.inference import intervals
from causalrisk.inference.intervals import parameters, ratio_and_p
from causalrisk.numerics.blocks import loaded
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import seed_text
from causalrisk.report import labels as words
from causalrisk.runtime.system import whole_file, would_replace

TIDY = ("term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high")
STATISTICS = {"N": "Observations", "estimator": "Estimator", "estimand": "Estimand", "se_type": "Std. errors"}
R = TypeVar("R")


class Values(pd.Series):
    """Values by the names of parameters, and by position, as in statsmodels' results of arrays."""

    @property
    def _constructor(self) -> type[pd.Series]:
        return Values

    def __getitem__(self, key: Any) -> Any:
        whole = isinstance(key, numbers.Integral) and not isinstance(key, bool)
        return self.iloc[key] if whole and self.index.inferred_type == "string" else super().__getitem__(key)


class Frame(pd.DataFrame):
    """A data frame that prints all its columns, those that do not fit below the others; a plain one when pickled."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return Frame

    def __repr__(self) -> str:
        shown = pd.get_option("display.max_columns")
        with pd.option_context("display.max_columns", shown or None):  # 0 leaves out what the terminal has no room for
            return super().__repr__()

    def to_latex(self, *args: Any, **keywords: Any) -> Any:
        """Return the frame as LaTeX, with names such as ``x_1`` escaped; arguments as in pandas."""
        return super().to_latex(*args, **{"escape": True, **keywords})

    def __reduce__(self) -> Any:
        return pd.DataFrame, (pd.DataFrame(self),)


def printed_whole(value: R) -> R:
    """Return a data frame as one that prints all its columns; what is none as it is."""
    return Frame(value).__finalize__(value) if type(value) is pd.DataFrame else value  # with its attrs


def tidy_frame(names: Sequence[str], estimates: Sequence[Array] | Array, limits: Array | None) -> pd.DataFrame:
    """Return one row per parameter, with the columns `TIDY`; without limits, without the last two."""
    columns = [*estimates] if limits is None else [*estimates, *limits.T]
    frame = pd.DataFrame({"term": list(map(str, names))})
    return frame.assign(**dict(zip(TIDY[1:], columns, strict=False)))


def tidy_comparison(effects: pd.DataFrame, names: Sequence[str], conf_int: bool) -> pd.DataFrame:
    """Return one row per estimator and effect: the bootstrap's std_error, next to robust_std_error."""
    numbers, terms = effects.drop(columns="robust se").to_numpy(), list(names) * (len(effects) // len(names))
    frame = tidy_frame(terms, numbers[:, :-2].T, numbers[:, -2:] if conf_int else None)
    frame.insert(0, "estimator", effects.index.get_level_values("estimator"))
    frame.insert(4, "robust_std_error", effects["robust se"].to_numpy())
    return frame


def glance(record: FitRecord) -> pd.DataFrame:
    """Return one row that describes the fit: rows, estimator, estimand, models, standard errors, seed.

    Returns
    -------
    DataFrame
        One row with the same columns for every estimator, so that rows of several can be stacked; what does not
        apply is missing. There is no R2: an average effect has none.
    """
    design, joint, boot = record.design, record.joint, record.boot
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
        "std_errors": words.covariance_name(record),
        "survey": None if design.survey is None else words.survey_words(design.survey),
        "df": record.df if np.isfinite(record.df) else np.nan,
        "n_boot": np.nan if boot is None else len(boot.failures),
        "n_boot_used": np.nan if boot is None else int((boot.failures == Failure.OK).sum()),
        "smallest_effective_n": min(arm.effective_n for arm in record.overlap),
        "largest_weight": max(arm.heaviest for arm in record.overlap),
        "n_replicates": np.nan if joint is None else joint.replicates.count,
        "objective": None if joint is None else joint.options.objective,
        "penalty": np.nan if joint is None or joint.own_penalty is None else joint.own_penalty,
        "anchor": np.nan if joint is None else joint.anchor,
        "share": np.nan if joint is None or joint.anchor is None else joint.share,
        "expected_ate_risk": np.nan if joint is None else joint.estimate.expected_risk,
        "mc_se": np.nan if joint is None else float(joint.estimate.mc_se[0]),
        "seed": seed_text(record.seed),
        "converged": words.has_converged(record),
    }
    return pd.DataFrame([row])


def table_maker_coefficients(record: FitRecord) -> pd.DataFrame:
    """Return the coefficient table that maketables reads: b, se, t, p and limits of 95% intervals."""
    columns = ["b", "se", "t", "p", "ci95l", "ci95u"]
    return intervals.summary_frame(record).set_axis(columns, axis=1).rename_axis("Coefficient")


def table_maker_statistic(record: FitRecord, key: str) -> Any:
    """Return a statistic for the foot of a table by its key in `STATISTICS`; None for any other (there is no R2)."""
    known = {"N": "nobs", "estimator": "estimator", "estimand": "estimand", "se_type": "std_errors"}
    return glance(record)[known[key]].item() if key in known else None


def tidy(record: FitRecord, conf_int: bool = True, alpha: float = 0.05, method: Interval | None = None) -> pd.DataFrame:
    """Return the estimates as plain data, under the column names of broom and marginaleffects.

    Parameters
    ----------
    conf_int : bool, default True
        Whether to add the limits of confidence intervals.
    alpha : float, default 0.05
        Significance level of the intervals; 0.05 gives 95% intervals.
    method : str, optional
        Kind of interval, as in `conf_int`; with "delta" statistics and p-values are of the reported scale too.

    Returns
    -------
    DataFrame
        One row a parameter, the effect first: term, estimate, std_error, statistic (z or t), p_value (two-sided),
        conf_low, conf_high, and where the fit has degrees of freedom df.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula("bweight ~ mage", births, treat="mbsmoke").fit()
    >>> res.tidy().columns.tolist()
    ['term', 'estimate', 'std_error', 'statistic', 'p_value', 'conf_low', 'conf_high']
    """
    limits = intervals.conf_int(record, alpha, method).to_numpy() if conf_int else None
    params, se = record.estimate.params, record.std_errors
    delta = method == "delta"
    tests = ratio_and_p(params, se, record.null, record.df) if delta else parameters(record).tests()
    frame = tidy_frame(record.names, [params, se, *tests], limits)
    return frame.assign(df=record.df) if np.isfinite(record.df) else frame


@of_means
def write_units(record: FitRecord, path: str | os.PathLike[str]) -> Path:
    """Write propensity scores, importance weights and predicted potential outcomes to a Parquet file (needs pyarrow).

    The file has one row per row of the estimation sample, in the order of the data. With data on disk, one more pass
    over the data writes them block by block, so they need not fit into memory.

    Parameters
    ----------
    path : str or path
        A name that ends in ".parquet" or ".pq". The file is written whole or not at all; one that exists is replaced.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    UnavailableError
        If pyarrow is not installed, or the model came from a file and does not know its data any more.
    OptionError
        If the path has another ending, or is one of the data files.
    OSError
        If the file cannot be written; the former file is unchanged.

    Notes
    -----
    The columns are

    - "row": number of the row in all data, from 0;
    - "arm": label of its treatment group, a category;
    - "propensity", or with several groups "propensity[arm]" for each: as `propensity_scores`, if there is a
      propensity model;
    - "weight": as `importance_weights`;
    - "potential_outcome[arm]" for each group: as `potential_outcomes`. JRE has none, since its models do not describe
      single units; ``res.start``, the IPWRA fit it started from, writes them.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula("bweight ~ mage", births, treat="mbsmoke").fit()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     units = pd.read_parquet(res.write_units(f"{folder}/units.parquet"))
    >>> units.head(2).round(2)
       row arm  propensity  weight  potential_outcome[0]  potential_outcome[1]
    0    0   0        0.20    1.25               3379.23               3140.41
    1    1   0        0.24    1.32               3331.69               3151.87
    """
    name = os.fspath(path)
    if not name.lower().endswith(PARQUET):
        expected = f"expected a name that ends in {listing(PARQUET)}"
        raise OptionError(f'path={name!r}: {expected}.\nUse `res.write_units("units.parquet")`.')
    if isinstance(record.design, DesignOnDisk) and record.design.reads(name):
        raise would_replace(f"path={name!r}", "one of the files of the scan", 'res.write_units("units.parquet").')
    try:
        import pyarrow as arrow
        import pyarrow.parquet
    except ImportError as error:
        text = f"{name!r}: a Parquet file needs pyarrow, which is not installed.\nUse `pip install pyarrow`."
        raise UnavailableError(text) from error
    with whole_file(path) as stream, ExitStack() as opened:
        writer = None
        for frame in unit_frames(record):
            table = arrow.Table.from_pandas(frame, preserve_index=False)
            writer = writer or opened.enter_context(pyarrow.parquet.ParquetWriter(stream, table.schema))
            writer.write_table(table)
    return Path(path)


def check_kept(record: FitRecord) -> None:
    """Refuse a result of one number a row for a scan, whose rows are not kept."""
    if isinstance(record.design, DesignOnDisk):
        raise unit_level() if record.design.knows_scan else rows_not_kept()


def unit_frames(record: FitRecord) -> Iterator[pd.DataFrame]:
    """Yield scores, weights and predictions of every row: one frame in memory, one per part with data on disk."""
    design, fit, sample, places = record.design, record.weight_fit, record.sample, list[Any]()
    if isinstance(design, DesignOnDisk):
        for part, place in places_of_parts(design, sample):
            order = np.argsort(part.row)
            places.append((part.row[order], place[order]))
    else:
        places.append((np.flatnonzero(design.in_sample), sample.restore(np.arange(sample.n))))
    found = {} if fit is None else dict(zip(design.labels, fit.probabilities, strict=True))
    values = {f"propensity[{label}]": e for label, e in found.items()}
    if len(found) == 2:
        values = {"propensity": found[design.labels[1]]}
    values["weight"] = np.ones(sample.n) if fit is None or not record.spec.uses_propensity else fit.undivided
    if record.joint is None:
        predicted = zip(design.labels, record.estimate.predicted, strict=True)
        values |= {f"potential_outcome[{label}]": own for label, own in predicted}
    arm = loaded(sample.arm)
    for row, place in places:
        columns = {"row": np.asarray(row), "arm": pd.Categorical.from_codes(arm[place], list(design.labels))}
        yield pd.DataFrame(columns | {name: own[place] for name, own in values.items()})

"""Results of a study: estimates, and bias, RMSE and coverage with their Monte Carlo errors. Also power analysis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from causalrisk.errors import OptionError, check_alpha, with_other_names
from causalrisk.models.results import Shown
from causalrisk.numerics.arrays import Array
from causalrisk.report import plots, tidy
from causalrisk.report.table import ResultSummary, ResultTable, column_format, format_number
from causalrisk.simulation.designs import Design

KEYS = ["design", "n", "estimator"]


class StudyResults(Shown):
    """Estimates of several estimators over many samples, returned by `run_study`.

    Parameters
    ----------
    raw : DataFrame
        One row per design, size, sample and estimator, with columns estimate, se and failure.
    designs : tuple of Design
        The designs.
    reference : str
        Label of the estimator whose mean squared error is the denominator of "mse_ratio".
    entropy : int or sequence of int
        Value of `rng=` that repeats the study.
    n_boot : int
        Number of resamples for bootstrap standard errors; 0 if standard errors are robust.

    Attributes
    ----------
    raw : DataFrame
        The estimates, as above. Everything else is computed from this table.
    designs : tuple of Design
        The designs.
    """

    _place: ClassVar = ("simulation", "study")

    def __init__(
        self, raw: pd.DataFrame, designs: tuple[Design, ...], reference: str, entropy: Any, n_boot: int
    ) -> None:
        self.raw, self.designs = raw, designs
        self.reference, self.entropy, self.n_boot = reference, entropy, n_boot

    @property
    def estimators(self) -> list[str]:
        """Labels of the estimators."""
        return list(dict.fromkeys(self.raw["estimator"]))

    @property
    def table(self) -> pd.DataFrame:
        """One row per design, size and estimator.

        Columns: "samples" and "failed"; "bias", "sd" and "rmse" in units of the outcome; "mse_ratio", the mean squared
        error divided by the mean squared error of the reference on the same samples; "mean_se" and "median_se";
        "coverage" of the 95% interval; and "mse_over_bound", n times the mean squared error divided by the design's
        efficiency bound (NaN if this is infinite). A column that ends in _mc has the Monte Carlo error of the column
        before it.
        """
        return self.table_at(0.05)

    def table_at(self, alpha: float) -> pd.DataFrame:
        """Return `table`, with the coverage of intervals of level 1 - alpha."""
        check_alpha(alpha)
        critical, rows = float(ndtri(1 - alpha / 2)), []
        for design, n, errors, se in self.cells():
            for label in errors:
                row = describe(errors[label], se[label], errors[self.reference].to_numpy(), critical)
                bound = design.efficiency_bound if np.isfinite(design.efficiency_bound) else np.nan
                row["mse_over_bound"] = n * row["rmse"] ** 2 / bound
                rows.append({"design": design.name, "n": n, "estimator": label} | row)
        return tidy.Frame(rows).set_index(KEYS)

    @property
    def failures(self) -> pd.DataFrame:
        """Counts of failures, one row per design, size, estimator and reason."""
        failed = self.raw[self.raw["failure"] != ""]
        return failed.groupby([*KEYS, "failure"], sort=False).size().rename("samples").reset_index()

    def errors(self, design: str, n: int) -> pd.DataFrame:
        """Return estimate minus true effect, one row per sample and one column per estimator. NaN for failures.

        Parameters
        ----------
        design : str
            Name of the design.
        n : int
            Sample size.

        Returns
        -------
        DataFrame
            Errors. All errors of a row are from the same sample.
        """
        return {(of.name, size): errors for of, size, errors, _ in self.cells()}[design, n]

    def cells(self) -> Iterator[tuple[Design, int, pd.DataFrame, pd.DataFrame]]:
        """Yield each design and size, with its errors and standard errors, one column per estimator."""
        by_name = {design.name: design for design in self.designs}
        for (name, n), part in self.raw.groupby(["design", "n"], sort=False):
            wide = part.pivot(index="sample", columns="estimator", values=["estimate", "se"])
            estimates, se = wide["estimate"][self.estimators], wide["se"][self.estimators]
            yield by_name[name], int(n), estimates - by_name[name].effect, se

    def summary(self, alpha: float = 0.05, title: str | None = None) -> ResultSummary:
        """Return a summary of the study, with one table per design and size.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level of the intervals whose coverage is shown.
        title : str, optional
            Heading.

        Returns
        -------
        ResultSummary
            With `as_text`, `as_html`, `as_latex`, `as_csv`.
        """
        table = self.table_at(alpha)
        tables: list[ResultTable] = []
        head = ("bias", "sd", "RMSE", "ratio", "(MC)", "mean SE", f"{100 * (1 - alpha):.4g}%", "/bound")
        for (name, n), part in table.groupby(level=["design", "n"], sort=False):
            corner = f"{name}, n {n}"
            spec = column_format(part[["sd", "rmse"]].to_numpy())
            rows = tuple(
                (str(key[-1]), *(format(row[c], spec) for c in ("bias", "sd", "rmse")),
                 f"{row['mse_ratio']:.3f}", f"{row['mse_ratio_mc']:.3f}", format(row["mean_se"], spec),
                 f"{row['coverage']:.3f}", f"{row['mse_over_bound']:.{2 if row['mse_over_bound'] < 100 else 0}f}")
                for key, row in part.iterrows()
            )  # fmt: skip
            heading = (title or "Monte Carlo Study") if not tables else ""
            tables.append(ResultTable(rows, ((corner, *head),), title=heading))
        return ResultSummary(tables, self._notes(alpha))

    def _notes(self, alpha: float) -> list[str]:
        counts, level = self.raw.groupby(["design", "n"])["sample"].nunique(), f"{100 * (1 - alpha):.4g}"
        effects = ", ".join(f"{design.name} {format_number(design.effect)}" for design in self.designs)
        robust = f"robust{' (slightly too small for JRE)' * ('JRE' in self.estimators)}"
        errors = f"from the bootstrap ({self.n_boot} resamples)" if self.n_boot else robust
        notes = [
            f"{counts.min()} samples per design and size. True effects: {effects}.",
            f"ratio: mean squared error divided by the mean squared error of {self.reference} on the same samples. "
            f"(MC): Monte Carlo error of the ratio. {level}%: coverage of the {level}% interval. /bound: n times the "
            "mean squared error, divided by the efficiency bound.",
            f"Standard errors of the package's models are {errors}, unless their options say otherwise.",
        ]
        failures = self.failures
        kind = failures["failure"].str.partition(":")[0] if len(failures) else []
        for (design, n, estimator, reason), count in failures.assign(kind=kind).groupby([*KEYS, "kind"])["samples"]:
            times = f"{count.sum()} sample{'s' * (int(count.sum()) > 1)}"
            notes.append(f"{estimator} failed on {times} of {design}, n {n}: {reason}.")
        return notes

    def plot(self, ax: Any = None, estimators: Sequence[str] | None = None) -> Any:
        """Plot mean squared errors divided by the reference's. Bars are two Monte Carlo errors of the log ratio.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; by default a new figure.
        estimators : sequence of str, optional
            Labels of estimators; by default all but the reference.

        Returns
        -------
        matplotlib Axes
            The plot, one row per design and size, on a logarithmic scale.

        Raises
        ------
        UnavailableError
            If matplotlib is not installed.
        """
        table = self.table
        cells = list(dict.fromkeys((design, n) for design, n, _ in table.index))
        shown = [e for e in self.estimators if e != self.reference] if estimators is None else estimators
        shown = [shown] if isinstance(shown, str) else shown
        ax = plots.axes_or_new(ax, rows=len(cells) * max(len(shown), 2) // 2)
        for k, label in enumerate(shown):
            part = table.xs(label, level="estimator")
            shift = 0.6 * ((len(shown) - 1) / 2 - k) / len(shown)
            rows = [len(cells) - 1 - cells.index(key) + shift for key in part.index]
            ratio = part["mse_ratio"].to_numpy()
            factor = np.exp(2 * part["mse_ratio_mc"].to_numpy() / ratio)
            spread = ratio - ratio / factor, ratio * factor - ratio
            marker, colour, _ = plots.SERIES[k % len(plots.SERIES)]
            ax.errorbar(ratio, rows, xerr=spread, fmt=marker, color=colour, ms=4, lw=1, label=plots.verbatim(label))
        ax.axvline(1, **plots.LINE)
        plots.label_rows(ax, range(len(cells)), [f"{design}, n {n}" for design, n in reversed(cells)])
        plots.log_scale(ax)
        columns = len(shown) if len(shown) > 1 else 0
        return plots.finish(ax, f"mean squared error relative to {self.reference}", columns=columns)

    def __repr__(self) -> str:
        names = ", ".join(design.name for design in self.designs)
        sizes = ", ".join(str(n) for n in dict.fromkeys(self.raw["n"]))
        count, samples = len(self.estimators), self.raw["sample"].nunique()
        return f"Study of {count} estimator{'s' * (count > 1)}: {names}, n {sizes}, {samples} samples"


def mse_ratio(error: Array, reference: Array) -> tuple[float, float]:
    """Return the ratio of the mean squared errors of two estimators on the same samples, and its Monte Carlo error.

    Parameters
    ----------
    error, reference : ndarray, shape (m,)
        Estimate minus true effect in each sample, for the estimator and the reference. Samples with NaN are left out.

    Returns
    -------
    ratio, mc_error : float
        Mean squared error divided by the reference's, and the standard error of this ratio by the delta method. Squared
        errors in one sample are correlated, so the ratio is more precise than either mean.

    Examples
    --------
    >>> import numpy as np
    >>> mse_ratio(np.array([1.0, -2.0, 3.0]), np.array([2.0, -4.0, 6.0]))
    (0.25, 0.0)
    """
    both = ~(np.isnan(error) | np.isnan(reference))
    ours, theirs = error[both] ** 2, reference[both] ** 2
    if len(ours) < 2 or theirs.mean() == 0:
        return np.nan, np.nan
    ratio = ours.mean() / theirs.mean()
    spread = (ours - ratio * theirs).std(ddof=1) / theirs.mean()
    return float(ratio), float(spread / np.sqrt(len(ours)))


def share(hits: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the share of values that are True, and its binomial standard error. Both are NaN without values."""
    if not len(hits):
        return np.nan, np.nan
    p = float(hits.mean())
    return p, float(np.sqrt(p * (1 - p) / len(hits)))


def describe(error: pd.Series, se: pd.Series, reference: Array, critical: float) -> dict[str, float]:
    """Return the performance measures of one estimator for one design and size.

    `error` is NaN for failures. `reference` has the errors of the reference estimator. `critical` is the half width of
    the interval in standard errors. A name that ends in ``_mc`` is the Monte Carlo error of the measure before it.
    """
    kept, own = error.dropna(), se[error.notna()].dropna()
    ratio, ratio_mc = mse_ratio(error.to_numpy(), reference)
    covered, covered_mc = share((kept[own.index].abs() <= critical * own).to_numpy())
    return {
        "samples": len(error),
        "failed": len(error) - len(kept),
        "bias": kept.mean(),
        "bias_mc": kept.sem(),
        "sd": kept.std(),
        "rmse": np.sqrt((kept**2).mean()),
        "mse_ratio": ratio,
        "mse_ratio_mc": ratio_mc,
        "mean_se": own.mean(),
        "median_se": own.median(),
        "coverage": covered,
        "coverage_mc": covered_mc,
    }


@with_other_names
def power(
    study: StudyResults, effect: float | None = None, *, alpha: float = 0.05, target: float = 0.8
) -> pd.DataFrame:
    """Power of the two-sided test of no effect, and the minimum detectable effect.

    Parameters
    ----------
    study : StudyResults
        A study of the planned design, at all sample sizes under consideration.
    effect : float, optional
        True effect, in units of the outcome; by default the design's. For any other value, all estimates are shifted by
        the difference.
    alpha : float, default 0.05
        Significance level.
    target : float, default 0.8
        Power at the minimum detectable effect.

    Returns
    -------
    DataFrame
        One row per design, sample size and estimator. "power_mc" is the Monte Carlo error of "power". "size" is the
        share of rejections without an effect. "mde" is the smallest effect (zero or more) with the target power. If
        "size" clearly exceeds alpha, the estimator is biased or its standard errors are too small. Its power is then
        meaningless.

    Examples
    --------
    >>> from causalrisk import simulation
    >>> study = simulation.run_study("linear", n=200, n_sims=50, estimators="IPWRA")
    >>> simulation.power(study, 0.5).round(2)
                          power  power_mc  size   mde
    design n   estimator
    linear 200 IPWRA       0.94      0.03  0.06  0.38
    """
    check_alpha(alpha)
    if not isinstance(study, StudyResults):
        needed = f"power() got a {type(study).__name__}; expected the results of `run_study`"
        raise OptionError(f"{needed}.\nUse `power(run_study(...))`.")
    critical, rows = float(ndtri(1 - alpha / 2)), []
    for design, n, errors, se in study.cells():
        sought = design.effect if effect is None else float(effect)
        for label in errors:
            known = ~(errors[label].isna() | se[label].isna())
            error, limit = errors[label][known].to_numpy(), critical * se[label][known].to_numpy()
            mde = max(float(np.quantile(limit - error, target, method="inverted_cdf")), 0.0) if len(error) else np.nan
            size = share(np.abs(error) > limit)[0]
            rows.append((design.name, n, label, *share(np.abs(error + sought) > limit), size, mde))
    return pd.DataFrame(rows, columns=[*KEYS, "power", "power_mc", "size", "mde"]).set_index(KEYS)

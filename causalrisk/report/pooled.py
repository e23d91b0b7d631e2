"""The summary of effects pooled over imputations."""

from __future__ import annotations

import numpy as np
import pandas as pd

from causalrisk.estimators.record import FitRecord
from causalrisk.inference.wald import rounded_se
from causalrisk.report.labels import covariance_name, offset_row, outcome_model_text, propensity_text, target_text
from causalrisk.report.tables.numbers import column_format, format_number, format_p
from causalrisk.report.tables.stacked import ResultSummary, build_summary
from causalrisk.report.tables.table import TableContent


def summarize_pooled(
    record: FitRecord, frame: pd.DataFrame, missing: pd.DataFrame, df_complete: float, m: int, title: str | None
) -> ResultSummary:
    """Compose the summary of pooled results.

    Parameters
    ----------
    record : FitRecord
        The first of the fits.
    frame : DataFrame
        Estimates, standard errors, t, degrees of freedom, p-values and limits.
    missing : DataFrame
        Variances and fractions of missing information.
    df_complete : float
        Degrees of freedom had nothing been missing.
    m : int
        Number of imputations.
    title : str or None
        Heading.

    Returns
    -------
    ResultSummary
        The summary.
    """
    design = record.design
    head = (
        ("Dep. Variable:", design.endog_name, "No. Observations:", f"{design.nobs}"),
        ("Treatment:", design.treat_name, "Imputations:", f"{m}"),
        ("Model:", record.spec.name, "Propensity:", propensity_text(record)),
        ("Target:", target_text(record), "Std. errors:", covariance_name(record)),
        ("Outcome model:", outcome_model_text(record), "Complete-data df:", f"{df_complete:.6g}"),
        *((*row, "", "") for row in offset_row(record)),
    )
    tables = [
        TableContent(rows=head, aligns="lrlr", title=title or f"{record.spec.title}, Pooled"),
        _estimates(frame, design.endog_name),
        _missing(missing),
    ]
    logs = "" if record.options.effect == "difference" else " Effects are pooled on the logarithmic scale."
    notes = [
        "Estimates are means over the imputations; their variance is within + (1 + 1/m) between (Rubin's rules), and t "
        f"has the degrees of freedom of Barnard and Rubin.{logs}"
    ]
    if design.formula is not None:
        scores = record.weight_fit is not None and design.score is None
        notes.append(f"Outcome: {design.formula}" + f"   Propensity: {design.propensity_formula}" * scores)
    return build_summary(tables, notes)


def pooled_line(record: FitRecord, params: pd.Series, errors: pd.Series, m: int) -> str:
    """Return the pooled effects with their standard errors, the arms and the sample size in one line."""
    pairs = zip(record.effect_names, params, errors, strict=False)
    effects = ", ".join(f"{name} {format_number(value)} ({format_number(se)})" for name, value, se in pairs)
    return f"{record.spec.name}, {m} imputations: {effects}, {record.design.contrast}, n {record.design.nobs}"


def _estimates(frame: pd.DataFrame, corner: str) -> TableContent:
    values, errors = frame.iloc[:, 0].to_numpy(), frame.iloc[:, 1].to_numpy()
    rounded, rows = rounded_se(values, errors), []
    for k, (name, numbers) in enumerate(frame.iterrows()):
        spec = column_format(rounded[k], values[k])
        estimate, error, t, df, p, low, high = numbers
        cells = (format(estimate, spec), format(error, spec), f"{t:.2f}", _df(df), format_p(p))
        rows.append((str(name), *cells, format(low, spec), format(high, spec)))
    return TableContent(tuple(rows), ((corner, *frame.columns),), widths=(0, 10, 10, 9, 9, 8, 10, 10))


def _df(value: float) -> str:
    return f"{value:.1f}" if value < 1e5 else f"{value:.3g}"


def _missing(missing: pd.DataFrame) -> TableContent:
    header = (("", "within", "between", "relative", "share of", "missing"),
              ("Variance", "imputations", "imputations", "increase", "total", "information"))  # fmt: skip
    rows = tuple(
        (str(name), format_number(row["within"]), format_number(row["between"]),
         *(f"{x:.4f}" if np.isfinite(x) else str(x) for x in (row["riv"], row["lambda"], row["fmi"])))
        for name, row in missing.iterrows()
    )  # fmt: skip
    return TableContent(rows, header, widths=(0, 13, 13, 10, 10, 13))

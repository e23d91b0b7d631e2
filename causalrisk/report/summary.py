"""Regression-style summary of a fit, and of a comparison and of pooled fits: the choice of numbers.

Their layout is in `tables`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from math import floor, log10

import numpy as np
import pandas as pd

from causalrisk.design import Design, ScannedDesign
from causalrisk.design.encoders import INDICATOR
from causalrisk.design.rows import UNRECORDED
from causalrisk.diagnostics.risk import root_mean_squares
from causalrisk.errors import Failure, OptionError, check_alpha
from causalrisk.estimation.options import DEFAULT_METHOD
from causalrisk.estimation.overlap import LARGE_WEIGHT
from causalrisk.estimation.record import SE_ROUNDING, FitRecord, JointRecord
from causalrisk.estimation.specification import IPWRA
from causalrisk.estimation.targets import ALL
from causalrisk.inference.fitted_models import outcome_coefficients, propensity_coefficients
from causalrisk.inference.intervals import inference_frame, rounded_se, statistic_names, summary_frame
from causalrisk.inference.paired_resamples import Comparison, differences_frame, effects_frame, start_difference
from causalrisk.numerics.multiplicities import seed_text
from causalrisk.report import labels as words
from causalrisk.report.tables.stacked import ResultSummary
from causalrisk.report.tables.table import ResultTable
from causalrisk.report.tables.text import column_format, format_number, format_p, format_share

Rows = tuple[tuple[str, ...], ...]
SHORT = 0.5  # share of an arm's effective n left by the weights below which IPWRA's robust intervals are too short
COVERED_SHORT, COVERED_JACKKNIFE = "69 to 89%", "90 to 97%"
SURVEY_N = "survey n is the effective n by the probability weights alone"
NOTE_JOINT = (
    "JRE is trained for the least error of the {estimand}. Unit-level effects and outcome coefficients are not "
    "interpretable; use those of res.start, the IPWRA fit."
)
NOTE_STACK = (
    "Anchor, score replicates and expected ATE risk are those of JRE on the formula; res.start is IPWRA on the formula."
)
NOTE_BINARY = (
    "The outcome is 0 or 1 and its models are linear, so predictions may lie outside 0 to 1. Those of "
    '`family="binomial"` do not.'
)
NOTE_RISK = (
    "RMS error is the root of the expected ATE risk: squared net bias plus sampling variance, averaged over the score "
    "replicates. RMS error is not a standard error. It is measured on the rows that JRE was trained on and ignores "
    "unmeasured confounders."
)


def summary(
    record: FitRecord,
    alpha: float = 0.05,
    title: str | None = None,
    yname: str | None = None,
    xname: Sequence[str] | None = None,
    coefficients: bool | None = None,
    slim: bool = False,
) -> ResultSummary:
    """Regression-style summary.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the intervals.
    title : str, optional
        Heading.
    yname : str, optional
        Name of the outcome.
    xname : sequence of str, optional
        Names of the rows, one for each of `params`.
    coefficients : bool, optional
        Whether to print the coefficients of the two models, by default for every estimator but JRE.
    slim : bool, default False
        Only the estimates, with the note that defines them.

    Returns
    -------
    ResultSummary
        A statsmodels Summary, which prints as text: `as_text`, `as_html`, `as_latex`, `as_markdown`, `as_csv`, and
        `save` (also to Word).
    """
    check_alpha(alpha)
    names = tuple(record.names if xname is None else map(str, xname))
    if len(names) != len(record.names):
        raise OptionError(
            f"xname has {len(names)} names; expected {len(record.names)}, one for each of {', '.join(record.names)}."
        )
    wanted = record.joint is None if coefficients is None else coefficients
    estimates = summary_frame(record, alpha).set_axis(list(names))
    outcome = yname or words.outcome_name(record)
    head = title or record.spec.title
    numbers = numbers_table(estimates, outcome, one_unit=record.options.effect_scale.additive)
    if slim:
        numbers.title = head
        return ResultSummary([numbers], _notes(record)[:1])
    tables = [ResultTable(_head(record, outcome), aligns="lrlr", title=head), numbers, _arms_table(record)]
    if record.joint is not None:
        tables.append(_risk_table(record.joint))
        if record.boot is not None and record.boot.start is not None:
            found = start_difference(record, alpha)
            found.index = [key if isinstance(key, str) else ", ".join(key) for key in found.index]
            tables.append(numbers_table(found, "On the same resamples", one_unit=False))
    if wanted:
        tables += _coefficient_tables(record, alpha)
    return ResultSummary(tables, _notes(record))


def summarize_comparison(comparison: Comparison, *, alpha: float, title: str | None) -> ResultSummary:
    """Compose the summary of a comparison: the effects, and their differences (of more than three, to the last)."""
    names, several = comparison.names, len(comparison.effect_names) > 1
    effects, differences = effects_frame(comparison, alpha), differences_frame(comparison, alpha)
    tables = [ResultTable(_comparison_head(comparison), aligns="lrlr", title=title or "Comparison of Estimators")]
    references = names[:0:-1] if len(names) <= FEW_ESTIMATORS else names[-1:]
    for effect in comparison.effect_names:
        own = effects.xs(effect, level="effect") if several else effects
        tables.append(numbers_table(own, effect))
        of_effect = differences.xs(effect, level="effect") if several else differences
        for name in references:
            shown = of_effect.xs(name, level="minus")
            tables.append(numbers_table(shown, f"Difference to {name}"))
    return ResultSummary(tables, _comparison_notes(comparison))


def one_line(record: FitRecord) -> str:
    """Return the effects with their standard errors, the arms and the sample size in one line."""
    return _line(record, record.spec.name, record.estimate.params, record.std_errors)


def pooled_line(record: FitRecord, params: pd.Series, errors: pd.Series, m: int) -> str:
    """Return the pooled effects with their standard errors, the arms and the sample size in one line."""
    return _line(record, f"{record.spec.name}, {m} imputations", params, errors)


def _line(record: FitRecord, name: str, params: Iterable[float], errors: Iterable[float]) -> str:
    triples = zip(record.effect_names, params, errors, strict=False)
    effects = ", ".join(f"{effect} {format_number(value)} ({format_number(se)})" for effect, value, se in triples)
    return f"{name}: {effects}, {record.design.contrast}, n {record.design.nobs}"


Pairs = list[tuple[str, str]]


def _two_columns(pairs: Pairs) -> Rows:
    """Return the rows of a head: labels and texts in two columns."""
    half = (len(pairs) + 1) // 2
    return tuple((*a, *b) for a, b in zip_longest(pairs[:half], pairs[half:], fillvalue=("", "")))


def _head(record: FitRecord, outcome: str) -> Rows:
    design, joint, boot = record.design, record.joint, record.boot if record.cov_type != "replicates" else None
    rows = [*_models_head(record, outcome), ("Propensity:", words.propensity_text(record))]
    if record.options.effect != "difference":
        rows.append(("Effect:", record.options.effect.replace("_", " ")))
    if design.weight_type is not None:
        rows.append(("Weights:", f"{design.weights_name} ({design.weight_type})"))
    rows += [*design_rows(design), ("No. Observations:", f"{design.nobs}"), ("Rows dropped:", f"{design.n_dropped}")]
    if design.n_outside:
        rows.append(("Outside subpop.:", f"{design.n_outside}"))
    rows += _unrecorded_row(design)
    if record.trimmed:
        rows.append(("Trimmed:", record.trimmed))
    if record.options.clip is not None and record.weight_fit is not None:
        rows.append(("Clipped:", words.clip_text(record)))
    rows.append(("Std. errors:", words.covariance_name(record)))
    if np.isfinite(record.df):
        rows.append(("Df Residuals:", f"{record.df:.6g}"))
    if boot is not None:
        used = int((boot.failures == Failure.OK).sum())
        rows.append(("Bootstrap:", f"{used} of {len(boot.failures)} used"))
    rows += [] if joint is None else _joint_head(record, joint)
    if boot is not None or joint is not None:
        rows.append(("Seed:", seed_text(record.seed)))
    return _two_columns([*rows, ("Converged:", "yes" if words.has_converged(record) else "NO")])


def _models_head(record: FitRecord, outcome: str) -> Pairs:
    """Rows on the outcome, the treatment, the target and the outcome models."""
    learner = [] if record.learned is None else [("Learner:", words.learner_text(record))]
    return [
        ("Dep. Variable:", outcome),
        ("Treatment:", record.design.treat_name),
        ("Model:", record.spec.name),
        ("Target:", words.target_text(record)),
        ("Outcome model:", words.outcome_model_text(record)),
        *learner,
        *_offset_row(record),
    ]


def _unrecorded_row(design: Design) -> Pairs:
    """Row on the outcomes that are missing, where they are weighted for."""
    if design.observation is None:
        return []
    return [("No outcome:", f"{design.n_unrecorded} ({design.n_unrecorded / design.nobs:.1%})")]


def design_rows(design: Design) -> Pairs:
    """Rows on the clusters, or on the survey design."""
    survey = design.survey
    if survey is None and design.cluster_name is None:
        return []
    if survey is None:
        pairs = zip(design.cluster_names, design.cluster_counts, strict=True)
        return [("Clusters:", ", ".join(f"{name} ({count})" for name, count in pairs))]
    rows = [
        ("Strata:", None if survey.strata_name is None else f"{survey.strata_name} ({len(survey.strata)})"),
        ("PSUs:", None if survey.psu_name is None else f"{survey.psu_name} ({survey.units.sum():.0f})"),
        ("Population:", survey.fpc_name),
        ("Replicates:", None if survey.replication is None else f"{len(survey.replication.scales)}"),
        ("Subpopulation:", "by a condition" if survey.subpop_name == "" else survey.subpop_name),
    ]
    return [(name, text) for name, text in rows if text is not None]


def _joint_head(record: FitRecord, joint: JointRecord) -> Pairs:
    """Lines on the objective, the propensity scores it averages over, and the Monte Carlo error of these."""
    mc_se, se = float(joint.estimate.mc_se[0]), float(np.sqrt(record.covariance[0, 0]))
    share = f" ({mc_se / se:.2%} of SE)" if se > 0 and np.isfinite(mc_se) else ""
    if joint.anchor is None:  # the usual objective is named by the table of risks
        rows = [("Objective:", "erm"), ("Penalty:", f"{joint.own_penalty:.4g}")]
    else:
        how = "given" if joint.path is None else "chosen" if joint.path.raised_from is None else "raised"
        rows = [("Shrinkage:", f"{joint.anchor:g} ({how})")]
    steps = getattr(joint.estimate.result, "nit", None)
    steps_text = "" if steps is None else f", {steps} iter."
    rows.append(("Optimiser:", f"{joint.options.method or DEFAULT_METHOD}{steps_text}"))
    if joint.replicates.cubature:
        return [*rows, ("Score replicates:", f"{joint.replicates.count} normal points")]
    return [
        *rows,
        ("Score replicates:", f"{joint.replicates.count} of {len(joint.replicates.failures)} used"),
        ("Monte Carlo SE:", f"{mc_se:#.3g}{share}" if np.isfinite(mc_se) else "not known (B = 1)"),
    ]


def _arms_table(record: FitRecord) -> ResultTable:
    labels, overlap = record.design.labels, record.overlap
    if record.weight_fit is None or not record.spec.uses_propensity:
        return ResultTable([(label, f"{arm.n}") for label, arm in zip(labels, overlap, strict=True)], [("By arm", "n")])
    largest = [arm.heaviest for arm in overlap]
    columns = {
        ("", "n"): [f"{arm.n}" for arm in overlap],
        ("survey", "n"): [f"{arm.alone_n:.1f}" for arm in overlap],
        ("effective", "n"): [f"{arm.effective_n:.1f}" for arm in overlap],
        ("largest", "weight"): [f"{w:.2f}" if w < LARGE_WEIGHT else f"{w:.3g}" for w in largest],
        ("weight in", "top 1%"): [format_share(arm.top_share) for arm in overlap],
    }
    if record.design.weight_type != "probability":
        del columns["survey", "n"]
    return ResultTable(
        list(zip(labels, *columns.values(), strict=True)), list(zip(("", "By arm"), *columns, strict=True))
    )


def _risk_table(joint: JointRecord) -> ResultTable:
    """Return RMS error, and its parts, of JRE and of IPWRA on the same replicates, in units of the outcome."""
    fit, names = joint.estimate, ("JRE", "IPWRA, same replicates")
    numbers = root_mean_squares(fit)
    noise = SE_ROUNDING * max(joint.estimate.residual, float(np.abs(fit.estimate.params).max()))
    numbers[numbers <= noise] = 0.0  # zero by construction
    digits = max(2 - floor(log10(numbers[numbers > 0].min(initial=1.0))), 2)
    spec = f".{digits}f" if digits <= 5 else ".2e"
    rows = [(name, *(format(v, spec) for v in row)) for name, row in zip(names, numbers, strict=True)]
    return ResultTable(rows, [("", "RMS", "of it", "of it"), ("Expected ATE risk", "error", "net bias", "sampling")])


def _coefficient_tables(record: FitRecord, alpha: float) -> list[ResultTable]:
    blocks = zip([f"outcome, {label}" for label in record.design.labels], outcome_coefficients(record), strict=False)
    tables = [] if record.spec.given else list(blocks)  # predictions have no coefficients, nor have quantiles
    propensity = propensity_coefficients(record)
    if propensity is not None:
        tables.append(("propensity", propensity))
    frames = [
        (corner, inference_frame(block["values"].to_numpy(), block["se"].to_numpy(), alpha, block.index, df=record.df))
        for corner, block in tables
    ]
    return [numbers_table(frame, corner, one_unit=False) for corner, frame in frames]


def _notes(record: FitRecord) -> list[str]:
    design = record.design
    over = "of the outcomes" if record.options.quantiles else "averaged"
    notes = [f"{words.effect_formula(record)}, {over} over {_target_rows_text(record)}. {_interval_text(record)}"]
    notes += _formulas_note(record)
    notes += filter(None, [words.trend_words(record)])
    notes += record.options.read_as
    notes += _coding_note(design)
    notes += _ledger_notes(record)
    notes += filter(None, [words.missing_words(record), words.filled_words(record)])
    notes += _short_note(record)
    if record.design.weight_type == "probability" and record.spec.uses_propensity:
        notes.append(f"By arm: {SURVEY_N}; the columns after it use the {words.TOTAL_WEIGHT}.")
    notes += filter(None, [words.learner_words(record), words.repeats_words(record)])
    notes += _score_notes(record) + _binary_notes([record])
    if record.joint is not None:
        notes.append(NOTE_JOINT.format(estimand=record.estimand))
        if record.boot is None or record.boot.start is None:  # else a table has them
            starts, (spec, _) = record.joint.start.params, words.formats(record)
            pairs = zip(record.effect_names, starts, strict=False)
            notes.append(f"IPWRA's {words.joined([f'{name} is {value:{spec}}' for name, value in pairs])} (res.start).")
        if record.stack is not None:
            notes.append(NOTE_STACK)
        notes += [NOTE_RISK, *filter(None, [words.ladder_end_words(record.joint)])]
    notes += [note.replace("\n", " ") for note in record.notes]
    return notes


def _formulas_note(record: FitRecord) -> list[str]:
    """Note on the formulas of all models of a fit."""
    design = record.design
    if design.formula is None:
        return []
    seen = design.observation if record.spec.uses_propensity else None
    models = _formulas_text(design, record.weight_fit is not None and design.score is None)
    return [models if seen is None else f"{models}   Observed: {seen.formula}"]


def _formulas_text(design: Design, scored: bool) -> str:
    """Return the formula of the outcome models and, where scores are estimated by one, that of the propensity model."""
    return f"Outcome: {design.formula}" + f"   Propensity: {design.propensity_formula}" * scored


def _coding_note(design: Design) -> list[str]:
    """Note on the levels of the treatment, where the arms have other labels."""
    pairs = list(zip(design.labels, design.levels, strict=True))
    if all(str(level) == label for label, level in pairs):
        return []
    return ["Arms: " + ", ".join(f"{label} is {design.treat_name} = {level}" for label, level in pairs) + "."]


def _binary_notes(records: Sequence[FitRecord]) -> list[str]:
    """Note on an outcome of 0 and 1 to which one of the fits has lines."""
    lines = any(record.options.outcome_family.linear and not record.spec.constants for record in records)
    return [NOTE_BINARY] if lines and records[0].design.has_binary_outcome else []


def _target_rows_text(record: FitRecord) -> str:
    """Name of the rows that the arm means are averages over."""
    rows, survey = words.rows_words(record), record.design.survey
    if survey is not None and survey.subpop_name is not None:
        rows += f" of the subpopulation {survey.subpop_name}".rstrip()
    weighted = record.design.weight_type == "probability" and record.frame is None  # rows of a frame count alike
    return f"{rows} under their weights" if weighted else rows


def _interval_text(record: FitRecord) -> str:
    """Sentences on intervals and tests."""
    null = record.options.effect_scale.null
    factor = " Standard errors have the small-sample factor." if record.small_sample else ""
    text = f"Intervals are {words.distribution_words(record)}.{factor}"
    if null:
        text += f" {statistic_names(record.df)[0]} and P test {record.estimand} = {null:g}."
    if not record.options.effect_scale.additive:
        text += " Interval and test of the effect are those of the logarithm of the ratio, transformed back."
    return f"{text}{words.choice_words(record)}"


def _short_note(record: FitRecord) -> list[str]:
    """Note where the weights leave so little of an arm that IPWRA's sandwich is known to be too small."""
    asked = record.options.population is ALL and record.options.did is None and not record.options.quantiles
    jackknife = not isinstance(record.design, ScannedDesign) and record.design.second_cluster is None
    if record.spec is not IPWRA or not asked or record.cov_type not in ("robust", "HC1", "cluster"):
        return []
    worst = int(np.argmin([arm.kept for arm in record.overlap]))
    arm = record.overlap[worst]
    if not arm.kept < SHORT:
        return []
    remedy = 'Use `fit(cov_type="jackknife", use_t=True)`, which covered' if jackknife else "The jackknife's covered"
    return [
        f"The effective n of arm {record.design.labels[worst]!r}, {arm.effective_n:.1f}, is less than half of the "
        f"{arm.alone_n:.6g} without weights. In simulations of such data, IPWRA's 95% intervals were too short and "
        f"covered {COVERED_SHORT}. {remedy} {COVERED_JACKKNIFE}. AIPW's covered 88 to 93%, with a larger error."
    ]


def _score_notes(record: FitRecord) -> list[str]:
    """Note on propensity scores from elsewhere, whose uncertainty standard errors may leave out."""
    if record.weight_fit is None or "score" in record.weight_fit.beta:
        return []
    if record.design.score is not None:
        return ["The propensity scores are treated as known: standard errors ignore their uncertainty."]
    again = record.cov_type == "jackknife" or (record.cov_type == "bootstrap" and not record.multiplied)
    if again or (record.spec.corrected and record.options.population.by_arm):
        return ["The propensity scores are cross-fitted."]
    return [
        "The propensity scores are cross-fitted. The standard error treats them as known, which is valid only for AIPW "
        'with a target that does not depend on them. Use `fit(cov_type="bootstrap")`.'
    ]


def _ledger_notes(record: FitRecord) -> Sequence[str]:
    """Return notes on rows outside of a subpopulation, and on dropped rows and their reasons."""
    design = record.design
    ledger, dropped, name = design.sample_ledger, design.n_dropped, design.endog_name
    outside, notes = words.count(design.n_outside, "row"), []
    if design.n_outside:
        notes.append(f"{outside} outside of the subpopulation stay in the design for the standard errors.")
    if not dropped:
        return notes
    ledger = ledger[~ledger["formula"].isin([UNRECORDED, INDICATOR, "subpop"])]
    of_outcome = ledger["variable"].eq(name) & ledger["dropped"].gt(0)
    kept = f" `observed=` keeps rows without {name}, by a model of why it is missing." if of_outcome.any() else ""
    used_in = ledger["formula"].where(ledger["formula"].isin(["trim", "weights"]) & ledger["dropped"].gt(0), "")
    counts = ledger.groupby([used_in, "variable"], sort=False)["missing"].max()
    reasons = ", ".join(
        f"{name} in {number} rows" if used_in in ("weights", "trim") else f"{name} missing in {number}"
        for (used_in, name), number in counts.items()
    )
    overlap = " (a row may have several reasons)" if counts.sum() > dropped else ""
    return [*notes, f"{dropped} rows dropped from both models: {reasons}{overlap}. See res.sample_ledger.{kept}"]


FEW_ESTIMATORS = 3  # up to so many estimators the summary shows every difference


def _comparison_head(comparison: Comparison) -> tuple[tuple[str, ...], ...]:
    records, design = comparison.records, comparison.design
    links = [words.propensity_text(record) for record in records if record.weight_fit is not None]
    used, drawn = int((comparison.failures == Failure.OK).all(axis=1).sum()), len(comparison.failures)
    kind = words.bootstrap_text(records[0], comparison.given_resamples)
    richest = max(records, key=lambda record: (record.learned is not None, not record.spec.constants))
    rows = [row for row in _models_head(richest, design.endog_name) if row[0] != "Model:"]
    rows.append(("Propensity:", links[0] if links else "none"))
    if design.weight_type is not None:
        rows.append(("Weights:", f"{design.weights_name} ({design.weight_type})"))
    rows += [
        *design_rows(design),
        ("No. Observations:", f"{design.nobs}"),
        ("Rows dropped:", f"{design.n_dropped}"),
        ("Std. errors:", f"bootstrap ({kind})" if design.replication is None else words.covariance_name(records[0])),
        ("Resamples:", f"{used} of {drawn} used by all"),
        ("Seed:", seed_text(records[0].seed)),
    ]
    return _two_columns(rows)


def numbers_table(frame: pd.DataFrame, corner: str, one_unit: bool = True) -> ResultTable:
    """Lay out a frame of estimates; its numbers share a format where all are in one unit, else those of a row do."""
    values, names = frame.iloc[:, 0].to_numpy(), [name for name in ("std err", "robust se") if name in frame]
    errors, rows = rounded_se(values, frame[names].to_numpy()), []
    shown = {"z": "{:.2f}".format, "t": "{:.2f}".format, "df": _df, "P>|z|": format_p, "P>|t|": format_p}
    shown["adjusted P"] = format_p
    for k, (name, numbers) in enumerate(zip(frame.index, frame.to_numpy(), strict=True)):
        same = slice(None) if one_unit else slice(k, k + 1)
        spec = column_format(errors[same], values[same])
        cells = (shown.get(c, f"{{:{spec}}}".format)(v) for c, v in zip(frame.columns, numbers, strict=True))
        rows.append((str(name), *cells))
    heads = (name.replace("robust se", "robust") for name in frame.columns)
    return ResultTable(rows, [(corner, *heads)])


def _comparison_notes(comparison: Comparison) -> list[str]:
    design, names = comparison.design, comparison.names
    notes = [
        f"All estimators use the same {design.nobs} {design.unit_name}s and the same resamples. Intervals and tests "
        "use the std err, from the bootstrap; the robust one is from the stacked estimating equations"
        f"{'' if design.survey is None else ', linearised for the survey design'}."
        if design.replication is None
        else f"All estimators use the same {design.nobs} rows. Both errors are from the survey's replicate weights."
    ]
    if len(names) > 1:
        notes.append(
            "Tests of differences are paired: their std err is that of the difference within each resample that worked "
            "for both."
        )
    notes.append(_formulas_text(design, any(record.weight_fit is not None for record in comparison.records)))
    richest, last = max(comparison.records, key=lambda record: len(words.variables_of(record))), comparison.records[-1]
    notes += filter(None, [words.trend_words(richest)])
    notes += _learners_note(comparison.records)
    notes += filter(None, [words.missing_words(last), words.filled_words(last)])
    notes += last.options.read_as
    notes += _coding_note(design)
    if design.n_dropped:
        ledger = f'res.results["{names[0]}"].sample_ledger'
        notes.append(f"{design.n_dropped} rows dropped for all estimators. See {ledger}.")
    notes += _binary_notes(comparison.records)
    return notes + [note.replace("\n", " ") for note in comparison.notes]


def _learners_note(records: Sequence[FitRecord]) -> list[str]:
    """Note on what each of several estimators does with the predictions of learners."""
    uses: dict[str, list[str]] = {}
    for record in records:
        if record.learned is not None:
            use = "as the outcome models" if record.spec.given else "as terms of the outcome models"
            use = "in an ensemble" if record.stack else use
            uses.setdefault(use, []).append(record.spec.name)
    used = words.joined([f"{use} ({', '.join(names)})" for use, names in uses.items()])
    return [f"Predictions of the learner are used {used}. {words.TAKEN}"] if uses else []


def summarize_pooled(
    records: Sequence[FitRecord], frame: pd.DataFrame, missing: pd.DataFrame, df_complete: float, title: str | None
) -> ResultSummary:
    """Compose the summary of pooled results: estimates, and fractions of missing information."""
    record, design = records[0], records[0].design
    head = [
        *_models_head(record, design.endog_name),
        ("Propensity:", words.propensity_text(record)),
        *design_rows(design),
        ("No. Observations:", f"{design.nobs}"),
        ("Imputations:", f"{len(records)}"),
        ("Std. errors:", words.covariance_name(record)),
        ("Complete-data df:", f"{df_complete:.6g}"),
        *_unrecorded_row(design),
    ]
    tables = [
        ResultTable(_two_columns(head), aligns="lrlr", title=title or f"{record.spec.title}, Pooled"),
        numbers_table(frame, design.endog_name, one_unit=False),
        _missing(missing),
    ]
    logs = "" if record.options.effect_scale.additive else " Effects are pooled on the logarithmic scale."
    notes = [
        "Estimates are means over the imputations. Their variance is within + (1 + 1/m) between (Rubin's rules); t has "
        f"the degrees of freedom of Barnard and Rubin.{logs}"
    ]
    notes += [*_formulas_note(record), *filter(None, [words.missing_words(record), words.filled_words(record)])]
    return ResultSummary(tables, notes)


def _df(value: float) -> str:
    return f"{value:.1f}" if value < 1e5 else f"{value:.3g}"


def _missing(missing: pd.DataFrame) -> ResultTable:
    header = [
        ("", "within", "between", "relative", "share of", "missing"),
        ("Variance", "imputations", "imputations", "increase", "total", "information"),
    ]
    rows = [
        (str(name), *map(format_number, row[:2]), *(f"{x:.4f}" if np.isfinite(x) else str(x) for x in row[2:]))
        for name, *row in missing[["within", "between", "riv", "lambda", "fmi"]].itertuples()
    ]
    return ResultTable(rows, header)


def _offset_row(record: FitRecord) -> list[tuple[str, str]]:
    """Return the row of a summary that names the offset or the exposure; none without."""
    design, stated = record.design, record.stated_exposure
    if design.offset_kind != "exposure":
        return [] if design.offset_name is None else [("Offset:", design.offset_name)]
    return [("Exposure:", f"{design.offset_name} (means {'as observed' if stated is None else f'at {stated:g}'})")]

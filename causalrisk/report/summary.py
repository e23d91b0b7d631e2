"""Summaries of a fit, a comparison, pooled fits and an event study: their numbers and notes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_list_like

from causalrisk.design.design import Design
from causalrisk.design.did import without_change
from causalrisk.errors import NUMBERS, Failure, OptionError
from causalrisk.estimation.overlap import LARGE_WEIGHT
from causalrisk.estimation.record import FitRecord
from causalrisk.estimation.specification import EVERYBODY, IPW, IPWRA
from causalrisk.inference import fitted_models, intervals
from causalrisk.inference.simultaneous import Comparison, differences_frame, effects_frame, start_difference
from causalrisk.numerics.resampling import seed_text
from causalrisk.report import labels as words
from causalrisk.report.table import ResultSummary, ResultTable, column_format, format_number, format_p, format_share

POOR = 0.5  # if weighting leaves a smaller share of a group's effective n, IPWRA's robust intervals are too short
LOGARITHM = r"(I\()?(\w+\.)*log(2|10|1p)?\("  # beginning of an outcome such as np.log(y), but not np.logical_or(a, b)
FEW_ESTIMATORS = 3  # maximum number of estimators for which the summary of a comparison shows every difference
MISSING_HEADS = (
    ("", "within", "between", "relative", "share of", "missing"),
    ("Variance", "imputations", "imputations", "increase", "total", "information"),
)
MODELS = (
    "Treatment:", "Model:", "Target:", "Outcome model:", "Matching:", "Learner:", "Exposure:", "Offset:", "Propensity:",
)  # fmt: skip
DESIGN = ("Clusters:", "Strata:", "PSUs:", "Population:", "Replicates:", "Subpopulation:")
NOTE_SURVEY_N = (
    '"survey n" is the effective n under the survey weights alone. The columns to its right use the product of survey '
    "and propensity-score weights."
)
NOTE_JRE = "Interpret JRE's effect only. Its means (POM) and coefficients may be biased."
NOTE_BINARY = (
    "The outcome is 0 or 1 and its models are linear, so predictions may lie outside 0 to 1. Use "
    '`from_formula(family="binomial")` to keep them inside.'
)


def summary(
    record: FitRecord,
    alpha: float = 0.05,
    title: str | None = None,
    yname: str | None = None,
    xname: Sequence[str] | None = None,
    coefficients: bool = False,
    slim: bool = False,
    digits: int | None = None,
) -> ResultSummary:
    """Return a summary of the estimates in the style of a regression table.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the intervals.
    title : str, optional
        Heading.
    yname : str, optional
        Name of the outcome.
    xname : sequence of str, optional
        Names of the rows, one per parameter of `params`.
    coefficients : bool, default False
        Whether to print the coefficients of the outcome and propensity models.
    slim : bool, default False
        Whether to show only the estimates, and the note on what they are.
    digits : int, optional
        Decimals of estimates, standard errors and intervals. By default, the smallest standard error has four
        significant digits.

    Returns
    -------
    ResultSummary
        A statsmodels Summary that prints as text, with methods `as_text`, `as_html`, `as_latex`, `as_markdown`,
        `as_csv` and `save` (also to Word).
    """
    outcome, title = str(yname or words.outcome_name(record)), str(title or record.spec.title)
    names = record.names if xname is None else [str(name) for name in (xname if is_list_like(xname) else [xname])]
    if len(names) != len(record.names):
        found = f"xname= has {len(names)} names; expected {len(record.names)}: {', '.join(record.names)}"
        raise OptionError(f"{found}.\nLeave xname= out.")
    estimates = intervals.summary_frame(record, alpha).set_axis(names)
    additive = record.options.effect_scale.additive
    numbers = numbers_table(estimates, outcome, one_unit=additive, digits=digits)
    if slim:
        numbers.title = title
        return ResultSummary([numbers], _notes(record)[:1])
    texts = head_texts(record)
    tables = [head(title, outcome, texts, texts), numbers, _groups_table(record)]
    if record.boot is not None and record.boot.start is not None:
        found = start_difference(record, alpha)
        found.index = [key if isinstance(key, str) else ", ".join(key) for key in found.index]
        like = estimates if additive else None
        tables.append(numbers_table(found, "On the same resamples", one_unit=additive, digits=digits, like=like))
    if coefficients:
        tables += _coefficient_tables(record, alpha, digits)
    return ResultSummary(tables, _notes(record))


def summarize_comparison(compared: Any, alpha: float = 0.05, title: str | None = None) -> ResultSummary:
    """Summary of the effects and the differences between them.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the intervals.
    title : str, optional
        Heading.

    Returns
    -------
    ResultSummary
        Summary with `as_text`, `as_html`, `as_latex` and `as_csv`. With more than three estimators, it shows only
        differences from the last estimator. `differences` has all differences.
    """
    comparison: Comparison = compared._data
    records, design, names = comparison.records, comparison.records[0].design, comparison.names
    richest = max(records, key=lambda record: (record.learned is not None, not record.spec.constants))
    used, drawn = int((comparison.failures == Failure.OK).all(axis=1).sum()), len(comparison.failures)
    scored = [words.propensity_text(record) for record in records if record.weight_fit is not None]
    texts = head_texts(richest) | {
        "Propensity:": scored[0] if scored else "none",
        "Std. errors:": words.covariance_name(comparison.drawn[0]),
        "Resamples:": f"{used} of {drawn} used by all",
        "Seed:": seed_text(records[0].seed),
    }
    del texts["Model:"]
    own = ("No. Observations:", "Rows dropped:", "Std. errors:", "Resamples:", "Seed:")
    shown = (*MODELS, "Weights:", *DESIGN, *own)
    tables = [head(title or "Comparison of Estimators", design.endog_name, texts, shown)]
    effects, differences = effects_frame(comparison, alpha), differences_frame(comparison, alpha)
    several = len(comparison.effect_names) > 1
    for effect in comparison.effect_names:
        own_effects, apart = (each.xs(effect, level="effect") if several else each for each in (effects, differences))
        tables.append(numbers_table(own_effects, effect))
        for name in names[:0:-1] if len(names) <= FEW_ESTIMATORS else names[-1:]:
            tables.append(numbers_table(apart.xs(name, level="minus"), f"Difference to {name}", like=own_effects))
    return ResultSummary(tables, _comparison_notes(comparison))


def summarize_pooled(pooled: Any, alpha: float = 0.05, title: str | None = None) -> ResultSummary:
    """Return a regression-style summary.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the intervals.
    title : str, optional
        Heading.

    Returns
    -------
    ResultSummary
        Summary in the layout of a fit's summary.
    """
    record, missing = pooled._record, pooled.missing_information[["within", "between", "riv", "lambda", "fmi"]]
    outcome, texts = record.design.endog_name, head_texts(record)
    texts |= {"Imputations:": f"{pooled.n_imputations}", "Complete-data df:": f"{pooled.df_complete:.6g}"}
    own = ("No. Observations:", "Imputations:", "Std. errors:", "Complete-data df:", "No outcome:")
    rows = [
        (str(name), *map(format_number, row[:2]), *(f"{x:.4f}" if np.isfinite(x) else str(x) for x in row[2:]))
        for name, *row in missing.itertuples()
    ]
    tables = [
        head(title or f"{record.spec.title}, Pooled", outcome, texts, (*MODELS, *DESIGN, *own)),
        numbers_table(pooled.summary_frame(alpha), outcome, one_unit=False),
        ResultTable(rows, MISSING_HEADS),
    ]
    short, small = "normal intervals can be too short", "standard errors can be too small"  # pooled intervals use t
    every = [note.replace(short, small) for each in pooled._records[::-1] for note in each.notes]
    warned = {re.sub(NUMBERS, "", note): re.sub(", use_t=True|use_t=True, ", "", note) for note in every}
    notes = [
        f"{words.effect_formula(record)}. {words.pooled_words(record, pooled.n_imputations)}",
        *_model_notes([record], ""),
        words.learner_words(record).replace("`res.stack`", "`stack` of each of `res.results`"),
        NOTE_JRE * (record.joint is not None),
        "Each warning below is from the first imputed data set in which it occurs." * bool(warned),
        *map(words.sentence, warned.values()),
    ]
    return ResultSummary(tables, notes)


def summarize_event_study(study: Any, alpha: float = 0.05, title: str | None = None) -> ResultSummary:
    """Effects by periods since adoption and by group, and their average, with simultaneous intervals.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the intervals.
    title : str, optional
        Heading.

    Returns
    -------
    ResultSummary
        A statsmodels Summary.
    """
    record, given = study._record, study.given
    texts = head_texts(record) | {
        "Clusters:": f"{given['cluster']} ({len(study.contributions)})" if given.get("cluster") else "",
        "Units:": f"{given['unit']} ({study.sizes.sum()})",
        "Periods:": f"{given['time']} ({len(study.periods)})",
    }
    shown = ("Model:", "Outcome model:", "Learner:", "Propensity:", "Target:", "Units:", "Periods:", "Std. errors:",
             *DESIGN)  # fmt: skip
    right = str(record.design.propensity_formula).partition("~")[2].strip()
    effects, units, *assumed = words.study_words(study)
    notes = [
        f"{effects} Exposure is the number of periods since adoption. Effects before adoption are placebos"
        f"{', except in the anticipation periods' * bool(given['anticipation'])}. Intervals for several effects are "
        'simultaneous. They match "adjusted P". The other P is not adjusted.',
        f"Outcome: {given['formula']}",
        f"Propensity: {right}" * (record.uses_score and record.design.score is None),
        f"{units}{words.small_sample_words(record)} Confidence intervals use {words.distribution_of(study.df)}.",
        *map(words.sentence, study.notes),
        *assumed,
    ]
    tables = [head(title or "Event Study: Difference-in-Differences by Group and Period", study.outcome, texts, shown)]
    tables += [numbers_table(study.effects(name, alpha), name) for name in ("exposure", "group", "all")]
    return ResultSummary(tables, notes)


def one_line(record: FitRecord, pooled: tuple[Any, Any] | None = None, imputations: int = 0) -> str:
    """Return one line with the effects (or pooled effects), standard errors, groups and sample size."""
    params, errors = pooled or (record.estimate.params, record.std_errors)
    triples = zip(record.effect_names, params, errors, strict=False)
    effects = ", ".join(f"{effect} {format_number(value)} ({format_number(se)})" for effect, value, se in triples)
    name = record.spec.name + f", {imputations} imputations" * (pooled is not None)
    return f"{name}: {effects}, {record.design.contrast}, n {record.design.nobs}"


def head_texts(record: FitRecord) -> dict[str, str]:
    """Return the texts of all lines that the head of a summary may have, by their labels."""
    design, options, stated, survey = record.design, record.options, record.stated_exposure, record.design.survey
    boot, joint = None if record.cov_type == "replicates" else record.boot, record.joint
    at = "as observed" if stated is None else f"at {stated:g}"
    shrinkage = ""
    if joint is not None and joint.anchor is not None:
        how = "given" if joint.path is None else "chosen" if joint.path.raised_from is None else "raised"
        shrinkage = f"{joint.anchor:g} ({how})"
    texts: dict[str, Any] = {
        "Treatment:": design.treat_name,
        "Model:": record.spec.name,
        "Target:": words.target_text(record),
        "Outcome model:": words.outcome_model_text(record),
        "Matching:": f"{options.n_neighbors} nearest, {options.metric.replace('_', ' ')}" * record.spec.matched,
        "Learner:": record.learned and words.learner_text(record),
        "Propensity:": words.propensity_text(record),
        "Effect:": options.effect.replace("_", " ") * (options.effect != "difference"),
        "Weights:": design.weight_type and f"{design.weights_name} ({design.weight_type})",
        "Exposure:": f"{design.offset_name} (means {at})" * (design.offset_kind == "exposure"),
        "Offset:": design.offset_kind != "exposure" and design.offset_name,
        "Clusters:": survey is None and words.clusters_text(design),
        "Strata:": survey and survey.strata_name and f"{survey.strata_name} ({len(survey.strata)})",
        "PSUs:": survey and survey.psu_name and f"{survey.psu_name} ({survey.units.sum():.0f})",
        "Population:": survey and survey.fpc_name,
        "Replicates:": survey and survey.replication and f"{len(survey.replication.scales)}",
        "Subpopulation:": survey and ("by a condition" if survey.subpop_name == "" else survey.subpop_name),
        "No. Observations:": f"{design.nobs}",
        "Rows dropped:": f"{design.n_dropped}",
        "Outside subpop.:": f"{design.n_outside or ''}",
        "No outcome:": design.observation and f"{design.n_unrecorded} ({design.n_unrecorded / design.nobs:.1%})",
        "Trimmed:": record.trimmed,
        "Clipped:": options.clip and words.clip_text(record),
        "Std. errors:": words.covariance_name(record),
        "Df Residuals:": f"{record.df:.6g}" * bool(np.isfinite(record.df)),
        "Bootstrap:": boot and f"{len(boot.used)} of {len(boot.failures)} used",
        "Shrinkage:": shrinkage,
        "Objective:": "erm" * (joint is not None and joint.anchor is None),
        "Converged:": "yes" if words.has_converged(record) else "NO",
    }
    return {label: text for label, text in texts.items() if text}


def head(title: str, outcome: str, texts: Mapping[str, str], labels: Iterable[str]) -> ResultTable:
    """Return the head of a summary: some of the labels and texts, in two columns."""
    pairs = [("Dep. Variable:", outcome), *((label, texts[label]) for label in labels if texts.get(label))]
    half = (len(pairs) + 1) // 2
    rows = [(*a, *b) for a, b in zip_longest(pairs[:half], pairs[half:], fillvalue=("", ""))]
    return ResultTable(rows, aligns="lrlr", title=title)


def _groups_table(record: FitRecord) -> ResultTable:
    overlap = record.overlap
    columns = {"n": [f"{arm.n}" for arm in overlap]}
    if record.weight_fit is not None and record.spec.uses_propensity:
        if record.design.weight_type == "probability":
            columns["survey n"] = [f"{arm.alone_n:.1f}" for arm in overlap]
        heaviest = [arm.heaviest for arm in overlap]
        columns |= {
            "effective n": [f"{arm.effective_n:.1f}" for arm in overlap],
            "largest weight": [f"{w:.2f}" if w < LARGE_WEIGHT else f"{w:.3g}" for w in heaviest],
            "weight in top 1%": [format_share(arm.top_share) for arm in overlap],
        }
    return ResultTable(list(zip(record.design.labels, *columns.values(), strict=True)), [("By group", *columns)])


def _coefficient_tables(record: FitRecord, alpha: float, digits: int | None) -> list[ResultTable]:
    tables, labels = [], record.design.labels
    for arm, block in fitted_models.coefficients(record).items():
        if arm is None or not record.spec.given:  # predictions have no coefficients
            values, se = block["values"].to_numpy(), block["se"].to_numpy()
            frame = intervals.Estimates(values, se, se, df=record.df).frame(block.index, alpha)
            corner = "propensity" if arm is None else f"outcome, {labels[arm]}"
            tables.append(numbers_table(frame, corner, one_unit=False, digits=digits))
    return tables


def numbers_table(
    frame: pd.DataFrame, corner: str, one_unit: bool = True, digits: int | None = None, like: pd.DataFrame | None = None
) -> ResultTable:
    """Return the table of a frame of estimates. The numbers of the frame `like` determine the decimals."""
    like, rows = frame if like is None else like, []
    values, names = like.iloc[:, 0].to_numpy(), [name for name in ("std err", "robust se") if name in like]
    errors = intervals.rounded_se(values, like[names].to_numpy())
    shown: dict[str, Callable[[float], str]] = {
        **dict.fromkeys(("z", "t"), "{:.2f}".format),
        **dict.fromkeys(("P>|z|", "P>|t|", "adjusted P"), format_p),
        "df": lambda value: f"{value:.1f}" if value < 1e5 else f"{value:.3g}",
    }
    for k, (name, numbers) in enumerate(zip(frame.index, frame.to_numpy(), strict=True)):
        same = slice(None) if one_unit else slice(k, k + 1)
        spec = column_format(errors[same], values[same], digits)
        cells = (shown.get(c, f"{{:{spec}}}".format)(v) for c, v in zip(frame.columns, numbers, strict=True))
        rows.append((str(name).removesuffix(" 00:00:00"), *cells))  # of dates
    heads = (name.replace("robust se", "robust") for name in frame.columns)
    return ResultTable(rows, [(corner, *heads)])


def _notes(record: FitRecord) -> list[str]:
    """Return the notes of a summary, which explain what its numbers are."""
    design, options, joint = record.design, record.options, record.joint
    over = "Quantiles are" if options.quantiles else "The means (POM) are averages"
    notes = [
        f"{words.effect_formula(record)}. {over} over {words.rows_words(record)}. {words.inference_words(record)}",
        *_model_notes([record], "res"),
        _overlap_note(record),
        NOTE_SURVEY_N * (design.weight_type == "probability" and record.spec.uses_propensity),
        words.matching_words(record),
        words.learner_words(record),
        words.repeats_words(record),
        _score_note(record),
    ]
    if joint is not None:
        notes.append(f"{NOTE_JRE} Use `res.start`, the IPWRA fit, for these.")
        notes.append("The shrinkage and `res.start` are from the fit without learners." * (record.stack is not None))
        if record.boot is None or record.boot.start is None:  # else in a table
            pairs, (spec, _) = zip(record.effect_names, joint.start.params, strict=False), words.formats(record)
            notes.append(f"IPWRA's {words.joined([f'{name} is {value:{spec}}' for name, value in pairs])}.")
    return [*notes, *map(words.sentence, record.notes)]


def _model_notes(records: Sequence[FitRecord], results: str) -> list[str]:
    """Return the notes on formulas, options and data of fits to the same data. `results` is code for a result."""
    last, fullest = records[-1], max(records, key=lambda record: len(words.variables_of(record)))
    adjusted = bool(words.variables_of(fullest)) or last.design.score is not None or last.design.predictions is not None
    return [
        _logged_note(last),
        *formulas(*records),
        "No covariates are adjusted for." * (not adjusted),
        "Estimates divide the weights by their sum in each group (Hajek)." * all(each.spec == IPW for each in records),
        words.trend_words(fullest),
        *last.options.read_as,
        _coding_note(last.design),
        *_dropped_notes(last.design, results),
        words.missing_words(last),
        words.filled_words(last),
        _binary_note(records),
    ]


def _comparison_notes(comparison: Comparison) -> list[str]:
    design, records = comparison.records[0].design, comparison.records
    units = f"{design.nobs} {design.unit_name}s"
    sources = f"All estimators use the same {units}. Both standard errors are from the survey's replicate weights."
    if design.replication is None:
        linearised = "" if design.survey is None else ", linearised for the survey design"
        sources = (
            f'All estimators use the same {units} and the same resamples. Tests and intervals use "std err", the '
            f'bootstrap standard error. "robust" is the standard error without resampling{linearised}.'
        )
    uses: dict[str, list[str]] = {}  # what each estimator does with the predictions of learners
    for record in records:
        if record.learned is not None:
            use = "instead of outcome models" if record.spec.given else "as extra terms in the outcome models"
            uses.setdefault("in an average of fits" if record.stack else use, []).append(record.spec.name)
    used = words.joined([f"{use} ({', '.join(names)})" for use, names in uses.items()])
    first = comparison.drawn[0]
    one_df = len({record.df for record in comparison.drawn}) == 1
    of = words.distribution_words(first) if one_df else "the t distribution with the estimator's degrees of freedom"
    of = f"Confidence intervals use {of}." * bool(np.isfinite(first.df))
    chosen = [np.sqrt(record.choice_variance) for record in comparison.drawn]
    notes = [
        sources,
        "The standard error of a difference is from the resamples in which both estimators succeeded."
        * (len(records) > 1),
        f"{of}{words.small_sample_words(first)}{words.logs_words(first)}".strip(),
        *(words.CHOICE.format(*own) for own in zip(comparison.names, chosen, strict=True) if round(own[1], 3) != 1),
        *_model_notes(records, f'res.results["{comparison.names[0]}"]'),
        f"Predictions of the learner are used {used}. {words.TAKEN}" * bool(uses),
    ]
    return [*notes, *map(words.sentence, comparison.notes)]


def formulas(*records: FitRecord) -> list[str]:
    """Return one note for each formula that a fit, or any of several fits to the same data, uses."""
    design, did, constants = records[0].design, records[0].options.did, all(each.spec.constants for each in records)
    if design.formula is None:
        return []
    outcome = design.endog_name if constants else without_change(design.formula, did)
    scored = design.score is None and any(record.uses_score for record in records)
    seen = design.observation if any(record.spec.uses_propensity for record in records) else None
    observed = "" if seen is None else f"Observed: {seen.formula}"
    return [f"Outcome: {outcome}", f"Propensity: {design.propensity_formula}" * scored, observed]


def _coding_note(design: Design) -> str:
    """Return a note on the levels of the treatment, if the labels of the groups differ from them."""
    pairs = list(zip(design.labels, design.levels, strict=True))
    if all(str(level) == label for label, level in pairs):
        return ""
    return f"Groups: {', '.join(f'{label} is {design.treat_name} = {level}' for label, level in pairs)}."


def _binary_note(records: Sequence[FitRecord]) -> str:
    fitted = [record for record in records if not (record.spec.constants or record.spec.given or record.spec.matched)]
    linear = any(record.options.outcome_family.linear for record in fitted)
    return NOTE_BINARY if linear and records[0].design.has_binary_outcome else ""


def _logged_note(record: FitRecord) -> str:
    outcome = record.design.endog_name
    if record.options.effect_scale.additive or not re.match(LOGARITHM, outcome):
        return ""
    return f"The effect compares means of {outcome}. For the outcome itself, leave the logarithm out of the formula."


def _overlap_note(record: FitRecord) -> str:
    """Return a note on a group whose effective n is less than half of n. Empty if overlap is good."""
    design, everybody = record.design, record.options.population is EVERYBODY
    arm, label = min(zip(record.overlap, design.labels, strict=True), key=lambda pair: pair[0].kept)
    if record.spec.matched or not (record.spec.uses_propensity and everybody and arm.kept < POOR):
        return ""
    alone = f" ({arm.alone_n:.0f} under the probability weights alone)" * (design.weight_type == "probability")
    left = (
        f"Overlap is limited. After weighting, the effective n of group {label} is {arm.effective_n:.0f}{alone}, out "
        f"of {words.count(arm.n, design.unit_name)}. See `res.overlap()`. "
    ) * (not words.poor_overlap(record))
    sandwich = record.spec == IPWRA and record.cov_type in ("robust", "HC1", "cluster")
    if not sandwich or record.options.quantiles:
        joint = "Prefer IPWRA (`res.start`) to JRE here. " * (record.joint is not None)
        instead = f'`target="overlap"` estimates the effect for comparable {design.unit_name}s instead.'
        return left and f"{left}{joint}{instead}"
    jackknife = not design.on_disk and design.second_cluster is None
    remedy = 'Use `fit(cov_type="jackknife", use_t=True)`, whose' if jackknife else "The jackknife's"
    return (
        f"{left}In simulations with poor overlap, IPWRA's 95% intervals were too short: their coverage was 69 to 89%. "
        f"{remedy} coverage was 90 to 97%. AIPW's coverage was 88 to 93%, but its error was larger."
    )


def _score_note(record: FitRecord) -> str:
    """Return a note on given or cross-fitted propensity scores. Standard errors may ignore their uncertainty."""
    if record.weight_fit is None or "score" in record.weight_fit.beta:
        return ""
    if record.design.score is not None:
        return "Standard errors treat the given propensity scores as known."
    again = record.cov_type == "jackknife" or (record.cov_type == "bootstrap" and not record.multiplied)
    if again or (record.spec.corrected and record.options.population.by_arm):
        return "The propensity scores are cross-fitted."
    return (
        "The propensity scores are cross-fitted. Standard errors ignore their uncertainty. This is valid only for AIPW "
        'and TMLE of an ATE, ATT or ATC. Use `fit(cov_type="bootstrap")`.'
    )


def _dropped_notes(design: Design, results: str) -> list[str]:
    outside = f"{words.count(design.n_outside, 'row')} outside the subpopulation are used only for the standard errors."
    notes = [outside] * bool(design.n_outside)
    if design.n_dropped:
        found = words.left_out(design)
        reasons = ", ".join(f"{why}{f' in {lacking}' * (len(found) > 1)}" for why, lacking, _ in found)
        several = " (some rows lack several)" * (sum(lacking for _, lacking, _ in found) > design.n_dropped)
        variables = (*design.outcome_encoder.variables, *design.propensity_encoder.variables)
        missing = any(why == f"{name} missing" for why, *_ in found for name in variables)
        see = f" See `{results}.sample_ledger`.{' `causalrisk.pool` combines fits to imputed data.' * missing}"
        dropped = words.count(design.n_dropped, design.unit_name.replace("observation", "row"))
        notes.append(f"{dropped} dropped: {reasons}{several}.{see * bool(results)}")
    return notes

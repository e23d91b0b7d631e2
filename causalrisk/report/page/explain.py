"""A fit in plain words: the chain from the formula to the estimate, with its numbers."""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import ScannedDesign
from causalrisk.design.design import rows_not_kept
from causalrisk.design.did import without_change
from causalrisk.diagnostics.risk import root_mean_squares
from causalrisk.errors import check_alpha
from causalrisk.estimators.quantiles import raw_quantiles
from causalrisk.estimators.record import FitRecord
from causalrisk.estimators.specification import mean_names
from causalrisk.inference.intervals import parameter_limits, parameter_tests, statistic_names
from causalrisk.inference.paired_resamples import start_difference
from causalrisk.numerics.linalg import Array
from causalrisk.report.labels import (
    TOTAL_WEIGHT,
    choice_words,
    clip_text,
    count,
    distribution_words,
    effect_words,
    estimand_words,
    filled_words,
    formats,
    in_population,
    joined,
    ladder_end_words,
    learner_words,
    missing_words,
    offset_words,
    outcome_text,
    outcome_words,
    population_words,
    propensity_text,
    repeats_words,
    variables_of,
)
from causalrisk.report.page.methods import errors_source, objective_sentence
from causalrisk.report.populations import population_text
from causalrisk.report.tables.text import format_number, format_p, signed_p, wrap

SMALL, LARGE = 0.25, 1.0  # gap between JRE and IPWRA in standard errors: of no consequence below, serious above
COMPARED = {"difference": "difference", "ratio": "ratio", "odds_ratio": "odds ratio", "percent": "change in percent"}

DENSITY = (
    "The influence of a row on a quantile is that on the share of outcomes up to it, over the density there (a kernel "
    "estimate, with the bandwidth of Hall and Sheather)."
)
IF_THEY_DISAGREE = (
    'Is it more than noise? compare(..., estimators=["IPWRA", "JRE"]).differences tests the gap on the same '
    "resamples; two overlapping intervals say nothing about it.",
    "Do a few rows carry the weight? Look at the effective number of rows above. If so, change the question to one the "
    'data can answer, target="overlap" or trim="crump", and see whether the gap closes.',
    "Is a formula too simple? Add squares and interactions to both. A gap that closes was a misfit.",
    "Does the anchor decide? Fit JRE with anchor= ten times smaller and larger; res.plot_anchor_path() shows more.",
    "If the gap stays, report both. The data and the formulas do not settle the effect more closely than that. Do not "
    "choose the estimator by its result.",
)


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, and a list below them."""

    title: str
    paragraphs: tuple[str, ...]
    items: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Prose:
    """A text that prints.

    Parameters
    ----------
    title : str
        Heading.
    sections : tuple of Section
        The sections.
    """

    title: str
    sections: tuple[Section, ...]

    def as_text(self, width: int = 78) -> str:
        """Return the text, wrapped.

        Parameters
        ----------
        width : int
            Display width of a line.

        Returns
        -------
        str
            Headings, paragraphs and lists.
        """
        blocks = [f"{self.title}\n{'=' * len(self.title)}"]
        for section in self.sections:
            lines = [section.title, "-" * len(section.title)]
            for paragraph in section.paragraphs:
                lines += wrap(paragraph, width)
            for item in section.items:
                lines += wrap(item, width, first="  - ", rest="    ")
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks)

    def as_html(self) -> str:
        """Return the text as HTML, everything escaped.

        Returns
        -------
        str
            Headings (h3), paragraphs and lists.
        """
        parts = [f"<h2>{html.escape(self.title)}</h2>"]
        for section in self.sections:
            parts.append(f"<h3>{html.escape(section.title)}</h3>")
            parts += [f"<p>{html.escape(paragraph)}</p>" for paragraph in section.paragraphs]
            if section.items:
                parts += ["<ul>", *(f"<li>{html.escape(item)}</li>" for item in section.items), "</ul>"]
        return "\n".join(parts)

    def __str__(self) -> str:
        return self.as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.as_html()


def explain(record: FitRecord, alpha: float = 0.05) -> Prose:
    """Explain in plain words how the estimate came about, with the numbers of this fit.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the interval.

    Returns
    -------
    Prose
        Prints as text; `as_html()` gives HTML. The steps from the formula to the standard error, what to do when
        JRE and IPWRA disagree, and the question no test answers.
    """
    check_alpha(alpha)
    if isinstance(record.design, ScannedDesign):
        raise rows_not_kept("explain()", "Use `res.methods()`. ")
    steps = [
        ("The formula", _formula(record)),
        ("The arms", _arms(record)),
        ("The propensity score", _propensity(record)),
        ("The weights", _weights(record)),
        ("The outcome models", _outcome_models(record)),
        ("The averages", _averages(record)),
        ("The effect", [f"{'; '.join(effect_words(record, k) for k in range(len(record.effect_names)))}."]),
        ("The standard error", _standard_error(record, alpha)),
    ]
    numbered = [Section(f"{k}. {title}", tuple(texts)) for k, (title, texts) in enumerate(steps, 1) if texts]
    title = f"How {record.spec.name} came to its estimate"
    alone = record.options.quantiles or record.design.periods is not None  # of which there is no JRE
    disagreement = [] if alone else [_disagreement(record)]
    return Prose(title, (*numbered, *disagreement, _untestable(record)))


def _formula(record: FitRecord) -> list[str]:
    design, options, outcome = record.design, record.options, outcome_words(record)
    dropped, what = design.n_dropped, "quantiles" if options.quantiles else "means"
    each = "" if design.periods is None else " in each period"
    if record.spec.constants:
        models = f"No covariates predict {outcome} here: this estimator compares {what}."
    elif design.formula:
        models = f"{without_change(design.formula, options.did)} says which covariates predict {outcome}. The "
        models += f"treatment, {design.treat_name}, is not among them: every arm gets an outcome model of its "
        models += f"own{each}."
    else:
        models = f"The columns of exog predict {outcome}; every arm of {design.treat_name} gets an outcome "
        models += "model of its own."
    if record.spec.uses_propensity and design.score is None and design.propensity_formula:
        models += f" {design.propensity_formula} says which covariates predict who is in which arm."
    compared = joined(
        [f"all in arm {label} rather than in arm {design.labels[0]}" for label in design.labels[1:]], "or"
    )
    additive, measured = options.effect_scale.additive, "mean"
    moves = "change" if options.did is None else "differ"
    measure = "" if additive else f", as {'an' if options.effect == 'odds_ratio' else 'a'} {COMPARED[options.effect]}"
    if options.quantiles:
        levels = joined([f"{level:g}" for level in options.quantiles])
        measured = f"quantile{'' if len(options.quantiles) == 1 else 's'} {levels}"
    question = (
        f"The question: how would the {measured} of {outcome_text(record)} {moves}{measure}, over "
        f"{population_words(record)}, "
        f"were they {compared}? The answer is the {estimand_words(record)}."
    )
    rows = f"{count(design.nobs, design.unit_name)} of the data are used"
    rows += "." if not dropped else f"; {dropped} are not, because a variable is missing"
    rows += "" if not dropped else " or trimming left them out (res.sample_ledger counts why)."
    if design.n_outside:
        rows += f" {design.n_outside} outside of the subpopulation stay in the design for the standard errors."
    return [models, *filter(None, [offset_words(record)]), question, rows, *filter(None, [filled_words(record)])]


def _arms(record: FitRecord) -> list[str]:
    labels, scale, means = record.design.labels, record.options.effect_scale, _raw_means(record)
    text = f"As observed: {_arms_words(record)}"
    text += "." if record.design.weight_type is None else ", under the observation weights."
    if not scale.quantiles and np.all((means > scale.low) & (means < scale.high)):
        raw = [
            format_number(v) if len(labels) == 2 else f"{format_number(v)} ({label} against {labels[0]})"
            for v, label in zip(scale.effects(means), labels[1:], strict=True)
        ]
        text += f" The raw {COMPARED[record.options.effect]} is {joined(raw)}."
    alike = "the arms are alike in everything else that matters for the outcome"
    if record.options.did is not None:
        alike = "the outcomes of both arms would have changed alike without the treatment"
    that = "What lies between them" if scale.quantiles else "That"
    return [f"{text} {that} is an effect only if {alike}."]


def _propensity(record: FitRecord) -> list[str]:
    fit, labels = record.weight_fit, record.design.labels
    if fit is None:
        return [f"{record.spec.name} uses none: it does not ask who was likely to be in which arm."]
    whose = f"{record.design.treat_name} = {labels[1]}" if len(labels) == 2 else "each arm"
    source = f"A model ({propensity_text(record)}) estimates it from the covariates."
    if record.design.score is not None:
        source = "It was given with the data and is taken as known."
    elif record.options.propensity_score is not None:
        source = (
            f"It is predicted by {propensity_text(record)}: each row by a classifier trained on the other folds, so "
            "that no row predicts itself."
        )
    elif record.options.propensity_loss == "calibrated":
        source += " It is fitted so that the weighted covariate means of the arms equal those of the target exactly."
    texts = [f"The propensity score is the probability of {whose}, given the covariates. {source} {_scores(record)}"]
    if record.options.clip is not None:
        texts.append(f"Scores beyond the limits of clip= were set to them: {clip_text(record)}.")
    if record.trimmed:
        texts.append(f"Rows left out by their score: {record.trimmed}. The effect is that of the rows that remain.")
    if not record.spec.uses_propensity:
        texts.append(f"{record.spec.name} uses it for the target only, not to weigh the outcome models.")
    return texts


def _scores(record: FitRecord) -> str:
    """Sentences on the range of the scores in each arm."""
    labels, sample = record.design.labels, record.sample
    scores = np.empty((len(labels), 0)) if record.weight_fit is None else record.weight_fit.probabilities
    if len(labels) == 2:
        units = sample.s if record.frequency else np.ones(sample.n)
        spans = [
            f"{scores[1][rows].min():.3f} to {scores[1][rows].max():.3f} "
            f"(mean {np.average(scores[1][rows], weights=units[rows]):.3f}) in {label}"
            for rows, label in zip(_members(record), labels, strict=True)
        ]
        return f"It runs from {joined(spans)}."
    own = sample.own(scores)
    spans = [
        f"{own[rows].min():.3f} to {own[rows].max():.3f} in {label}"
        for rows, label in zip(_members(record), labels, strict=True)
    ]
    return f"That of the arm a row is in runs from {joined(spans)}."


def _members(record: FitRecord) -> list[NDArray[np.intp]]:
    sample = record.sample
    return [np.flatnonzero((sample.arm == a) & (sample.in_sample > 0)) for a in range(sample.n_arms)]


def _weights(record: FitRecord) -> list[str]:
    if not record.spec.uses_propensity:
        return ["There are none: all rows of an arm count equally.", *filter(None, [missing_words(record)])]
    surveyed = record.design.weight_type == "probability"
    spread = [
        f"{label}: largest weight {format_number(arm.heaviest)}; {count(arm.n, record.design.unit_name)} tell as much "
        f"as {arm.effective_n:.1f} equally weighted ones would (the effective n)"
        + (f", of {arm.alone_n:.1f} by the probability weights alone" if surveyed else "")
        for label, arm in zip(record.design.labels, record.overlap, strict=True)
    ]
    population = record.options.population
    simpler = population_text(population, "two_arms_weight") if record.design.n_arms == 2 else ""
    texts = [in_population(record, simpler or population_text(population, "weight")), f"{'; '.join(spread)}."]
    chances = record.rows.chances
    if chances is not None:
        texts.insert(
            1, f"{missing_words(record)} The probability runs from {chances.min():.3f} to {chances.max():.3f}."
        )
    if surveyed:
        texts.append(
            f"These use the {TOTAL_WEIGHT}. The probability weights alone reduce the effective n too; only the loss "
            "beyond that is a matter of overlap."
        )
    poor = [note.replace("\n", " ") for note in record.notes if note.startswith("poor overlap")]
    return texts + [f"A warning was given: {note}" for note in poor]


def _outcome_models(record: FitRecord) -> list[str]:
    spec, name, each = record.spec, outcome_words(record), ""
    if record.design.periods is not None:  # whose models are of the outcome itself
        name, each = record.design.endog_name, " and period"
    if record.options.quantiles:
        share = f"the {'weighted ' if spec.weighted else ''}share of outcomes up to q"
        if not spec.constants:
            share = f"a logit of {name} <= q on the terms of the formula, fitted to the rows of that arm only"
        return [f"One for each quantile q of each arm: {share}."]
    if spec.constants:
        weighted = "weighted " if spec.weighted else ""
        if record.design.offset_kind is not None:
            what = f"a {weighted}{record.sample.family.label} regression of {name} with a constant beside the offset"
            return [f"The simplest there are: in each arm {what}."]
        return [f"The simplest there are: in each arm{each} one number, the {weighted}mean of {name}."]
    if spec.given:
        return [f"There are none to be trained. {learner_words(record)}", *filter(None, [repeats_words(record)])]
    size = count(record.estimate.theta.shape[1] // (2 if each else 1), "coefficient")
    model = f"a {record.sample.family.label} regression of {name} with {size}"
    if record.joint is not None:
        whose = "" if record.stack is None else " What follows is of JRE on the formula."
        texts = [f"Each arm has {model}. The arms are trained together.{whose}", *_joint_training(record)]
    else:
        texts = [f"Each arm{each} has {model}, fitted to its rows only, {spec.trained}."]
    return texts + [text for text in (learner_words(record), repeats_words(record)) if text]


def _joint_training(record: FitRecord) -> list[str]:
    """Paragraphs on JRE's training, and what is left of net bias and variance."""
    joint = record.joint
    if joint is None:
        return []
    error, net, sampling = (
        f"{format_number(after)} after training, {format_number(before)} for IPWRA"
        for after, before in root_mean_squares(joint.estimate).T
    )
    how = "refitted under random weights of the rows"
    if joint.replicates.cubature:
        how = "points of its normal distribution"
    return [
        f"Why: the propensity score is only an estimate. {joint.replicates.count} others, {how}, "
        "are nearly as good, and each implies a bias of each arm: how far its model's average is "
        "off, judged by the weighted residuals. Only the difference of the arms' biases, the net bias, "
        "enters the effect; what they share does not.",
        " ".join(filter(None, [objective_sentence(record, joint), ladder_end_words(joint)])),
        f"In units of {record.design.endog_name}, root mean squares over all these "
        f"scores: error {error}; of it net bias {net}; sampling {sampling}. They are measured within the sample and "
        "say nothing of covariates that were not recorded.",
    ]


def _averages(record: FitRecord) -> list[str]:
    labels, estimate = record.design.labels, record.estimate
    if record.options.quantiles:
        scale, (_, spec) = record.options.effect_scale, formats(record)
        found = zip(mean_names(labels, scale.quantiles), estimate.params[estimate.block("means")], strict=True)
        share = "the average of the predictions of its logit, plus the weighted mean of the residuals,"
        share = share if record.spec.corrected else "that share"
        return [
            f"The quantile at q is the smallest outcome of the arm up to which {share} is at least q, over "
            f"{population_words(record)}. The potential-outcome quantiles (POQ) are "
            f"{joined([f'{name} = {format(value, spec)}' for name, value in found])}."
        ]
    means, (_, spec) = estimate.params[-len(labels) :], formats(record)
    text = (
        f"Each arm's model predicts the outcome in that arm for the whole target, {population_words(record)}. The "
        "averages of the predictions are the potential-outcome means (POM)"
    )
    numbers = joined([f"POM[{label}] = {format(m, spec)}" for label, m in zip(labels, means, strict=True)])
    if record.stack is not None:
        return [f"{text}, here averages over the fits with their weights: {numbers}."]
    if not record.spec.averaged:
        return [f"{text}: {numbers}."]
    parts = []
    for label, model, mean in zip(labels, estimate.model_means, means, strict=True):
        change = format(mean - model, f"+{spec}")  # signed as printed: a rounding error is no minus
        parts.append(f"POM[{label}] = {format(model, spec)} {change[0]} {change[1:]} = {format(mean, spec)}")
    return [f"{text}, {record.spec.averaged}: {joined(parts)}."]


def _standard_error(record: FitRecord, alpha: float) -> list[str]:
    names, (spec, _) = record.effect_names, formats(record)
    se, null = record.std_errors, record.options.effect_scale.null
    limits, (z, p), (symbol, _) = parameter_limits(record, alpha), parameter_tests(record), statistic_names(record.df)
    texts = [f"Standard errors {errors_source(record)}.{choice_words(record)}"]
    if record.options.quantiles and record.boot is None:
        texts.append(DENSITY)
    if np.isfinite(record.df):
        texts.append(
            f"Tests and intervals are {distribution_words(record)}, whose tails are longer than the normal one's."
        )
    if not record.options.effect_scale.additive:
        texts.append(
            "Test and interval of a ratio are those of its logarithm, transformed back, so swapping the arms inverts "
            "them."
        )
    for k, name in enumerate(names):
        low, high = (format(v, spec) for v in limits[k])
        test = f" Against no effect ({null:g}): {symbol} = {z[k]:.2f}, p {signed_p(p[k])}." if z[k] == z[k] else ""
        texts.append(
            f"{name}: standard error {format(se[k], spec)}, {100 * (1 - alpha):.4g}% interval {low} to {high}.{test}"
        )
    if len(names) > 1 and not record.options.quantiles:
        texts.append(
            'Each test and interval is by itself; res.pairwise(adjust="single-step", against="reference") has those '
            "that hold for all effects together."
        )
    texts.append(
        f"About {100 * (1 - alpha):.4g}% of such intervals cover the true effect in repeated samples, if the "
        "assumptions below hold. The interval accounts for sampling error, not for a wrong assumption."
    )
    if record.joint is not None and record.joint.estimate.mc_se[0] > 0:
        texts.append(f"Another seed would move the estimate by about {format_number(record.joint.estimate.mc_se[0])}.")
    return texts


def _disagreement(record: FitRecord) -> Section:
    title = "When JRE and IPWRA disagree"
    why = (
        "IPWRA trains each arm by itself; JRE trains all together, for the effect alone. With the same formulas they "
        "differ where an outcome model misfits in a way that the weights do not repair, or where few rows carry "
        "most of the weight."
    )
    other = 'target="overlap" or ' if record.options.did is not None else ""  # a change has one target
    steps = tuple(step.replace(other, "") for step in IF_THEY_DISAGREE)
    if record.joint is None:
        first = f"This is {record.spec.name}. compare(...) puts all estimators side by side on the same resamples."
        return Section(title, (first, why), steps)
    se, (spec, _) = np.sqrt(np.diag(record.covariance)), formats(record)
    gaps = []
    for k, name in enumerate(record.effect_names):
        joint, start = record.estimate.params[k], record.joint.start.params[k]
        share = abs(joint - start) / se[k] if se[k] > 0 else 0.0
        verdict = "hardly a difference" if share < SMALL else "less than one standard error, but worth a word"
        verdict = "a serious gap: find its cause before reporting either" if share > LARGE else verdict
        gaps.append(
            f"{name}: JRE {format(joint, spec)}, IPWRA (res.start) {format(start, spec)}. They are "
            f"{share:.2f} standard errors apart: {verdict}."
        )
    if record.boot is not None and record.boot.start is not None:
        found = start_difference(record).iloc[len(record.effect_names) :]
        paired = [
            f"{format_number(gap)} ({format_number(error)}, p {format_p(p)})"
            for gap, error, _, p in found.iloc[:, :4].to_numpy()
        ]
        gaps.append(f"JRE less IPWRA, with the standard error on the same resamples: {joined(paired)}.")
    return Section(title, (*gaps, why), steps)


def _missing_at_random(record: FitRecord) -> list[str]:
    """State the assumption on outcomes that are missing, where some are."""
    seen, design = record.design.observation, record.design
    if seen is None:
        return []
    given = seen.formula if record.spec.uses_propensity else f"{design.treat_name} and the outcome formula's covariates"
    return [f"that whether {outcome_words(record)} is missing has nothing to do with its value, given {given}."]


def _untestable(record: FitRecord) -> Section:
    names, treat, name = variables_of(record), record.design.treat_name, record.design.endog_name
    names += [record.design.offset_name] if record.design.offset_name is not None else []
    missing = _missing_at_random(record)
    if record.design.periods is not None:
        missing.append("that the units of both periods are of the same population, covariates and treatment alike.")
    asked = f"Ask it of each: {joined(names)}." if names else "This estimator adjusts for no covariates."
    first = f"that no other common cause of {treat} and {name} is missing from the formulas (unconfoundedness);"
    if record.options.did is not None:
        first = (
            f"that without {treat} the treated would have changed as the controls with the same covariates did, and "
            f"that {treat} changed nothing before it began (conditional parallel trends); but a change between two "
            "earlier periods should show no effect;"
        )
    further = [f"{text.rstrip('.')};" for text in missing[:-1]] + missing[-1:]
    return Section(
        "The question no test answers",
        (
            f"Could a covariate be a consequence of {treat}? Adjusting for something that the treatment changes takes "
            "a part of the effect away, or brings in a bias where there was none. The numbers look the same either "
            f"way; only knowledge of when and how the covariate was measured tells. {asked}",
            f"Nor can the data show these {('two', 'three', 'four')[len(missing)]}:",
        ),
        (
            first,
            f"that the outcome of a row depends on its own {treat} only, not on that of others (no interference)"
            f"{';' if missing else '.'}",
            *further,
        ),
    )


def _raw_means(record: FitRecord) -> Array:
    """Return the mean outcome of each arm under the observation weights, shape (K,).

    At a stated exposure it is the rate; of repeated cross sections the change between the periods.
    """
    design, stated = record.design, record.stated_exposure
    per = np.ones(design.n) if stated is None or design.offset is None else np.exp(design.offset) / stated

    def of(seen: NDArray[np.bool_]) -> Array:
        weighted = design.members[:, seen] * design.weights[seen]
        return np.asarray((weighted @ design.y[seen]) / (weighted @ per[seen]))

    if design.periods is None:
        return of(design.recorded)
    late = design.periods.late
    return of(design.recorded & late) - of(design.recorded & ~late)


def _arms_words(record: FitRecord) -> str:
    """Return the number of observations and the raw mean, or quantiles, of each arm."""
    design, stated, levels = record.design, record.stated_exposure, record.options.quantiles
    of = outcome_words(record).removeprefix("the ")
    what, found = f"mean {of if stated is None else f'{outcome_text(record)}:'}", _raw_means(record)[:, None]
    if levels:
        name = "quantile" if len(levels) == 1 else "quantiles"
        what = f"{name} {joined([f'{level:g}' for level in levels])} of {of}:"
        found = raw_quantiles(record.sample, levels)
    parts = [
        f"{label} ({count(int(n), design.unit_name)}, {what} {joined([format_number(value) for value in values])})"
        for label, n, values in zip(design.labels, design.counts, found, strict=True)
    ]
    return joined(parts)

"""The stages of a fit, in order: functions that turn a design and options into a `FitRecord`."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, cast

import numpy as np

from causalrisk import errors
from causalrisk.design.design import Design
from causalrisk.errors import Failure, Notes, not_on_disk
from causalrisk.estimation import options as kinds
from causalrisk.estimation import overlap
from causalrisk.estimation.abilities import use_of_learner, with_change
from causalrisk.estimation.equations import Equations
from causalrisk.estimation.fits import Estimate, WeightFit, estimate_means, fit_weights
from causalrisk.estimation.learned import Learned, learn
from causalrisk.estimation.matching import PROPENSITY, estimate_matched
from causalrisk.estimation.options import InferenceOptions, JREOptions, ModelOptions
from causalrisk.estimation.prepare import equations_of, prepare, task_of, with_learner
from causalrisk.estimation.quantiles import estimate_quantiles
from causalrisk.estimation.record import FitRecord, JointRecord, Task, influence_covariance, robust_covariance, stacked
from causalrisk.estimation.sample import folds_by_position, given_block
from causalrisk.estimation.specification import AIPW, IPWRA, JRE, FunctionTilt, Specification, bad_tilt
from causalrisk.joint.fit import JointFit
from causalrisk.joint.minimum import determined, minimize_from_start
from causalrisk.joint.rows import Replicates
from causalrisk.joint.shrinkage import FOLDS, choose_shrinkage, raised
from causalrisk.joint.start import JointProblem, objective_of, outcome_misses_square, points_about, rejected
from causalrisk.numerics.arrays import Array, loaded
from causalrisk.numerics.resampling import JACKKNIFE, numbered_blocks, seed_sequence

LARGE = 5_000  # from this many independent units, the score is close to normal and cubature replaces random draws
MIN_ROWS_PER_COLUMN = 6  # in the smallest arm; with fewer, predictions as terms cause bias that variances omit
AWAY = 0.05  # a mean score this far from the group's share, beyond sampling error, triggers a warning
LEAST_GAP = 0.5  # difference of JRE from IPWRA, in standard errors of IPWRA, below which there is no warning
CURVED = 0.002  # level of that warning's test of the propensity model, low because chance imbalance also moves JRE
MOST_FAILED = 0.5  # share of the replicates that may fail: the others still show how the score varies
FEW_CLUSTERS, VERY_FEW = 50, 5  # clusters of an arm below which normal intervals, or all intervals, are too short
DEFAULTS = JREOptions()
FEW_WHOLE = 15, 3  # `FEW_CLUSTERS` if each cluster has one treatment: for t intervals, and for the jackknife with t
UNBALANCED = 10, 2  # for the jackknife with t, 10 clusters if another arm has more than 2 times as many


def fit_estimator(
    design: Design, spec: Specification, options: ModelOptions, inference: InferenceOptions,
    joint_options: JREOptions = DEFAULTS,
) -> FitRecord:  # fmt: skip
    """Fit an estimator, without standard errors. `joint_options` are for JRE alone."""
    if options.did is not None:
        spec = with_change(spec, options.did)
    use = use_of_learner(spec, options)
    task = task_of(design, spec, options, inference)
    if options.normalize:
        task = dataclasses.replace(task, spec=dataclasses.replace(spec, normalized=True))
        task.notes.append("The weights of the residuals add up to one in each group.")
    note_ignored(design, spec, task.notes)
    task = prepare(task)
    learned = None if use is None else learn(task.design, task.options, inference, task.notes)
    if learned is not None and use == kinds.STACK:
        record = fit_stack(task, learned, joint_options)
    else:
        task = task if learned is None or use is None else with_learner(task, learned, use)
        record = joint_record(task, joint_options) if spec.joint else separate_record(task)
    check_outcome(record, task.notes)
    check_clusters(record, task.notes)
    return dataclasses.replace(record, learned=learned, notes=tuple(task.notes))


def note_ignored(design: Design, spec: Specification, notes: Notes) -> None:
    """Note the variables of the outcome formula that IPW ignores, because the propensity formula lacks them."""
    known = design.propensity_encoder.variables
    ignored = [name for name in design.outcome_encoder.variables if name not in known]
    if not (ignored and spec.constants and spec.uses_propensity and design.formula) or design.score is not None:
        return
    right = str(design.propensity_formula).partition("~")[2].strip()
    whole = " + ".join([right] * (right != "1") + ignored)
    found = f"{spec.name} uses the propensity formula alone, so it does not adjust for {', '.join(ignored)}"
    notes.append(f'{found}. Use `propensity="{whole}"`, or IPWRA or AIPW.')


def separate_record(task: Task) -> FitRecord:
    """Fit an estimator that models each arm separately, without standard errors."""
    equations, design, options, notes = equations_of(task), task.design, task.options, task.notes
    weights, robust = weigh(equations, task), None
    if task.spec.matched:
        found, weights, robust = estimate_matched(weights, design, options, notes)
    weight_fit = None if equations.model is None else weights
    arms, message = overlap.overlap_of(equations.sample, task.spec, weight_fit, design, options)
    if message:
        notes.warn(message, errors.OverlapWarning)
    if not task.spec.matched:
        found = estimate_of(weights, task)
    inference, size = task.inference, len(found.values)
    record = FitRecord(
        **vars(task) | {"notes": design.notes, "inference": dataclasses.replace(inference, resamples=None)},
        sample=equations.sample,
        weight_fit=weight_fit,
        estimate=found,
        overlap=arms,
        covariance=np.full((size, size), np.nan),
        robust=robust,
        given_resamples=inference.resamples is not None,
        seed=seed_sequence(inference.rng),
        small_sample=inference.small_sample or task.cov_type == "HC1",
    )
    use_t, df = inference.use_t, inference.df
    if df is None and (design.survey is not None if use_t is None else use_t):
        df = record.residual_df
    return record if df is None else dataclasses.replace(record, df=float(df))


def weigh(equations: Equations, task: Task) -> WeightFit:
    """Fit the models of the weights. If they are used, separation raises an error and non-convergence warns."""
    weights = fit_weights(equations)
    if task.spec.matched and task.options.metric != PROPENSITY:  # scores are for diagnostics only
        return weights
    link = task.options.propensity_link
    overlap.refuse_separation(weights, task.design, link)
    overlap.refuse_other(weights, task.design)
    if not weights.converged:
        models = f"the propensity model ({link})"
        if "observed" in weights.beta:
            models += " or of the observation model (logit) for missing outcomes"
        if "member" in weights.beta:
            models += " or of the membership model (logit) for the target frame"
        not_converged(task.notes, models)
    if "score" not in weights.beta and weights.equations.model is not None:
        check_scores(weights, task)
    tilt = equations.target.tilt
    if isinstance(tilt, FunctionTilt) and not weights.by_row("tilt").sum() > 0:
        raise bad_tilt(tilt.name, "zero at every score, so the population is empty")
    return weights


def check_scores(weights: WeightFit, task: Task) -> None:
    """Warn if the mean of given scores, or of a classifier's scores, is far from a group's share of the sample."""
    sample, design = weights.equations.sample, task.design
    s = sample.s * sample.in_sample
    means = loaded(weights.probabilities @ s) / sample.total
    shares = np.array([float(loaded(s[rows].sum())) for rows in sample.slices]) / sample.total
    away = np.abs(means - shares) - 5 * np.sqrt(shares * (1 - shares) / design.n)
    a = int(np.argmax(away[1:])) + 1
    if away[a] > AWAY:
        found = f"the probabilities of group {design.labels[a]!r} average {means[a]:.2f} over all rows"
        advice = "Use probabilities of treatment, from a classifier with `class_weight=None`."
        share = f"but its share of the sample is {shares[a]:.2f}"
        task.notes.warn(f"{found}, {share}.\n{advice}", errors.DesignWarning)


def not_converged(notes: Notes, what: str, message: str = "the coefficients still changed.") -> None:
    """Warn that an optimiser stopped before it converged."""
    found = f"the optimiser of {what} stopped before it converged: {message}"
    advice = "Standardise the covariates, or simplify the formula. `res.converged` is False."
    notes.warn(f"{found}\n{advice}", errors.ConvergenceWarning)


def estimate_of(weights: WeightFit, task: Task) -> Estimate:
    """Fit the outcome models and average their predictions. Separation raises an error, non-convergence warns."""
    design, scale = task.design, task.options.effect_scale
    if scale.quantiles:
        return estimate_quantiles(weights, task.spec, design, scale, task.notes)
    found = estimate_means(weights, task.spec, scale)
    if any(found.failed):
        sample = weights.equations.sample
        arms = overlap.check_outcome_fits(design, sample.family, found.failed, None if design.on_disk else sample)
        not_converged(task.notes, f"the outcome model ({sample.family.label}) of group {arms}")
    scale.check(found.params[-design.n_arms :], design.labels, float(design.outcome_limits.max()))
    return found


def fit_stack(task: Task, learned: Learned, joint_options: JREOptions) -> FitRecord:
    """Return the weighted average of JRE with the formula and two fits per learner.

    The first fit adds the learner's predictions to the terms of JRE, and is left out if there are too few rows. The
    second is AIPW with these predictions.
    """
    lead, notes = joint_record(task, joint_options), task.notes
    names, records, inference = ["formula"], [lead], dataclasses.replace(task.inference, rng=lead.seed)
    replicates = None if lead.joint is None else lead.joint.replicates
    rows, columns = min(arm.n for arm in lead.overlap), lead.sample.X.columns.shape[1]
    enough = rows >= MIN_ROWS_PER_COLUMN * columns
    # Without normalised weights, the mean residuals vary far more between resamples.
    alone = dataclasses.replace(AIPW, normalized=True)
    if not enough:
        few = f"the smallest group has {rows / columns:.1f} observations for each of {columns} outcome columns"
        notes.append(f"Fits with predictions as terms are left out: {few}, fewer than {MIN_ROWS_PER_COLUMN}.")
    for number, name in enumerate(learned.names):
        said, own = errors.SilentNotes(notes), learned.of(number)
        again = dataclasses.replace(task, inference=inference, notes=said)
        if enough:
            names.append(f"{name} as terms")
            records.append(joint_record(with_learner(again, own, kinds.TERMS), joint_options, replicates))
        names.append(f"{name} alone")
        records.append(separate_record(with_learner(dataclasses.replace(again, spec=alone), own, kinds.REPLACE)))
        notes.extend(note for note in said if note not in notes)
    return stacked(lead, names, records)


def joint_record(task: Task, joint_options: JREOptions, replicates: Replicates | None = None) -> FitRecord:
    """Fit IPWRA. Then, starting from it, fit JRE's outcome models of all arms jointly."""
    notes = task.notes
    # The options were checked for JRE; the first fit is IPWRA, where JRE starts.
    start = separate_record(dataclasses.replace(task, spec=IPWRA))
    plain = dataclasses.replace(start, cov_type=start.robust_type, small_sample=False)
    robust = dataclasses.replace(plain, robust=robust_covariance(plain))
    with np.errstate(all="ignore"):  # replicates whose weights overflow are left out
        joint = train_from(robust, joint_options, notes, replicates)
    result = joint.fit.result
    if not result.success:
        method = joint_options.method or kinds.DEFAULT_METHOD
        not_converged(notes, f"the joint objective ({method})", str(result.message))
    if joint.score_joined:
        why = ", because a test found that it was missing there. Use `fit(join_score=False)` to leave it out"
        why *= joint_options.join_score is None
        notes.append(f"The linear predictor of the propensity score was added to the outcome formula{why}.")
    record = dataclasses.replace(start, spec=JRE, estimate=joint.fit.estimate, joint=joint)
    check_gap(record, joint, notes)
    return record


def check_gap(record: FitRecord, joint: JointRecord, notes: Notes) -> None:
    """Warn if JRE differs from IPWRA, and tests find curvature that both the outcome and the propensity model omit.

    The tests add the squared linear predictor of the propensity score to each model. If either model is correctly
    specified, JRE and IPWRA have the same limit. A test of their difference alone would have too little power.
    """
    effects, record = record.estimate.block("effects"), dataclasses.replace(record, small_sample=False)
    own, start = record.estimate.params[effects], joint.start.params[effects]
    ses = np.sqrt(np.diag(influence_covariance(record, joint.start.influence[:, effects])))
    if not (np.abs(own - start) > LEAST_GAP * ses).any():
        return
    if not (score_misses_square(record, joint) and outcome_misses_square(joint.fit.problem)):
        return
    names, starts = (", ".join(f"{value:.4g}" for value in values) for values in (own, start))
    notes.warn(
        f"{record.estimand} is {names} by JRE and {starts} by IPWRA. Both may be biased: tests find curvature that the "
        "propensity formula and the outcome formula omit.\n"
        "Use squares or products of the confounders in both formulas, and report JRE together with `res.start`.",
        errors.DesignWarning,
    )


def score_misses_square(record: FitRecord, joint: JointRecord) -> bool:
    """Return whether a test finds that the squared log odds predict the treatment, given the propensity score."""
    sample, e = record.sample, record.used_weight_fit.probabilities
    with np.errstate(divide="ignore", invalid="ignore"):  # scores of 0 or 1: no test
        squares = np.log(e[1:] / e[0]) ** 2
    treated = sample.arm == np.arange(1, len(e))[:, None]
    moments, score = (sample.in_sample * (treated - e[1:]) * squares).T, joint.fit.problem.score_influence
    weighted = (score.T * sample.s) @ score, (score.T * sample.s) @ moments
    gram, product = (loaded(each) for each in weighted)
    rest = moments - score @ (np.linalg.pinv(gram, hermitian=True) @ product)
    return rejected(loaded(sample.s @ moments) / sample.total, influence_covariance(record, rest), CURVED)


def train_from(
    start: FitRecord, options: JREOptions, notes: Notes, replicates: Replicates | None = None
) -> JointRecord:
    """Fit the arms jointly, starting from IPWRA. Propensity replicates are computed unless `replicates` is given."""
    design, sample, given = start.design, start.sample, options.replicates is not None
    if given and design.on_disk:
        raise not_on_disk("replicates=", use="n_replicates=200")
    weights = start.used_weight_fit
    if options.join_score is True and "score" not in weights.beta:
        raise errors.OptionError("join_score= needs a propensity model with coefficients.\nLeave join_score= out.")
    drawn = start.resampler().given("replicates", options.replicates) if given else None
    problem = JointProblem(
        weights=weights,
        start=start.estimate,
        covariance=cast(Array, start.robust),
        scale=start.options.effect_scale,
        frequency=start.frequency,
    )
    points, few = points_about(problem, options.replicate_spread), 2 * len(problem.weights.gamma) < options.n_drawn
    large = (design.n_clusters or design.nobs) >= LARGE
    if replicates is None:
        cubature = not given and options.n_replicates is None and points.cubature and few and large
        replicates = points if cubature else drawn_replicates(start, drawn, options, notes)
    points = replicates if given else points
    objective = objective_of(problem, replicates, options)
    if not given and not determined(objective.first, 1.0):
        replicates = Replicates.of_normal(weights, None)
        objective = objective_of(problem, replicates, options)
        found = "JRE uses the fitted propensity score alone, because a few weights under its replicates are very large"
        notes.warn(f"{found}.\nSimplify the formula in propensity=, or use `IPWRA`.", errors.ResampleWarning)
    path, alpha = None, options.shrinkage if options.objective == "risk" else 1.0

    @cache
    def trained(anchor: float) -> JointFit:
        if not determined(objective.first, anchor):
            found = "the outcome models are not determined, because a propensity replicate has a few very large weights"
            raise errors.CausalRiskError(f"{found}.\nSimplify the formulas, or use IPWRA.")
        minimum = minimize_from_start(objective, anchor, options.method or kinds.DEFAULT_METHOD)
        return JointFit(problem, objective, points, anchor, *minimum)

    def variance(covariance: Array) -> float:
        C, means = problem.contrasts, problem.start.block("means")
        return float(np.trace(C @ covariance[means, means] @ C.T))

    def variance_at(anchor: float) -> float:
        there = dataclasses.replace(start, estimate=trained(anchor).estimate, robust=None)
        return variance(robust_covariance(there, whole=False))

    if alpha is None:
        folds = folds_by_position(design, FOLDS)[sample.order]
        folds = np.concatenate([np.arange(sample.n_frame) % (folds.max() + 1), folds])
        path, failures = choose_shrinkage(problem, objective, points, folds)
        path = raised(path, variance_at, variance(problem.covariance), problem)
        alpha = path.anchor
        failed = int((failures != Failure.OK).sum())
        if failed:
            told = f"{failed} of {len(failures)} folds of the cross-validation could not be fitted and were left out: "
            notes.append(f"{told}{errors.failure_text(failures)}.")
        converged = path.table["converged"]
        if not converged.all():
            anchors = errors.listed(converged.index[~converged].tolist())
            told = f"cross-validation ignores shrinkage {anchors}, where the joint objective did not converge"
            advice = "Simplify the outcome formula. `res.anchor_path()` shows the other values."
            notes.warn(f"{told}.\n{advice}", errors.ConvergenceWarning)
    fit, options = trained(alpha), dataclasses.replace(options, replicates=None)
    return JointRecord(replicates, fit, fit.expected_risk(), options, path, drawn)


def drawn_replicates(start: FitRecord, given: Array | None, options: JREOptions, notes: Notes) -> Replicates:
    """Return fits of the propensity model under random fractional weights of the rows, or under the given weights."""
    weights, resampler = start.used_weight_fit, start.resampler()
    if not weights.estimated:
        return Replicates.of_normal(weights, None)
    model, parts = cast(Any, weights.equations.model), list[tuple[Any, Any, Any]]()
    for block in numbered_blocks(options.n_drawn if given is None else given.shape[1]):
        s = resampler.perturb(*block, options.replicate_spread) if given is None else given_block(given, *block)
        equations, beta, failed = weights.refit(s)
        ratio = None if model.e is None else cast(Any, equations.model).e / model.e
        parts.append((beta, failed, ratio))
    betas, codes, ratios = zip(*parts, strict=True)
    failures = np.concatenate(codes)
    fine, shifts = failures == Failure.OK, dict[str, Array]()
    for name in betas[0]:
        shifts[name] = (np.concatenate([beta[name] for beta in betas], axis=2) - weights.beta[name])[:, :, fine]
    ratio = None if ratios[0] is None else np.concatenate(ratios, axis=2)[:, :, fine]
    found = Replicates(shifts, failures, ratio)
    lost = len(failures) - found.count
    if lost > MOST_FAILED * len(failures):
        problem = f"{lost} of {len(failures)} propensity replicates failed, more than half"
        why = errors.failure_text(failures)
        raise errors.BootstrapError(f"{problem}: {why}.\nSimplify the formula in propensity=, or use `IPWRA`.")
    if lost:
        problem = f"the fit leaves out {lost} of {len(failures)} propensity replicates: {errors.failure_text(failures)}"
        advice = "See `res.replicate_ledger`. Use a simpler formula in `propensity=`."
        notes.warn(f"{problem}.\n{advice}", errors.ResampleWarning)
    return found


def check_clusters(record: FitRecord, notes: Notes) -> None:
    """Warn if an arm has too few clusters for reliable tests, or a single cluster, which allows no tests."""
    design = record.design
    if not design.n_clusters or design.survey is not None:  # a survey's t distribution accounts for few PSUs
        return
    counts, t = design.arm_clusters, bool(np.isfinite(record.df))
    whole = sum(counts) == design.n_clusters  # each cluster has one treatment
    fewest, jackknife = int(np.argmin(counts)), t and record.cov_type == JACKKNIFE
    label, of = design.labels[fewest], design.cluster_name
    if design.second_cluster is not None:
        ways, rows = (np.asarray(design.cluster), design.second_cluster), design.members[fewest]
        of = design.cluster_names[np.argmin([len(np.unique(codes[rows])) for codes in ways])]
    if record.one_cluster:
        advice = "Use a finer `cluster=`"
        if whole and design.n_clusters > 2 and design.observation is None:
            advice += ', or `res.permutation_test(statistic="difference")` if clusters were assigned at random'
        found = f"only one cluster of {of!r} is in group {label!r}, so clustered standard errors cannot be estimated"
        notes.warn(f"{found}. They are NaN.\n{advice}.", errors.DesignWarning)
        return
    enough = (FEW_WHOLE[jackknife] if whole else VERY_FEW) if t else FEW_CLUSTERS
    unbalanced = whole and counts[fewest] < UNBALANCED[0] and max(counts) > UNBALANCED[1] * counts[fewest]
    if jackknife and unbalanced:
        enough = UNBALANCED[0]
    if counts[fewest] >= enough or (jackknife and whole and record.df < counts[fewest]):
        return
    own = "are in the data" if counts[fewest] == design.n_clusters else f"have rows of group {label!r}"
    own += f", and {max(counts)} of group {design.labels[int(np.argmax(counts))]!r}" * unbalanced
    told = f"With fewer than {enough}, {'these' if jackknife else 't' if t else 'normal'} intervals can be too short"
    advice = "" if jackknife else 'Use `fit(cov_type="jackknife", use_t=True)`. '
    if unbalanced:
        advice = f'Use `fit(cov_type="jackknife", df={counts[fewest] - 1})`. '
    variables = (*design.outcome_encoder.variables, *design.propensity_encoder.variables)
    if design.second_cluster is not None or design.cluster_name in variables or record.options.quantiles:
        advice = "Use `fit(use_t=True, small_sample=True)`. "
    if whole and design.observation is None:
        advice += "If the clusters were assigned at random, `res.permutation_test()` is exact."
    elif not whole and counts[fewest] < VERY_FEW:
        told, advice = f"With fewer than {VERY_FEW}, intervals can be too short", "No other standard error fixes this."
        if design.second_cluster is not None:
            advice = "Use `cluster=` with the variable that has more clusters."
    notes.warn(f"only {counts[fewest]} clusters of {of!r} {own}. {told}.\n{advice.strip()}", errors.DesignWarning)


def check_outcome(record: FitRecord, notes: Notes) -> None:
    """Warn if the outcome is constant in all rows or within an arm, or if a mean is far outside the outcomes' range.

    It is far outside if its distance from the range exceeds the width of the range.
    """
    design, estimate, limits = record.design, record.estimate, record.design.outcome_limits
    if design.offset_kind is not None:  # the outcome varies relative to its offset, and means may be rates
        return
    arms = zip(limits, design.labels, strict=True)
    constant = [f"{least:g} in group {label!r}" for (least, most), label in arms if least == most]
    low, high = float(limits.min()), float(limits.max())
    found = f"does not vary within a group: it is {' and '.join(constant)}"
    if low == high:
        no_test = ", so the effect cannot be tested" if record.constant_means else ""
        found = f"is constant: {low:g} in all {design.n} rows{no_test}"
    if constant:
        name = design.endog_name
        spelling = ", and the spelling and capitals of the value" * ("==" in name)
        notes.warn(f"outcome {name!r} {found}.\nCheck that it is the right column{spelling}.", errors.DesignWarning)
    if design.periods is not None or low == high:  # the means are changes, or the outcomes are constant
        return
    means = estimate.params[-design.n_arms :]
    beyond = np.maximum(low - means, means - high)
    a = int(np.argmax(beyond))
    if not beyond[a] > high - low:
        return
    cause, advice = "large weights of a few rows", "Simplify propensity=, or drop rows without overlap: `trim=`."
    if max(low - estimate.model_means[a], estimate.model_means[a] - high) > high - low:
        rows = "the other groups" if record.frame is None else "the target frame"
        cause = f"its outcome model extrapolates to the rows of {rows}"
        advice = "Leave terms out of the outcome formula, or drop rows without comparable rows in the group."
    problem = f"the mean of group {design.labels[a]!r} is {means[a]:.4g}, but all outcomes are from"
    notes.warn(f"{problem} {low:.4g} to {high:.4g}. The cause: {cause}.\n{advice}", errors.OverlapWarning)

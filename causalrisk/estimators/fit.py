"""From a design and options to a fitted record: the stages in order, each a function of the one before."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from causalrisk.design import Design
from causalrisk.design.size import check_pairs
from causalrisk.errors import ConvergenceWarning, DesignWarning, Notes, OptionError, OverlapWarning, listed
from causalrisk.estimators.estimate import Estimate
from causalrisk.estimators.exposure import check_means
from causalrisk.estimators.joint.anchor import LADDER, UnitsOf, clusters_held_out, rows_alone, train_best
from causalrisk.estimators.joint.criterion import Criterion
from causalrisk.estimators.joint.train import JointProblem, Trainer
from causalrisk.estimators.options import InferenceOptions, JREOptions, ModelOptions
from causalrisk.estimators.outcome import check_outcome_fits
from causalrisk.estimators.prepare import FitData, prepare
from causalrisk.estimators.record import FitRecord, JointRecord
from causalrisk.estimators.resampling import fit_replicates
from causalrisk.estimators.sample import Sample
from causalrisk.estimators.separate import estimate_separately, row_weights
from causalrisk.estimators.specification import IPWRA, JRE, Specification
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import START_STREAM, seed_sequence, stream_generator
from causalrisk.propensity.limits import (
    SMALL_EFFECTIVE,
    ArmWeights,
    arm_weights,
    combined_by_key,
    few_dominate,
    overlap_message,
    remote_units,
)
from causalrisk.propensity.targets import Target, arm_population
from causalrisk.propensity.weights import WeightFit

FEW_CLUSTERS = 10


def check_products(design: Design, cov_type: str, *, joint: bool) -> None:
    """Refuse a joint fit, or many refits at once, of so many columns that the products of pairs fill the memory."""
    if not joint and cov_type != "bootstrap":
        return
    robust = "robust" if design.cluster is None else "cluster"
    advice = "Type  IPWRA  in the place of JRE" if joint else f'Type  fit(cov_type="{robust}")'
    for model, columns in (("outcome", design.X.shape[1]), ("propensity", design.Z.shape[1])):
        check_pairs(design.n, columns, f"the {model} model", advice=advice)


def fit_separate(design: Design, spec: Specification, options: ModelOptions, inference: InferenceOptions) -> FitRecord:
    """Fit one of the estimators that train each arm by itself.

    Parameters
    ----------
    design : Design
        The data.
    spec : Specification
        The estimator.
    options : ModelOptions
        What is estimated.
    inference : InferenceOptions
        How standard errors are computed.

    Returns
    -------
    FitRecord
        The fit, without standard errors.
    """
    cov_type, kind = inference.resolved(design.cluster is not None, joint=False)
    check_products(design, cov_type, joint=False)
    notes = Notes(design.notes)
    data = prepare(design, options, spec.uses_propensity, notes)
    overlap = _overlap(data, spec, notes)
    estimate = estimate_of(data, spec, options, notes)
    check_outcome(data.design, notes)
    check_clusters(data.design, notes)
    record = _record(
        data,
        spec=spec,
        options=options,
        inference=inference,
        estimate=estimate,
        overlap=overlap,
        kinds=(cov_type, kind),
    )
    check_range(record, notes)
    return dataclasses.replace(record, notes=tuple(notes))


def estimate_of(data: FitData, spec: Specification, options: ModelOptions, notes: Notes) -> Estimate:
    """Estimate, refuse an outcome model without a finite fit, warn of one that did not converge."""
    check_means(data.design, options, spec)
    weights = row_weights(data.sample, data.weight_fit, data.target)
    estimate = estimate_separately(data.sample, spec, weights, options.effect_scale)
    arms = check_outcome_fits(data.design, data.sample, estimate.failed)
    if arms:
        message = f"the outcome model ({data.sample.family.label}) of {arms}"
        notes.warn(not_converged(message, "it did not settle."), ConvergenceWarning)
    options.effect_scale.check(estimate.params[-data.design.n_arms :], data.design.labels)
    return estimate


KeepStart = Callable[[FitRecord], Array]  # takes the start of a joint fit, returns its robust covariance


def fit_joint(
    design: Design,
    options: ModelOptions,
    inference: InferenceOptions,
    joint_options: JREOptions,
    keep: KeepStart | None = None,
) -> FitRecord:
    """Fit the Joint Robust Estimator.

    Parameters
    ----------
    design : Design
        The data.
    options : ModelOptions
        What is estimated.
    inference : InferenceOptions
        How standard errors are computed.
    joint_options : JREOptions
        How it is trained.
    keep : callable, optional
        Takes the fit that it starts from, before the training, and returns the robust covariance of its estimates.

    Returns
    -------
    FitRecord
        The fit, without standard errors.
    """
    cov_type, kind = inference.resolved(design.cluster is not None, joint=True)
    check_products(design, cov_type, joint=True)
    method = joint_method(joint_options, options)
    check_means(design, options, JRE)
    notes = Notes(design.notes)
    data = prepare(design, options, True, notes)
    overlap = _overlap(data, JRE, notes)
    ipwra = estimate_of(data, IPWRA, options, notes)
    start = _record(
        data, spec=IPWRA, options=options, inference=inference, estimate=ipwra, overlap=overlap, kinds=(cov_type, kind)
    )
    covariance = None if keep is None else keep(start)
    joint = dataclasses.replace(train_from(start, joint_options, notes), start_covariance=covariance)
    check_converged(joint, method, notes)
    check_outcome(data.design, notes)
    check_clusters(data.design, notes)
    record = dataclasses.replace(start, spec=JRE, estimate=joint.estimate.estimate, joint=joint)
    check_range(record, notes)
    return dataclasses.replace(record, notes=tuple(notes))


def check_converged(joint: JointRecord, method: str, notes: Notes) -> None:
    """Warn of a joint objective whose optimiser stopped before it converged."""
    if not joint.estimate.result.success:
        message = str(joint.estimate.result.message)
        notes.warn(not_converged(f"the joint objective ({method})", message), ConvergenceWarning)


def train_from(start: FitRecord, options: JREOptions, notes: Notes) -> JointRecord:
    """Draw the propensity replicates and train the arms jointly: replicates, start, criteria, the best of them.

    Parameters
    ----------
    start : FitRecord
        The IPWRA fit.
    options : JREOptions
        How it is trained.
    notes : Notes
        Warnings so far; more are added.

    Returns
    -------
    JointRecord
        The joint part of the fit.
    """
    sample, weight_fit, resampler = start.sample, start.used_weight_fit, start.resampler()
    given = None if options.replicates is None else resampler.given("replicates", options.replicates)
    replicates = fit_replicates(
        weight_fit,
        resampler=resampler,
        given=given,
        n_drawn=options.n_drawn,
        spread=options.replicate_spread,
        notes=notes,
    )
    clusters = sample.clusters(start.design.cluster)
    problem = JointProblem(
        sample=sample if clusters is None else dataclasses.replace(sample, cluster=clusters),
        weight_fit=weight_fit,
        start=start.estimate,
        replicates=replicates,
        effect_scale=start.options.effect_scale,
        n_units=float(start.design.units.sum()),
        clusters=0 if clusters is None else int(clusters.max()) + 1,
    )
    record = train_by(trainer_of(problem, start, options), options, units_of(problem, start), notes)
    return dataclasses.replace(record, drawn=given)


def units_of(problem: JointProblem, start: FitRecord) -> UnitsOf:
    """Return what is left out at once where the anchor is chosen."""
    return clusters_held_out if problem.clusters else functools.partial(rows_alone, start.frequency)


def trainer_of(problem: JointProblem, start: FitRecord, options: JREOptions) -> Trainer:
    """Return the trainer of a problem, which draws the further starts of nonlinear models."""
    starts = None
    if options.n_starts > 1 and not problem.sample.family.linear:
        rng = stream_generator(start.seed, START_STREAM, 0)
        starts = rng.standard_normal((options.n_starts - 1, start.estimate.theta.size))
    return Trainer(problem, options.method, starts)


def train_by(trainer: Trainer, options: JREOptions, units: UnitsOf, notes: Notes) -> JointRecord:
    """Train the arms under each criterion, keep the best, warn of those that did not converge.

    Parameters
    ----------
    trainer : Trainer
        Trains the arms of a problem.
    options : JREOptions
        How.
    units : callable
        What is left out at once of a block of rows.
    notes : Notes
        Warnings so far; more are added.

    Returns
    -------
    JointRecord
        The joint part of the fit.
    """
    estimate, criterion, path = train_best(trainer, criteria_of(options, trainer.problem.n_units), units)
    if path is not None and not path.converged.all() and path.converged.any():
        anchors = listed(path.anchors[~path.converged].tolist())
        remedy = "Simplify the outcome formula" if options.method is None else "Leave method= out"
        notes.warn(
            f"the joint objective did not converge at anchor {anchors}, so that it was not chosen.\n"
            f"{remedy}, or keep the anchor that was chosen; res.anchor_path() shows each.",
            ConvergenceWarning,
        )
    return JointRecord(
        problem=trainer.problem,
        estimate=estimate,
        options=dataclasses.replace(options, replicates=None),
        criterion=criterion,
        path=path,
    )


def criteria_of(options: JREOptions, n_units: float) -> tuple[Criterion, ...]:
    """Return the weights of the terms of the objective, one for each anchor to choose from."""
    if options.objective == "erm":
        return (Criterion.erm(options.penalty_for(n_units)),)
    anchors = LADDER if options.anchor is None else (options.anchor,)
    return tuple(Criterion.risk(anchor, n_units) for anchor in anchors)


def joint_method(joint: JREOptions, options: ModelOptions) -> str:
    """Return the optimiser; by default least squares where the objective is a sum of squares, else trust-exact."""
    if joint.method == "least_squares" and not options.outcome_family.linear:
        raise OptionError(
            f'method="least_squares" is for linear outcome models; {options.outcome_family.label} has no sum of '
            'squares.\nType  method="trust-exact", or leave method= out.'
        )
    return joint.method or ("least_squares" if options.outcome_family.linear else "trust-exact")


def _record(
    data: FitData,
    spec: Specification,
    options: ModelOptions,
    inference: InferenceOptions,
    estimate: Estimate,
    overlap: tuple[ArmWeights, ...],
    kinds: tuple[str, str],
) -> FitRecord:
    """Make a record without standard errors yet."""
    given, seed = inference.resamples is not None, seed_sequence(inference.rng)
    size = len(estimate.values)
    return FitRecord(
        design=data.design,
        full_design=data.full_design,
        spec=spec,
        options=options,
        sample=data.sample,
        target=data.target,
        frame=data.frame,
        trimmed=data.trimmed,
        weight_fit=data.weight_fit,
        estimate=estimate,
        overlap=overlap,
        joint=None,
        cov_type=kinds[0],
        bootstrap=kinds[1],
        covariance=np.full((size, size), np.nan),
        boot=None,
        given_resamples=given,
        seed=seed,
        notes=data.design.notes,
    )


def check_clusters(design: Design, notes: Notes) -> None:
    """Warn of an arm in clusters too few for the sandwich and the bootstrap to know their variance."""
    if design.cluster_name is None:
        return
    counts = design.arm_clusters
    fewest = int(np.argmin(counts))
    if counts[fewest] < FEW_CLUSTERS:
        notes.warn(
            f"arm {design.labels[fewest]!r} has rows in only {counts[fewest]} of the {design.n_clusters} "
            f"clusters of {design.cluster_name!r}; clustered standard errors are too small with fewer than about "
            f"{FEW_CLUSTERS} clusters in an arm.\nRead the intervals as optimistic, or type  "
            'fit(cov_type="cluster", small_sample=True).',
            DesignWarning,
        )


def check_outcome(design: Design, notes: Notes) -> None:
    """Warn of an outcome that is constant, in all rows or within an arm."""
    if design.offset_kind is not None:  # what varies is the outcome given its offset
        return
    name, limits = design.endog_name, design.outcome_limits
    if np.ptp(limits) == 0:
        notes.warn(
            f"outcome {name!r} is constant: {limits[0, 0]:g} in all {design.n} rows; the effect is 0 with standard "
            "error 0, and there is no test.\nCheck that it is the column you mean.",
            DesignWarning,
        )
        return
    arms = zip(limits, design.labels, strict=True)
    constant = [f"{low:g} in arm {label!r}" for (low, high), label in arms if low == high]
    if constant:
        notes.warn(
            f"outcome {name!r} does not vary within an arm: it is {' and '.join(constant)}, whose sampling variance "
            "cannot be learnt from it.\nCheck that it is the column you mean.",
            DesignWarning,
        )


def check_range(record: FitRecord, notes: Notes) -> None:
    """Warn of an arm mean that is outside of all outcomes by more than these are apart, and say where it is from."""
    design, estimate = record.design, record.estimate
    low, high = float(design.outcome_limits.min()), float(design.outcome_limits.max())
    if design.offset_kind is not None or low == high:  # the mean may be a rate, or is as constant as the outcomes
        return
    means = estimate.params[-design.n_arms :]
    beyond = np.maximum(low - means, means - high)
    a = int(np.argmax(beyond))
    if not beyond[a] > high - low:
        return
    cause, advice = _cause_of_range(record, a, low, high)
    notes.warn(
        f"the mean of arm {design.labels[a]!r} is {means[a]:.4g}, and all outcomes are from {low:.4g} to {high:.4g}: "
        f"{cause}.\n{advice}",
        OverlapWarning,
    )


def _cause_of_range(record: FitRecord, a: int, low: float, high: float) -> tuple[str, str]:
    """Say what takes the mean of an arm out of the range of the outcomes, and what helps."""
    design, estimate = record.design, record.estimate
    if not max(low - estimate.model_means[a], estimate.model_means[a] - high) > high - low:
        return "large weights of a few rows do that", "Simplify propensity=, or leave rows without overlap out: trim=."
    own, every = design.column_limits[a], design.column_limits
    target = np.array([every[:, 0].min(axis=0), every[:, 1].max(axis=0)])
    whose, rows = "the other arms", "data"
    if record.frame is not None:
        target = np.array([record.frame.X.min(axis=0), record.frame.X.max(axis=0)])
        whose, rows = "the target frame", "target frame"
    advice = f"Leave terms out of the outcome formula, or the rows out of the {rows} that have no like in the arm."
    beta = record.sample.X.coefficients(estimate.theta[a])
    moved = np.maximum(np.maximum(target[1] - own[1], own[0] - target[0]), 0) * np.abs(beta)
    j = int(np.argmax(moved))
    cause = f"its outcome model extrapolates to the rows of {whose}"
    if moved[j] > 0:
        cause += (
            f", above all by {design.exog_names[j]!r}, which is from {own[0, j]:.4g} to {own[1, j]:.4g} in the arm and "
            f"from {target[0, j]:.4g} to {target[1, j]:.4g} there"
        )
    return cause, advice


def not_converged(what: str, message: str) -> str:
    """Say that an optimiser stopped before it converged."""
    return (
        f"the optimiser of {what} stopped before it converged: {message}\n"
        "Standardise the covariates or simplify the formula; res.converged is False."
    )


def _overlap(data: FitData, spec: Specification, notes: Notes) -> tuple[ArmWeights, ...]:
    """Summarise the weights per arm and warn where few dominate."""
    weights = data.weight_fit if spec.uses_propensity else None
    summaries, message = overlap_of(data, weights)
    if message:
        notes.warn(message, OverlapWarning)
    return summaries


def overlap_of(data: FitData, weights: WeightFit | None) -> tuple[tuple[ArmWeights, ...], str]:
    """Summaries of the importance weights per arm, and the message where few dominate."""
    sample, design = data.sample, data.design
    units, nobs = _units_of(sample, design), design.nobs
    inverse = np.ones(sample.n) if weights is None else weights.undivided
    summaries = tuple(weights_of_arms(sample, inverse, units, nobs).values())
    everybody = data.target.separable and data.target.toward is None
    remote = None
    if weights is not None and everybody:
        remote = add_up(remote_units(scores, units[rows]) for rows, scores in _score_parts(sample, weights))
    message = overlap_message(summaries, design.labels, remote, design.unit_name)
    if message and weights is not None:
        instead = populations_that_overlap(sample, weights, design, data.target)
        message = overlap_message(summaries, design.labels, remote, unit_name=design.unit_name, instead=instead)
    return summaries, message


def _units_of(sample: Sample, design: Design) -> Array:
    """Observations that each row of the sample stands for, shape (n,); each row of a target frame for one."""
    return sample.arrange(np.concatenate([design.units, np.ones(sample.n_frame)]))


def _score_parts(sample: Sample, weights: WeightFit) -> Iterator[tuple[slice, Array]]:
    """Go through the rows in parts, with their scores, shape (K, m)."""
    if not weights.model.by_rows:
        yield slice(0, sample.n), weights.probabilities
        return
    for rows in sample.parts():
        yield rows, weights.part_of_fit(rows).probabilities


def populations_that_overlap(sample: Sample, weights: WeightFit, design: Design, target: Target) -> tuple[str, ...]:
    """Return the arms, as names of target populations, towards which the weights of a fit would not warn."""
    units = _units_of(sample, design)
    found = combined_by_key(
        weights_toward_arms(sample.part(rows), scores, units[rows], design.nobs)
        for rows, scores in _score_parts(sample, weights)
    )
    return overlapping_arms(found, design.labels, target)


def overlapping_arms(
    found: Mapping[tuple[int, int], ArmWeights], labels: Sequence[str], target: Target
) -> tuple[str, ...]:
    """Return the names of the arms among `weights_toward_arms` that a fit would not warn of as its target."""
    n_arms = len(labels)
    passing = [
        toward
        for toward in range(n_arms)[::-1]
        if toward != target.toward
        and not few_dominate(
            [found[toward, a] for a in range(n_arms) if a != toward],
            [labels[a] for a in range(n_arms) if a != toward],
            SMALL_EFFECTIVE,
            "row",
        )
    ]
    return tuple(arm_population(arm, labels).name for arm in passing)


def weights_of_arms(sample: Sample, inverse: Array, units: Array, nobs: float) -> dict[int, ArmWeights]:
    """Summaries of the weights of each arm that has rows.

    Parameters
    ----------
    sample : Sample
        The rows, or a block of them.
    inverse : ndarray, shape (n,)
        Importance weights.
    units : ndarray, shape (n,)
        Observations that each row stands for.
    nobs : float
        Observations of the whole sample: probability weights are divided by their mean over them.

    Returns
    -------
    dict of int to ArmWeights
        By arm.
    """
    s = sample.s * (nobs / sample.total)
    rows = [slice(max(r.start, sample.n_frame), r.stop) for r in sample.slices]
    return {a: arm_weights(inverse[r], s[r], units[r]) for a, r in enumerate(rows) if r.start < r.stop}


def weights_toward_arms(sample: Sample, scores: Array, units: Array, nobs: float) -> dict[tuple[int, int], ArmWeights]:
    """Summaries of the weights of each other arm, were the rows of one arm the target, from scores of shape (K, n).

    Keys are the arm that is the target and the arm that is weighted; the others are as in `weights_of_arms`.
    """
    own, found = scores[sample.arm, np.arange(sample.n)], dict[tuple[int, int], ArmWeights]()
    for toward in range(sample.n_arms):
        odds = np.divide(scores[toward], own, out=np.full(sample.n, np.inf), where=own > 0)
        spread = weights_of_arms(sample, odds, units, nobs)
        found |= {(toward, arm): summary for arm, summary in spread.items() if arm != toward}
    return found

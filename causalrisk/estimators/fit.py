"""From a design and options to a fitted record: the stages in order, each a function of the one before.

Every quantity of a fit is a function of the rows given coefficients, or a sum of such functions over the rows. A pass
evaluates them block by block and adds up: the rows of a data frame are a block that is kept, or a few.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from causalrisk.design import Design, ScannedDesign
from causalrisk.errors import (
    ConvergenceWarning,
    DesignWarning,
    Failure,
    Notes,
    OptionError,
    OverlapWarning,
    SeparationError,
    Told,
    listed,
)
from causalrisk.estimators.abilities import check_able, use_of_learner, with_change
from causalrisk.estimators.estimates import BlockInfluence, Estimate, Refits, ScannedEstimate
from causalrisk.estimators.joint.anchor import LADDER, train_best
from causalrisk.estimators.joint.objective import Criterion
from causalrisk.estimators.joint.problem import (
    check_held_out,
    check_joint_scan,
    joint_problem,
    scanned_joint_problem,
    without_rows,
)
from causalrisk.estimators.joint.train import Trainer, usual_method
from causalrisk.estimators.learned import Learned, learn
from causalrisk.estimators.options import REPLACE, TERMS, InferenceOptions, JREOptions, ModelOptions
from causalrisk.estimators.outcome import check_outcome_fits, gaussian_instead
from causalrisk.estimators.overlap import overlap_of
from causalrisk.estimators.prepare import (
    Asked,
    FitData,
    check_scan,
    check_size,
    prepare,
    with_learner,
)
from causalrisk.estimators.problem import Block, KeptProblem, Problem, ScannedProblem, scanned
from causalrisk.estimators.quantiles import check_quantiles, estimate_quantiles
from causalrisk.estimators.record import FitRecord, JointRecord, LaterPasses, with_robust
from causalrisk.estimators.refit import refit_passes
from causalrisk.estimators.resampling import FullFit, Resamples, ScannedPasses, fit_replicates, unit_count
from causalrisk.estimators.separate import (
    SolvedMeans,
    Trained,
    WeighedRows,
    influence_of_estimates,
    kept_estimate,
    solve_means,
    train,
)
from causalrisk.estimators.specification import AIPW, IPWRA, JRE, Specification
from causalrisk.estimators.stack import stacked
from causalrisk.estimators.weights import FittedScan, WeightsInMemory, WeightsOfScan, not_converged, weigh
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import JACKKNIFE, MULTIPLIERS, seed_sequence
from causalrisk.propensity.replicates import Replicates
from causalrisk.propensity.weights import WeightFit

T = TypeVar("T")
LARGE = 5_000  # independent units from which on the score is as good as normal, and no rows are drawn to refit it
FEW_CLUSTERS, VERY_FEW = 50, 5  # in an arm, below which normal intervals, and all, are too short
FEW_WHOLE = 15, 3  # the same of clusters with one treatment: by t, and by the jackknife with t
COVERED = "95% intervals covered 79 to 84% with 6 clusters, 86 to 90% with 12, 91 to 95% with 30 in simulations"
COVERED_WHOLE = (
    "in simulations with 6 to 30 clusters that each have one treatment, normal 95% intervals covered 79 to 93%, "
    "those of t with the factor 86 to 95%, those of the jackknife with t 94 to 96%"
)


def fit_separate(design: Design, spec: Specification, options: ModelOptions, inference: InferenceOptions) -> FitRecord:
    """Fit one of the estimators that train each arm by itself."""
    if options.did is not None:
        spec = with_change(spec, options.did)
    use, asked = use_of_learner(spec, options), _asked(design, spec, options, inference)
    data = prepare(design, spec, asked)
    if use is None:
        return _checked(separate_record(data, asked)[0], asked.notes)
    learned = learn(data.design, options, inference, asked.notes)
    record, _ = separate_record(with_learner(data, learned, use, spec, asked), asked)
    return _checked(with_learned(record, learned, data.problem), asked.notes)


def with_learned(record: FitRecord, learned: Learned, problem: Problem) -> FitRecord:
    """Return a fit with its learners; a scan's scores are those of its rows without predictions, as in `problem`."""
    blocks = record.blocks
    if isinstance(blocks, FittedScan) and isinstance(problem, ScannedProblem):
        blocks = dataclasses.replace(blocks, problem=problem)
    return dataclasses.replace(record, learned=learned, blocks=blocks)


def _asked(design: Design, spec: Specification, options: ModelOptions, inference: InferenceOptions) -> Asked:
    """Refuse what cannot be; else what is asked for, with the notes of the data."""
    cov_type, bootstrap = inference.resolved(design, joint=spec.joint)
    kind = bootstrap if cov_type == "bootstrap" else None
    check_able(spec, bool(options.quantiles), cov_type=cov_type, bootstrap=kind)
    if cov_type in ("bootstrap", JACKKNIFE):
        check_one_way(design, 'fit(cov_type="cluster")')
    if options.quantiles:
        check_quantiles(design)
    n_boot = None
    if cov_type == JACKKNIFE:
        n_boot = design.n_clusters or design.n
    elif cov_type == "bootstrap" and bootstrap not in MULTIPLIERS:
        n_boot = inference.draws
    if spec.joint or n_boot is not None:
        check_size(design, n_boot, joint=spec.joint)
    if isinstance(design, ScannedDesign):
        check_scan(design, options, inference, cov_type)
    return Asked(options, inference, cov_type, bootstrap, Notes(design.notes))


def check_one_way(design: Design, advice: str) -> None:
    """Refuse resamples of two-way clusters, which no draw keeps whole."""
    if design.second_cluster is not None:
        names = listed(design.cluster_names)
        raise OptionError(f"no resample keeps the clusters of both {names} whole.\nUse `{advice}`.")


def _checked(record: FitRecord, notes: Notes) -> FitRecord:
    """Warn of what the data and the estimates tell, and finish the notes."""
    check_outcome(record.design, notes)
    check_clusters(record, notes)
    check_range(record, notes)
    return dataclasses.replace(record, notes=tuple(notes))


def separate_record(data: FitData, asked: Asked) -> tuple[FitRecord, Trained]:
    """Fit weights and outcome models, and average over the target.

    Returns
    -------
    record : FitRecord
        The fit, without standard errors and notes.
    trained : Trained
        Weights and outcome models.
    """
    problem, design, options, inference, notes = data.problem, data.design, asked.options, asked.inference, asked.notes
    fitted = None if data.weights is None else WeightsInMemory(data.weights)
    weighed = WeighedRows(problem, fitted or weigh(problem, design, options.propensity_link, notes))
    overlap, message, clipped = overlap_of(weighed, design, options)
    if message:
        notes.warn(message, OverlapWarning)
    trained, at, estimate = estimate_of(weighed, design, options, notes)
    given, size, blocks = inference.resamples is not None, len(estimate.values), None
    weights = weighed.weights
    weight_fit = weights.rows if isinstance(weights, WeightsInMemory) and isinstance(weights.rows, WeightFit) else None
    if isinstance(weights, WeightsOfScan):
        of_scan = scanned(problem)
        weight_fit = weights.summary(of_scan.some_block().weight_model, clipped)
        blocks = FittedScan(of_scan, weights.coefficients)
    record = FitRecord(
        design=design,
        full_design=data.full_design,
        spec=problem.spec,
        options=options,
        sample=problem.known,
        target=problem.target,
        frame=data.frame,
        trimmed=data.trimmed,
        weight_fit=weight_fit,
        estimate=estimate,
        overlap=overlap,
        joint=None,
        cov_type=asked.cov_type,
        bootstrap=asked.bootstrap,
        covariance=np.full((size, size), np.nan),
        boot=None,
        given_resamples=given,
        seed=seed_sequence(inference.rng),
        notes=design.notes,
        passes=None if problem.in_memory else SeparatePasses(trained, at, estimate.params),
        blocks=blocks,
    )
    return with_df(record, inference), trained


def with_df(record: FitRecord, inference: InferenceOptions) -> FitRecord:
    """Return a fit with the degrees of freedom of its tests and intervals that the options ask for."""
    use_t = inference.use_t if inference.use_t is not None else record.design.survey is not None
    own = record.residual_df if use_t else np.inf
    return dataclasses.replace(record, df=own if inference.df is None else float(inference.df))


def estimate_of(
    weighed: WeighedRows, design: Design, options: ModelOptions, notes: Notes
) -> tuple[Trained, SolvedMeans, Estimate]:
    """Train and average; refuse an outcome model without a finite fit, warn of one that did not settle.

    Returns
    -------
    trained : Trained
        The rows under the outcome models.
    at : SolvedMeans
        The arm means.
    estimate : Estimate
        The estimate; of a scan without what goes by rows.
    """
    problem, scale = weighed.problem, options.effect_scale
    if scale.quantiles:
        return estimate_quantiles(weighed, design, scale, notes)
    trained = train(weighed)
    if any(trained.failed):
        _check_trained(trained, design, notes)
    at = solve_means(problem.spec.mean, trained.over)
    estimate = kept_estimate(trained, at, weighed.weights.coefficients, scale)
    scale.check(estimate.params[-problem.n_arms :], design.labels)
    return trained, at, estimate if problem.in_memory else ScannedEstimate.of(estimate)


def _check_trained(trained: Trained, design: Design, notes: Notes) -> None:
    """Refuse an outcome model that separates; warn of one that did not settle."""
    problem, failed = trained.weighed.problem, trained.failed
    sample = problem.sample if isinstance(problem, KeptProblem) else None
    arms = check_outcome_fits(design, problem.family, failed, sample)
    what = f"the outcome model ({problem.family.label}) of {arms}"
    if Failure.OUTCOME_SEPARATION in failed:
        raise SeparationError(
            f"{what} predicts {design.endog_name!r} perfectly in some rows.\n"
            f"Simplify the outcome formula, or use {gaussian_instead(design)}."
        )
    if arms:
        notes.warn(not_converged(what, "it did not settle."), ConvergenceWarning)


@dataclass(frozen=True)
class SeparatePasses(LaterPasses):
    """Further passes over the rows of a fit to a scan.

    Parameters
    ----------
    trained : Trained
        The rows under the outcome models.
    at : SolvedMeans
        The arm means.
    params : ndarray, shape (2 K - 1,)
        The estimates.
    """

    trained: Trained
    at: SolvedMeans
    params: Array

    def refits(self, kind: str, seed: np.random.SeedSequence, n_boot: int) -> Refits:
        """As in `LaterPasses`."""
        trained, problem = self.trained, scanned(self.trained.weighed.problem)
        full = FullFit(self.params, trained.theta, trained.level, problem.options.effect_scale)
        passes = ScannedPasses(problem, full, Resamples(problem.resampler(kind, seed), n_boot))
        return refit_passes(passes, trained.weighed.weights.coefficients)

    def influence(self, function: Callable[[BlockInfluence], T]) -> Iterator[T]:
        """As in `LaterPasses`."""
        problem = self.trained.weighed.problem
        return problem.over(functools.partial(_on_influence, function, self.trained, self.at))


def _on_influence(function: Callable[[BlockInfluence], T], trained: Trained, at: SolvedMeans, block: Block) -> T:
    rows, scale = trained.rows(block), scanned(block.problem).options.effect_scale
    values = influence_of_estimates(rows, at, trained.level, scale)
    return function(BlockInfluence(values, rows.sample.s, block.sample.cluster, block.sample.stratum, block.number))


def fit_joint(
    design: Design, options: ModelOptions, inference: InferenceOptions, joint_options: JREOptions
) -> FitRecord:
    """Fit the Joint Robust Estimator."""
    use, asked = use_of_learner(JRE, options), _asked(design, JRE, options, inference)
    check_joint_scan(design, joint_options)
    data = prepare(design, JRE, asked)
    if use is None:
        return _checked(joint_record(data, asked, joint_options), asked.notes)
    learned, plain = learn(data.design, options, inference, asked.notes), data.problem
    if use == TERMS:
        record = joint_record(with_learner(data, learned, use, JRE, asked), asked, joint_options)
    else:
        record = fit_stack(data, learned, asked, joint_options)
    return _checked(with_learned(record, learned, plain), asked.notes)


def fit_stack(data: FitData, learned: Learned, asked: Asked, joint_options: JREOptions) -> FitRecord:
    """Average JRE on the formula with JRE with each learner's predictions as terms, and the predictions alone."""
    lead, notes = joint_record(data, asked, joint_options), asked.notes
    names, records, inference = ["formula"], [lead], dataclasses.replace(asked.inference, rng=lead.seed)
    replicates = None if lead.joint is None else lead.joint.replicates
    weights = lead.used_weight_fit if data.problem.in_memory else None
    data = dataclasses.replace(data, weights=weights, replicates=replicates)
    for number, name in enumerate(learned.names):
        said, own = Told(notes), learned.of(number)
        again = dataclasses.replace(asked, inference=inference, notes=said)
        joined = joint_record(with_learner(data, own, TERMS, JRE, again), again, joint_options)
        alone, _ = separate_record(with_learner(data, own, REPLACE, AIPW, again), again)
        names += [f"{name} as terms", f"{name} alone"]
        records += [joined, alone]
        notes.extend(note for note in said if note not in notes)
    return stacked(lead, names, records)


def joint_record(data: FitData, asked: Asked, joint_options: JREOptions) -> FitRecord:
    """Fit IPWRA and train the arms jointly from there."""
    method, notes = joint_method(joint_options, asked.options), asked.notes
    # What is refused is JRE's; what is fitted first is IPWRA, where it starts.
    data = dataclasses.replace(data, problem=dataclasses.replace(data.problem, spec=IPWRA))
    problem = data.problem
    if isinstance(problem, ScannedProblem):
        check_held_out(problem, joint_options)
    start, trained = separate_record(data, asked)
    robust, passes = with_robust(start), None
    replicates = data.replicates or replicates_of_many(robust, joint_options)
    if isinstance(problem, ScannedProblem):
        of_scan = scanned_joint_problem(robust, problem, trained, joint_options, notes, replicates)
        joint = train_by(Trainer(of_scan, joint_options.method), joint_options, notes)
        estimate, kept, passes = without_rows(of_scan, joint.estimate)
        passes = dataclasses.replace(passes, start=start.passes)
        joint = dataclasses.replace(joint, problem=kept, estimate=estimate)
    else:
        joint = train_from(robust, joint_options, notes, replicates)
    if not joint.estimate.result.success:
        message = str(joint.estimate.result.message)
        notes.warn(not_converged(f"the joint objective ({method})", message), ConvergenceWarning)
    return dataclasses.replace(start, spec=JRE, estimate=joint.estimate.estimate, joint=joint, passes=passes)


def train_from(
    start: FitRecord, options: JREOptions, notes: Notes, replicates: Replicates | None = None
) -> JointRecord:
    """Draw the propensity replicates and train the arms jointly: replicates, start, criteria, the best of them.

    Parameters
    ----------
    replicates : Replicates, optional
        The replicates, where they are drawn already.
    """
    sample, resampler = start.sample, start.resampler()
    given = None if options.replicates is None else resampler.given("replicates", options.replicates)
    if replicates is None:
        spread = options.replicate_spread
        replicates = fit_replicates(start.used_weight_fit, resampler, given, options.n_drawn, spread, notes)
    clusters, stratum = sample.clusters(start.design.cluster), sample.strata(start.design.survey)
    if clusters is not None or stratum is not None:
        sample = dataclasses.replace(sample, cluster=clusters, stratum=stratum)
    problem = joint_problem(start, sample, replicates, 0 if clusters is None else int(clusters.max()) + 1)
    record = train_by(Trainer(problem, options.method), options, notes)
    return dataclasses.replace(record, drawn=given)


def replicates_of_many(start: FitRecord, options: JREOptions) -> Replicates | None:
    """Return points that stand for the normal distribution of a score of many units, where less than the usual draws.

    None where units are few, the replicates or their number are given, or coefficients are not all there is to scores.
    """
    gamma, block = start.used_weight_fit.gamma, start.estimate.block("gamma")
    asked = options.replicates is not None or options.n_replicates is not None
    if asked or start.robust is None or unit_count(start.design) < LARGE or not 0 < 2 * len(gamma) < options.n_drawn:
        return None
    covariance = options.replicate_spread**2 * start.robust[block, block]
    if len(covariance) != len(gamma) or not np.isfinite(covariance).all():
        return None
    return Replicates.of_normal(gamma, covariance)


def train_by(trainer: Trainer, options: JREOptions, notes: Notes) -> JointRecord:
    """Train the arms under each criterion, keep the best, warn of those that did not converge."""
    estimate, criterion, path = train_best(trainer, criteria_of(options, trainer.problem.n_units))
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
        return (Criterion.erm(float(n_units**2 if options.penalty is None else options.penalty)),)
    anchors = LADDER if options.anchor is None else (options.anchor,)
    share = None if options.share is None else float(options.share)
    return tuple(Criterion.risk(anchor, n_units, share) for anchor in anchors)


def joint_method(joint: JREOptions, options: ModelOptions) -> str:
    """Return the optimiser; by default least squares where the objective is a sum of squares, else trust-exact."""
    if joint.method == "least_squares" and not options.outcome_family.linear:
        raise OptionError(
            f'method="least_squares" is for linear outcome models, not for {options.outcome_family.label}.\n'
            'Use `method="trust-exact"`, or leave method= out.'
        )
    return joint.method or usual_method(options.outcome_family)


def check_clusters(record: FitRecord, notes: Notes) -> None:
    """Warn of an arm in clusters too few for normal tests and intervals, or for any."""
    design = record.design
    if not design.n_clusters or design.survey is not None:  # whose t distribution knows of few units
        return
    counts, t = design.arm_clusters, bool(np.isfinite(record.df))
    whole = sum(counts) == design.n_clusters  # each cluster has one treatment
    fewest, jackknife = int(np.argmin(counts)), t and record.cov_type == JACKKNIFE
    enough = (FEW_WHOLE[jackknife] if whole else VERY_FEW) if t else FEW_CLUSTERS
    if counts[fewest] >= enough:
        return
    found = (
        f"arm {design.labels[fewest]!r} has rows in only {counts[fewest]} of the {min(design.cluster_counts)} clusters "
        f"of {' and '.join(map(repr, design.cluster_names))}"
    )
    if whole:
        kind = "these" if jackknife else "t" if t else "normal"
        told = f"with fewer than {enough} in an arm {kind} intervals are too short ({COVERED_WHOLE}).\n"
        told += "" if jackknife else 'Use `fit(cov_type="jackknife", use_t=True)`. '
        told += "If the clusters were assigned at random, `res.permutation_test()` is exact."
    elif counts[fewest] < VERY_FEW:
        told = f"fewer than {VERY_FEW} in an arm do not tell how clusters vary.\nRead the intervals as optimistic."
    else:
        told = (
            f"with fewer than {FEW_CLUSTERS} in an arm normal tests and intervals are optimistic ({COVERED}).\n"
            'Use `fit(use_t=True)`; where clusters differ in size, add `cov_type="jackknife"`.'
        )
    notes.warn(f"{found}; {told}", DesignWarning)


def check_outcome(design: Design, notes: Notes) -> None:
    """Warn of an outcome that is constant, in all rows or within an arm."""
    if design.offset_kind is not None:  # what varies is the outcome given its offset
        return
    name, limits = design.endog_name, design.outcome_limits
    if np.ptp(limits) == 0:
        notes.warn(
            f"outcome {name!r} is constant: {limits[0, 0]:g} in all {design.n} rows, so there is no test.\n"
            "Check that it is the column you mean.",
            DesignWarning,
        )
        return
    arms = zip(limits, design.labels, strict=True)
    constant = [f"{low:g} in arm {label!r}" for (low, high), label in arms if low == high]
    if constant:
        notes.warn(
            f"outcome {name!r} does not vary within an arm: it is {' and '.join(constant)}.\n"
            "Check that it is the column you mean.",
            DesignWarning,
        )


def check_range(record: FitRecord, notes: Notes) -> None:
    """Warn of an arm mean that is outside of all outcomes by more than these are apart, and say where it is from."""
    design, estimate = record.design, record.estimate
    low, high = float(design.outcome_limits.min()), float(design.outcome_limits.max())
    if design.offset_kind is not None or design.periods is not None or low == high:
        return  # the mean may be a rate, is a change, or is as constant as the outcomes
    means = estimate.params[-design.n_arms :]
    beyond = np.maximum(low - means, means - high)
    a = int(np.argmax(beyond))
    if not beyond[a] > high - low:
        return
    cause, advice = "large weights of a few rows", "Simplify propensity=, or drop rows without overlap: `trim=`."
    if max(low - estimate.model_means[a], estimate.model_means[a] - high) > high - low:
        rows = "the other arms" if record.frame is None else "the target frame"
        cause = f"its {'learner' if record.spec.given else 'outcome model'} extrapolates to the rows of {rows}"
        advice = "Leave terms out of the outcome formula, or drop the rows that have no like in the arm."
    notes.warn(
        f"the mean of arm {design.labels[a]!r} is {means[a]:.4g}, and all outcomes are from {low:.4g} to {high:.4g}: "
        f"{cause}.\n{advice}",
        OverlapWarning,
    )

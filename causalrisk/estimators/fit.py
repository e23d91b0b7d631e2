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
from causalrisk.design.scan.encode import CodedBlock, PassCounter
from causalrisk.errors import (
    ConvergenceWarning,
    DesignWarning,
    Failure,
    Notes,
    OptionError,
    OverlapWarning,
    SeparationError,
    Told,
    UnavailableError,
    failure_text,
    listed,
)
from causalrisk.estimators.abilities import check_able, use_of_learner, with_change
from causalrisk.estimators.estimates import BlockInfluence, Estimate, Refits, ScannedEstimate
from causalrisk.estimators.jointly import Given, own_weights
from causalrisk.estimators.jre import (
    JointEstimateRows,
    JointProblem,
    Trainer,
    influence_of_block,
    refit_jointly,
)
from causalrisk.estimators.learned import Learned, learn
from causalrisk.estimators.options import DEFAULT_METHOD, REPLACE, TERMS, InferenceOptions, JREOptions, ModelOptions
from causalrisk.estimators.outcome import check_outcome_fits, gaussian_instead
from causalrisk.estimators.overlap import overlap_of
from causalrisk.estimators.prepare import (
    Asked,
    FitData,
    check_scan,
    check_size,
    expected_passes,
    prepare,
    with_learner,
)
from causalrisk.estimators.problem import Block, KeptProblem, Problem, ScannedProblem, scanned
from causalrisk.estimators.quantiles import check_quantiles, estimate_quantiles
from causalrisk.estimators.record import FitRecord, JointRecord, LaterPasses, robust_covariance, with_robust
from causalrisk.estimators.refit import refit_passes, refit_propensity
from causalrisk.estimators.resampling import (
    FullFit,
    Resamples,
    ScannedPasses,
    checked_replicates,
    fit_replicates,
    unit_count,
)
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
from causalrisk.joint.shrinkage import FOLDS, raised
from causalrisk.learners.folds import CutRows, Folds, folds_of
from causalrisk.numerics.blocks import add_up
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
    learned = learn(data.design, options, inference, asked.notes, asked.passes)
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
    passes = None
    if isinstance(design, ScannedDesign):
        check_scan(design, options, inference, cov_type)
        passes = PassCounter(expected_passes(design, spec, options, inference), shown=inference.progress)
    return Asked(options, inference, cov_type, bootstrap, Notes(design.notes), passes)


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
    if isinstance(design, ScannedDesign) and joint_options.replicates is not None:
        raise UnavailableError(
            "replicates= goes by rows, and those of a scan are not kept in memory.\n"
            "Leave replicates= out, or, if the rows fit into memory, use `data=data.collect()`."
        )
    data = prepare(design, JRE, asked)
    if use is None:
        return _checked(joint_record(data, asked, joint_options), asked.notes)
    learned, plain = learn(data.design, options, inference, asked.notes, asked.passes), data.problem
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
    notes = asked.notes
    # What is refused is JRE's; what is fitted first is IPWRA, where it starts.
    data = dataclasses.replace(data, problem=dataclasses.replace(data.problem, spec=IPWRA))
    start, trained = separate_record(data, asked)
    robust, passes = with_robust(start), None
    replicates = data.replicates or replicates_of_many(robust, joint_options)
    if isinstance(data.problem, ScannedProblem):
        joint = train_scan(robust, data.problem, trained, joint_options, notes, replicates)
        estimate = joint.estimate.estimate
        if not isinstance(estimate.rows, JointEstimateRows):
            raise TypeError("the estimate is a joint one")
        passes = LaterJointPasses(estimate.rows, data.problem, trained, estimate.values, None, start.passes)
        kept = dataclasses.replace(joint.estimate, estimate=ScannedEstimate.of(estimate))
        joint = dataclasses.replace(joint, problem=joint.problem.without_rows(), estimate=kept)
    else:
        joint = train_from(robust, joint_options, notes, replicates)
    result = joint.estimate.result
    if not result.success:
        what = f"the joint objective ({joint_options.method or DEFAULT_METHOD})"
        notes.warn(not_converged(what, str(result.message)), ConvergenceWarning)
    if joint.score_joined and joint_options.join_score is None:
        notes.append(
            "The linear predictor of the propensity score is a further outcome column: a test found that the outcome "
            "formula lacks it. Use `fit(join_score=False)` to leave it out."
        )
    return dataclasses.replace(start, spec=JRE, estimate=joint.estimate.estimate, joint=joint, passes=passes)


def train_from(
    start: FitRecord, options: JREOptions, notes: Notes, replicates: Replicates | None = None
) -> JointRecord:
    """Draw the propensity replicates, unless they are drawn already, and train the arms jointly, in memory."""
    resampler = start.resampler()
    given = None if options.replicates is None else resampler.given("replicates", options.replicates)
    if replicates is None:
        spread = options.replicate_spread
        replicates = fit_replicates(start.used_weight_fit, resampler, given, options.n_drawn, spread, notes)

    def covariance(estimate: Estimate, rows: JointEstimateRows) -> Array:
        return robust_covariance(dataclasses.replace(start, estimate=estimate, robust=None), False)

    return dataclasses.replace(train_by(joint_problem(start), replicates, options, notes, covariance), drawn=given)


def joint_problem(start: FitRecord) -> JointProblem:
    """Return what is trained from an IPWRA fit in memory."""
    sample, design, weights = start.sample, start.design, start.used_weight_fit
    clusters = sample.clusters(design.cluster)
    sample = dataclasses.replace(sample, cluster=clusters)
    count = min(FOLDS, design.n_clusters) if design.n_clusters else FOLDS
    folds = folds_of(design.arm, design.cluster, count)
    folds = sample.arrange(np.concatenate([folds, np.arange(sample.n_frame) % count]))
    return JointProblem(
        problem=KeptProblem(spec=IPWRA, target=start.target, sample=sample, model=weights.model),
        weights=WeightsInMemory(weights),
        start=start.estimate,
        covariance=start.robust,
        scale=start.options.effect_scale,
        n_units=float(design.nobs),
        frequency=start.frequency,
        clusters=0 if clusters is None else int(clusters.max()) + 1,
        folds=folds,
    )


def train_scan(
    start: FitRecord,
    problem: ScannedProblem,
    trained: Trained,
    options: JREOptions,
    notes: Notes,
    replicates: Replicates | None,
) -> JointRecord:
    """Train the arms jointly over a scan; the weights of propensity replicates go by the number of each row."""
    estimate, weights, design = start.estimate, trained.weighed.weights, problem.design
    if not isinstance(weights, WeightsOfScan):
        raise TypeError("the joint estimator has importance weights")
    if replicates is None:
        full = FullFit(estimate.params, trained.theta, trained.level, problem.options.effect_scale)
        resamples = Resamples(
            problem.resampler(start.bootstrap, start.seed), options.n_drawn, spread=options.replicate_spread
        )
        fits = refit_propensity(problem, full, estimate.gamma, resamples)
        replicates = checked_replicates(Replicates(fits.usable, fits.failures), notes)
    count = min(FOLDS, design.n_clusters) if design.n_clusters else FOLDS
    cut = None if design.n_clusters else add_up(design.over(_cut_rows, problem.workers, problem.passes))
    of_scan = JointProblem(
        problem=problem,
        weights=weights,
        start=estimate,
        covariance=start.robust,
        scale=start.options.effect_scale,
        n_units=float(start.design.nobs),
        frequency=start.frequency,
        clusters=problem.n_clusters,
        folds=Folds(count, n_clusters=design.n_clusters, cut=cut),
    )

    def covariance(estimate: Estimate, rows: JointEstimateRows) -> Array:
        passes = LaterJointPasses(rows, problem, trained, estimate.values)
        return robust_covariance(dataclasses.replace(start, estimate=estimate, robust=None, passes=passes), False)

    return train_by(of_scan, replicates, options, notes, covariance)


def _cut_rows(block: CodedBlock) -> CutRows:
    return CutRows.of(block.position, block.arm)


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


def train_by(
    problem: JointProblem,
    replicates: Replicates,
    options: JREOptions,
    notes: Notes,
    covariance: Callable[[Estimate, JointEstimateRows], Array],
) -> JointRecord:
    """Train the arms jointly; choose the amount of shrinkage unless it is given.

    `covariance` returns the robust covariance of an estimate.
    """
    risk = options.objective == "risk"
    penalty = None if risk else float(problem.n_units**2 if options.penalty is None else options.penalty)
    trainer = Trainer.of(
        problem,
        replicates,
        options.method or DEFAULT_METHOD,
        penalty=penalty,
        share=options.share,
        spread=options.replicate_spread,
        join=options.join_score,
    )
    path, alpha = None, options.anchor if risk else 1.0
    if alpha is None:
        path, failures = trainer.choose()

        def variance(anchor: float) -> float:
            return trainer.variance(covariance(*trainer.solution(trainer.near(anchor), anchor)))

        if problem.covariance is not None:
            start = trainer.variance(problem.covariance)
            path = raised(path, variance, start, problem.clusters or problem.n_units)
        alpha = path.anchor
        failed = int((failures != Failure.OK).sum())
        if failed:
            told = f"{failed} of {len(failures)} folds of the cross-validation could not be fitted and were left out: "
            notes.append(f"{told}{failure_text(failures)}.")
        if not path.converged.all():
            anchors = listed(path.anchors[~path.converged].tolist())
            notes.warn(
                f"the joint objective did not converge at shrinkage {anchors}, so it was not chosen.\n"
                "Simplify the outcome formula, or keep what was chosen; `res.anchor_path()` shows each.",
                ConvergenceWarning,
            )
    estimate = trainer.estimate(trainer.train(alpha), alpha)
    return JointRecord(problem, replicates, estimate, dataclasses.replace(options, replicates=None), path)


@dataclass(frozen=True)
class LaterJointPasses(LaterPasses):
    """Further passes over the rows of a joint fit to a scan.

    Parameters
    ----------
    rows : JointEstimateRows
        The influence function.
    problem : ScannedProblem
        The rows.
    trained : Trained
        They under the models of the start.
    values : ndarray, shape (d,)
        The estimates.
    covariance : ndarray, shape (d, d), optional
        Robust covariance of all estimates, where it is known.
    start : LaterPasses, optional
        Those of the IPWRA fit that it starts from.
    """

    rows: JointEstimateRows
    problem: ScannedProblem
    trained: Trained
    values: Array
    covariance: Array | None = None
    start: LaterPasses | None = None

    def influence(self, function: Callable[[BlockInfluence], T]) -> Iterator[T]:
        """As in `LaterPasses`."""
        _ = self.rows.prepared
        return self.rows.problem.over(functools.partial(influence_of_block, function, self.rows))

    def refits(self, kind: str, seed: np.random.SeedSequence, n_boot: int) -> Refits:
        """As in `LaterPasses`."""
        problem, trained, start = self.problem, self.trained, self.rows.problem.start
        full = FullFit(start.params, trained.theta, trained.level, problem.options.effect_scale)
        passes = ScannedPasses(problem, full, Resamples(problem.resampler(kind, seed), n_boot))
        without = dataclasses.replace(passes, full=full.without_level())
        found = refit_jointly(self.rows.problem, self.rows.fit, without, passes, None)
        own = ScannedPasses(problem, full, Given(1, own_weights))  # type: ignore[arg-type]  # at the resamples' points
        plain = dataclasses.replace(own, full=full.without_level())
        beside = self.values - refit_jointly(self.rows.problem, self.rows.fit, plain, own, None).values[:, 0]
        return dataclasses.replace(found, values=found.values + beside[:, None])


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

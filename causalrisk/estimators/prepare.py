"""From a design and options to what is estimated: checks, trimming, the target and the problem."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from causalrisk.design import Design, ScannedDesign, TargetRows, target_rows
from causalrisk.design.scan.encode import PassCounter
from causalrisk.design.support import check_matrices, check_pairs
from causalrisk.errors import FitInterrupted, Notes, OptionError, UnavailableError
from causalrisk.estimators.exposure import check_means, check_offset, mean_offset
from causalrisk.estimators.learned import Learned, in_place, with_terms
from causalrisk.estimators.options import REPLACE, InferenceOptions, ModelOptions, is_frame
from causalrisk.estimators.overlap import trim_rows
from causalrisk.estimators.problem import (
    KeptProblem,
    Problem,
    ScannedProblem,
    make_model,
    observation_model,
    weighs,
)
from causalrisk.estimators.sample import make_sample
from causalrisk.estimators.specification import IPWRA, JRE, Specification
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import JACKKNIFE
from causalrisk.propensity.replicates import Replicates
from causalrisk.propensity.targets import ArmTarget, FunctionTarget, make_target
from causalrisk.propensity.weights import WeightFit, WeightModel
from causalrisk.runtime.workers import worker_count

NEWTON, ANCHORS = 6, 14  # passes that a likelihood takes as a rule, and linear models of JRE with their choice


@dataclass(frozen=True)
class FitData:
    """The data of a fit.

    Parameters
    ----------
    problem : Problem
        What is estimated from which rows.
    design : Design
        The data, trimmed if asked for.
    full_design : Design
        The data before trimming.
    frame : TargetRows or None
        Rows of a target frame.
    trimmed : str
        How many rows were trimmed and by what limits; empty where none were.
    weights : WeightFit, optional
        Importance weights and scores, where another fit to these rows has them already.
    replicates : Replicates, optional
        Propensity replicates, likewise.
    """

    problem: Problem
    design: Design
    full_design: Design
    frame: TargetRows | None
    trimmed: str
    weights: WeightFit | None = None
    replicates: Replicates | None = None


@contextmanager
def counted_passes(
    design: Design, spec: Specification, options: ModelOptions, inference: InferenceOptions
) -> Iterator[PassCounter | None]:
    """Count the passes of a fit to a scan until it has an estimate.

    Parameters
    ----------
    design, spec, options, inference
        As in `prepare`.

    Yields
    ------
    PassCounter or None
        None in memory.

    Raises
    ------
    FitInterrupted
        If the passes are interrupted; without results, it says in which of them.
    """
    if not isinstance(design, ScannedDesign):
        yield None
        return
    passes = PassCounter(expected_passes(design, spec, options, inference), shown=inference.progress)
    try:
        yield passes
    except KeyboardInterrupt:
        raise FitInterrupted(
            None,
            f"the fit to a scan was interrupted in {passes.place} over its rows, before there was an estimate.\n"
            "Type  fit(progress=True)  to see the passes and what time is left.",
        ) from None


def prepare(
    design: Design,
    spec: Specification,
    options: ModelOptions,
    inference: InferenceOptions,
    *,
    notes: Notes,
    passes: PassCounter | None,
) -> FitData:
    """Check, trim and make the problem.

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
    notes : Notes
        Warnings so far; more are added.
    passes : PassCounter or None
        Counts the passes over a scan.

    Returns
    -------
    FitData
        The data of the fit.
    """
    check_target(design, options)
    check_offset(design, options)
    check_means(design, options, spec)
    check_trimmed_frame(options)
    make = functools.partial(_make_problem, inference=inference, passes=passes)
    if not isinstance(design, ScannedDesign):
        options.outcome_family.check(design.y[design.recorded], design.endog_name)
    full_design, trimmed, frame = design, "", None
    if options.trim is not None:
        unclipped = dataclasses.replace(options, clip=None)  # rows are trimmed by the scores as they are
        first = make(design, IPWRA, unclipped, target=ArmTarget(None))
        design, trimmed = trim_rows(design, first, options.trim, options.propensity_link)
    if is_frame(options.target):
        check_replicated_frame(design)
        frame = target_rows(design, options.target, design.missing)
        notes.extend(notes_of_frame(design, frame))
    return FitData(make(design, spec, options, frame=frame), design, full_design, frame, trimmed)


def with_learner(
    data: FitData,
    learned: Learned,
    use: str,
    *,
    spec: Specification,
    options: ModelOptions,
    inference: InferenceOptions,
    notes: Notes,
) -> FitData:
    """Return the data of a fit with predictions of learners as terms of the outcome models, or in their place.

    Parameters
    ----------
    data : FitData
        The data.
    learned : Learned
        The predictions.
    use : {"terms", "replace"}
        What is done with them.
    spec, options, inference, notes
        As in `prepare`.

    Returns
    -------
    FitData
        With another problem and design.
    """
    workers, passes = (
        (data.problem.workers, data.problem.passes) if isinstance(data.problem, ScannedProblem) else (1, None)
    )
    made = data.design, data.frame, learned, options.outcome_family, workers, passes
    if use == REPLACE:
        spec = dataclasses.replace(spec, given=True)
        design, frame = in_place(*made)
    else:
        design, frame = with_terms(*made, notes)
    problem = _make_problem(design, spec, options, inference, passes, frame=frame)
    return dataclasses.replace(data, problem=problem, design=design, frame=frame)


def _make_problem(
    design: Design,
    spec: Specification,
    options: ModelOptions,
    inference: InferenceOptions,
    passes: PassCounter | None,
    target: ArmTarget | None = None,
    frame: TargetRows | None = None,
) -> Problem:
    """Return what is estimated; the target is that of the options, unless it is given."""
    if isinstance(design, ScannedDesign):
        of_scan = target or make_target(options.target, np.empty((0, 1)), np.empty(0, dtype=bool))
        if isinstance(of_scan, FunctionTarget):
            of_scan = dataclasses.replace(of_scan, in_blocks=True)
        return ScannedProblem(
            spec=spec,
            target=of_scan,
            design=design,
            options=options,
            workers=worker_count(inference.n_jobs, inference.memory, design.block_bytes),
            passes=passes,
            frame=frame,
            n_frame=0 if frame is None else len(frame.X),
        )
    sample = make_sample(
        y=design.y,
        X=design.X,
        Z=design.Z,
        arm=design.arm,
        weights=design.weights,
        family=options.outcome_family,
        frame=None if frame is None else (frame.X, frame.Z),
        offsets=_offsets(design, options),
        given=spec.given,
        observation=design.observation,
        late=None if design.periods is None else design.periods.late,
    )
    own, model = target or make_target(options.target, sample.Z.columns, sample.observed == 0), None
    if weighs(spec, own):
        propensity = make_model(design, sample=sample, target=own, options=options, frame=frame)
        model = WeightModel(propensity, own, sample.observed, observation_model(sample, spec))
    return KeptProblem(spec=spec, target=own, sample=sample, model=model)


def notes_of_frame(design: Design, frame: TargetRows) -> list[str]:
    """Say what there is to say of the rows of a target frame."""
    alike = "The rows of the target frame count alike; weights= are those of the sample."
    return [*frame.notes, *([] if design.weight_type is None else [alike])]


def check_replicated_frame(design: Design) -> None:
    """Refuse a target frame, which has no replicate weights, where the sample has some."""
    if design.replication is not None:
        raise OptionError(
            "a target frame has no replicate weights, and its sampling has a part in the variance.\n"
            'Type  Survey(weights=, strata=, psu=)  in the place of replicate weights, or a target such as "treated".'
        )


def check_trimmed_frame(options: ModelOptions) -> None:
    """Refuse to trim a sample whose target are other rows."""
    if options.trim is not None and is_frame(options.target):
        raise OptionError(
            "trim= with a target frame would trim the sample and not its target.\n"
            "Leave trim= out, and the rows of the frame that have no like in the sample."
        )


def _offsets(design: Design, options: ModelOptions) -> tuple[Array, Array] | None:
    """Offsets as observed, and where the means are taken."""
    at = mean_offset(design, options)
    return None if design.offset is None or at is None else (design.offset, at)


def check_target(design: Design, options: ModelOptions) -> None:
    """Refuse options that several arms do not have."""
    if design.n_arms == 2:
        return
    population = options.population
    instead = 'target="overlap", "matching", "entropy" or "all"'
    if population.toward is not None:
        named = "  or  ".join(f"target={label!r}" for label in design.labels[1:])
        instead = f"{named}  for the rows of that arm"
    refused = {
        "target": (population.two_arms_only, population.name, instead),
        "propensity_link": (options.propensity_link != "logit", options.propensity_link, 'propensity_link="logit"'),
    }
    for name, (holds, value, instead) in refused.items():
        if holds:
            raise OptionError(f"{name}={value!r} is for two arms; here are {design.n_arms}.\nType  {instead}.")


def expected_passes(
    design: ScannedDesign, spec: Specification, options: ModelOptions, inference: InferenceOptions
) -> int | None:
    """Return about how many passes a fit takes: steps of Newton's method are as many as a logit takes as a rule.

    Parameters
    ----------
    design : ScannedDesign
        The data.
    spec : Specification
        The estimator.
    options : ModelOptions
        What is estimated.
    inference : InferenceOptions
        How standard errors are computed.

    Returns
    -------
    int or None
        None where it is not known: with trimming or a learner, and where JRE has nonlinear outcome models.
    """
    joint, nonlinear = spec is JRE, not (spec.constants or options.outcome_family.linear)
    if options.trim is not None or options.learner is not None or (joint and nonlinear):
        return None
    likelihoods = int(spec.uses_propensity) * (1 if design.observation is None else 2) + int(nonlinear)
    expected = 5 + NEWTON * likelihoods + ANCHORS * joint
    if inference.resolved(design, joint=joint)[0] in ("bootstrap", "replicates", JACKKNIFE):
        expected += 3 + 4 * likelihoods
    return expected


def check_size(design: Design, n_boot: int | None, *, joint: bool) -> None:
    """Refuse a joint fit, or n_boot refits at once, of so many columns that the products of pairs fill the memory."""
    if not joint and n_boot is None:
        return
    if isinstance(design, ScannedDesign):
        if n_boot is not None:
            check_matrices_of(design, n_boot)
        return
    robust = "robust" if design.cluster is None else "cluster"
    advice = "Type  IPWRA  in the place of JRE" if joint else f'Type  fit(cov_type="{robust}")'
    for model, columns in (("outcome", design.X.shape[1]), ("propensity", design.Z.shape[1])):
        check_pairs(design.n, columns, f"the {model} model", advice=advice)


def check_available(design: Design, options: ModelOptions, inference: InferenceOptions, cov_type: str) -> None:
    """Refuse of a scan what goes by rows in more ways than sums over them."""
    if not isinstance(design, ScannedDesign):
        return
    if options.propensity_score is not None:
        raise UnavailableError(
            "a classifier as propensity_score= is not there for a scan; expected a propensity model with a formula.\n"
            "Leave propensity_score= out, or, if the rows fit into memory, type  data=data.collect()."
        )
    if cov_type == JACKKNIFE and not design.n_clusters:
        raise UnavailableError(
            f"the jackknife of a scan leaves out clusters, and this one has none: each of its {design.n:,} rows would "
            "take a refit on all the others. Rows that fit into memory are data.collect().\n"
            'Type  cov_type="robust".'
        )
    if design.survey is not None and cov_type == "bootstrap":
        raise UnavailableError(
            "the rescaled bootstrap of a survey design is not there for a scan; expected the standard errors of its "
            "strata and first-stage units.\n"
            "Leave cov_type=, bootstrap= and n_boot= out, or, if the rows fit into memory, type  data=data.collect()."
        )
    if inference.resamples is not None:
        raise UnavailableError(
            "resamples= goes by rows, and those of a scan are not kept in memory; expected a number of resamples.\n"
            "Type  n_boot=999."
        )


def check_matrices_of(design: ScannedDesign, n_boot: int) -> None:
    """Refuse a bootstrap whose matrices of products fill the memory."""
    advice = f'Type  fit(cov_type="{"robust" if design.cluster_name is None else "cluster"}")'
    predictors = (design.n_arms - 1) * len(design.propensity_names)
    for model, columns in (("outcome", len(design.exog_names)), ("propensity", predictors)):
        check_matrices(n_boot, columns, f"the {model} model", advice)

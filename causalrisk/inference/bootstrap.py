"""The bootstrap: blocks of multiplicities through a batched refit, and the standard errors that the resamples give.

Standard errors of JRE are root mean squares about the estimate, not about the mean of the resamples: it trades bias for
variance, and what the resamples show of a bias is part of its error. A factor allows for the choice of the
anchor, which resamples keep.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import BootstrapError, Notes, ResampleWarning, warn_user
from causalrisk.estimators.estimates import Refits, Refitter
from causalrisk.estimators.joint.refit import JointRefitter
from causalrisk.estimators.options import InferenceOptions
from causalrisk.estimators.quantiles import QuantileRefitter, QuantileRows
from causalrisk.estimators.record import BootstrapDistribution, FitRecord, JointRecord
from causalrisk.estimators.refit import SeparateRefitter
from causalrisk.estimators.resampling import SampleResampler, given_block
from causalrisk.estimators.sample import Sample
from causalrisk.estimators.specification import IPWRA
from causalrisk.estimators.stack import GroupRefitter, StackedGroupsRefitter, StackRefitter
from causalrisk.inference.multiplied import multiplier_bootstrap
from causalrisk.numerics.failures import Failure, failure_text
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import MULTIPLIERS, RESAMPLE_STREAM, WIDTH
from causalrisk.propensity.replicates import (
    NestedReplicates,
    ResampleReplicates,
    ShiftedLogitReplicates,
    ShiftedReplicates,
)
from causalrisk.runtime.memory import free_memory
from causalrisk.runtime.workers import ordered_map, progress_bar, worker_count

LEAST_TASKS = 8  # blocks of resamples are wide only as far as so many remain for the processors to share


def run_bootstrap(
    refitter: Refitter,
    draw: Callable[[int, int], Array],
    n_boot: int,
    width: int,
    workers: int,
    progress: bool,
) -> BootstrapDistribution:
    """Draw the resamples block by block and refit each block at once.

    Parameters
    ----------
    refitter : Refitter
        Estimates under multiplicities; pure.
    draw : callable
        Block number and width -> multiplicities, shape (n, width).
    n_boot : int
        Number of resamples.
    width : int
        Resamples per block. Blocks are the same whatever the number of workers, so the results are too.
    workers : int
        Blocks worked on at a time: in threads, or by the joblib backend whose context the caller is in.
    progress : bool
        Whether to count the resamples on standard error.

    Returns
    -------
    BootstrapDistribution
        Estimates and failures, in the order of the resamples.

    Raises
    ------
    BootstrapError
        If a worker process died, or a cluster is lost.
    """
    block = functools.partial(_refit_block, refitter, draw, n_boot, width)
    parts: list[Refits] = []
    try:
        with (
            ordered_map(
                block,
                -(-n_boot // width),
                workers,
                name=lambda number: f"resamples {number * width} to {min((number + 1) * width, n_boot) - 1}",
                remedy="Type  fit(memory=1e8)  for fewer resamples at a time, or start workers with more memory.",
            ) as results,
            progress_bar(n_boot, progress) as advance,
        ):
            for part in results:
                parts.append(part)
                advance(part.values.shape[1])
    except BrokenExecutor as error:
        raise BootstrapError(
            f"a worker process died, and resamples {len(parts) * width} to {n_boot - 1} were lost with it: the system "
            "ends a process that takes too much memory.\n"
            "The point estimate with robust standard errors is in err.results. Type  fit(n_jobs=1)  to stay in one "
            "process, or memory=  for fewer resamples at a time."
        ) from error
    return distribution_of(parts)


def distribution_of(parts: Sequence[Refits]) -> BootstrapDistribution:
    """Put estimates under resamples one after the other."""
    values, failures = np.concatenate([p.values for p in parts], axis=1).T, np.concatenate([p.failures for p in parts])
    start = [p.start for p in parts if p.start is not None]
    return BootstrapDistribution(values, failures, np.concatenate(start, axis=1).T if start else None)


def _refit_block(refitter: Refitter, draw: Callable[[int, int], Array], n_boot: int, width: int, number: int) -> Refits:
    """Refit block `number`; the last may be narrower. At the top of the module, so that processes can import it."""
    first = number * width
    return refitter.refit(draw(number, min(width, n_boot - first)), first)


def _drawn_together(draw: Callable[[int, int], Array], blocks: int, number: int, width: int) -> Array:
    """Draw several blocks of resamples as one, shape (n, width)."""
    starts = range(0, width, WIDTH)
    drawn = [draw(number * blocks + start // WIDTH, min(WIDTH, width - start)) for start in starts]
    return drawn[0] if len(drawn) == 1 else np.hstack(drawn)


def refitter_of(
    record: FitRecord, groups: Array | None = None, replicates: ResampleReplicates | None = None
) -> Refitter:
    """Return the batched refit of a fitted record.

    Parameters
    ----------
    record : FitRecord
        The fit.
    groups : ndarray, shape (n, G), optional
        For a joint fit or a stack indicators of groups, rows in the order of the sample, whose effects are wanted
        instead.
    replicates : ResampleReplicates, optional
        For a joint fit the replicates of each resample; by default as its options say.

    Returns
    -------
    Refitter
        For the estimator of the fit.
    """
    sample, joint, stack = record.sample, record.joint, record.stack
    if stack is not None:
        refitters = [refitter_of(of, groups) for of in stack.records]
        scale, n_arms = record.options.effect_scale, record.design.n_arms
        kind = StackRefitter if groups is None else StackedGroupsRefitter
        return kind(refitters, stack.weights, record.used_weight_fit, scale, n_arms)
    if isinstance(record.estimate.rows, QuantileRows):
        return QuantileRefitter(sample, record.spec, record.weight_fit, record.target, record.estimate.rows)
    separate = SeparateRefitter(
        sample=sample,
        spec=record.spec if joint is None else IPWRA,
        weight_fit=record.weight_fit,
        estimate=record.estimate if joint is None else joint.start,
        target=record.target,
        effect_scale=record.options.effect_scale,
    )
    if joint is None:
        return separate if groups is None else GroupRefitter(separate, groups)
    return JointRefitter(
        sample=sample,
        weight_fit=joint.problem.weight_fit,
        theta=joint.start.theta if sample.family.linear else record.estimate.theta,
        criterion=joint.criterion,
        replicates=resample_replicates(joint, record.resampler()) if replicates is None else replicates,
        start=separate,
        groups=groups,
    )


def resample_replicates(joint: JointRecord, resampler: SampleResampler) -> ResampleReplicates:
    """Choose the replicates of each resample: nested, shifted and separable, or shifted under any model."""
    slices, weight_fit, replicates = joint.problem.sample.slices, joint.problem.weight_fit, joint.replicates
    if joint.options.bootstrap_replicates == "nested":
        count = len(replicates.failures)
        draw = functools.partial(resampler.perturb_within, width=count, spread=joint.options.replicate_spread)
        return NestedReplicates(slices, weight_fit, count, draw)
    if weight_fit.model.separable:
        return ShiftedLogitReplicates(slices, weight_fit, replicates, joint.criterion.penalty)
    return ShiftedReplicates(slices, weight_fit, replicates)


def drawn_or_weighed(
    record: FitRecord,
    inference: InferenceOptions,
    notes: Notes,
    run: Callable[[FitRecord], BootstrapDistribution],
) -> tuple[FitRecord, BootstrapDistribution]:
    """Bootstrap a fit as its record says, and warn of failures.

    For JRE, unless a bootstrap was named: where too many draws of units fail, the units are weighted in their place.

    Parameters
    ----------
    record : FitRecord
        The fit.
    inference : InferenceOptions
        Options of the standard errors.
    notes : Notes
        Warnings so far; more are added.
    run : callable
        Bootstraps a record.

    Returns
    -------
    record : FitRecord
        With the kind of bootstrap that was used.
    boot : BootstrapDistribution
        The resamples.
    """
    boot = run(record)
    if boot.failed_share > inference.max_failed and weighs_instead([record], inference):
        notes.warn(weighed_message(record, boot.failures, inference.max_failed), ResampleWarning)
        record = dataclasses.replace(record, bootstrap="bayesian")
        boot = run(record)
    note_failures(boot, notes)
    return record, boot


def weighs_instead(records: Sequence[FitRecord], inference: InferenceOptions) -> bool:
    """Return True if fractional weights may stand in for failed resamples: JRE, and no bootstrap was named."""
    asked = inference.bootstrap is not None or inference.resamples is not None
    return not asked and records[0].draws_units and any(record.joint is not None for record in records)


def weighed_message(record: FitRecord, failures: NDArray[np.int8], max_failed: float) -> str:
    """Sentence of the warning that fractional weights stand in for draws of rows or clusters."""
    failed, units = int((failures != Failure.OK).sum()), "rows" if record.design.cluster_name is None else "clusters"
    return (
        f"{failed} of {len(failures)} resamples of {units} failed, more than max_failed={max_failed:g} allows: "
        f"{failure_text(failures)}. Standard errors are of fractional random weights of the {units} in their place, "
        "none of which is zero; where an arm is small for its covariates they are too small.\n"
        'Type  bootstrap="bayesian"  to ask for these, or simplify propensity=.'
    )


def bootstrap_of(record: FitRecord, inference: InferenceOptions) -> BootstrapDistribution:
    """Run the bootstrap of a fit, in memory or in passes over its scan."""
    if record.bootstrap in MULTIPLIERS:
        return multiplier_bootstrap(record, inference.draws)
    inference = inference_of(record, inference)
    if record.passes is None:
        return bootstrap(refitter_of(record), record.resampler(), record.sample, inference)
    return distribution_of([record.passes.refits(record.bootstrap, record.seed, inference.draws)])


def inference_of(record: FitRecord, inference: InferenceOptions) -> InferenceOptions:
    """Return the options with as many resamples as a survey design has replicate weights, where it has some."""
    replication = record.design.replication
    return inference if replication is None else dataclasses.replace(inference, n_boot=len(replication.scales))


def bootstrap(
    refitter: Refitter, resampler: SampleResampler, sample: Sample, inference: InferenceOptions
) -> BootstrapDistribution:
    """Run the bootstrap in memory."""
    n_boot, draw = inference.draws, functools.partial(resampler.draw, RESAMPLE_STREAM)
    if inference.resamples is not None:
        given = resampler.given("resamples", inference.resamples)
        n_boot, draw = given.shape[1], functools.partial(given_block, given)
    return redone(refitter, draw, n_boot, sample, inference)


def redone(
    refitter: Refitter, draw: Callable[[int, int], Array], n_boot: int, sample: Sample, inference: InferenceOptions
) -> BootstrapDistribution:
    """Refit in memory under multiplicities that `draw` returns for a block, as `run_bootstrap`."""
    needed, free = 8.0 * sample.n * WIDTH * refitter.arrays, free_memory()
    if needed > free / 2:
        warn_user(
            f"{WIDTH} resamples of {sample.n} rows are worked on at a time and take about {needed / 1e9:.2g} GB, more "
            f"than half of the {free / 1e9:.2g} GB that are free.\nRobust standard errors (cov_type) need a hundredth "
            "of that, and a scan of the rows is worked on block by block.",
            ResampleWarning,
        )
    workers = worker_count(inference.n_jobs, inference.memory, needed)
    blocks = max(min(refitter.rows_together // sample.n, n_boot // (WIDTH * LEAST_TASKS)), 1)
    return run_bootstrap(
        refitter,
        draw=functools.partial(_drawn_together, draw, blocks),
        n_boot=n_boot,
        width=WIDTH * blocks,
        workers=workers,
        progress=inference.progress,
    )


def note_failures(boot: BootstrapDistribution, notes: Notes) -> None:
    """Warn of resamples that failed, where others did not."""
    failed, n_boot = int((boot.failures != Failure.OK).sum()), len(boot.failures)
    if failed and failed < n_boot:
        notes.warn(
            f"{failed} of {n_boot} resamples were left out of the standard errors: {failure_text(boot.failures)}.\n"
            "See res.boot_ledger; a simpler formula would avoid it.",
            ResampleWarning,
        )


def column_sd(columns: Array) -> Array:
    """Return the standard deviation of each column over its values that are not NaN; NaN of fewer than two."""
    kept = [column[~np.isnan(column)] for column in columns.T]
    return np.array([values.std(ddof=1) if len(values) > 1 else np.nan for values in kept])


def resample_errors(record: FitRecord, values: Array, estimates: Array) -> Array:
    """Return the standard errors of d quantities of a fit.

    Parameters
    ----------
    record : FitRecord
        The fit.
    values : ndarray, shape (m, d)
        The quantities over the resamples; NaN where one failed.
    estimates : ndarray, shape (d,)
        The quantities of the fit.

    Returns
    -------
    ndarray, shape (d,)
        NaN for fewer than two resamples.
    """
    replication = record.design.replication
    if replication is not None:
        return np.sqrt(record.choice_variance) * replication.errors(values, estimates)
    if record.joint is None:
        return column_sd(values)
    squares = (values - estimates) ** 2
    count = (~np.isnan(squares)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(record.choice_variance * np.where(count > 1, np.nansum(squares, axis=0) / count, np.nan))


def resample_covariance(record: FitRecord, values: Array, estimates: Array) -> Array:
    """Return the covariance of d quantities of a fit, shape (d, d); as in `resample_errors`, no value is NaN."""
    if len(values) < 2:
        return np.full((values.shape[1],) * 2, np.nan)
    replication = record.design.replication
    if replication is not None:
        return record.choice_variance * replication.covariance(values, estimates)
    if record.joint is None:
        return np.atleast_2d(np.cov(values, rowvar=False))
    deviations = values - estimates
    return np.asarray(record.choice_variance * (deviations.T @ deviations) / len(values))

"""The jackknife: every step of a fit redone without each unit in turn.

Flows in: a fitted record. Flows out: its estimates without each unit, their covariance, and their deviations, from
which "bca" intervals have their acceleration.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from causalrisk.errors import BootstrapError, Notes, ResampleWarning
from causalrisk.estimators.estimates import Refitter
from causalrisk.estimators.options import InferenceOptions
from causalrisk.estimators.record import BootstrapDistribution, FitRecord
from causalrisk.estimators.resampling import SampleResampler, sample_resampler, unit_count
from causalrisk.estimators.robust import equal_units, in_frame
from causalrisk.inference.bootstrap import distribution_of, redone, refitter_of
from causalrisk.numerics.failures import Failure, failure_text
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import JACKKNIFE, RESAMPLE_STREAM


def leave_one_out(
    record: FitRecord,
    inference: InferenceOptions,
    refitter: Refitter | None = None,
    *,
    whole: bool = False,
    groups: Array | None = None,
) -> BootstrapDistribution:
    """Return the estimates without each unit.

    Parameters
    ----------
    record : FitRecord
        The fit; of a scan one that still has its passes.
    inference : InferenceOptions
        Workers, memory, progress.
    refitter : Refitter, optional
        Refits under multiplicities, in memory; by default the bootstrap's, whose replicates of a joint fit move with
        the propensity score: nested ones would be drawn anew for each unit.
    whole : bool, default False
        Whether a row is left out with all its frequency weight, in place of one of the equal units it stands for.
    groups : ndarray, shape (n, G), optional
        As in `refitter_of`.

    Returns
    -------
    BootstrapDistribution
        A row a unit: clusters or rows of the design, then rows of the target frame.
    """
    total = unit_count(record.design) + in_frame(record)
    if record.passes is not None:
        return distribution_of([record.passes.refits(JACKKNIFE, record.seed, total)])
    resampler = left_out_resampler(record)
    if whole:
        resampler = dataclasses.replace(resampler, resampler=dataclasses.replace(resampler.resampler, one_by_one=False))
    refitter = refitter or refitter_of(_with_shifted_replicates(record), groups)
    return redone(refitter, functools.partial(resampler.draw, RESAMPLE_STREAM), total, record.sample, inference)


def left_out_resampler(record: FitRecord) -> SampleResampler:
    """Return what leaves out one unit in each column."""
    return sample_resampler(record.design, record.sample, JACKKNIFE, record.seed)


def _with_shifted_replicates(record: FitRecord) -> FitRecord:
    joint, stack = record.joint, record.stack
    if joint is not None:
        joint = dataclasses.replace(joint, options=dataclasses.replace(joint.options, bootstrap_replicates="shifted"))
    if stack is not None:
        records = tuple(map(_with_shifted_replicates, stack.records))
        stack = dataclasses.replace(stack, records=records)
    return dataclasses.replace(record, joint=joint, stack=stack)


def jackknife_of(record: FitRecord, left_out: Array) -> Array:
    """Return the jackknife covariance of estimates.

    Parameters
    ----------
    record : FitRecord
        The fit.
    left_out : ndarray, shape (units, d)
        Estimates without each unit, in the order of `leave_one_out`; NaN where one cannot be left out.

    Returns
    -------
    ndarray, shape (d, d)
        (G - 1) / G sum_k (T_k - mean T)(T_k - mean T)', T_k the estimates without unit k of G; those of a target frame,
        a sample of its own, are added. Of a joint fit it allows for the choice of the anchor, which is kept.
    """
    times, cut = equal_units(record) * np.isfinite(left_out).all(axis=1), unit_count(record.design)
    samples = [(left_out[part], times[part]) for part in (slice(0, cut), slice(cut, None))]
    return np.asarray(record.choice_variance * sum(_covariance(*of) for of in samples if len(of[0])))


def _covariance(left_out: Array, times: Array) -> Array:
    """Jackknife covariance from the estimates without each unit, (units, d), each of which stands for so many."""
    used = times > 0
    values, times = left_out[used], times[used]
    total = times.sum()
    away = values - times @ values / total
    return np.asarray((total - 1) / total * (away.T * times) @ away)


def jackknife_covariance(record: FitRecord, inference: InferenceOptions, notes: Notes) -> Array:
    """Return the jackknife covariance of all estimates of a fit.

    Parameters
    ----------
    record : FitRecord
        The fit.
    inference : InferenceOptions
        Share of the units that may fail; workers, memory, progress.
    notes : Notes
        Warnings so far; more are added.

    Returns
    -------
    ndarray, shape (d, d)
        Covariance of `estimate.values`.

    Raises
    ------
    BootstrapError
        If more than `max_failed` of the units cannot be left out.
    """
    left_out = leave_one_out(record, inference)
    failed, total = int((left_out.failures != Failure.OK).sum()), len(left_out.failures)
    if not failed:
        return jackknife_of(record, left_out.values)
    what = "rows" if record.design.cluster_name is None else "clusters"
    found = f"{failed} of {total} {what} cannot be left out: {failure_text(left_out.failures)}"
    instead = f'fit(cov_type="{record.robust_type}")'
    if left_out.failed_share > inference.max_failed:
        raise BootstrapError(
            f"{found}; max_failed={inference.max_failed:g} allows fewer. The point estimate with robust standard "
            f"errors is in err.results.\nSimplify the formulas, or type  {instead}."
        )
    notes.warn(
        f"{found}. The jackknife is of the others, and its standard errors know nothing of what depends on these.\n"
        f"Simplify the formulas, or type  {instead}.",
        ResampleWarning,
    )
    return jackknife_of(record, left_out.values)


def jackknife_contributions(record: FitRecord, count: int) -> Array:
    """Jackknife deviations times (units - 1), as `unit_influence`; zero for units that cannot be left out."""
    found = leave_one_out(record, InferenceOptions())
    left_out, worked = found.values[:, :count], found.failures == Failure.OK
    times = equal_units(record) * worked
    mean = times[worked] @ left_out[worked] / times.sum()
    return np.where(worked[:, None], (times.sum() - 1) * (mean - left_out), 0.0)

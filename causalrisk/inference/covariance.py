"""Standard errors of a fit: the sandwich of stacked estimating equations, the bootstrap, or the jackknife.

The bootstrap and the jackknife repeat the fit under other row weights, many refits at a time. The jackknife leaves out
each unit, a row or a cluster, in turn. The multiplier bootstrap does not refit. Its draws are theta + sum_g w_g psi_g /
N, with psi_g the influence function of unit g, w_g multipliers with mean 0 and variance 1, and N the total weight.

Bootstrap standard errors of JRE are root mean squared deviations from the estimate, not from the mean of the resamples.
JRE trades bias for variance, so bias in the resamples is part of its error. Resamples keep the shrinkage of the fit, so
variances are multiplied by a factor that accounts for its choice.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any, TypeVar

import numpy as np

from causalrisk import errors
from causalrisk.design.on_disk import stored_array
from causalrisk.errors import DesignWarning, Failure, Notes, ResampleWarning, failure_text
from causalrisk.estimation.fits import Refits, WeightFit
from causalrisk.estimation.options import N_BOOT, InferenceOptions
from causalrisk.estimation.record import FitRecord, equal_units, reported_covariance, unit_influence
from causalrisk.estimation.sample import given_block, sample_resampler, unit_count
from causalrisk.estimation.specification import IPWRA
from causalrisk.numerics.arrays import Array, is_dask
from causalrisk.numerics.resampling import JACKKNIFE, MULTIPLIERS, RESAMPLE_STREAM, WIDTH, multipliers, numbered_blocks
from causalrisk.runtime import ordered_map, progress_bar, worker_count

NUMBERS, FEWEST = 2**22, 4  # per refit: maximum of rows times resamples, and minimum number of resamples
IN_CACHE, MOST = 2**20, 8  # blocks refitted together: maximum of rows times resamples, and of blocks
T = TypeVar("T")


# --- resamples -------------------------------------------------------------------------------------------------------


def refit_together(refitters: Sequence[Any], weight_fits: Sequence[WeightFit | None], s: Array) -> list[Refits]:
    """Refit several estimators under row weights `s` (n, R). The propensity scores are refitted only once."""
    scored = next((fit for fit in weight_fits if fit is not None), None)
    weighed = None if scored is None else scored.refit(s)
    pairs = zip(refitters, weight_fits, strict=True)
    return [refitter.refit(s, None if fit is None else weighed) for refitter, fit in pairs]


def resampled(records: tuple[FitRecord, ...], inference: InferenceOptions) -> list[Refits]:
    """Return the bootstrap distributions of several fits to one sample, all from the same resamples or multipliers."""
    first, n_boot = records[0], inference.n_boot or N_BOOT
    if first.bootstrap in MULTIPLIERS:
        return [multiplier_bootstrap(record, n_boot) for record in records]
    resampler, replication = first.resampler(), first.design.replication
    draw = functools.partial(resampler.draw, RESAMPLE_STREAM)
    if replication is not None:
        n_boot = len(replication.scales)
    if inference.resamples is not None:
        given = resampler.given("resamples", inference.resamples)
        n_boot, draw = given.shape[1], functools.partial(given_block, given)
    return refit_under(records, draw, n_boot, inference)


def bootstrap_with_fallback(
    records: tuple[FitRecord, ...], inference: InferenceOptions, notes: Notes
) -> tuple[tuple[FitRecord, ...], list[Refits]]:
    """Bootstrap several fits to one sample. Return the fits, with the kind of bootstrap used, and the refits.

    If JRE is among the fits and the caller chose no bootstrap, there are two fallbacks. If too many resamples fail, the
    Bayesian bootstrap is used. If too many of its resamples fail too, the multiplier bootstrap is used. It cannot fail,
    but needs the rows in memory.
    """
    found, asked = resampled(records, inference), inference.bootstrap is not None or inference.resamples is not None
    if asked or not records[0].draws_units or not any(record.joint is not None for record in records):
        return records, found
    units, told = "rows" if records[0].design.cluster_name is None else "clusters", ""
    for kind, typed, words in (  # `FitRecord.bootstrap`, option as typed, description
        ("bayesian", "bayesian", f"fractional random weights of the {units}"),
        ("rademacher", "multiplier", f"random multipliers of the influence functions of the {units}"),
    ):
        failures = max(found, key=lambda boot: boot.failed_share).failures
        failed, drawn = int((failures != Failure.OK).sum()), len(failures)
        if failed <= inference.max_failed * drawn or (kind in MULTIPLIERS and records[0].design.on_disk):
            break
        lost = f"{failed} of {drawn} resamples of {units} failed, more than max_failed={inference.max_failed:g} allows"
        instead = f'{words} instead (`bootstrap="{typed}", small_sample=True`)'
        used = f"Standard errors are from {instead}. They are imprecise if a group has few rows per covariate"
        told = f"{lost}: {failure_text(failures)}. {used}.\nUse simpler formulas."
        records = tuple(dataclasses.replace(record, bootstrap=kind, small_sample=True) for record in records)
        found = resampled(records, inference)
    if told:
        notes.warn(told, ResampleWarning)
    return records, found


def refit_under(
    records: Sequence[FitRecord], draw: Callable[[int, int], Array], n_boot: int, inference: InferenceOptions
) -> list[Refits]:
    """Refit under the row weights (n, width) that `draw(number, width)` returns for each block of resamples.

    The blocks, and therefore the results, do not depend on the number of workers.
    """
    refitters, weight_fits = zip(*((record.estimate.rows, record.weight_fit) for record in records), strict=True)
    block = functools.partial(_refit_block, functools.partial(refit_together, refitters, weight_fits), draw)
    try:
        numbers = records[0].sample.n * WIDTH  # of a block
        together = min(max(IN_CACHE // numbers, 1), MOST)
        needed = 8.0 * numbers * together
        blocks = list(in_blocks(block, n_boot, needed, inference, "bootstrap", "resample", together=together))
    except BrokenExecutor as error:
        why = "a worker process died, so its resamples are lost"
        raise errors.BootstrapError(f"{why}.\nUse `n_jobs=1`.") from error
    return [Refits.joined(parts) for parts in zip(*itertools.chain(*blocks), strict=True)]


def in_blocks(
    function: Callable[[tuple[int, int]], T], count: int, needed: float, inference: InferenceOptions, *words: str,
    together: int = 1,
) -> Iterator[T]:  # fmt: skip
    """Yield the result of `function` for each of `numbered_blocks(count, together)`, in order.

    `function` is called with the number and the width of the block. `needed` is the memory of a block in bytes. `words`
    are the label and the unit of `progress_bar`.
    """
    blocks = numbered_blocks(count, together)
    with (
        ordered_map(function, blocks, worker_count(inference.n_jobs, needed)) as results,
        progress_bar(count, inference.progress, *words) as advance,
    ):
        for (_, width), part in zip(blocks, results, strict=True):
            advance(width)
            yield part


def _refit_block(
    refit: Callable[[Array], list[Refits]], draw: Callable[[int, int], Array], block: tuple[int, int]
) -> list[list[Refits]]:
    """Refit a block, given its number and width. The function is at module level, so it can be pickled."""
    drawn = np.hstack([draw(block[0] + k, width) for k, width in numbered_blocks(block[1])])
    if is_dask(drawn):
        return [refit(stored_array(drawn))]
    few = max(NUMBERS // len(drawn), FEWEST)
    return [refit(drawn[:, k : k + few]) for k in range(0, drawn.shape[1], few)]


# --- standard errors from resamples -----------------------------------------------------------------------------------


def covariance_over(values: Array, centre: Array | None = None) -> Array:
    """Return the covariance (d, d) of values (m, d) over m resamples. `centre`, if given, replaces the mean.

    NaN values are ignored. The result is NaN for fewer than two values.
    """
    known = ~np.isnan(values)
    count = known.T.astype(float) @ known
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0) if centre is None else centre
        deviations = np.where(known, values - middle, 0.0)
        return np.where(count > 1, deviations.T @ deviations / (count - (centre is None)), np.nan)


def resample_covariance(record: FitRecord, values: Array, estimates: Array) -> Array:
    """Return the covariance (d, d) of quantities from their `values` (m, d) in m refits and `estimates` (d,)."""
    if record.one_cluster:
        return np.full((values.shape[1], values.shape[1]), np.nan)
    if record.cov_type == JACKKNIFE:
        return jackknife_of(record, values)
    if record.design.replication is not None:
        return record.choice_variance * record.design.replication.covariance(values, estimates)
    factor = record.choice_variance * record.small_sample_factor
    return factor * covariance_over(values, None if record.joint is None else estimates)


# --- the multiplier bootstrap ----------------------------------------------------------------------------------------


def multiplier_bootstrap(record: FitRecord, n_boot: int) -> Refits:
    """Draw estimates by the multiplier bootstrap. Ratios are drawn on the log scale.

    For JRE, the initial IPWRA fit is also drawn, under the same multipliers. See Kline, P. and Santos, A. (2012). A
    score based approach to wild bootstrap inference. Journal of Econometric Methods 1, 23-41.
    """
    values, se = _multiplied(record, n_boot)
    start = None
    if record.joint is not None:
        of_start = dataclasses.replace(record, estimate=record.joint.start)
        start = _multiplied(of_start, n_boot)[0][:, : len(record.names)]
    return Refits(values, np.full(n_boot, Failure.OK, dtype=np.int8), start, se)


def _multiplied(record: FitRecord, n_boot: int) -> tuple[Array, Array]:
    """Return draws of all estimates (n_boot, d), and of standard errors (n_boot, 2 K - 1) of effects and means."""
    total, count, times = record.sample.total, len(record.names), equal_units(record)
    own = unit_influence(record, len(record.estimate.values))
    sizes = times if (times != 1).any() else None
    moved, squares = [], []
    for number, width in numbered_blocks(n_boot):
        w, w2 = multipliers(record.bootstrap, record.seed, number, width, len(own), sizes)
        moved.append(w.T @ own)
        squares.append(w2.T @ own[:, :count] ** 2)
    deviations, variances = np.concatenate(moved) / total, np.concatenate(squares) / total**2
    # Subtract the squared mean: influence functions have mean zero in the sample, but not under multipliers.
    se = np.sqrt(np.maximum(variances - deviations[:, :count] ** 2 / times.sum(), 0.0))
    values = record.estimate.values + deviations
    scale, effects = record.options.effect_scale, slice(0, len(record.effect_names))
    center = scale.contrast(record.estimate.params[effects])
    on_scale = center + deviations[:, effects] / scale.report_slope(center)
    values[:, effects] = scale.report(on_scale)
    se[:, effects] *= scale.report_slope(on_scale) / scale.report_slope(center)
    return values, se


# --- the jackknife ---------------------------------------------------------------------------------------------------


def leave_one_out(record: FitRecord, inference: InferenceOptions, *, whole: bool = False) -> Refits:
    """Return the estimates without each unit in turn: each row or cluster, then each row of a target frame.

    With `whole`, all observations of a row with a frequency weight are left out together, instead of one of them.
    """
    total = unit_count(record.design) + record.sample.n_frame
    resampler = sample_resampler(record.design, record.sample, JACKKNIFE, record.seed)
    if whole:
        resampler = dataclasses.replace(resampler, resampler=dataclasses.replace(resampler.resampler, sizes=None))
    draw = functools.partial(resampler.draw, RESAMPLE_STREAM)
    return refit_under((record,), draw, total, inference)[0]


def jackknife_of(record: FitRecord, left_out: Array) -> Array:
    """Return the jackknife covariance (d, d) from the estimates without each unit, shape (units, d).

    It is (G - 1) / G sum_k (T_k - mean T)(T_k - mean T)' over the defined T_k (NaN if there are none). A target frame
    is a separate sample with its own G. Its covariance is added.
    """
    known, cut = np.isfinite(left_out), unit_count(record.design)  # a group may have no effect without some unit
    left_out, times = np.where(known, left_out, 0.0), equal_units(record)[:, None] * known
    samples = (slice(None, cut), slice(cut, None)) if record.sample.n_frame else (slice(None),)
    with np.errstate(all="ignore"):  # groups without effects have NaN
        deviations = np.concatenate([jackknife_deviations(left_out[rows], times[rows]) for rows in samples])
    return np.asarray(record.choice_variance * deviations.T @ deviations)


def jackknife_deviations(left_out: Array, times: Array) -> Array:
    """Return D (units, d), where D'D is the jackknife covariance. Each unit counts as often as `times` says.

    `times` has shape (units,), or (units, d) with zeros for missing estimates.
    """
    times = times.reshape(len(times), -1)
    total = times.sum(axis=0)
    return np.asarray(np.sqrt((total - 1) / total * times) * (left_out - (times * left_out).sum(axis=0) / total))


def _check_left_out(record: FitRecord, left_out: Refits, max_failed: float, notes: Notes) -> None:
    """Warn about units that cannot be left out. Raise a BootstrapError if the share of them exceeds `max_failed`."""
    failed, total = int((left_out.failures != Failure.OK).sum()), len(left_out.failures)
    if not failed:
        return
    design, what = record.design, "rows" if record.design.cluster_name is None else "clusters"
    found = f"the jackknife cannot leave out {failed} of {total} {what}: {failure_text(left_out.failures)}"
    instead = f'Simplify the formulas, or use `fit(cov_type="{record.robust_type}")`.'
    if left_out.failed_share > max_failed:
        if design.cluster_name in (*design.outcome_encoder.variables, *design.propensity_encoder.variables):
            found = f"the jackknife cannot leave out clusters, because {design.cluster_name} is in a formula"
            instead = "Use `fit(use_t=True, small_sample=True)`."
        raise errors.BootstrapError(f"{found}.\n{instead}")
    used = "The jackknife leaves out only the others, so standard errors may be too small"
    notes.warn(f"{found}. {used}.\n{instead}", ResampleWarning)


# --- records with standard errors ------------------------------------------------------------------------------------

# robust errors trigger a warning if a group with k outcome coefficients has fewer than 4 k or k + 10 observations
PER_COEFFICIENT, BEYOND = 4, 10


def with_covariance(record: FitRecord, inference: InferenceOptions) -> FitRecord:
    """Add standard errors to a fit by the method of its `cov_type`, and warn if they are unreliable."""
    notes = Notes(record.notes)
    if record.one_cluster:  # no resampling gives a variance
        kind = JACKKNIFE if record.cov_type == JACKKNIFE else record.robust_type
        return dataclasses.replace(robust_record(record), cov_type=kind, notes=tuple(notes))
    if record.cov_type in ("robust", "HC1", "cluster", "survey"):
        covariance = reported_covariance(record, notes, whole=False)
        _check_coefficients(record, notes)
        return dataclasses.replace(record, covariance=covariance, notes=tuple(notes))
    if record.cov_type not in ("bootstrap", "replicates", JACKKNIFE):
        known = 'Use `cov_type="robust"`.'
        raise errors.OptionError(f'standard errors are not available for cov_type="{record.cov_type}".\n{known}')
    if record.cov_type == JACKKNIFE:
        left_out = leave_one_out(record, inference)
        _check_left_out(record, left_out, inference.max_failed, notes)
        scale, effects = record.options.effect_scale, slice(0, len(record.effect_names))
        center, values = scale.contrast(record.estimate.params[effects]), left_out.values.copy()
        values[:, effects] = scale.report_slope(center) * scale.contrast(values[:, effects])
        return dataclasses.replace(record, covariance=jackknife_of(record, values), notes=tuple(notes))
    (record,), (boot,) = bootstrap_with_fallback((record,), inference, notes)
    failed = np.flatnonzero(boot.failures != Failure.OK)
    if failed.size and record.cov_type == "replicates":  # the variance needs every replicate
        why = f"replicate weight {failed[0] + 1} of the survey gives no estimate: {failure_text(boot.failures)}"
        raise errors.BootstrapError(f"{why}.\nSimplify the formulas. `err.results` has the point estimate.")
    if boot.failed_share > inference.max_failed:
        share, drawn, weights = boot.failed_share, len(boot.failures), ""
        more = f"max_failed={share + 0.01:.2f}" if share < 0.9 else f'cov_type="{record.robust_type}"'
        if record.draws_units and not record.given_resamples:
            weights = 'Use `fit(bootstrap="bayesian")` for weights that are never zero. '
        problem = f"{len(failed)} of {drawn} resamples failed, more than max_failed={inference.max_failed:g} allows"
        robust = "`err.results` has the point estimate with robust standard errors."
        advice = f"{weights}Simplify the formulas, or use `fit({more})`. {robust}"
        raise errors.BootstrapError(f"{problem}: {failure_text(boot.failures)}.\n{advice}")
    return with_bootstrap(record, boot, notes)


def _check_coefficients(record: FitRecord, notes: Notes) -> None:
    """Warn if robust standard errors can be too small: a group has few observations per outcome coefficient.

    With k coefficients and n observations, squared residuals are on average 1 - k / n times the squared errors. The
    factor of `small_sample` makes up for that if all groups are of similar size.
    """
    design, spec = record.design, record.spec
    if spec.given or spec.matched or design.survey is not None:
        return
    of_arms = np.full(design.n_arms, record.n_coefficients // design.n_arms)
    if spec.controls_only:
        of_arms[1] = 1  # only the mean of the treated is fitted
    counts = np.array([arm.n for arm in record.overlap])
    fewest = int(np.argmin(counts / of_arms))
    n, k = int(counts[fewest]), int(of_arms[fewest])
    if n >= max(PER_COEFFICIENT * k, BEYOND + k) or record.small_sample_factor * (n - k) > 0.9 * n:
        return
    jackknife = not design.on_disk and design.second_cluster is None
    ways = ['`fit(cov_type="jackknife", use_t=True)`'] * jackknife + ["fewer outcome terms"] * (k > 1)
    found = f"group {design.labels[fewest]!r} has {n} observations" + f" and {k} outcome coefficients" * (k > 1)
    advice = f"Use {' or '.join(ways) or 'more data'}."
    notes.warn(f"{found}. Robust standard errors can be far too small.\n{advice}", DesignWarning)


def with_bootstrap(record: FitRecord, boot: Refits, notes: Notes) -> FitRecord:
    """Add the standard errors of a bootstrap distribution to a fit, and warn about failed resamples."""
    failed, n_boot = int((boot.failures != Failure.OK).sum()), len(boot.failures)
    if failed and failed < n_boot:
        left = f"the standard errors leave out {failed} of {n_boot} resamples: {failure_text(boot.failures)}"
        notes.warn(f"{left}.\nSee `res.boot_ledger`. Use a simpler formula.", ResampleWarning)
    covariance = resample_covariance(record, boot.used, record.estimate.values)
    if record.constant_means:  # any variance is rounding error
        covariance[: len(record.names)] = covariance[:, : len(record.names)] = 0.0
    return dataclasses.replace(record, boot=boot, covariance=covariance, notes=tuple(notes))


def asks_for_factor(record: FitRecord) -> bool:
    """Return whether the caller asked for the small-sample factor, which `bootstrap_with_fallback` may add for JRE."""
    return record.inference.small_sample or record.cov_type == "HC1"


def robust_record(record: FitRecord) -> FitRecord:
    """Return the fit with robust instead of bootstrap standard errors."""
    kind, factor = record.robust_type, asks_for_factor(record)
    plain = dataclasses.replace(record, cov_type=kind, boot=None, given_resamples=False, small_sample=factor)
    return dataclasses.replace(plain, covariance=reported_covariance(plain, whole=False))


def start_record(record: FitRecord) -> FitRecord:
    """Return the IPWRA fit that a JRE fit started from, with robust standard errors."""
    joint: Any = record.joint
    learned, factor = record.learned if record.stack is None else None, asks_for_factor(record)
    robust = None if factor else joint.fit.problem.covariance  # computed without the factor
    start = dataclasses.replace(record, spec=IPWRA, estimate=joint.start, robust=robust)
    return robust_record(dataclasses.replace(start, joint=None, stack=None, learned=learned, notes=record.design.notes))

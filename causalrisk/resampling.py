"""The random part of a fit: propensity replicates, and the bootstrap that redoes every step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design
from causalrisk.errors import BootstrapError, CausalRiskWarning, ResampleWarning, warn_user
from causalrisk.estimators import Estimate
from causalrisk.inference.bootstrap import BootstrapDistribution, run_bootstrap
from causalrisk.inference.parallel import worker_count
from causalrisk.inference.resample import REPLICATE_STREAM, RESAMPLE_STREAM, WIDTH, Resampler, given_multiplicities
from causalrisk.joint import deviation_from
from causalrisk.ledger import Reason, failure_text
from causalrisk.linalg import Array
from causalrisk.options import InferenceOptions, JREOptions
from causalrisk.refit import (
    GeneralReplicates,
    PropensityRefitter,
    Refitter,
    SeparableReplicates,
    draw_replicates,
    nested_replicates,
    shifted_replicates,
)
from causalrisk.replicates import Replicates
from causalrisk.sample import Sample


class Notes(list[str]):
    """Texts of the warnings of a fit, for the summary."""

    def warn(self, message: str, category: type[CausalRiskWarning]) -> None:
        """Give a warning and keep its text."""
        self.append(message)
        warn_user(message, category)


@dataclass(frozen=True)
class Resampling:
    """The random part of a fit.

    Parameters
    ----------
    resampler : Resampler
        Draws multiplicities, rows in the order of the design.
    order : ndarray of int, shape (n,)
        Position in the design of each row of the sample.
    """

    resampler: Resampler
    order: NDArray[np.intp]

    def draw(self, stream: int, block: int, width: int) -> Array:
        """Multiplicities of a block, rows in the order of the sample."""
        return self.resampler.draw(stream, block, width)[self.order]

    def draw_within(self, weights: Array, number: int, width: int) -> Array:
        """Multiplicities of resamples of a resample, rows in the order of the sample."""
        restored = np.empty_like(weights)
        restored[self.order] = weights
        return self.resampler.draw_within(restored, number, width)[self.order]


def make_resampling(design: Design, sample: Sample, kind: str, seed: np.random.SeedSequence) -> Resampling:
    """Make the resampling of a design: clusters for "cluster", arms for "stratified"."""
    groups = {"cluster": design.cluster, "stratified": design.arm}.get(kind)
    frequency = design.weight_type == "frequency"
    return Resampling(Resampler(kind, seed, design.weights, frequency, groups), sample.order)


def fit_replicates(
    refit: PropensityRefitter,
    resampling: Resampling,
    sample: Sample,
    options: JREOptions,
    max_failed: float,
    notes: Notes,
) -> Replicates:
    """Draw or take the multiplicities of the replicates and fit them."""
    if options.replicates is not None:
        given = given_multiplicities("replicates", options.replicates, sample.n)[sample.order]
        given = given * sample.weights[:, None] if not resampling.resampler.frequency else given
        n_drawn = given.shape[1]
        replicates = draw_replicates(refit, lambda block: _given_block(given, block, WIDTH), -(-n_drawn // WIDTH))
    else:
        n_drawn = options.n_replicates

        def weights(block: int) -> Array:
            return resampling.draw(REPLICATE_STREAM, block, min(WIDTH, n_drawn - block * WIDTH))

        replicates = draw_replicates(refit, weights, -(-n_drawn // WIDTH))
    failed = n_drawn - replicates.count
    if failed == n_drawn or failed > max_failed * n_drawn:
        raise BootstrapError(
            f"{failed} of {n_drawn} propensity replicates failed, more than max_failed={max_failed:g} allows: "
            f"{failure_text(replicates.reasons)}.\nSimplify the formula in propensity=, or fit IPWRA instead."
        )
    if failed:
        notes.warn(
            f"{failed} of {n_drawn} propensity replicates were left out: {failure_text(replicates.reasons)}.\n"
            "See res.replicate_ledger; a simpler formula in propensity= would avoid it.",
            ResampleWarning,
        )
    return replicates


def replicates_of(
    refit: PropensityRefitter,
    resampling: Resampling,
    sample: Sample,
    start: Estimate,
    replicates: Replicates,
    options: JREOptions,
) -> Callable[..., Any]:
    """Choose the replicates of each resample: nested, shifted and separable, or shifted under any link."""
    fit, deviation = refit.fit, deviation_from(sample, start)
    if options.bootstrap_replicates == "nested":
        count = len(replicates.reasons)
        gamma_of = nested_replicates(refit, functools.partial(resampling.draw_within, width=count))
        return GeneralReplicates(sample, fit, deviation.residual, gamma_of, count)
    if fit.link_name == "logit":
        rows = np.column_stack([sample.outcome.columns, deviation.residual])
        return SeparableReplicates(sample, fit, replicates, rows)
    return GeneralReplicates(sample, fit, deviation.residual, shifted_replicates(fit, replicates), replicates.count)


def bootstrap(
    refit: Refitter, resampling: Resampling, sample: Sample, inference: InferenceOptions, notes: Notes
) -> BootstrapDistribution:
    """Run the bootstrap and warn of failures."""
    n_boot, draw = inference.n_boot, functools.partial(resampling.draw, RESAMPLE_STREAM)
    if inference.resamples is not None:
        given = given_multiplicities("resamples", inference.resamples, sample.n)[sample.order]
        given = given * sample.weights[:, None] if not resampling.resampler.frequency else given
        n_boot, draw = given.shape[1], functools.partial(_given_block, given)
    columns = sample.outcome.columns.shape[1] + sample.propensity.columns.shape[1]
    workers = worker_count(inference.n_jobs, inference.memory, 8.0 * sample.n * WIDTH * (columns + 8))
    boot = run_bootstrap(refit, draw, n_boot, WIDTH, workers, inference.progress)
    failed = int((boot.reasons != Reason.OK).sum())
    if failed and failed < n_boot:
        notes.warn(
            f"{failed} of {n_boot} resamples were left out of the standard errors: {failure_text(boot.reasons)}.\n"
            "See res.boot_ledger; a simpler formula would avoid it.",
            ResampleWarning,
        )
    return boot


def _given_block(given: Array, block: int, width: int) -> Array:
    """Columns of a block of given multiplicities."""
    return given[:, block * WIDTH : block * WIDTH + width]

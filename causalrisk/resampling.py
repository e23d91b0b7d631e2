"""The random part of a fit: propensity replicates, and the bootstrap that redoes every step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from causalrisk.design import Design
from causalrisk.errors import BootstrapError, ResampleWarning
from causalrisk.inference.bootstrap import BootstrapDistribution, run_bootstrap
from causalrisk.inference.parallel import worker_count
from causalrisk.inference.resample import REPLICATE_STREAM, RESAMPLE_STREAM, WIDTH, Resampler, given_multiplicities
from causalrisk.ledger import Notes, Reason, failure_text
from causalrisk.linalg import Array
from causalrisk.options import InferenceOptions, JREOptions
from causalrisk.refit import OperatorOf, PropensityRefitter, Refitter, draw_replicates
from causalrisk.replicates import Replicates, ShiftedStates
from causalrisk.resample_weights import DenseReplicates, FittedReplicates, NestedStates, SeparableReplicates
from causalrisk.sample import Sample
from causalrisk.weighting import WeightFit

FRAME_STREAM = 16  # added to a stream for the rows of a target frame


@dataclass(frozen=True)
class Resampling:
    """The random part of a fit.

    Parameters
    ----------
    resampler : Resampler
        Draws multiplicities, rows in the order of the design.
    frame : Resampler or None
        Draws those of the rows of a target frame, which are a sample of their own.
    sample : Sample
        Whose rows are drawn.
    """

    resampler: Resampler
    frame: Resampler | None
    sample: Sample

    def draw(self, stream: int, block: int, width: int) -> Array:
        """Multiplicities of a block, rows in the order of the sample."""
        drawn = self.resampler.draw(stream, block, width)
        return self._with_frame(drawn, lambda frame: frame.draw(stream + FRAME_STREAM, block, width))

    def draw_within(self, weights: Array, number: int, width: int) -> Array:
        """Multiplicities of resamples of a resample, rows in the order of the sample."""
        drawn = self.resampler.draw_within(self.sample.restore(weights), number, width)
        of_frame = weights[: self.sample.n_frame]
        return self._with_frame(drawn, lambda frame: frame.draw_within(of_frame, number, width, FRAME_STREAM))

    def given(self, multiplicities: Array) -> Array:
        """Multiplicities that were given, (n_design, m), times observation weights; a target frame stays as it is."""
        scale = np.ones(self.sample.n) if self.resampler.frequency else self.sample.weights
        ones = np.ones((self.sample.n_frame, multiplicities.shape[1]))
        return self.sample.arrange(np.concatenate([multiplicities, ones])) * scale[:, None]

    def _with_frame(self, drawn: Array, draw: Callable[[Resampler], Array]) -> Array:
        parts = [drawn] if self.frame is None else [drawn, draw(self.frame)]
        return self.sample.arrange(np.concatenate(parts))


def make_resampling(design: Design, sample: Sample, kind: str, seed: np.random.SeedSequence) -> Resampling:
    """Make the resampling of a design: clusters for "cluster", arms for "stratified"."""
    groups = {"cluster": design.cluster, "stratified": design.arm}.get(kind)
    frequency = design.weight_type == "frequency"
    frame = None
    if sample.n_frame:
        frame = Resampler("bayesian" if kind == "bayesian" else "pairs", seed, np.ones(sample.n_frame))
    return Resampling(Resampler(kind, seed, design.weights, frequency, groups), frame, sample)


def given_replicates(resampling: Resampling, sample: Sample, options: JREOptions) -> Array | None:
    """Multiplicities that the caller gave the replicates, shape (n, B), rows in the order of the sample."""
    if options.replicates is None:
        return None
    return resampling.given(given_multiplicities("replicates", options.replicates, len(sample.order)))


def fit_replicates(
    refit: PropensityRefitter,
    resampling: Resampling,
    given: Array | None,
    n_drawn: int,
    max_failed: float,
    notes: Notes,
) -> Replicates:
    """Draw the multiplicities of the replicates, or take those that were given, and fit them."""
    if not refit.fit.weighting.model.estimated:
        return Replicates.single(refit.fit.state)
    if given is not None:
        n_drawn = given.shape[1]
        replicates = draw_replicates(refit, lambda block: _given_block(given, block, WIDTH), -(-n_drawn // WIDTH))
    else:

        def weights(block: int) -> Array:
            return _replicate_block(resampling, block, n_drawn)

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


def _replicate_block(resampling: Resampling, block: int, n_drawn: int) -> Array:
    """Multiplicities of a block of the replicates, of which there are n_drawn."""
    return resampling.draw(REPLICATE_STREAM, block, min(WIDTH, n_drawn - block * WIDTH))


def replicate_multiplicities(resampling: Resampling, n_drawn: int) -> Array:
    """Draw the multiplicities of all replicates of a fit again, shape (n, B), rows in the order of the sample."""
    return np.hstack([_replicate_block(resampling, block, n_drawn) for block in range(-(-n_drawn // WIDTH))])


def operators_of(
    weights: WeightFit, resampling: Resampling, sample: Sample, replicates: Replicates, options: JREOptions
) -> OperatorOf:
    """Choose the replicates of each resample: none, nested, shifted and separable, or shifted under any model."""
    if options.fitted:
        return FittedReplicates(sample, weights)
    if options.bootstrap_replicates == "nested":
        count = len(replicates.reasons)
        refit = PropensityRefitter(weights)
        states_of = NestedStates(refit, functools.partial(resampling.draw_within, width=count))
        return DenseReplicates(sample, weights, states_of, count)
    if weights.weighting.separable:
        return SeparableReplicates(sample, weights, replicates)
    return DenseReplicates(sample, weights, ShiftedStates(replicates.states - weights.state[:, None]), replicates.count)


def bootstrap(
    refit: Refitter, resampling: Resampling, sample: Sample, inference: InferenceOptions, notes: Notes
) -> BootstrapDistribution:
    """Run the bootstrap and warn of failures."""
    n_boot, draw = inference.n_boot, functools.partial(resampling.draw, RESAMPLE_STREAM)
    if inference.resamples is not None:
        given = resampling.given(given_multiplicities("resamples", inference.resamples, len(sample.order)))
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

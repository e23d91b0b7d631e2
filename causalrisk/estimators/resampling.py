"""The random part of a fit: propensity replicates, and the bootstrap that redoes every step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalrisk.design import Design
from causalrisk.errors import BootstrapError, Notes, ResampleWarning
from causalrisk.estimators.sample import Sample
from causalrisk.numerics.failures import failure_text
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.resample import REPLICATE_STREAM, WIDTH, Resampler, given_multiplicities
from causalrisk.propensity.replicates import Replicates, draw_replicates
from causalrisk.propensity.weights import WeightFit

FRAME_STREAM = 16  # added to a stream for the rows of a target frame


@dataclass(frozen=True)
class SampleResampler:
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

    def draw_within(self, counts: Array, number: int, width: int) -> Array:
        """Multiplicities of resamples of a resample, rows in the order of the sample."""
        drawn = self.resampler.draw_within(self.sample.restore(counts), number, width)
        of_frame = counts[: self.sample.n_frame]
        return self._with_frame(drawn, lambda frame: frame.draw_within(of_frame, number, width, FRAME_STREAM))

    def given(self, option: str, values: Any) -> Array:
        """Check multiplicities that the caller gave, (n_design, m), and arrange them as the sample.

        They are multiplied by observation weights that do not count rows; a target frame stays as it is.
        """
        multiplicities = given_multiplicities(option, values, len(self.sample.order))
        scale = np.ones(self.sample.n) if self.resampler.frequency else self.sample.s
        ones = np.ones((self.sample.n_frame, multiplicities.shape[1]))
        return self.sample.arrange(np.concatenate([multiplicities, ones])) * scale[:, None]

    def _with_frame(self, drawn: Array, draw: Callable[[Resampler], Array]) -> Array:
        parts = [drawn] if self.frame is None else [drawn, draw(self.frame)]
        return self.sample.arrange(np.concatenate(parts))


def sample_resampler(design: Design, sample: Sample, kind: str, seed: np.random.SeedSequence) -> SampleResampler:
    """Make the resampler of a design: clusters for "cluster", arms for "stratified"."""
    groups = {"cluster": design.cluster, "stratified": design.arm}.get(kind)
    frequency = design.weight_type == "frequency"
    frame = None
    if sample.n_frame:
        frame = Resampler("bayesian" if kind == "bayesian" else "pairs", seed, np.ones(sample.n_frame))
    return SampleResampler(Resampler(kind, seed, design.weights, frequency, groups), frame, sample)


def fit_replicates(
    weight_fit: WeightFit,
    resampler: SampleResampler,
    given: Array | None,
    n_drawn: int,
    max_failed: float,
    notes: Notes,
) -> Replicates:
    """Draw the multiplicities of the replicates, or take those that were given, and fit them.

    Parameters
    ----------
    weight_fit : WeightFit
        The full-sample fit.
    resampler : SampleResampler
        The random part of the fit.
    given : ndarray, shape (n, B), or None
        Multiplicities that the caller gave, rows in the order of the sample.
    n_drawn : int
        How many to draw otherwise.
    max_failed : float
        Share that may fail.
    notes : Notes
        Warnings so far; more are added.

    Returns
    -------
    Replicates
        The usable replicates.
    """
    if not weight_fit.model.propensity.estimated:
        return Replicates.single(weight_fit.gamma)
    draw: Callable[[int], Array] = functools.partial(_replicate_block, resampler, n_drawn)
    if given is not None:
        n_drawn, draw = given.shape[1], functools.partial(given_block, given, width=WIDTH)
    replicates = draw_replicates(weight_fit, draw, -(-n_drawn // WIDTH))
    failed = n_drawn - replicates.count
    if failed == n_drawn or failed > max_failed * n_drawn:
        raise BootstrapError(
            f"{failed} of {n_drawn} propensity replicates failed, more than max_failed={max_failed:g} allows: "
            f"{failure_text(replicates.failures)}.\nSimplify the formula in propensity=, or fit IPWRA instead."
        )
    if failed:
        notes.warn(
            f"{failed} of {n_drawn} propensity replicates were left out: {failure_text(replicates.failures)}.\n"
            "See res.replicate_ledger; a simpler formula in propensity= would avoid it.",
            ResampleWarning,
        )
    return replicates


def _replicate_block(resampler: SampleResampler, n_drawn: int, block: int) -> Array:
    """Multiplicities of a block of the replicates, of which there are n_drawn."""
    return resampler.draw(REPLICATE_STREAM, block, min(WIDTH, n_drawn - block * WIDTH))


def replicate_counts(resampler: SampleResampler, n_drawn: int) -> Array:
    """Draw the multiplicities of all replicates of a fit again, shape (n, B), rows in the order of the sample."""
    return np.hstack([_replicate_block(resampler, n_drawn, block) for block in range(-(-n_drawn // WIDTH))])


def given_block(given: Array, block: int, width: int) -> Array:
    """Columns of a block of given multiplicities."""
    return given[:, block * WIDTH : block * WIDTH + width]

"""Resamples: how the rows of a fit are drawn."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalrisk.design import Design
from causalrisk.design.survey import SurveyDesign
from causalrisk.estimation.beyond_memory import chunked
from causalrisk.estimation.sample import Sample
from causalrisk.numerics.blocks import is_dask, loaded
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import (
    JACKKNIFE,
    REPLICATE_STREAM,
    WIDTH,
    Resampler,
    given_multiplicities,
    stream_generator,
)

FRAME_STREAM = 16  # added to a stream for the rows of a target frame


def unit_count(design: Design) -> int:
    """Return the number of clusters of a design, or of its rows where it has none."""
    return design.n_clusters or design.n


@dataclass(frozen=True)
class SampleResampler:
    """The random part of a fit; multiplicities are of rows in the order of the sample.

    Parameters
    ----------
    resampler : Resampler
        Draws the rows or clusters of the design.
    frame : Resampler or None
        Draws those of a target frame, which are a sample of their own.
    number : ndarray of int
        Row or cluster of each row of the design; beyond memory a Dask array.
    sample : Sample
        Whose rows are drawn.
    frequency : bool
        Whether weights count repeated rows.
    survey : SurveyDesign, optional
        The survey design whose rescaled bootstrap gives the resamples.
    replicates : ndarray, shape (n, R), optional
        Replicate weights over the weights, where these are the resamples.
    """

    resampler: Resampler
    frame: Resampler | None
    number: Any
    sample: Sample
    frequency: bool
    survey: SurveyDesign | None = None
    replicates: Any = None

    def draw(self, stream: int, block: int, width: int) -> Array:
        """Multiplicities of a block, times the weights of the rows."""
        weights = self.sample.s[self.sample.n_frame :, None]
        if self.replicates is not None:
            drawn: Array = given_block(self.replicates, block, width) * weights
            return drawn
        if self.survey is None:
            return self._drawn(Resampler.draw, stream, block, width)
        generator = functools.partial(stream_generator, self.resampler.seed, stream, block)
        drawn = self.survey.resampled(generator, width)[self.sample.order] * weights
        return self._after_frame(drawn, Resampler.draw, stream, block, width)

    def perturb(self, block: int, width: int, spread: float) -> Array:
        """Fractional weights of a block of propensity replicates, times the weights of the rows."""
        return self._drawn(functools.partial(Resampler.perturb, spread=spread), REPLICATE_STREAM, block, width)

    def given(self, option: str, values: Any) -> Array:
        """Check multiplicities that the caller gave, (n_design, m), and arrange them as the sample.

        They are multiplied by observation weights that do not count rows; a target frame stays as it is.
        """
        multiplicities = given_multiplicities(option, values, len(self.sample.order))
        scale = np.ones(self.sample.n) if self.frequency else self.sample.s
        ones = np.ones((self.sample.n_frame, multiplicities.shape[1]))
        return self.sample.arrange(np.concatenate([multiplicities, ones])) * scale[:, None]

    def _drawn(self, draw: Callable[..., Array], *which: int) -> Array:
        """Multiplicities of a stream, a block and a width, times weights that do not count equal units."""
        of_rows = functools.partial(draw, self.resampler, *which)
        if is_dask(self.number):
            shape = (self.number.chunks[0], which[-1:])
            drawn = self.number.map_blocks(of_rows, chunks=shape, new_axis=1, meta=np.empty((0, 0)))
        else:
            drawn = of_rows(self.number)
        if self.resampler.sizes is None:
            drawn = drawn * self.sample.s[self.sample.n_frame :, None]
        return self._after_frame(drawn, draw, *which)

    def _after_frame(self, drawn: Array, draw: Callable[..., Array], stream: int, *which: int) -> Array:
        """Put the rows of a target frame first."""
        if self.frame is None:
            return drawn
        of_frame = draw(self.frame, stream + FRAME_STREAM, *which, np.arange(self.sample.n_frame))
        return np.concatenate([chunked(of_frame) if is_dask(drawn) else of_frame, drawn])


def sample_resampler(design: Design, sample: Sample, kind: str, seed: np.random.SeedSequence) -> SampleResampler:
    """Make the resampler of a design: of its clusters where it has any, of arms for "stratified"."""
    survey = design.survey if kind == "rescaled" else None
    given = design.replication if kind == "replicates" else None
    replicates = None if given is None else given.multiplicities[sample.order]
    if survey is not None or replicates is not None:  # fractional weights are drawn by units or rows
        kind = "cluster" if design.n_clusters else "pairs"
    own, frequency = slice(sample.n_frame, None), design.weight_type == "frequency"
    number: Any = sample.order
    sizes, strata, n_units = None, None, design.n
    if sample.cluster is not None:
        number, n_units = sample.cluster[own], design.n_clusters
    else:
        if frequency:  # one by one
            sizes = np.empty(design.n)
            sizes[number] = loaded(sample.s[own])
        if kind == "stratified":
            strata = np.empty(design.n, dtype=np.intp)
            strata[number] = loaded(sample.arm[own])
        if is_dask(sample.y):
            beyond: Any = sample.y
            number = chunked(number, beyond[own].chunks[0])
    resampler = Resampler(kind, seed, n_units, sizes, strata)
    frame = None
    if sample.n_frame:  # its rows have neither clusters nor arms, and are left out last
        frame_kind = kind if kind in ("bayesian", JACKKNIFE) else "pairs"
        frame = Resampler(frame_kind, seed, sample.n_frame, first=unit_count(design))
    return SampleResampler(resampler, frame, number, sample, frequency, survey, replicates)


def given_block(given: Array, block: int, width: int) -> Array:
    """Columns of a block of given multiplicities."""
    return given[:, block * WIDTH : block * WIDTH + width]

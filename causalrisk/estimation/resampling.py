"""Resamples: how the rows of a fit are drawn."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalrisk.design import Design, DesignOnDisk
from causalrisk.design.survey import SurveyDesign
from causalrisk.estimation.beyond_memory import (
    Places,
    arm_places,
    chunked,
    drawn_by_parts,
    multiplicities_of,
    units_of_parts,
)
from causalrisk.estimation.sample import Sample
from causalrisk.numerics.blocks import add_up, is_dask, totals
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import (
    JACKKNIFE,
    REPLICATE_STREAM,
    WIDTH,
    Chunks,
    Resampler,
    Units,
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
        Draws the rows of the design.
    frame : Resampler or None
        Draws those of a target frame, which are a sample of their own.
    units : Units or list
        The rows of the design; of rows beyond memory delayed ones, for each part.
    sample : Sample
        Whose rows are drawn.
    frequency : bool
        Whether weights count repeated rows.
    survey : SurveyDesign, optional
        The survey design whose rescaled bootstrap gives the resamples.
    replicates : ndarray, shape (n, R), optional
        Replicate weights over the weights, where these are the resamples.
    places : list, optional
        Where the rows of each arm are in the parts, as `arm_places`.
    """

    resampler: Resampler
    frame: Resampler | None
    units: Any
    sample: Sample
    frequency: bool
    survey: SurveyDesign | None = None
    replicates: Any = None
    places: Places | None = None

    def draw(self, stream: int, block: int, width: int) -> Array:
        """Multiplicities of a block, times the weights of the rows."""
        weights = self.sample.s[self.sample.n_frame :, None]
        if self.replicates is not None:
            drawn: Array = given_block(self.replicates, block, width) * weights
            return drawn
        if self.survey is None:
            return self._columns(Resampler.draw, stream, block, width)
        generator = functools.partial(stream_generator, self.resampler.seed, stream, block)
        drawn = self.survey.resampled(generator, width)[self.sample.order] * weights
        return self._after_frame(drawn, Resampler.draw, stream, block, width)

    def perturb(self, block: int, width: int, spread: float) -> Array:
        """Fractional weights of a block of propensity replicates, times the weights of the rows."""
        return self._columns(functools.partial(Resampler.perturb, spread=spread), REPLICATE_STREAM, block, width)

    def given(self, option: str, values: Any) -> Array:
        """Check multiplicities that the caller gave, (n_design, m), and arrange them as the sample.

        They are multiplied by observation weights that do not count rows; a target frame stays as it is.
        """
        multiplicities = given_multiplicities(option, values, len(self.sample.order))
        scale = np.ones(self.sample.n) if self.frequency else self.sample.s
        ones = np.ones((self.sample.n_frame, multiplicities.shape[1]))
        return self.sample.arrange(np.concatenate([multiplicities, ones])) * scale[:, None]

    def _columns(self, draw: Callable[..., Array], *which: int) -> Array:
        if self.places is None:
            drawn = draw(self.resampler, *which, self.units)
        else:
            drawn = drawn_by_parts(draw, self.resampler, which, self.units, self.places)
        return self._after_frame(drawn, draw, *which)

    def _after_frame(self, drawn: Array, draw: Callable[..., Array], stream: int, *which: int) -> Array:
        """Put the rows of a target frame first."""
        if self.frame is None:
            return drawn
        n_frame = self.sample.n_frame
        of_frame = draw(self.frame, stream + FRAME_STREAM, *which, Units(np.arange(n_frame), np.ones(n_frame)))
        return np.concatenate([chunked(of_frame) if is_dask(drawn) else of_frame, drawn])


def sample_resampler(design: Design, sample: Sample, kind: str, seed: np.random.SeedSequence) -> SampleResampler:
    """Make the resampler of a design: of its clusters where it has any, of arms for "stratified"."""
    survey = design.survey if kind == "rescaled" else None
    replicates = multiplicities_of(design, sample) if kind == "replicates" else None
    if survey is not None or replicates is not None:  # fractional weights are drawn by units or rows
        kind = "cluster" if design.n_clusters else "pairs"
    own, frequency = slice(sample.n_frame, None), design.weight_type == "frequency"
    units: Any = None
    places = None
    if isinstance(design, DesignOnDisk) and is_dask(sample.y):
        units, places = units_of_parts(design, kind), arm_places(design)
    else:
        number = sample.order if sample.cluster is None else sample.cluster[own]
        units = Units(number, sample.s[own], sample.arm[own] if kind == "stratified" else None)
    if design.n_clusters:
        resampler = Resampler.of(kind, seed, design.n_clusters)
    elif frequency or kind == "stratified":  # one by one, or within arms
        parts = [units] if places is None else totals(units)
        chunks = add_up(_chunks(part, frequency, design) for part in parts)
        resampler = Resampler(kind, seed, chunks, frequency)
    else:
        resampler = Resampler.of(kind, seed, design.n)
    frame = None
    if sample.n_frame:  # its rows have neither clusters nor arms, and are left out last
        frame = Resampler.of(kind if kind in ("bayesian", JACKKNIFE) else "pairs", seed, sample.n_frame)
        frame = dataclasses.replace(frame, first=unit_count(design))
    return SampleResampler(resampler, frame, units, sample, frequency, survey, replicates, places)


def _chunks(units: Units, frequency: bool, design: Design) -> Chunks:
    """Return what some rows add to the chunks of all: one each, or what frequency weights count."""
    sizes = units.weights if frequency else np.ones(len(units.number))
    return dataclasses.replace(units, weights=sizes).chunks(design.n, design.n_arms)


def given_block(given: Array, block: int, width: int) -> Array:
    """Columns of a block of given multiplicities."""
    return given[:, block * WIDTH : block * WIDTH + width]

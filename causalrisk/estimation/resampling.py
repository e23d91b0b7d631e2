"""Resamples: how the rows of a fit are drawn."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalrisk.design import Design
from causalrisk.design.survey import SurveyDesign
from causalrisk.estimation.sample import Sample
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
BY_DESIGN = ("rescaled", "replicates")  # kinds of resamples that a survey design has


def unit_count(design: Design) -> int:
    """Return the number of clusters of a design, or of its rows where it has none."""
    return design.n_clusters or design.n


def frame_resampler(design: Design, kind: str, seed: np.random.SeedSequence, n_frame: int) -> Resampler:
    """Make what draws the rows of a target frame, which have neither clusters nor arms, or leaves them out last."""
    own = Resampler.of(kind if kind in ("bayesian", JACKKNIFE) else "pairs", seed, n_frame)
    return dataclasses.replace(own, first=unit_count(design))


def unit_resampler(
    design: Design, kind: str, seed: np.random.SeedSequence, n: int, chunks: Callable[[], Chunks]
) -> Resampler:
    """Make the resampler of the n rows of a design, or of its clusters.

    Parameters
    ----------
    kind, seed
        As in `Resampler`.
    chunks : callable
        Returns the chunks of all rows; called where rows are drawn one by one or within their arms.
    """
    one_by_one = design.weight_type == "frequency"
    if design.n_clusters:
        return Resampler.of(kind, seed, design.n_clusters)
    if one_by_one or kind == "stratified":
        return Resampler(kind, seed, chunks(), one_by_one)
    return Resampler.of(kind, seed, n)


def row_chunks(design: Design, units: Units, n: int) -> Chunks:
    """Return what some rows of a design add to the chunks of its n rows: one each, or what frequency weights count."""
    sizes = units.weights if design.weight_type == "frequency" else np.ones(len(units.number))
    return dataclasses.replace(units, weights=sizes).chunks(n, design.n_arms)


@dataclass(frozen=True)
class SampleResampler:
    """The random part of a fit; multiplicities are of rows in the order of the sample.

    Parameters
    ----------
    resampler : Resampler
        Draws the rows of the design.
    frame : Resampler or None
        Draws those of a target frame, which are a sample of their own.
    units : Units
        The rows of the design.
    sample : Sample
        Whose rows are drawn.
    frequency : bool
        Whether weights count repeated rows.
    survey : SurveyDesign, optional
        The survey design that resamples are drawn by.
    """

    resampler: Resampler
    frame: Resampler | None
    units: Units
    sample: Sample
    frequency: bool
    survey: SurveyDesign | None = None

    def draw(self, stream: int, block: int, width: int) -> Array:
        """Multiplicities of a block, times the weights of the rows."""
        if self.survey is None:
            drawn = self.resampler.draw(stream, block, width, self.units)
        else:
            drawn = self._survey_columns(self.survey, stream, block, width)[self.sample.order]
            drawn *= self.units.weights[:, None]
        if self.frame is None:
            return drawn
        return np.concatenate([self.frame.draw(stream + FRAME_STREAM, block, width, self._frame_units), drawn])

    def _survey_columns(self, survey: SurveyDesign, stream: int, block: int, width: int) -> Array:
        """Multiplicities of a block by replicate weights, or by the rescaled bootstrap, rows as in the design."""
        if survey.replication is not None:
            return given_block(survey.replication.multiplicities, block, width)
        return survey.resampled(functools.partial(stream_generator, self.resampler.seed, stream, block), width)

    def perturbations(self, block: int, width: int, spread: float, at_once: int) -> Iterator[Array]:
        """Draw fractional weights of a block of propensity replicates, in groups of `at_once` columns."""
        drawn = self.resampler.perturbations(REPLICATE_STREAM, block, width, self.units, spread=spread, at_once=at_once)
        if self.frame is None:
            return drawn
        of_frame = self.frame.perturbations(
            REPLICATE_STREAM + FRAME_STREAM, block, width, self._frame_units, spread=spread, at_once=at_once
        )
        return map(np.concatenate, zip(of_frame, drawn, strict=True))

    def given(self, option: str, values: Any) -> Array:
        """Check multiplicities that the caller gave, (n_design, m), and arrange them as the sample.

        They are multiplied by observation weights that do not count rows; a target frame stays as it is.
        """
        multiplicities = given_multiplicities(option, values, len(self.sample.order))
        scale = np.ones(self.sample.n) if self.frequency else self.sample.s
        ones = np.ones((self.sample.n_frame, multiplicities.shape[1]))
        return self.sample.arrange(np.concatenate([multiplicities, ones])) * scale[:, None]

    @property
    def _frame_units(self) -> Units:
        return Units(np.arange(self.sample.n_frame), np.ones(self.sample.n_frame))


def sample_resampler(design: Design, sample: Sample, kind: str, seed: np.random.SeedSequence) -> SampleResampler:
    """Make the resampler of a design: of its clusters where it has any, of arms for "stratified"."""
    own, frequency = slice(sample.n_frame, None), design.weight_type == "frequency"
    number = sample.order if design.cluster is None else design.cluster[sample.order]
    strata = sample.arm[own] if kind == "stratified" else None
    units, survey = Units(number, sample.s[own], strata), None
    if kind in BY_DESIGN:  # fractional weights are drawn by units or rows
        kind, survey = "cluster" if design.n_clusters else "pairs", design.survey
    resampler = unit_resampler(design, kind, seed, design.n, functools.partial(row_chunks, design, units, design.n))
    frame = frame_resampler(design, kind, seed, sample.n_frame) if sample.n_frame else None
    return SampleResampler(resampler, frame, units, sample, frequency, survey)


def given_block(given: Array, block: int, width: int) -> Array:
    """Columns of a block of given multiplicities."""
    return given[:, block * WIDTH : block * WIDTH + width]

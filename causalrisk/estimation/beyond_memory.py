"""Rows beyond memory: the coded rows of a scan as a sample of Dask arrays, and some of them as a sample in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import ScannedDesign, TargetRows
from causalrisk.design.covariates import Covariate, covariates_of_block
from causalrisk.design.scan.coding import CodedBlock
from causalrisk.design.scan.design import Folder
from causalrisk.design.treatment import Arms
from causalrisk.errors import UnavailableError
from causalrisk.estimation.engine import chunks_of, in_memory, totals
from causalrisk.estimation.estimates import FittedRows
from causalrisk.estimation.fits import WeightFit
from causalrisk.estimation.options import ModelOptions
from causalrisk.estimation.resampling import FRAME_STREAM, frame_resampler, row_chunks, unit_resampler
from causalrisk.estimation.sample import Sample, by_arm
from causalrisk.learners.folds import folds_of
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, Basis
from causalrisk.numerics.multiplicities import REPLICATE_STREAM, Resampler, Units

T = TypeVar("T")
CHUNK = 100_000  # rows of a target frame that are worked on at a time


class ScannedSample(Sample):
    """A sample whose columns are Dask arrays, rows sorted by arm; `order` has the position of each among the data."""

    @cached_property
    def in_sample(self) -> Any:
        """As in `Sample`."""
        import dask.array as da

        own = da.ones(self.n - self.n_frame, chunks=(chunks_of(self.y),) if not self.n_frame else CHUNK)
        found = da.concatenate([da.zeros(self.n_frame), own]) if self.n_frame else own
        return found.rechunk((chunks_of(self.y),))

    def clusters(self, codes: Any) -> Any:
        """Cluster of each row."""
        return self.cluster

    def strata(self, survey: Any) -> Any:
        """Stratum of each row."""
        return self.stratum


def scanned_sample(design: ScannedDesign, options: ModelOptions, frame: TargetRows | None) -> ScannedSample:
    """Return the rows of a scan, those of a target frame first."""
    import dask.array as da

    parts, first, places = design.parts, 0, [list[slice]() for _ in design.labels]
    for part in parts:
        ends = np.cumsum(np.bincount(part.array("arm"), minlength=design.n_arms))
        for a, (low, high) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
            if high > low:
                places[a].append(slice(int(first + low), int(first + high)))
        first += part.n
    n_frame, sizes = 0 if frame is None else len(frame.X), [sum(p.stop - p.start for p in own) for own in places]
    ends = np.cumsum(sizes) + n_frame

    def column(name: str, of_frame: Any = 0) -> Any:
        whole = design.dask(name)
        found = da.concatenate([whole[place] for own in places for place in own])
        if frame is None:
            return found
        before = np.broadcast_to(np.asarray(of_frame, dtype=found.dtype), (n_frame, *found.shape[1:]))
        return da.concatenate([da.from_array(np.array(before), chunks=(CHUNK, *found.shape[1:])), found])

    def basis(name: str, of: Basis, of_frame: Any) -> Basis:
        columns = column(name, of_frame)
        return dataclasses.replace(of, columns=columns.map_blocks(of.of_rows, dtype=float))

    names, R, offset = parts[0].names, design.observation_basis, None
    X = basis("X", design.outcome_basis, None if frame is None else frame.X)
    Z = X if "Z" not in names else basis("Z", design.propensity_basis, None if frame is None else frame.Z)
    y, recorded = column("y", design.outcome_limits.mean()), None
    if R is not None:
        recorded = da.where(da.isnan(column("y", np.nan)), 0.0, 1.0)
        y = da.where(da.isnan(y), design.outcome_limits.mean(), y)
    if "offset" in names:
        offset = column("offset", 0.0)
    stated = options.stated_exposure(design)
    sample = ScannedSample(
        y=y,
        X=X,
        Z=Z,
        arm=column("arm", 0),
        s=column("weights", 1.0),
        slices=tuple(slice(int(a), int(b)) for a, b in zip(np.r_[0, ends[:-1]], ends, strict=True)),
        order=column("position")[n_frame:],
        family=options.outcome_family,
        offset=offset,
        mean_offset=offset if stated is None or offset is None else da.full_like(offset, np.log(stated)),
        cluster=column("cluster", design.n_clusters + np.arange(n_frame)) if design.n_clusters else None,
        stratum=column("stratum", 0 if design.survey is None else len(design.survey.units))
        if "stratum" in names
        else None,
        R=None if R is None else basis("R", R, 0.0),
        recorded=recorded,
        constant=design.constant,
    )
    sample.__dict__["total"] = float(design.arm_totals.sum())
    return sample


def part_of(weights: WeightFit, design: ScannedDesign, options: ModelOptions, block: CodedBlock) -> WeightFit:
    """Return the importance weights of some rows of a scan, in memory."""
    order, slices = by_arm(block.arm, design.n_arms, 0)
    stated, R = options.stated_exposure(design), design.observation_basis
    offset = None if block.offset is None else np.asarray(block.offset)[order]
    y, seen = np.asarray(block.y)[order], block.recorded[order]
    x = design.outcome_basis.of(block.X, order)
    sample = Sample(
        y=y if R is None else np.where(seen, y, design.outcome_limits.mean()),
        X=x,
        Z=x if block.Z is block.X else design.propensity_basis.of(block.Z, order),
        arm=np.asarray(block.arm)[order],
        s=np.asarray(block.weights)[order],
        slices=slices,
        order=order,
        family=options.outcome_family,
        offset=offset,
        mean_offset=offset if stated is None or offset is None else np.full_like(offset, np.log(stated)),
        R=None if R is None or block.R is None else R.of(block.R, order),
        recorded=None if R is None else seen.astype(float),
    )
    return dataclasses.replace(weights, equations=dataclasses.replace(weights.equations, sample=sample))


def fitted_rows(weights: WeightFit, design: ScannedDesign, options: ModelOptions) -> Iterator[FittedRows]:
    """Yield the rows of a fit to a scan, a part after the other."""
    for block in design.blocks():
        part = part_of(weights, design, options, block)
        restore, chances = part.equations.sample.restore, part.observation_probabilities
        yield FittedRows(
            arm=np.asarray(block.arm),
            weights=np.asarray(block.weights),
            units=np.asarray(block.weights) if design.weight_type == "frequency" else np.ones(len(block.arm)),
            importance=restore(part.undivided),
            scores=restore(part.probabilities.T).T,
            covariates=partial(_covariates, design, block),
            chances=None if chances is None else restore(chances),
            recorded=None if chances is None else block.recorded,
        )


def _covariates(design: ScannedDesign, block: CodedBlock, of_observation: bool = False) -> list[Covariate]:
    """Return the covariates of some rows as in `FittedRows`."""
    variables = design.variables(block)
    if of_observation:
        treat = Arms(design.levels, design.labels).coded(np.asarray(block.arm))
        variables = variables.assign(**{design.treat_name: treat})
    return covariates_of_block(design, variables, of_observation)


def scanned_folds(design: ScannedDesign, sample: ScannedSample, n_folds: int) -> Array:
    """Return the fold of each row, in the order of the sample."""
    number, arm, cluster = totals([sample.order, sample.arm[sample.n_frame :], sample.cluster])
    by_number = np.empty((2, len(number)), dtype=np.intp)
    by_number[0, number] = arm
    if cluster is not None:
        by_number[1, number] = cluster[sample.n_frame :]
    folds = folds_of(by_number[0], None if cluster is None else by_number[1], n_folds)
    return np.concatenate([np.arange(sample.n_frame) % n_folds, folds[number]])


def stored(values: Iterable[Array], chunks: tuple[int, ...]) -> Any:
    """Return rows that are made some at a time as a Dask array over a file."""
    import dask.array as da

    folder, first, file = Folder(), 0, None
    for rows in values:
        if file is None:
            file = np.lib.format.open_memmap(
                f"{folder.path}/rows.npy", mode="w+", dtype=float, shape=(sum(chunks), rows.shape[1])
            )
        file[first : first + len(rows)] = rows
        first += len(rows)
    found = da.from_array(file, chunks=(chunks, -1))
    found.folder = folder  # which goes with the array
    return found


# --- resamples -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScannedResampler:
    """The random part of a fit to a scan: row weights as Dask arrays, in the order of the sample."""

    resampler: Resampler
    frame: Resampler | None
    sample: ScannedSample
    multiplicities: Any = None

    @classmethod
    def of(
        cls, design: ScannedDesign, sample: ScannedSample, kind: str, seed: np.random.SeedSequence
    ) -> ScannedResampler:
        """Make that of a design: of its clusters where it has any, of arms for "stratified"."""
        if kind == "replicates":
            places = in_memory(sample.order)
            back = np.empty(len(places), dtype=np.intp)
            back[in_memory(design.dask("position"))] = np.arange(len(places))
            return cls(Resampler.of("pairs", seed, design.n), None, sample, design.dask("multiplicities")[back[places]])
        chunks = partial(_chunks_of, design, kind)
        frame = frame_resampler(design, kind, seed, sample.n_frame) if sample.n_frame else None
        return cls(unit_resampler(design, kind, seed, design.n, chunks), frame, sample)

    def draw(self, stream: int, block: int, width: int) -> Any:
        """Row weights of a block of resamples, shape (n, width)."""
        return self._columns(partial(Resampler.draw, stream=stream, block=block, width=width), stream, block, width)

    def given(self, option: str, values: Any) -> Any:
        """Refuse multiplicities of the rows."""
        raise UnavailableError(f"{option}= is not available for data on disk.\nUse `n_{option}=200`.")

    def perturbations(self, block: int, width: int, spread: float, at_once: int) -> Iterator[Any]:
        """Fractional weights of a block of propensity replicates."""
        draw = partial(Resampler.perturb, stream=REPLICATE_STREAM, block=block, width=width, spread=spread)
        yield self._columns(draw, REPLICATE_STREAM, block, width)

    def _columns(self, draw: Callable[..., Array], stream: int, block: int, width: int) -> Any:
        import dask.array as da

        sample, first = self.sample, self.sample.n_frame
        number: Any = (sample.order if sample.cluster is None else sample.cluster[first:])[:, None]
        s, arm = sample.s[first:, None], cast("Any", sample.arm[first:, None])
        chunks = chunks_of(s)
        if self.multiplicities is not None:
            return s * self.multiplicities[:, block * 32 : block * 32 + width].rechunk({0: chunks, 1: -1})
        drawn = da.map_blocks(
            _drawn,
            number.rechunk((chunks, 1)),
            s,
            arm.rechunk((chunks, 1)),
            draw=draw,
            resampler=self.resampler,
            chunks=(chunks, (width,)),
            dtype=float,
        )
        if self.frame is None:
            return drawn
        units = Units(np.arange(first), np.ones(first))
        own = {**draw.keywords, "stream": stream + FRAME_STREAM}  # type: ignore[attr-defined]
        of_frame = draw.func(self.frame, units=units, **own)  # type: ignore[attr-defined]
        return da.concatenate([da.from_array(of_frame, chunks=(CHUNK, -1)), drawn])


def _drawn(
    number: NDArray[Any], s: Array, arm: NDArray[Any], draw: Callable[..., Array], resampler: Resampler
) -> Array:
    if not len(number):
        return np.empty((0, 0))
    strata = arm[:, 0] if resampler.kind == "stratified" else None
    return draw(resampler, units=Units(number[:, 0], s[:, 0], strata))


def _chunks_of(design: ScannedDesign, kind: str) -> Any:
    """Count the units in each chunk of rows that one generator draws."""
    parts = (
        Units(np.asarray(b.position), np.asarray(b.weights), np.asarray(b.arm) if kind == "stratified" else None)
        for b in design.blocks()
    )
    return add_up(row_chunks(design, units, design.n) for units in parts)

"""Rows beyond memory: the coded rows of a scan as a sample of Dask arrays, and some of them as a sample in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np

from causalrisk.design import Design, ScannedDesign, TargetRows
from causalrisk.design.covariates import Covariate, covariates_of_block
from causalrisk.design.scan.coding import CodedBlock
from causalrisk.design.scan.design import Folder, StoredPart
from causalrisk.design.treatment import Arms
from causalrisk.errors import UnavailableError
from causalrisk.estimation.engine import chunks_of, totals
from causalrisk.estimation.estimates import FittedRows
from causalrisk.estimation.fits import WeightFit
from causalrisk.estimation.options import ModelOptions
from causalrisk.estimation.resampling import FRAME_STREAM, frame_resampler, given_block, row_chunks, unit_resampler
from causalrisk.estimation.sample import Sample, by_arm
from causalrisk.learners.folds import Numbers, folds_of
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


Places = list[list[tuple[int, slice]]]  # for each arm the numbers of parts, and its rows in them


def arm_places(design: ScannedDesign) -> Places:
    """Return where the rows of each arm are."""
    places: Places = [[] for _ in design.labels]
    for k, part in enumerate(design.parts):
        ends = np.cumsum(np.bincount(part.array("arm"), minlength=design.n_arms)).tolist()
        for own, low, high in zip(places, [0, *ends], ends, strict=False):
            if high > low:
                own.append((k, slice(low, high)))
    return places


def rows_by_arm(design: ScannedDesign, name: str, places: Places) -> Any:
    """Return an array of all rows as `ScannedDesign.dask`, sorted by arm; a chunk for each arm of each part."""
    import dask.array as da

    whole = design.dask(name)
    return da.concatenate([whole.blocks[k][rows] for own in places for k, rows in own])


def scanned_sample(design: ScannedDesign, options: ModelOptions, frame: TargetRows | None) -> ScannedSample:
    """Return the rows of a scan, those of a target frame first."""
    import dask.array as da

    places, n_frame = arm_places(design), 0 if frame is None else len(frame.X)
    ends = np.cumsum([sum(rows.stop - rows.start for _, rows in own) for own in places]) + n_frame

    def column(name: str, of_frame: Any = 0) -> Any:
        found = rows_by_arm(design, name, places)
        if frame is None:
            return found
        before = np.broadcast_to(np.asarray(of_frame, dtype=found.dtype), (n_frame, *found.shape[1:]))
        return da.concatenate([da.from_array(np.array(before), chunks=(CHUNK, *found.shape[1:])), found])

    def basis(name: str, of: Basis, of_frame: Any) -> Basis:
        columns = column(name, of_frame)
        return dataclasses.replace(of, columns=columns.map_blocks(of.of_rows, dtype=float))

    names, R, offset = design.parts[0].kinds, design.observation_basis, None
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


def folds_by_position(design: Design, n_folds: int, repeat: int = 0) -> Numbers:
    """Return the fold of each row of a design, in memory or not, by its position."""
    if not isinstance(design, ScannedDesign):
        return folds_of(design.arm, design.cluster, n_folds, repeat)
    names = ("position", "arm", "cluster") if design.n_clusters else ("position", "arm")
    position, arm, *cluster = totals(design.dask(name) for name in names)
    order = np.argsort(position)
    return folds_of(arm[order], cluster[0][order] if cluster else None, n_folds, repeat)


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
    """The random part of a fit to a scan: row weights as Dask arrays, in the order of the sample.

    `rows` are those of each arm in each part. `multiplicities` are replicate weights, where resamples are these.
    """

    resampler: Resampler
    frame: Resampler | None
    n_frame: int
    rows: list[tuple[StoredPart, slice]]
    clusters: bool
    multiplicities: Any = None

    @classmethod
    def of(
        cls, design: ScannedDesign, sample: ScannedSample, kind: str, seed: np.random.SeedSequence
    ) -> ScannedResampler:
        """Make that of a design: of its clusters where it has any, of arms for "stratified"."""
        places, multiplicities = arm_places(design), None
        if kind == "replicates":
            kind = "cluster" if design.n_clusters else "pairs"
            multiplicities = rows_by_arm(design, "multiplicities", places) * sample.s[:, None]
        frame = frame_resampler(design, kind, seed, sample.n_frame) if sample.n_frame else None
        resampler = unit_resampler(design, kind, seed, design.n, partial(_chunks_of, design, kind))
        rows = [(design.parts[k], place) for own in places for k, place in own]
        return cls(resampler, frame, sample.n_frame, rows, design.n_clusters > 0, multiplicities)

    def draw(self, stream: int, block: int, width: int) -> Any:
        """Row weights of a block of resamples, shape (n, width)."""
        if self.multiplicities is not None:
            return given_block(self.multiplicities, block, width)
        return self._columns(Resampler.draw, stream, block, width)

    def given(self, option: str, values: Any) -> Any:
        """Refuse multiplicities of the rows."""
        raise UnavailableError(f"{option}= is not available for data on disk.\nUse `n_{option}=200`.")

    def perturbations(self, block: int, width: int, spread: float, at_once: int) -> Iterator[Any]:
        """Fractional weights of a block of propensity replicates."""
        yield self._columns(partial(Resampler.perturb, spread=spread), REPLICATE_STREAM, block, width)

    def _columns(self, draw: Callable[..., Array], stream: int, block: int, width: int) -> Any:
        """Draw the rows of each part whole, whose chunks of units are then cut at the ends of parts only."""
        import dask
        import dask.array as da

        found, resampler = list[Any](), dask.delayed(self.resampler, traverse=False)
        if self.frame is not None:
            units = Units(np.arange(self.n_frame), np.ones(self.n_frame))
            of_frame = draw(self.frame, stream + FRAME_STREAM, block, width, units)
            found.append(da.from_array(of_frame, chunks=(CHUNK, -1)))
        for part, rows in self.rows:
            task = dask.delayed(partial(_drawn, draw, part, rows, self.clusters), traverse=False)
            drawn = task(resampler, stream, block, width)
            found.append(da.from_delayed(drawn, (rows.stop - rows.start, width), float))
        return da.concatenate(found)


def _drawn(
    draw: Callable[..., Array], part: StoredPart, rows: slice, clusters: bool, resampler: Resampler, *which: int
) -> Array:
    """Draw some rows of a part."""
    return draw(resampler, *which, _units(part, resampler.kind, clusters))[rows]


def _units(part: StoredPart, kind: str, clusters: bool = False) -> Units:
    """Return the rows of a part, or their clusters, as they are drawn."""
    number, weights = (np.asarray(part.array(name)) for name in ("cluster" if clusters else "position", "weights"))
    return Units(number, weights, np.asarray(part.array("arm")) if kind == "stratified" else None)


def _chunks_of(design: ScannedDesign, kind: str) -> Any:
    """Count the units in each chunk of rows that one generator draws."""
    return add_up(row_chunks(design, _units(part, kind), design.n) for part in design.parts)

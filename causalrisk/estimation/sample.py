"""The data of a design as estimators use them: rows sorted by arm, orthonormal columns, and resamples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.design.design import Design, TargetRows
from causalrisk.design.on_disk import DesignOnDisk, stored_array
from causalrisk.design.scan import Folder, lazily_mapped
from causalrisk.design.survey import SurveyDesign
from causalrisk.estimation.options import ModelOptions
from causalrisk.numerics import arrays, resampling
from causalrisk.numerics.arrays import Arms, Array, Basis, Numbers, is_dask, loaded
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.resampling import JACKKNIFE, WIDTH, Resampler, folds_of

CHUNK = 100_000  # rows of a target frame that are processed at a time
FEW = 2**23  # data on disk are loaded into memory if both designs have at most this many numbers
FRAME_STREAM = 16  # added to the stream number for the rows of a target frame
BY_ROW = ("y", "arm", "s", "offset", "mean_offset", "recorded", "cluster", "stratum")


@dataclass(frozen=True)
class Sample:
    """Rows sorted by arm, which makes each arm a slice.

    The rows of a target frame, which have covariates only, come first, in the slice of the reference arm. Their
    `in_sample` and importance weights are zero.
    """

    y: Array  # outcome; an arbitrary number in rows of a target frame and for missing outcomes
    X: Basis  # of the outcome design; columns of shape (n, p)
    Z: Basis  # of the propensity design; columns of shape (n, q)
    arm: Arms  # of each row, ascending
    s: Array  # observation weights; one in the rows of a target frame
    slices: tuple[slice, ...]  # rows of each arm
    order: NDArray[np.intp]  # position in the design of each row, without the rows of a target frame
    n_frame: int  # rows of a target frame
    total: float  # sum of the observation weights of the sample, N
    family: OutcomeFamily
    offset: Array | None = None  # known part of the linear predictor of the outcome models; 0 in a target frame
    mean_offset: Array | None = None  # offset for the means of the arms; present if `offset` is
    R: Basis | None = None  # of the design of the observation model, if outcomes are missing
    recorded: Array | None = None  # 1.0 for the rows whose outcome was observed, if some are missing
    late: Array | None = None  # 1.0 for the later period of cross sections, whose arm means are changes between periods
    constant: Array | None = None  # for data on disk, coefficients with which the columns of X give the constant
    cluster: Any = None  # of each row
    stratum: Any = None  # of each row, for a survey design without replicate weights

    @property
    def n(self) -> int:
        """Number of rows, including the rows of a target frame."""
        return len(self.y)

    @cached_property
    def in_sample(self) -> Array:
        """Indicator of the rows: 1.0 for the sample and 0.0 for a target frame, shape (n,)."""
        return (np.arange(self.n) >= self.n_frame).astype(float)

    @property
    def with_outcome(self) -> Array:
        """Indicator of the rows of the sample whose outcome was observed, shape (n,)."""
        return self.in_sample if self.recorded is None else self.recorded

    @property
    def n_arms(self) -> int:
        """Number of arms, K."""
        return len(self.slices)

    @property
    def indicators(self) -> Array:
        """Indicators of the arms, shape (n, K): 1.0 in the column of the row's arm, otherwise 0.0."""
        return np.eye(self.n_arms)[:, self.arm].T  # the values of an arm are then contiguous

    def in_periods(self, columns: Array) -> Array:
        """Return `columns` (n, k) or, in repeated cross sections, one copy per period that is zero in the other."""
        if self.late is None:
            return columns
        late = self.late[:, None]
        return np.hstack([columns * (1 - late), columns * late])

    def at_means(self, columns: Array) -> Array:
        """Return `columns` (m, k). In repeated cross sections, return (-columns, columns), which predict the change."""
        return columns if self.late is None else np.hstack([-columns, columns])

    def restore(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return `values` (n, ...) in the order of the data, without the rows of the target frame."""
        restored = np.empty_like(values[self.n_frame :])
        restored[self.order] = values[self.n_frame :]
        return restored

    def arrange(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return `values` in the order of the sample. They have the rows of the data first, then those of the frame."""
        return np.concatenate([values[len(self.order) :], values[self.order]])

    # --- rows beyond memory ------------------------------------------------------------------------------------------

    @cached_property
    def columns(self) -> dict[str, Any]:
        """The arrays that have one entry per row of the sample, by name."""
        known = {name: getattr(self, name) for name in (*BY_ROW, "X", "R", *(["Z"] if self.Z is not self.X else []))}
        return {n: of.columns if isinstance(of, Basis) else of for n, of in known.items() if of is not None}

    @cached_property
    def empty(self) -> Sample:
        """The same sample without rows, in memory. `slices` and `n_frame` are kept."""
        none = {name: np.empty((0, *values.shape[1:]), values.dtype) for name, values in self.columns.items()}
        return dataclasses.replace(self.of_rows(none, 0, 0), slices=self.slices, n_frame=self.n_frame)

    def of_rows(self, columns: dict[str, Any], first: int, last: int) -> Sample:
        """Return the sample of the rows from `first` to `last`. `columns` has arrays of these rows by name."""
        names = [name for name in "XZR" if name in columns]
        bases = {name: dataclasses.replace(getattr(self, name), columns=columns[name]) for name in names}
        begins = int(np.clip(self.n_frame, first, last))  # the sample begins after its frame
        slices, order = within(self.slices, slice(first, last)), np.arange(last - begins)
        changed = {"slices": slices, "order": order, "n_frame": begins - first}
        return dataclasses.replace(self, **columns | {"Z": bases["X"]} | bases | changed)


def make_sample(design: Design, options: ModelOptions, frame: TargetRows | None, *, given: bool = False) -> Sample:
    """Sort the rows of a design by arm, and orthonormalise its columns unless they are `given` predictions."""
    own: Callable[[str], Any]
    if isinstance(design, DesignOnDisk):
        names, own = design.parts[0].arrays, partial(rows_by_arm, design)
        constant = design.constant
        order = loaded(own("position"))
    else:
        order = np.argsort(design.arm, kind="stable")
        names = {name: of[order] for name, of in arrays_of(design).items()}
        own, constant = names.__getitem__, None
    n_frame, stated = 0 if frame is None else len(frame.X), options.stated_exposure(design)
    # values in the rows of a target frame, zero by default; its stratum has the last number
    n_strata = 0 if design.survey is None else len(design.survey.units)
    of_frame: dict[str, Any] = {"weights": 1.0, "stratum": n_strata}
    of_frame["cluster"] = design.n_clusters + np.arange(n_frame)
    if frame is not None:
        of_frame |= {"X": frame.X, "Z": frame.Z}
    if n_frame or design.observation is not None:
        of_frame["y"] = float(design.outcome_limits.mean())  # arbitrary, as these outcomes are not used

    def column(name: str) -> Any:
        found = own(name)
        if not n_frame:
            return found
        value = np.asarray(of_frame.get(name, 0.0), dtype=found.dtype)
        before = np.array(np.broadcast_to(value, (n_frame, *found.shape[1:])))
        return np.concatenate([chunked(before) if is_dask(found) else before, found])

    def basis(name: str) -> Basis:
        if isinstance(design, DesignOnDisk):
            of, rows = design.outcome_basis if name == "X" else design.propensity_basis, column(name)
            columns = stored_array(rows.map_blocks(of.of_rows, dtype=float)) if is_dask(rows) else of.of_rows(rows)
            return dataclasses.replace(of, columns=columns)
        plain = given and name == "X"
        of = arrays.plain_basis(own(name)) if plain else arrays.orthonormal_basis(own(name), s[n_frame:])
        if not n_frame:
            return of
        before = of.of_rows(np.broadcast_to(of_frame.get(name, 0.0), (n_frame, of.columns.shape[1])))
        return dataclasses.replace(of, columns=np.concatenate([before, of.columns]))

    rows = [name for name in ("y", "arm", "offset", "late", "cluster", "stratum") if name in names]
    found: dict[str, Any] = {name: column(name) for name in rows}
    s, ends = column("weights"), n_frame + np.cumsum(np.bincount(loaded(own("arm"))))
    found["mean_offset"] = offset = found.get("offset")
    if offset is not None and stated is not None:
        found["mean_offset"] = np.full_like(offset, np.log(stated))
    X = basis("X")
    if "R" in names:
        missing = np.isnan(found["y"])
        found |= {"R": basis("R"), "y": np.where(missing, of_frame["y"], found["y"])}
        found["recorded"] = np.where(missing | (np.arange(len(missing)) < n_frame), 0.0, 1.0)
    slices = tuple(slice(int(low), int(high)) for low, high in zip(np.r_[0, ends[:-1]], ends, strict=True))
    return Sample(
        **found,
        X=X,
        Z=basis("Z") if "Z" in names else X,
        s=s,
        slices=slices,
        order=order,
        n_frame=n_frame,
        total=float(design.nobs),
        family=options.outcome_family,
        constant=constant,
    )


def arrays_of(design: Design) -> dict[str, NDArray[Any]]:
    """Return the arrays of a design in memory, under their names on disk. Z is left out if it is X."""
    seen, survey, periods = design.observation, design.survey, design.periods
    found = {name: getattr(design, name) for name in ("y", "X", "Z", "arm", "weights", "offset", "cluster")}
    found |= {
        "Z": None if design.Z is design.X else design.Z,
        "R": None if seen is None else seen.columns,
        "late": None if periods is None else periods.late.astype(float),
        "stratum": None if survey is None or survey.replication is not None else survey.stratum,
    }
    return {name: array for name, array in found.items() if array is not None}


def within(slices: tuple[slice, ...], rows: slice) -> tuple[slice, ...]:
    """Return the slices of the arms within a slice of the rows, counted from its first row."""
    first, last = rows.start, rows.stop
    return tuple(slice(*(min(max(end, first), last) - first for end in (arm.start, arm.stop))) for arm in slices)


# --- rows on disk ----------------------------------------------------------------------------------------------------


def rows_by_arm(design: DesignOnDisk, name: str) -> Any:
    """Return an array of all rows on disk, sorted by arm. If it is large, it is a Dask array."""
    n_arms = len(design.labels)
    ends = [np.searchsorted(part.arm, range(n_arms + 1)).tolist() for part in design.parts]  # of the arms in each part
    places = [(k, slice(*of_part[a : a + 2])) for a in range(n_arms) for k, of_part in enumerate(ends)]
    places = [(k, rows) for k, rows in places if rows.stop > rows.start]
    if design.n * (len(design.exog_names) + len(design.propensity_names)) <= FEW:
        return np.concatenate([np.asarray(getattr(design.parts[k], name))[rows] for k, rows in places])
    import dask.array as da

    whole = design.dask(name)
    return da.concatenate([whole.blocks[k][rows] for k, rows in places])


def chunked(rows: NDArray[Any], sizes: Any = CHUNK) -> Any:
    """Return rows as a Dask array with the given chunk sizes."""
    import dask.array as da

    return da.from_array(rows, chunks=(sizes, *rows.shape[1:]))


def folds_by_position(design: Design, n_folds: int, repeat: int = 0) -> Numbers:
    """Return the cross-fitting fold of each row, in the order of the data."""
    if not isinstance(design, DesignOnDisk):
        return folds_of(design.arm, design.cluster, n_folds, repeat)
    names = ("position", "arm", "cluster") if design.n_clusters else ("position", "arm")
    position, arm, *cluster = (np.concatenate([getattr(part, name) for part in design.parts]) for name in names)
    order = np.argsort(position)
    return folds_of(arm[order], cluster[0][order] if cluster else None, n_folds, repeat)


def stored(values: Iterable[Array], chunks: tuple[int, ...]) -> Any:
    """Write blocks of rows to files, and return a Dask array over them with the given chunk sizes."""
    folder, names = Folder(), list[str]()
    for k, rows in enumerate(values):
        names.append(f"{k}")
        np.save(f"{folder.path}/{k}.npy", np.ascontiguousarray(rows))
    return lazily_mapped(folder, names).rechunk((chunks, -1))


# --- resamples -------------------------------------------------------------------------------------------------------


def unit_count(design: Design) -> int:
    """Return the number of clusters of a design, or of rows if it has no clusters."""
    return design.n_clusters or design.n


@dataclass(frozen=True)
class SampleResampler:
    """Draws row weights, in the order of the sample, for resamples and for replicates of the propensity score."""

    resampler: Resampler  # of the rows or clusters of the design
    frame: Resampler | None  # of the rows of a target frame, which are a sample of their own
    number: Any  # row or cluster of each row of the design; a Dask array if rows do not fit in memory
    sample: Sample
    frequency: bool  # whether weights count repeated rows
    survey: SurveyDesign | None = None  # the design whose rescaled bootstrap gives the resamples
    replicates: Any = None  # replicate weights / weights, (n, R), if these are the resamples

    def draw(self, stream: int, block: int, width: int) -> Array:
        """Return the row weights (n, width) of a block of resamples: how often a row is drawn, times its weight."""
        weights = self.sample.s[self.sample.n_frame :, None]
        if self.replicates is not None:
            drawn: Array = given_block(self.replicates, block, width) * weights
            return drawn
        if self.survey is None:
            return self._drawn(Resampler.draw, stream, block, width)
        generator = partial(resampling.stream_generator, self.resampler.seed, stream, block)
        drawn = self.survey.resampled(generator, width)[self.sample.order] * weights
        return self._after_frame(drawn, Resampler.draw, stream, block, width)

    def perturb(self, block: int, width: int, spread: float) -> Array:
        """Return random fractional row weights (n, width), times observation weights, for a block of replicates."""
        return self._drawn(partial(Resampler.perturb, spread=spread), resampling.REPLICATE_STREAM, block, width)

    def given(self, option: str, values: Any) -> Array:
        """Check the caller's multiplicities (n_design, m). Return them as row weights in the order of the sample."""
        multiplicities = resampling.given_multiplicities(option, values, len(self.sample.order))
        scale = np.ones(self.sample.n) if self.frequency else self.sample.s
        ones = np.ones((self.sample.n_frame, multiplicities.shape[1]))
        return self.sample.arrange(np.concatenate([multiplicities, ones])) * scale[:, None]

    def _drawn(self, draw: Callable[..., Array], *which: int) -> Array:
        """Return how often rows are drawn, multiplied by observation weights unless these are frequency weights."""
        of_rows = partial(draw, self.resampler, *which)
        if is_dask(self.number):
            shape = (self.number.chunks[0], which[-1:])
            drawn = self.number.map_blocks(of_rows, chunks=shape, new_axis=1, meta=np.empty((0, 0)))
        else:
            drawn = of_rows(self.number)
        if self.resampler.sizes is None:
            drawn = drawn * self.sample.s[self.sample.n_frame :, None]
        return self._after_frame(drawn, draw, *which)

    def _after_frame(self, drawn: Array, draw: Callable[..., Array], stream: int, *which: int) -> Array:
        if self.frame is None:
            return drawn
        of_frame = draw(self.frame, stream + FRAME_STREAM, *which, np.arange(self.sample.n_frame))
        return np.concatenate([chunked(of_frame) if is_dask(drawn) else of_frame, drawn])


def sample_resampler(design: Design, sample: Sample, kind: str, seed: np.random.SeedSequence) -> SampleResampler:
    """Return the resampler of a design. It draws rows (within arms if "stratified"), or clusters from one pool."""
    survey = design.survey if kind == "rescaled" else None
    given = design.replication if kind == "replicates" else None
    replicates = None if given is None else given.multiplicities[sample.order]
    if survey is not None or replicates is not None:  # fractional weights are drawn by cluster or row
        kind = "cluster" if design.n_clusters else "pairs"
    own, frequency = slice(sample.n_frame, None), design.weight_type == "frequency"
    number, sizes, strata = sample.order, None, None
    if sample.cluster is not None:
        number = sample.cluster[own]
    else:
        sizes = sample.restore(loaded(sample.s)) if frequency else None  # equal rows are drawn one by one
        strata = sample.restore(loaded(sample.arm)) if kind == "stratified" else None
        beyond: Any = sample.y
        number = chunked(number, beyond[own].chunks[0]) if is_dask(beyond) else number
    resampler = Resampler(kind, seed, unit_count(design), sizes, strata)
    frame = None
    if sample.n_frame:  # its rows have neither clusters nor arms; the jackknife leaves them out last
        frame_kind = kind if kind in ("bayesian", JACKKNIFE) else "pairs"
        frame = Resampler(frame_kind, seed, sample.n_frame, first=unit_count(design))
    return SampleResampler(resampler, frame, number, sample, frequency, survey, replicates)


def given_block(given: Array, block: int, width: int) -> Array:
    """Return the columns of the given multiplicities that belong to block number `block`."""
    return given[:, block * WIDTH : block * WIDTH + width]

"""A design whose rows are on disk: parts of the coded rows in a temporary folder, as blocks and as Dask arrays."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design.design import Design, Observation, Seen, rows_not_kept
from causalrisk.design.encoders import Encoder
from causalrisk.design.formulas.evaluation import in_formula
from causalrisk.design.rows import ColumnOptions, check_drawn, lines_of
from causalrisk.design.scan.coding import CodedRows, Coding, variable_kinds
from causalrisk.design.scan.source import Folder, Scan, computed, mapped, naming, needed_dask
from causalrisk.design.support import ColumnMoments, Rules, arm_spans, check_magnitude
from causalrisk.errors import DesignWarning, UnavailableError, warn_user
from causalrisk.numerics.blocks import add_up, chunk_sizes, chunks_of
from causalrisk.numerics.linalg import Array, Basis, plain_basis
from causalrisk.runtime.system import one_blas_thread

T = TypeVar("T")
Step = Callable[[CodedRows], CodedRows]


def stored_array(rows: Any) -> Any:
    """Write a Dask array of numbers to a temporary folder, which goes with the array over it that is returned."""
    import dask
    import dask.array as da

    folder, found = Folder(), []
    computed((partial(_write_columns, f"{folder.path}/{k}") for k in range(len(chunk_sizes(rows)))), chunks_of(rows))
    for k, size in enumerate(chunk_sizes(rows)):
        load = dask.delayed(partial(mapped, folder, f"{k}", float, (rows.shape[1], size)), traverse=False)
        found.append(da.from_delayed(load(), (rows.shape[1], size), float).T)
    return da.concatenate(found)


def _write_columns(path: str, values: Array) -> None:
    np.asarray(values, dtype=float).ravel(order="F").tofile(path)


def _sums(k: int, n_clusters: int, block: CodedRows) -> dict[str, Any]:
    """Return what columns need to be checked, of some rows; it adds up.

    X, Z, R, y and every are `ColumnMoments` of the designs, of the outcome and the outcome less its offset, and of X in
    all rows. Where outcomes may be missing, X and y are of the rows with an outcome. totals and known (K,) sum the
    weights of the rows of each arm, and of those with an outcome; members (G, K) counts the rows of clusters in arms.
    """
    outcomes = np.column_stack([block.y, block.y if block.offset is None else block.y - block.offset])
    seen = slice(None) if block.R is None else block.recorded

    def of(columns: Array, rows: Any) -> ColumnMoments:
        own = columns[rows]
        origin = own.mean(axis=0) if len(own) else None
        return ColumnMoments.of(own, block.arm[rows], k, origin=origin, weights=block.weights[rows])

    cells = np.empty(0, dtype=int) if block.cluster is None else block.cluster * k + block.arm
    X = of(block.X, seen)
    every = X if block.R is None else of(block.X, slice(None))
    return {
        "X": X,
        "Z": every if block.Z is block.X else of(block.Z, slice(None)),
        "R": None if block.R is None else of(block.R, slice(None)),
        "every": every,
        "y": of(outcomes, seen),
        "totals": np.bincount(block.arm, block.weights, minlength=k).astype(float),
        "known": np.bincount(block.arm[seen], block.weights[seen], minlength=k).astype(float),
        "members": np.bincount(cells, minlength=n_clusters * k).reshape(n_clusters, k),
    }


class DesignOnDisk(Design):
    """A design whose rows are on disk; its other fields are those of `Design`.

    Parameters
    ----------
    scan : Scan
        The data; neither they nor the rows travel with a pickle.
    rows : tuple of CodedRows
        The stored rows.
    n, nobs, n_dropped, n_clusters, arm_clusters, outcome_limits, column_limits, counts, unrecorded
        What `Design` works out from its rows.
    outcome_basis, propensity_basis : Basis
        Their bases, without rows.
    constant : ndarray, shape (p,)
        Coefficients of the outcome basis that give the constant; zeros where it has none.
    arm_totals : ndarray, shape (K,)
        Sum of the observation weights of each arm.
    outcome_moments : tuple of float
        Mean and standard deviation under the weights of the outcome less its offset.
    observation_basis : Basis or None
        Basis of the columns of the observation model, where outcomes are missing.
    **known
        Fields of `Design`. To ask for one that goes by rows is an UnavailableError.
    """

    on_disk = True
    # In the place of the properties of Design; plain attributes of the class give way to those of the instance.
    n = nobs = n_dropped = n_clusters = 0
    arm_clusters: list[int] = []  # noqa: RUF012
    outcome_limits = column_limits = counts = unrecorded = np.empty(0)
    outcome_basis: Basis
    propensity_basis: Basis
    observation_basis: Basis | None = None
    constant: Array
    arm_totals: Array
    outcome_moments: tuple[float, float]

    def __init__(self, **known: Any) -> None:
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Any:
        made = getattr(type(self), name, None)
        if isinstance(made, property) and made.fget is not None:
            return made.fget(self)  # its own error, in whose place Python asks here
        if name in {field.name for field in dataclasses.fields(self)}:
            raise rows_not_kept()
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        known = {name: value for name, value in self.__dict__.items() if name not in ("scan", "rows")}
        return object.__new__, (DesignOnDisk,), known

    def __deepcopy__(self, memo: Any) -> DesignOnDisk:
        return self  # nothing in it changes

    def over(self, function: Callable[[CodedRows], T]) -> Iterator[T]:
        """Yield what a function makes of each part of the rows, in order; Dask does the work."""
        return iter(computed(partial(function, part) for part in self.parts))

    @property
    def parts(self) -> tuple[CodedRows, ...]:
        """The stored rows, which a model that came from a file does not have."""
        rows: tuple[CodedRows, ...] | None = self.__dict__.get("rows")
        if rows is None:
            raise UnavailableError(
                "the model came from a file, which has no rows of a scan.\nMake it anew with `from_formula`, then fit."
            )
        return rows

    def dask(self, name: str) -> Any:
        """Return an array of all rows as a Dask array, a chunk for each part; it can be used as long as the design.

        Parameters
        ----------
        name : str
            A field of `CodedRows`, such as "X", "y" or "arm". The rows of each chunk are sorted by arm.
        """
        import dask.array as da

        dask, found = needed_dask(), []
        for part in self.parts:
            array = "X" if name == "Z" and part.Z is part.X else name
            known, file = getattr(part, array), part.file
            if known is None or file is None:
                raise rows_not_kept(f"{name!r}, which these rows do not have,")
            # not of the part, which would map all its files wherever a result with the array is unpickled
            load = partial(mapped, file[0], f"{file[1]}-{array}", known.dtype, known.shape)
            found.append(da.from_delayed(dask.delayed(load, traverse=False)(), known.shape, known.dtype))
        return da.concatenate(found)

    def variables(self, block: CodedRows) -> pd.DataFrame:
        """Return the variables of the models on the rows of a block, without the treatment."""
        encoders: list[Encoder] = [self.outcome_encoder, self.propensity_encoder]
        encoders += [] if self.observation is None else [self.observation.encoder]
        columns, V = dict[str, Any](), np.empty((0, 0)) if block.V is None else block.V
        for values, (name, dtype) in zip(V.T, variable_kinds(encoders, self.treat_name).items(), strict=False):
            levels = isinstance(dtype, pd.CategoricalDtype)
            columns[name] = (
                pd.Categorical.from_codes(values.astype(int), dtype=dtype) if levels else values.astype(dtype)
            )
        return pd.DataFrame(columns, index=range(len(block.y)))

    def subset(self, keep: np.ndarray, reason: str) -> DesignOnDisk:
        """As `Design.subset`; `keep` is in the order of `position`."""
        marks, clusters, scale = [keep[part.position] for part in self.parts], None, 1.0
        sizes = [int(mark.sum()) for mark in marks]
        n = sum(sizes)
        ledger = (*self.ledger, *lines_of([("trim", reason, self.n - n, self.n - n)]))

        def left(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(part, name)[mark] for part, mark in zip(self.parts, marks, strict=True)])

        with self.trimming(reason, n) as notes:
            if self.n_clusters:
                numbers = np.unique(left("cluster"))
                clusters = np.full(self.n_clusters, -1)
                clusters[numbers] = np.arange(len(numbers))
            if self.weight_type == "probability":
                scale = n / float(left("weights").sum())
            steps = [partial(_rows_left, mark, scale, clusters) for mark in marks]
            made = self._with(rows=self._rewritten(steps, sizes), ledger=ledger).supported(notes)
        return made._with(notes=tuple(notes))

    def extended(self, step: Step, encoder: Encoder, notes: list[str], *, given: bool) -> DesignOnDisk:
        """Return the same rows with other columns in the outcome design, which `step` adds and `encoder` codes.

        Lines are appended to `notes` for columns that are dropped; none are if the coefficients are `given`.
        """
        made = self._with(rows=self._rewritten([step] * len(self.parts)), outcome_encoder=encoder)
        if given:
            count, X = len(encoder.names), made.sums()["X"]
            return made._with(
                outcome_basis=plain_basis(np.empty((0, count))),
                constant=np.zeros(count),
                column_limits=np.stack([X.low, X.high], axis=1),
                exog_names=encoder.names,
            )
        same = ("notes", "propensity_basis", "observation_basis")  # coefficients are of the same columns
        return made.supported(notes)._with(**{name: getattr(self, name) for name in same})

    def _with(self, **other: Any) -> DesignOnDisk:
        """Return a design with other fields."""
        return DesignOnDisk(**self.__dict__ | other)

    def _rewritten(self, steps: Sequence[Step], sizes: Sequence[int] | None = None) -> tuple[CodedRows, ...]:
        """Store what steps make of the parts; `sizes` are the rows that are left of them, if not all."""
        folder, sizes = Folder(), sizes or [len(part.y) for part in self.parts]
        firsts = np.cumsum([0, *sizes]).tolist()
        works = [partial(_after, step, folder, f"{k}", firsts[k], self.parts[k]) for k, step in enumerate(steps)]
        return _gathered(folder, [work for work, size in zip(works, sizes, strict=True) if size])

    def sums(self) -> dict[str, Any]:
        """Return what columns need to be checked, of all rows."""
        return dict(add_up(self.over(partial(_sums, self.n_arms, self.n_clusters))))

    def spans(self, directions: Array) -> tuple[Array, Array]:
        """As `Design.spans`."""
        k = self.n_arms
        low, high = zip(*self.over(lambda block: arm_spans(block.Z, block.arm, k, directions)), strict=True)
        return np.min(low, axis=0), np.max(high, axis=0)

    def supported(self, notes: list[str]) -> DesignOnDisk:
        """Drop dependent columns, as `Design.supported`, and work out what goes by all rows."""
        sums, frequency = self.sums(), self.weight_type == "frequency"
        of_X, of_Z, of_y, of_R, totals, members = (sums[name] for name in ("X", "Z", "y", "R", "totals", "members"))
        limits, triangle = np.column_stack([of_y.low[:, 0], of_y.high[:, 0]]), of_y.triangle
        mean = float(of_y.origin[1] + triangle[0, 2] / triangle[0, 0])
        check_magnitude(limits, f"outcome {self.endog_name!r}")
        size, trained = (totals, sums["known"]) if frequency else (of_Z.rows, of_X.rows)
        keep, keep_z, known = self.kept(Seen(of_X, of_Z, of_R, trained, self.labels), notes)
        seen, keep_r, of_seen = known["observation"], None, None
        if seen is not None and self.observation is not None:
            keep_r = np.isin(self.observation.names, seen.names)
            of_seen = of_R.basis(keep_r)[0]

        def of_columns(block: CodedRows) -> CodedRows:
            X, R = block.X[:, keep], block.R if block.R is None or keep_r is None else block.R[:, keep_r]
            one = block.Z is block.X and np.array_equal(keep, keep_z)
            return dataclasses.replace(block, X=X, Z=X if one else block.Z[:, keep_z], R=R)

        every = keep.all() and keep_z.all() and (keep_r is None or keep_r.all())
        rows = self.parts if every else self._rewritten([of_columns] * len(self.parts))
        basis, constant = sums["every"].basis(keep)
        outcome, propensity = self.outcome_encoder.keeping(keep), self.propensity_encoder.keeping(keep_z)
        n = int(of_Z.rows.sum())
        return self._with(
            **known,
            rows=rows,
            outcome_encoder=outcome,
            propensity_encoder=propensity,
            exog_names=outcome.names,
            propensity_names=propensity.names,
            n=n,
            nobs=int(size.sum()),
            n_dropped=self.n_read - n - self.n_outside,
            n_clusters=int(members.any(axis=1).sum()),
            arm_clusters=(members > 0).sum(axis=0).tolist(),
            outcome_limits=limits,
            column_limits=np.stack([of_X.low, of_X.high], axis=1)[:, :, keep],
            counts=size.astype(np.intp),
            unrecorded=(size - trained).astype(np.intp),
            outcome_basis=basis,
            propensity_basis=basis if rows[0].Z is rows[0].X else of_Z.basis(keep_z)[0],
            observation_basis=of_seen,
            constant=constant,
            arm_totals=totals,
            outcome_moments=(mean, float(np.linalg.norm(triangle[1:, 2]) / abs(triangle[0, 0]))),
            notes=tuple(notes),
        )

    @property
    def has_binary_outcome(self) -> bool:
        """Whether every outcome is 0 or 1: between these, its variance is the largest for its mean."""
        mean, deviation = self.outcome_moments
        within = self.offset_kind is None and self.outcome_limits.min() == 0 and self.outcome_limits.max() == 1
        return within and math.isclose(deviation**2, mean * (1 - mean), rel_tol=1e-9)

    @property
    def outcome_deviation(self) -> float:
        """Standard deviation of the outcome under the observation weights; with an offset it goes by rows."""
        if self.offset_kind is not None:
            raise rows_not_kept("the standard deviation of an outcome with an offset")
        return self.outcome_moments[1]


def _gathered(folder: Folder, works: Iterable[Callable[[], CodedRows]]) -> tuple[CodedRows, ...]:
    """Return the parts that are stored in a folder, of which a cluster gives back copies."""
    return tuple(dataclasses.replace(part, file=(folder, part.file[1])) for part in computed(works) if part.file)


def _after(step: Step, folder: Folder, name: str, first: int, part: CodedRows) -> CodedRows:
    """Store what a step makes of a part, its rows numbered anew from the first."""
    block = step(part)
    return dataclasses.replace(block, position=first + np.argsort(np.argsort(block.position))).stored(folder, name)


def _rows_left(mark: NDArray[np.bool_], scale: float, clusters: NDArray[np.intp] | None, block: CodedRows) -> CodedRows:
    """Return the rows that are marked, weights times `scale`; `clusters` has the new number of each cluster."""
    left = block.with_arrays({name: values[mark] for name, values in block.arrays.items()})
    cluster = left.cluster if clusters is None or left.cluster is None else clusters[left.cluster]
    return dataclasses.replace(left, weights=left.weights * scale, cluster=cluster)


def _code(coding: Coding, folder: Folder, name: str, frames: list[tuple[str, int, int]]) -> CodedRows:
    """Code and store the rows of some frames: where, and the number of the first among all data and in the sample."""
    blocks = list[CodedRows]()
    for path, row, position in frames:
        rows = pd.read_pickle(path)
        with naming(rows.where):
            blocks.append(coding.coded(rows, row, position))
            if position == 0:
                coding.check_by_rows(rows, blocks[0])
    block = blocks[0]
    if len(blocks) > 1:
        arrays = {name: np.concatenate([one.arrays[name] for one in blocks]) for name in block.arrays}
        block = dataclasses.replace(block.with_arrays(arrays), where=f"{block.where} to {blocks[-1].where}")
    return block.stored(folder, name)


@one_blas_thread()
def design_from_scan(
    formula: str,
    scan: Scan,
    columns: ColumnOptions,
    *,
    propensity: str | None,
    frame: Mapping[str, Any],
    constant_outcome: bool,
    joint_outcome: bool,
) -> DesignOnDisk:
    """Make a design from formulas and a scan, as `design_from_formula`; the rows are read, coded and stored."""
    coding, folder = Coding(scan, formula=formula, propensity=propensity, columns=columns, frame=frame), Folder()
    found = scan.read(partial(coding.read, folder.path), coding.used)
    lines = defaultdict[tuple[str, str], Any](lambda: np.zeros(2, dtype=int))
    for formula_name, name, *counts in itertools.chain.from_iterable(one.lines for one in found):
        lines[formula_name, name] += counts
    ledger = [(*key, *counts.tolist()) for key, counts in lines.items()]
    ends = np.cumsum([(0, 0), *(one.size for one in found)], axis=0).tolist()
    notes = [*coding.notes, *check_drawn(ledger, ends[-1][0], ends[-1][1], coding.by)]
    coding.fix(found, notes)
    groups, together = list[list[tuple[str, int, int]]](), 0
    for one, (row, position) in zip(found, ends, strict=False):
        if one.path:  # small frames are joined
            if not groups or together + one.size[1] > scan.part_rows:
                groups.append([])
                together = 0
            groups[-1].append((one.path, row, position))
            together += one.size[1]
    rows = _gathered(folder, (partial(_code, coding, folder, f"{k}", frames) for k, frames in enumerate(groups)))
    for one in found:
        if one.path:
            os.remove(one.path)
    (outcome, assigned, *more), observation = coding.encoders, None
    for encoder in more:
        text, none = encoder.formula.right_text, np.empty((0, len(encoder.names)))
        observation = Observation(np.empty(0, dtype=bool), none, encoder.names, text, encoder)
    made = DesignOnDisk(
        scan=scan,
        rows=rows,
        n_read=ends[-1][0],
        n_clusters=len(coding.clusters),
        observation=observation,
        score=None,
        predictions=None,
        labels=coding.arms.labels,
        levels=coding.arms.levels,
        endog_name=coding.formulas[0].outcome_name,
        formula=coding.formulas[0].text,
        propensity_formula=f"{in_formula(columns.treat)} ~ {coding.formulas[1].right_text}",
        ledger=lines_of(ledger),
        rules=Rules.of(columns, constant_outcome, joint_outcome),
        missing=columns.missing,
        dropped_terms=(),
        outcome_encoder=outcome,
        propensity_encoder=assigned,
        **coding.by.fields(),
    ).supported(notes)
    for note in notes:
        warn_user(note, DesignWarning)
    return made

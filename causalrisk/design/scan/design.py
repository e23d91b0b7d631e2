"""From formulas and a scan to a design whose rows come in blocks, which are read and coded once and then kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, TypeVar

import numpy as np

from causalrisk.design.design import Design, Observation, Rowless, is_missing, rows_not_kept
from causalrisk.design.encoders import Encoder, ExtendedEncoder
from causalrisk.design.formulas.evaluation import in_formula
from causalrisk.design.rows import (
    ColumnOptions,
    check_drawn,
    ledger_frame,
    no_rows_left,
)
from causalrisk.design.scan.encode import (
    BlockCoder,
    CodedBlock,
    PassCounter,
    Step,
    View,
    itself,
    keep_rows,
    of_columns,
    rows_left,
)
from causalrisk.design.scan.levels import COPIES, coder_of, first_pass
from causalrisk.design.scan.reader import ScanReader
from causalrisk.design.scan.source import Scan
from causalrisk.design.support import (
    ColumnMoments,
    ModelColumns,
    Rules,
    Spans,
    arm_spans,
    check_magnitude,
    left_out,
    supported_columns,
)
from causalrisk.errors import DesignError, DesignWarning, UnavailableError, warn_user
from causalrisk.numerics.linalg import Array, Basis, plain_basis
from causalrisk.runtime.system import one_blas_thread

T = TypeVar("T")


@dataclass(frozen=True)
class Moments:
    """What the second pass learns.

    Parameters
    ----------
    X, Z : ColumnMoments
        Of both designs.
    y : ColumnMoments
        Of the outcome, and of the outcome less its offset.
    totals : ndarray, shape (K,)
        Sum of the weights of each arm.
    members : ndarray of int, shape (m,)
        Cluster times K plus arm, where a cluster has rows in an arm.
    R : ColumnMoments or None
        Of the design of the observation model; those of X and y are then of the rows with an outcome.
    known : ndarray, shape (K,)
        Sum of the weights of the rows of each arm with an outcome.
    """

    X: ColumnMoments
    Z: ColumnMoments
    y: ColumnMoments
    totals: Array
    members: np.ndarray
    R: ColumnMoments | None
    known: Array

    def beside(self, other: Moments) -> Moments:
        """Return those of other rows beside these."""
        return Moments(
            X=self.X.beside(other.X),
            Z=self.Z.beside(other.Z),
            y=self.y.beside(other.y),
            totals=self.totals + other.totals,
            members=np.union1d(self.members, other.members),
            R=None if self.R is None or other.R is None else self.R.beside(other.R),
            known=self.known + other.known,
        )

    @property
    def outcome_limits(self) -> Array:
        """Smallest and largest outcome of each arm, shape (K, 2)."""
        return np.column_stack([self.y.low[:, 0], self.y.high[:, 0]])

    def outcome(self) -> tuple[float, float]:
        """Mean and standard deviation under the weights of the outcome less its offset."""
        triangle = self.y.triangle
        mean = self.y.origin[1] + triangle[0, 2] / triangle[0, 0]
        return float(mean), float(np.linalg.norm(triangle[1:, 2]) / abs(triangle[0, 0]))


def moments(rows: View, n_arms: int, workers: int = 1, passes: PassCounter | None = None) -> Moments:
    """Sum the moments of all rows; other parameters as in `View.over`."""
    first = next(rows.blocks())
    parts = (first.X, first.Z, _outcomes(first)[first.recorded], np.empty((1, 0)) if first.R is None else first.R)
    origins = tuple(np.median(columns, axis=0) if len(columns) else np.zeros(2) for columns in parts)
    return reduce(Moments.beside, rows.over(partial(_moments_of, origins, n_arms), workers, passes))


def spans(
    rows: View, n_arms: int, directions: Array, workers: int = 1, passes: PassCounter | None = None
) -> tuple[Array, Array]:
    """Limits in each arm of combinations of the columns of the propensity design, as by `arm_spans`; a pass."""
    parts = list(rows.over(partial(_spans_of, n_arms, directions), workers, passes))
    return np.min([low for low, _ in parts], axis=0), np.max([high for _, high in parts], axis=0)


def _spans_of(k: int, directions: Array, block: CodedBlock) -> tuple[Array, Array]:
    return arm_spans(block.Z, block.arm, k, directions)


def _outcomes(block: CodedBlock) -> Array:
    """Outcome, and outcome less its offset, shape (n, 2)."""
    return np.column_stack([block.y, block.y if block.offset is None else block.y - block.offset])


def _moments_of(origins: tuple[Array, ...], k: int, block: CodedBlock) -> Moments:
    """Return the moments of a block."""
    seen = slice(None) if block.R is None else block.recorded
    arm, weights = block.arm[seen], block.weights[seen]
    X, y = (
        ColumnMoments.of(columns[seen], arm, k, origin=origin, weights=weights)
        for columns, origin in ((block.X, origins[0]), (_outcomes(block), origins[2]))
    )
    Z = ColumnMoments.of(block.Z, block.arm, k, origin=origins[1], weights=block.weights)
    R = None if block.R is None else ColumnMoments.of(block.R, origin=origins[3], weights=block.weights)
    cluster = np.empty(0, dtype=np.intp) if block.cluster is None else block.cluster
    return Moments(
        X=X,
        Z=Z,
        y=y,
        totals=np.bincount(block.arm, block.weights, minlength=k).astype(float),
        members=np.unique(cluster * k + block.arm[: len(cluster)]),
        R=R,
        known=np.bincount(arm, weights, minlength=k).astype(float),
    )


class ScannedDesign(Rowless, Design):
    """A design whose rows are read block by block; its other fields are those of `Design`.

    Parameters
    ----------
    coder : BlockCoder
        Reads and codes the rows; neither it nor the rows travel with a pickle.
    source : View
        The rows that are kept.
    files : View
        The rows in the files, with their variables; after trimming they have the numbers of the rows before it.
    n, nobs, n_dropped, n_clusters, arm_clusters, outcome_limits, column_limits, counts, unrecorded
        What `Design` works out from its rows.
    outcome_basis, propensity_basis : Basis
        Their bases, without rows.
    constant : ndarray, shape (p,)
        Coefficients of the outcome basis that give the constant, as nearly as its columns can.
    arm_totals : ndarray, shape (K,)
        Sum of the observation weights of each arm.
    outcome_moments : tuple of float
        Mean and standard deviation under the weights of the outcome less its offset.
    observation_basis : Basis or None
        Basis of the columns of the observation model, where outcomes are missing.
    **known
        Fields of `Design`.
    """

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

    def over(
        self,
        function: Callable[[CodedBlock], T],
        workers: int = 1,
        passes: PassCounter | None = None,
        variables: bool = False,
    ) -> Iterator[T]:
        """Begin a pass over the rows, as `View.over`; over the files where the function needs the variables."""
        self._known_coder()
        return (self.files if variables else self.source).over(function, workers, passes)

    def blocks(self) -> Iterator[CodedBlock]:
        """Return the blocks of rows, in this process."""
        self._known_coder()
        return self.source.blocks()

    def trimmed(
        self, keep: Callable[[CodedBlock], np.ndarray], reason: str, workers: int, passes: PassCounter | None
    ) -> ScannedDesign:
        """Return the same design on fewer rows, as `Design.subset`.

        `keep` marks the rows of a block that are left, and `reason` says in the ledger why the others are not.
        """
        sizes, weights, groups = zip(*self.over(partial(_left_of, keep), workers, passes), strict=True)
        n, notes, clusters = sum(sizes), list[str](), None
        lines = [*self.sample_ledger.itertuples(index=False), ("trim", reason, self.n - n, self.n - n)]
        with self.trimming(reason, n):
            if self.n_clusters:
                left = np.unique(np.concatenate(groups))
                clusters = np.full(self.n_clusters, -1)
                clusters[left] = np.arange(len(left))
            scale = n / sum(weights) if self.weight_type == "probability" else 1.0
            step = partial(rows_left, keep, scale, clusters)
            rows = self._kept(step, n, workers, passes)
            seen, files = moments(rows, self.n_arms, workers, passes), self.files.after(step)
            made = self._again((rows, files), seen, self.outcome_encoder, notes, lines, workers, passes)
        made.__dict__["notes"] = self.notes_after(notes)
        return made

    def extended(
        self,
        step: Step,
        encoder: ExtendedEncoder,
        notes: list[str],
        workers: int,
        passes: PassCounter | None,
        *,
        given: bool,
    ) -> ScannedDesign:
        """Return the same rows with other columns in the outcome design, which `step` adds and `encoder` codes.

        Lines are appended to `notes` for columns that are dropped; none are if the coefficients are `given`.
        """
        rows = self._kept(step, self.n, workers, passes)
        seen = moments(rows, self.n_arms, workers, passes)
        if given:
            count = len(encoder.names)
            return ScannedDesign(
                **self.__dict__
                | {
                    "source": rows,
                    "outcome_basis": plain_basis(np.empty((0, count))),
                    "constant": np.zeros(count),
                    "column_limits": np.stack([seen.X.low, seen.X.high], axis=1),
                    "exog_names": encoder.names,
                    "outcome_encoder": encoder,
                }
            )
        lines = self.sample_ledger.itertuples(index=False)
        made = self._again((rows, self.files), seen, encoder, notes, lines, workers, passes)
        same = ("notes", "files", "propensity_basis", "observation_basis")  # coefficients are of the same columns
        made.__dict__.update({name: getattr(self, name) for name in same})
        return made

    def _kept(self, step: Step, n: int, workers: int, passes: PassCounter | None) -> View:
        """Make other rows of these, n in number, and keep them."""
        blocks = self.source.after(step).over(itself, workers, passes)
        return View(keep_rows(blocks, n, self.block_rows), n)

    def _again(
        self,
        rows: tuple[View, View],
        seen: Moments,
        encoder: Encoder,
        notes: list[str],
        lines: Iterable[tuple[Any, ...]],
        workers: int,
        passes: PassCounter | None,
    ) -> ScannedDesign:
        """Make a design of rows that were made of these, as `_design`; `encoder` is that of the outcome design."""
        names = None if self.observation is None else self.observation.names
        models = encoder, self.propensity_encoder, names
        limits = partial(spans, rows[0], self.n_arms, workers=workers, passes=passes)
        return _design(self._known_coder(), rows, seen, models, notes, self.rules, lines, limits, self.dropped_terms)

    def _known_coder(self) -> BlockCoder:
        coder: BlockCoder | None = self.__dict__.get("coder")
        if coder is None:
            raise UnavailableError(
                "the model came from a file, which has no rows of a scan.\nMake it anew with `from_formula`, then fit."
            )
        return coder

    @property
    def knows_scan(self) -> bool:
        """Whether the rows can be read again; not those of a model that came from a file."""
        return "coder" in self.__dict__

    def reads(self, path: str) -> bool:
        """As `Scan.reads`; nothing is read by a model that came from a file."""
        return self.knows_scan and self._known_coder().reader.scan.reads(path)

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

    @property
    def block_rows(self) -> int:
        """Rows of a block at the most."""
        return self._known_coder().reader.scan.block_rows

    @property
    def block_bytes(self) -> float:
        """Working memory of a block, about: so many numbers a row for each column of both designs."""
        columns = len(self.exog_names) + len(self.propensity_names)
        if self.replication is not None:
            columns += len(self.replication.scales)
        return 8.0 * COPIES * self.block_rows * columns

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("coder", "source", "files")}


def _left_of(keep: Callable[[CodedBlock], np.ndarray], block: CodedBlock) -> tuple[int, float, np.ndarray]:
    """Return what is left of a block: the number of rows, the sum of their weights, and their clusters."""
    left = block.some(keep(block))
    clusters = np.empty(0, dtype=np.intp) if left.cluster is None else np.unique(left.cluster)
    return len(left.y), float(left.weights.sum()), clusters


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
) -> ScannedDesign:
    """Make a design from formulas and a scan, as `design_from_formula`; the rows are read and coded once, and kept."""
    reader = ScanReader(scan, formula=formula, propensity=propensity, columns=columns, frame=frame)
    found = first_pass(reader)
    notes = [*reader.notes, *check_drawn(found.lines, found.read, found.n, reader.by)]
    if found.first is None:
        raise no_rows_left(found.lines, found.read)
    coder = coder_of(found, found.first, notes)
    rows, files = View(keep_rows(coder.blocks(), found.n, scan.block_rows), found.n), View(coder, found.n)
    k = len(coder.arms.labels)
    models = coder.outcome, coder.propensity, None if coder.observed is None else coder.observed.names
    rules, limits = Rules.of(columns, constant_outcome, joint_outcome), partial(spans, rows, k)
    made = _design(coder, (rows, files), moments(rows, k), models, notes, rules, found.lines, limits)
    for note in notes:
        warn_user(note, DesignWarning)
    return made


def _design(
    coder: BlockCoder,
    rows: tuple[View, View],
    seen: Moments,
    models: tuple[Encoder, Encoder, tuple[str, ...] | None],
    notes: list[str],
    rules: Rules,
    lines: Iterable[tuple[Any, ...]],
    limits: Spans,
    dropped: tuple[str, ...] = (),
) -> ScannedDesign:
    """Drop dependent columns and freeze.

    `rows` are those kept and those in the files, with the columns of `models`: encoders of both, and names of those of
    the observation model. `lines` are those of the ledger, `dropped` terms that were dropped before.
    """
    reader, columns, arms, n = coder.reader, coder.reader.columns, coder.arms, int(seen.Z.rows.sum())
    name, frequency = reader.outcome.left[0].name(), columns.weight_type == "frequency"
    outcome, propensity, seen_names = models
    observation, keep_seen, of_seen = None, None, None
    if seen.R is not None and seen_names is not None and reader.observed is not None and coder.observed is not None:
        formula = reader.observed.right_text
        if is_missing(seen.Z.rows, seen.X.rows, arms.labels, name, formula, notes):
            keep_seen = seen.R.usable(seen_names, "observation", notes, rules.collinear)
            nobody = np.empty(0, dtype=bool), np.empty((0, len(seen_names)))
            none = Observation(*nobody, seen_names, formula, coder.observed)
            observation, of_seen = none.keeping(keep_seen), seen.R.basis(keep_seen)[0]
    check_magnitude(seen.outcome_limits, f"outcome {name!r}")
    if np.ptp(seen.outcome_limits) == 0:
        raise DesignError(f"outcome {name!r} is constant: {seen.outcome_limits[0, 0]:g} in all rows; the effect is 0.")
    size = seen.totals if frequency else seen.Z.rows
    both = ModelColumns(seen.X, outcome, arms.labels), ModelColumns(seen.Z, propensity, arms.labels)
    trained = seen.known if frequency else seen.X.rows
    keep, keep_z = supported_columns(*both, trained, rules, notes, limits)
    lost = [*left_out(outcome, keep), *left_out(propensity, keep_z)]
    outcome, propensity = outcome.keeping(keep), propensity.keeping(keep_z)
    basis, constant = seen.X.basis(keep)
    source, files = (view.after(partial(of_columns, keep, keep_z, keep_seen)) for view in rows)
    one = reader.outcome.right_text == reader.assigned.right_text and outcome.names == propensity.names
    ledger = ledger_frame(lines)
    return ScannedDesign(
        coder=coder,
        source=source,
        files=files,
        n=n,
        nobs=int(size.sum()),
        n_dropped=coder.size[0] - n - int(ledger.loc[ledger["formula"] == "subpop", "dropped"].sum()),
        n_clusters=len(np.unique(seen.members // len(arms.labels))),
        arm_clusters=np.bincount(seen.members % len(arms.labels), minlength=len(arms.labels)).tolist(),
        outcome_limits=seen.outcome_limits,
        column_limits=np.stack([seen.X.low, seen.X.high], axis=1)[:, :, keep],
        counts=size.astype(np.intp),
        outcome_basis=basis,
        propensity_basis=basis if one else seen.Z.basis(keep_z)[0],
        constant=constant,
        arm_totals=seen.totals,
        outcome_moments=seen.outcome(),
        observation=observation,
        observation_basis=of_seen,
        unrecorded=(size - trained).astype(np.intp),
        score=None,
        labels=arms.labels,
        levels=arms.levels,
        endog_name=name,
        exog_names=outcome.names,
        propensity_names=propensity.names,
        formula=reader.outcome.text,
        propensity_formula=f"{in_formula(columns.treat)} ~ {reader.assigned.right_text}",
        sample_ledger=ledger,
        notes=tuple(notes),
        rules=rules,
        missing=columns.missing,
        dropped_terms=tuple(dict.fromkeys([*dropped, *lost])),
        outcome_encoder=outcome,
        propensity_encoder=propensity,
        survey=coder.survey,
        **reader.by.fields(),
    )

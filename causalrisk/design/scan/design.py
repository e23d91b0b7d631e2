"""From formulas and a scan to a design that has no rows in memory, but reads and codes them block by block."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from causalrisk.design.design import Design
from causalrisk.design.formulas.terms import in_formula
from causalrisk.design.rank import check_magnitude
from causalrisk.design.rows import ColumnOptions, check_groups, check_smallest, ledger_frame, zero_note
from causalrisk.design.scan.coder import BlockCoder, CodedBlock, PassCounter, Trim
from causalrisk.design.scan.lessons import taught
from causalrisk.design.scan.levels import COPIES, Survey, arm_levels, make_encoder, survey
from causalrisk.design.scan.moments import Moments, moments, spans
from causalrisk.design.scan.reader import ScanReader
from causalrisk.design.scan.rowless import Rowless
from causalrisk.design.scan.source import Scan
from causalrisk.design.support import ModelColumns, Rules, Spans, left_out, supported_columns
from causalrisk.design.treatment import notes_of_spelling
from causalrisk.errors import DesignError, DesignWarning, UnavailableError, warn_user
from causalrisk.numerics.linalg import Array, Basis

T = TypeVar("T")


class ScannedDesign(Rowless, Design):
    """A design whose rows are read block by block; its other fields are those of `Design`.

    Parameters
    ----------
    coder : BlockCoder
        Reads and codes the rows; it does not travel with a pickle.
    n, nobs, n_dropped, n_clusters, arm_clusters, outcome_limits, column_limits, counts
        What `Design` works out from its rows.
    outcome_basis, propensity_basis : Basis
        Their bases, without rows.
    constant : ndarray, shape (p,)
        Coefficients of the outcome basis that give the constant, as nearly as its columns can.
    arm_totals : ndarray, shape (K,)
        Sum of the observation weights of each arm.
    outcome_moments : tuple of float
        Mean and standard deviation under the weights of the outcome less its offset.
    **known
        Fields of `Design`.
    """

    # In the place of the properties of Design; plain attributes of the class give way to those of the instance.
    n = nobs = n_dropped = n_clusters = 0
    arm_clusters: list[int] = []  # noqa: RUF012
    outcome_limits = column_limits = counts = np.empty(0)
    outcome_basis: Basis
    propensity_basis: Basis
    constant: Array
    arm_totals: Array
    outcome_moments: tuple[float, float]

    def over(
        self, function: Callable[[CodedBlock], T], workers: int = 1, passes: PassCounter | None = None
    ) -> Iterator[T]:
        """As `BlockCoder.over`."""
        return self._known_coder().over(function, workers, passes)

    def blocks(self) -> Iterator[CodedBlock]:
        """As `BlockCoder.blocks`."""
        return self._known_coder().blocks()

    def trimmed(
        self, keep: Callable[[CodedBlock], np.ndarray], reason: str, workers: int, passes: PassCounter | None
    ) -> ScannedDesign:
        """Return the same design on fewer rows, as `Design.subset`, in two passes.

        Parameters
        ----------
        keep : callable
            As in `Trim`.
        reason : str
            Why the others are left out, for the ledger.
        workers, passes
            As in `BlockCoder.over`.
        """
        coder = self._known_coder()
        kept = functools.reduce(_Kept.beside, self.over(functools.partial(_Kept.of, keep), workers, passes))
        lost, notes = self.n - kept.n, list[str]()
        lines = [*self.sample_ledger.itertuples(index=False), *([("trim", reason, lost, lost)] if lost else [])]
        try:
            if not kept.n:
                raise DesignError("no observations left.")
            less = kept.coder(coder, keep, self.weight_type)
            made = _design(
                less,
                moments(less, workers, passes),
                notes=notes,
                rules=self.rules,
                lines=lines,
                spans=functools.partial(spans, less, workers=workers, passes=passes),
                dropped=self.dropped_terms,
            )
        except DesignError as error:
            raise DesignError(
                f"trimming ({reason}) leaves {kept.n} of {self.n} rows: {error}\nTrim less: a wider trim=(low, high)."
            ) from error
        new = [f"after trimming: {note}" for note in notes if note not in self.notes]
        for note in new:
            warn_user(note, DesignWarning)
        made.__dict__["notes"] = (*self.notes, *new)
        return made

    def _known_coder(self) -> BlockCoder:
        coder: BlockCoder | None = self.__dict__.get("coder")
        if coder is None:
            raise UnavailableError(
                "the model came from a file and does not know its scan any more.\n"
                "Make it anew with from_formula(...), then fit."
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
    def n_read(self) -> int:
        """Rows of the data, those counted that are not in the sample."""
        return self._known_coder().read

    @property
    def block_rows(self) -> int:
        """Rows of a block at the most."""
        return self._known_coder().reader.scan.block_rows

    @property
    def block_bytes(self) -> float:
        """Working memory of a block, about: so many numbers a row for each column of both designs."""
        columns = len(self.exog_names) + len(self.propensity_names)
        return 8.0 * COPIES * self.block_rows * columns

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "coder"}


@dataclasses.dataclass(frozen=True)
class _Kept:
    """What trimming leaves: rows, the sum of their weights, and their clusters."""

    n: int
    weight: float
    clusters: np.ndarray

    @classmethod
    def of(cls, keep: Callable[[CodedBlock], np.ndarray], block: CodedBlock) -> _Kept:
        """Return that of a block."""
        left = block.some(keep(block))
        clusters = np.empty(0, dtype=np.intp) if left.cluster is None else np.unique(left.cluster)
        return cls(len(left.y), float(left.weights.sum()), clusters)

    def beside(self, other: _Kept) -> _Kept:
        """Return that of other rows beside these."""
        return _Kept(self.n + other.n, self.weight + other.weight, np.union1d(self.clusters, other.clusters))

    def coder(self, coder: BlockCoder, keep: Callable[[CodedBlock], np.ndarray], weight_type: str | None) -> BlockCoder:
        """Return what codes the rows that are left."""
        return dataclasses.replace(
            coder,
            clusters=None if coder.clusters is None else coder.clusters[self.clusters],
            unit=coder.unit * self.weight / self.n if weight_type == "probability" else coder.unit,
            n=self.n,
            mark=None,
            trim=Trim(coder, keep),
        )


def design_from_scan(
    formula: str,
    scan: Scan,
    columns: ColumnOptions,
    *,
    propensity: str | None,
    frame: Mapping[str, Any],
    constant_outcome: bool,
) -> ScannedDesign:
    """Make a design from formulas and a scan, in two passes over the data.

    Parameters
    ----------
    formula, columns, propensity, frame, constant_outcome
        As in `design_from_formula`; treatment, weights and clusters are names of columns.
    scan : Scan
        The data.

    Returns
    -------
    ScannedDesign
        The design.

    Raises
    ------
    DesignError
        If the data and formulas do not describe a model that can be fitted.
    """
    reader = ScanReader(scan, formula=formula, propensity=propensity, columns=columns, frame={"np": np, **frame})
    found = survey(reader)
    notes = list(reader.notes)
    coder = _coder(found, notes)
    made = _design(
        coder,
        moments(coder),
        notes=notes,
        rules=Rules.of(columns, constant_outcome),
        lines=found.lines,
        spans=functools.partial(spans, coder),
    )
    for note in notes:
        warn_user(note, DesignWarning)
    return made


def _coder(found: Survey, notes: list[str]) -> BlockCoder:
    """Fix the coding on what the first pass learnt, and try it on the first rows."""
    columns = found.reader.columns
    first = next(rows for piece in found.reader.pieces() for rows in found.reader.blocks(piece, 0) if rows.n)
    reader = taught(found, first)
    formulas, unit, clusters = first.formulas, 1.0, None
    low, high = found.weight_limits
    zeros = found.ledger.get(("weights", "weights = 0"), [0])[0]
    if zeros:
        notes.append(zero_note(columns.weights, zeros))
    notes += notes_of_spelling({**{name: c.levels for name, c in found.columns.items()}, columns.treat: found.counts})
    if columns.weight_type == "probability":
        unit = found.weight_sum / found.n
        check_smallest(low, high, low / unit, columns.weights)
    if columns.cluster is not None:
        clusters = pd.Index(list(found.clusters), dtype=object)
        check_groups(list(clusters), found.n, columns.cluster)
    coder = BlockCoder(
        reader=reader,
        outcome=make_encoder(found, reader.outcome, formulas.right),
        propensity=make_encoder(found, reader.assigned, formulas.assign),
        arms=arm_levels(found),
        clusters=clusters,
        unit=unit,
        n=found.n,
        read=found.read,
        starts=tuple(found.starts),
    )
    coder.check_by_rows(first)
    return coder


def _design(
    coder: BlockCoder,
    seen: Moments,
    *,
    notes: list[str],
    rules: Rules,
    lines: Iterable[tuple[Any, ...]],
    spans: Spans,
    dropped: tuple[str, ...] = (),
) -> ScannedDesign:
    """Drop dependent columns and freeze; `lines` are those of the ledger, `dropped` terms that were dropped before."""
    reader, columns, arms = coder.reader, coder.reader.columns, coder.arms
    name, frequency = reader.outcome.left[0].name(), columns.weight_type == "frequency"
    _check_outcome(seen.outcome_limits, name)
    size = seen.totals if frequency else seen.rows
    keep, keep_z = supported_columns(
        ModelColumns(seen.X, coder.outcome),
        ModelColumns(seen.Z, coder.propensity),
        size=size,
        labels=arms.labels,
        rules=rules,
        notes=notes,
        spans=spans,
    )
    lost = [*left_out(coder.outcome, keep), *left_out(coder.propensity, keep_z)]
    outcome, propensity = coder.outcome.keeping(keep), coder.propensity.keeping(keep_z)
    basis, constant = seen.X.basis(keep)
    return ScannedDesign(
        coder=dataclasses.replace(coder, outcome=outcome, propensity=propensity, mark=seen.mark),
        n=coder.n,
        nobs=int(size.sum()),
        n_dropped=coder.read - coder.n,
        n_clusters=0 if coder.clusters is None else len(coder.clusters),
        arm_clusters=np.bincount(seen.members % len(arms.labels), minlength=len(arms.labels)).tolist(),
        outcome_limits=seen.outcome_limits,
        column_limits=np.stack([seen.X.low, seen.X.high], axis=1)[:, :, keep],
        counts=size.astype(np.intp),
        outcome_basis=basis,
        propensity_basis=basis if coder.one_design and np.array_equal(keep, keep_z) else seen.Z.basis(keep_z)[0],
        constant=constant,
        arm_totals=seen.totals,
        outcome_moments=seen.outcome(),
        weight_type=columns.weight_type,
        offset_kind="exposure" if columns.exposure is not None else None if columns.offset is None else "offset",
        score=None,
        labels=arms.labels,
        levels=arms.levels,
        endog_name=name,
        treat_name=columns.treat,
        exog_names=outcome.names,
        propensity_names=propensity.names,
        formula=reader.outcome.text,
        propensity_formula=f"{in_formula(columns.treat)} ~ {reader.assigned.right_text}",
        sample_ledger=ledger_frame(lines),
        notes=tuple(notes),
        weights_name=columns.weights,
        cluster_name=columns.cluster,
        offset_name=columns.offset or columns.exposure,
        score_name=None,
        rules=rules,
        missing=columns.missing,
        dropped_terms=tuple(dict.fromkeys([*dropped, *lost])),
        outcome_encoder=outcome,
        propensity_encoder=propensity,
    )


def _check_outcome(limits: Array, name: str) -> None:
    """Refuse an outcome too large for its squares, or the same in all rows."""
    check_magnitude(limits, f"outcome {name!r}")
    if np.ptp(limits) == 0:
        raise DesignError(
            f"outcome {name!r} is constant: {limits[0, 0]:g} in all rows; the effect is 0.\n"
            "Check that it is the column you mean."
        )

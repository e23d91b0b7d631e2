"""From formulas and a scan to a design that has no rows in memory, but reads and codes them block by block."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from causalrisk.design.design import Design
from causalrisk.design.formulas.terms import in_formula
from causalrisk.design.rank import check_arm_sizes, check_magnitude
from causalrisk.design.rows import ColumnOptions, check_groups, check_smallest, ledger_frame, zero_note
from causalrisk.design.scan.coder import BlockCoder, CodedBlock
from causalrisk.design.scan.levels import COPIES, Survey, arm_levels, make_encoder, survey
from causalrisk.design.scan.moments import Moments, moments
from causalrisk.design.scan.reader import ScanReader
from causalrisk.design.scan.rowless import Rowless
from causalrisk.design.scan.source import Scan
from causalrisk.errors import DesignError, DesignWarning, UnavailableError, warn_user
from causalrisk.numerics.linalg import Array, Basis

T = TypeVar("T")


class ScannedDesign(Rowless, Design):
    """A design whose rows are read block by block; its other fields are those of `Design`.

    Parameters
    ----------
    coder : BlockCoder
        Reads and codes the rows; it does not travel with a pickle.
    n, nobs, n_dropped, n_clusters, arm_clusters, outcome_limits, counts
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
    outcome_limits = counts = np.empty(0)
    outcome_basis: Basis
    propensity_basis: Basis
    constant: Array
    arm_totals: Array
    outcome_moments: tuple[float, float]

    def over(self, function: Callable[[CodedBlock], T], workers: int = 1) -> Iterator[T]:
        """As `BlockCoder.over`."""
        return self._known_coder().over(function, workers)

    def blocks(self) -> Iterator[CodedBlock]:
        """As `BlockCoder.blocks`."""
        return self._known_coder().blocks()

    def _known_coder(self) -> BlockCoder:
        coder: BlockCoder | None = self.__dict__.get("coder")
        if coder is None:
            raise UnavailableError(
                "the model came from a file and does not know its scan any more.\n"
                "Make it anew with from_formula(...), then fit."
            )
        return coder

    @property
    def block_bytes(self) -> float:
        """Working memory of a block, about: so many numbers a row for each column of both designs."""
        columns = len(self.exog_names) + len(self.propensity_names)
        return 8.0 * COPIES * self._known_coder().reader.scan.block_rows * columns

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "coder"}


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
    seen = moments(coder)
    return _design(found, coder=coder, seen=seen, notes=notes, constant_outcome=constant_outcome)


def _coder(found: Survey, notes: list[str]) -> BlockCoder:
    """Fix the coding on what the first pass learnt, and try it on the first rows."""
    reader, columns = found.reader, found.reader.columns
    first = next(rows for piece in reader.pieces() for rows in reader.blocks(piece, 0) if rows.n)
    formulas, unit, clusters = first.formulas, 1.0, None
    low, high = found.weight_limits
    zeros = found.ledger.get(("weights", "weights = 0"), [0])[0]
    if zeros:
        notes.append(zero_note(columns.weights, zeros))
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


def _design(found: Survey, coder: BlockCoder, seen: Moments, notes: list[str], constant_outcome: bool) -> ScannedDesign:
    """Drop dependent columns, check what the arms support, and freeze."""
    reader, columns, arms = found.reader, found.reader.columns, coder.arms
    name, frequency = reader.outcome.left[0].name(), columns.weight_type == "frequency"
    _check_outcome(seen.outcome_limits, name)
    keep = seen.X.usable(coder.outcome.names, "outcome", notes)
    keep_z = seen.Z.usable(coder.propensity.names, "propensity", notes)
    outcome, propensity = coder.outcome.keeping(keep), coder.propensity.keeping(keep_z)
    size = seen.totals if frequency else seen.rows
    check_arm_sizes(size, arms.labels, 1 if constant_outcome else len(outcome.names), len(propensity.names))
    if not constant_outcome:
        seen.check_arms(keep, outcome.names, arms.labels)
    for note in notes:
        warn_user(note, DesignWarning)
    basis, constant = seen.X.basis(keep)
    return ScannedDesign(
        coder=dataclasses.replace(coder, outcome=outcome, propensity=propensity, mark=seen.mark),
        n=found.n,
        nobs=int(size.sum()),
        n_dropped=found.read - found.n,
        n_clusters=0 if coder.clusters is None else len(coder.clusters),
        arm_clusters=np.bincount(seen.members % len(arms.labels), minlength=len(arms.labels)).tolist(),
        outcome_limits=seen.outcome_limits,
        counts=size.astype(np.intp),
        outcome_basis=basis,
        propensity_basis=basis if coder.one_design else seen.Z.basis(keep_z)[0],
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
        sample_ledger=ledger_frame(found.lines),
        notes=tuple(notes),
        weights_name=columns.weights,
        cluster_name=columns.cluster,
        offset_name=columns.offset or columns.exposure,
        score_name=None,
        constant_outcome=constant_outcome,
        missing=columns.missing,
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

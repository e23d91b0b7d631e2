"""Designs whose rows are on disk: read a scan once, code its rows, and store them as arrays.

The first pass keeps the rows of the estimation sample and collects the levels of factors. The second pass codes
these rows and stores them in a temporary folder.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design import rows as drawing
from causalrisk.design.build import Formulas, check_roles, read_formulas
from causalrisk.design.design import Design
from causalrisk.design.encoders import INDICATOR, OF_OTHER_ROWS, Encoder, FormulaEncoder, is_by_row, outcome_values
from causalrisk.design.formulas import QUOTED, Scope, in_formula, stateful_function
from causalrisk.design.rows import ColumnOptions
from causalrisk.design.scan import Folder, Frame, Scan, computed, lazily_mapped, mapped, naming
from causalrisk.design.support import ColumnMoments, Rules, check_levels, check_magnitude
from causalrisk.design.tables import is_column, plain
from causalrisk.design.treatment import arms_in_order, notes_of_spelling, treatment_levels
from causalrisk.errors import IN_MEMORY, DesignError, UnavailableError, not_on_disk
from causalrisk.numerics.arrays import Array, Basis, add_up, chunks_of, plain_basis
from causalrisk.runtime import one_blas_thread

T = TypeVar("T")
VARIABLE = r"\w+|Q\([^()]*\)|C\((\w+|Q\([^()]*\))(,.*)?\)"  # g, Q("g"), C(g), C(g, Treatment("a"))
HEAD = 2  # values of each numeric variable per frame, on which formulas are tried


# --- from rows to numbers ---------------------------------------------------------------------------------------------


class FrameSummary(NamedTuple):
    """Summary of a frame, which has consecutive rows of a scan.

    `size` has the number of its rows, and of its sample rows. `few` has the distinct values of factors, treatment and
    cluster by role ("column", "treatment" or "cluster") and name. `counts` has the number of rows per treatment level.
    `where` is the name of the frame in messages. The file at `path` has the rows of the sample, not yet coded.
    """

    where: str
    size: tuple[int, int]
    lines: list[drawing.Line]
    path: str = ""
    few: Any = None
    counts: Any = None
    weights: float = 0.0


class Coding:
    """Selects and codes the rows and variables that a model needs. The data come in frames from a scan.

    The parameters are the same as in `design_from_scan`. `read` summarises frames. `fix` then sets the coding.
    """

    def __init__(
        self, scan: Scan, formula: str, propensity: str | None, columns: ColumnOptions, frame: Mapping[str, Any]
    ) -> None:
        _check_given(columns)
        names, self.notes = scan.names, list[str]()
        empty = pd.DataFrame({name: pd.Series(dtype=float) for name in names})
        for name in re.findall(r"(?<![\w.])[^\W\d]\w*\b(?!\s*=[^=])", re.sub(QUOTED, "", f"{formula} {propensity}")):
            value = None if name in names else frame.get(name)
            if is_column(value) and not isinstance(value, list | tuple):
                found = f"the formulas use {name!r}, a {type(value).__name__} that is not a column of the files"
                advice = "Add this column to the files. An option such as `levels=` of `C()` must be a list."
                raise DesignError(f"{found}.\n{advice}")
        formulas, _ = read_formulas(formula, propensity, columns, empty, frame, self.notes)
        self.part_rows, self.columns, self.formulas = scan.part_rows, columns, formulas
        used = {use.name for each in formulas.models for use in each.uses()}
        self.frame = {name: frame[name] for name in used if name in frame}
        self.codes = set().union(*(formula.coded() for formula in formulas.models))
        for each in formulas.models:
            function = stateful_function(each, self.frame)
            if function is not None:
                found = f"the {each.model} formula {each.text!r} uses {function}(), which needs all rows at once"
                raise UnavailableError(f"{found}.\nUse `{IN_MEMORY}`, or add the computed column to the files.")
        self.by = drawing.by_rows(empty, columns, {}, [])
        check_roles(formulas, columns.treat, columns.did)
        used |= {getattr(columns, option) for option in drawing.BY_ROW}
        self.used = [name for name in names if name in used]

    def read(self, folder: str, part: int, frames: Iterator[Frame]) -> list[FrameSummary]:
        """Summarise the frames of a part, and store their sample rows in files of a folder."""
        found = list[FrameSummary]()
        for k, (where, frame) in enumerate(frames):
            with naming(where):
                found.append(self.summarise(where, frame.reset_index(drop=True), f"{folder}/{part}-{k}.pickle"))
        return found

    def summarise(self, where: str, table: pd.DataFrame, path: str) -> FrameSummary:
        """Summarise a frame, and store its sample rows, if any, at `path`."""
        columns, formulas = self.columns, Formulas.of(self.formulas.models, table, self.frame)
        by, sources = drawing.by_rows(table, columns, {}, []), formulas.sources(columns.treat)
        rows = drawing.draw_rows(sources, by, table.index)
        keep, size = rows.keep, (len(rows.keep), rows.n)
        if not rows.n:
            return FrameSummary(where, size, rows.lines)
        raw = {source.name: source.values[keep] for source in sources}
        variables = {name: plain(values, name, name in self.codes) for name, values in raw.items()}
        treat = by.treat.values[keep]
        roles: dict[str, Any] = {"treat": treat, "weights": rows.weights[keep]}
        few = {("treatment", columns.treat): treat.drop_duplicates()}
        if by.cluster is not None:
            roles["cluster"] = by.cluster.values[keep]
            few["cluster", columns.cluster] = roles["cluster"].astype(object).drop_duplicates()
        if by.offset is not None:
            roles["offset"] = drawing.read_offset(by.offset, keep, by.treat.name, self.formulas.models[0].outcome_name)
        tables = pd.DataFrame(variables).set_axis(table.index[keep]), pd.DataFrame(roles, index=table.index[keep])
        pd.to_pickle(tables, path)
        for name, values in raw.items():
            numeric = variables[name].dtype.kind in "if" and name not in self.codes
            few["column", name] = values[:HEAD].copy() if numeric else values.drop_duplicates()  # a view keeps all rows
        codes, levels = treatment_levels(treat, columns.treat)
        return FrameSummary(
            where=where,
            size=size,
            lines=rows.lines,
            path=path,
            few=few,
            counts=dict(zip(levels, np.bincount(codes, minlength=len(levels)).tolist(), strict=True)),
            weights=float(roles["weights"].sum()),
        )

    def fix(self, found: Sequence[FrameSummary]) -> None:
        """Fix the coding from the summaries of the frames that have sample rows."""
        columns, probability = self.columns, self.columns.weight_type == "probability"
        self.unit = sum(one.weights for one in found) / sum(one.size[1] for one in found) if probability else 1.0
        few, joined = dict[str, pd.Series](), dict[str, pd.Series]()
        for role, name in found[0].few:
            of_frames = {one.where: one.few[role, name] for one in found}
            _check_alike(of_frames, f"{role} {name!r}")
            values = pd.concat(of_frames.values(), ignore_index=True).drop_duplicates()
            if role != "column":
                joined[role] = values
                continue
            values = plain(values, name, name in self.codes)
            few[name] = values.astype("category") if values.dtype == object else values
        counts = sum((Counter(one.counts) for one in found), Counter())
        self.notes += notes_of_spelling({**few, columns.treat: counts})
        self.clusters: Any = ()
        if columns.cluster is not None:
            self.clusters = drawing.cluster_codes(joined["cluster"])[1].astype(object)
        levels = treatment_levels(joined["treatment"], columns.treat)[1]
        self.arms = arms_in_order(
            levels,
            np.array([counts[level] for level in levels]),
            columns.treat,
            named=any(isinstance(one.few["treatment", columns.treat].dtype, pd.CategoricalDtype) for one in found),
            **{option: getattr(columns, option) for option in ("treated", "reference", "levels")},
        )
        check_levels(self.part_rows, few, self.codes, "scanned", 6)  # 6 arrays the size of a frame's design
        size = max([HEAD, *map(len, few.values())])
        few = {name: values.iloc[np.arange(size) % len(values)].reset_index(drop=True) for name, values in few.items()}
        self.encoders = list[FormulaEncoder]()
        for formula, scope in zip(self.formulas.models, self.formulas.scopes, strict=True):
            encoder = FormulaEncoder(formula, Scope({name: few[name] for name in scope.variables}, scope.constants))
            for factor, known in encoder.info.factor_infos.items():
                if known.categories not in (None, (False, True)) and not re.fullmatch(VARIABLE, factor.code):
                    why = f"the {formula.model} formula {formula.text!r} computes categories ({factor.code})"
                    advice = "Add this column to the files, or use 0/1 terms such as `I(x > 1)`."
                    raise DesignError(f"{why}. Data on disk need categories as columns.\n{advice}")
            encoder.by_row = True  # checked by `check_by_row`; here, rows of the scope mix values of several rows
            self.encoders.append(encoder)

    def coded(self, one: FrameSummary, row: int, position: int) -> CodedRows:
        """Return a frame's rows as numbers. `row` and `position` are its first row's places in data and sample."""
        table, roles = pd.read_pickle(one.path)
        (outcome, propensity), cluster = self.encoders, None
        if "cluster" in roles:
            cluster = self.clusters.get_indexer(pd.Index(np.asarray(roles["cluster"], dtype=object), dtype=object))
        with naming(one.where):
            X = outcome.encode(table)
            same = outcome.formula.right == propensity.formula.right  # the same terms in the same order
            return CodedRows(
                position=np.arange(position, position + len(roles)),
                y=self.outcome(table),
                X=X,
                Z=X if same else propensity.encode(table),
                arm=self.arms.arm_of(*treatment_levels(roles["treat"], self.columns.treat)),
                weights=roles["weights"].to_numpy() / self.unit,
                cluster=cluster,
                offset=roles["offset"].to_numpy() if "offset" in roles else None,
                row=row + roles.index.to_numpy(),
                table=(one.path, row),
            )

    def outcome(self, table: pd.DataFrame) -> Array:
        """Return the outcome of the rows of a table of variables."""
        return outcome_values(self.formulas.models[0], self.formulas.left, table, np.ones(len(table), dtype=bool))

    def check_by_row(self, found: Sequence[FrameSummary]) -> None:
        """Raise a DesignError if the columns of a row depend on other rows. Nine rows of several frames are tried."""
        some = list[pd.DataFrame]()
        for share in np.linspace(0, 1, 9):  # not from one frame, within which a variable may be constant
            table, _ = pd.read_pickle(found[round(share * (len(found) - 1))].path)
            some.append(table.iloc[[int(share * (len(table) - 1))]])
        rows, codes = pd.concat(some, ignore_index=True), [self.outcome, *(each.encode for each in self.encoders)]
        for formula, code in zip([self.formulas.models[0], *self.formulas.models], codes, strict=True):
            if not is_by_row(code, rows):
                raise DesignError(OF_OTHER_ROWS.format(formula.text))


def _check_alike(values: Mapping[str, Iterable[Any]], what: str) -> None:
    """Raise an error if a variable is text in some frames and numbers in others. `values` has one entry per frame."""
    kinds = {isinstance(value, str): (where, value) for where, own in values.items() for value in own}
    if len(kinds) > 1:
        (of_text, text), (of_numbers, _) = kinds[True], kinds[False]
        found = f"{what} has numbers in {of_numbers}, and text such as {text!r} in {of_text}"
        raise DesignError(f"{found}.\nUse one type everywhere, and NaN or empty cells for missing values.")


def _check_given(columns: ColumnOptions) -> None:
    """Raise an error for options that are not available on disk, and for values where a column's name is needed."""
    given = [f"{option}=" for option in (*drawing.GIVEN, "design", "observed") if getattr(columns, option) is not None]
    for option in [*given, *(['missing="indicator"'] if columns.missing == INDICATOR else [])]:
        raise not_on_disk(option)
    for option in drawing.BY_ROW:
        value = getattr(columns, option)
        if value is not None and not isinstance(value, str):
            found = f"{option}= is a {type(value).__name__}; expected the name of a column for data on disk"
            raise DesignError(f'{found}.\nAdd it to the files, and use `{option}="name"`.')


# --- rows on disk ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CodedRows:
    """Some rows of the sample as numbers.

    `position` is the position of each row in the sample, and `row` is its position in the data. X (n, p) and Z (n, q)
    are the design matrices. Probability `weights` have mean one over all rows. `table` has the `path` of
    the frame's `FrameSummary`, and the position of the frame's first row in the data. `file` says where the rows are.
    """

    position: np.ndarray
    y: np.ndarray
    X: np.ndarray
    Z: np.ndarray
    arm: np.ndarray
    weights: np.ndarray
    row: np.ndarray
    table: tuple[str, int]
    cluster: np.ndarray | None = None
    offset: np.ndarray | None = None
    file: Any = None  # folder and name

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, without Z if it is the same object as X."""
        own = {name: array for name, array in vars(self).items() if isinstance(array, np.ndarray)}
        return {name: array for name, array in own.items() if name != "Z" or array is not self.X}

    def __reduce__(self) -> Any:
        return _mapped_rows, (*self.file, list(self.arrays), self.table)


def _mapped_rows(folder: Folder, name: str, arrays: Sequence[str], table: tuple[str, int]) -> CodedRows:
    found = {array: mapped(folder, f"{name}-{array}") for array in arrays}
    return CodedRows(table=table, file=(folder, name), **({"Z": found["X"]} | found))


def stored_array(rows: Any) -> Any:
    """Write a Dask array to a temporary folder, and return it memory-mapped. The folder is deleted with the array."""
    folder, chunks = Folder(), chunks_of(rows)
    names = [f"{k}" for k in range(len(chunks))]
    computed((partial(_write_columns, f"{folder.path}/{name}.npy") for name in names), chunks)
    return lazily_mapped(folder, names)


def _write_columns(path: str, values: Array) -> None:
    np.save(path, np.asarray(values, dtype=float, order="F"))


def _sums(k: int, n_clusters: int, block: CodedRows) -> dict[str, Any]:
    """Return sums over some rows for the checks: moments, total weight of each arm, rows of each cluster and arm."""

    def of(columns: Array) -> ColumnMoments:
        return ColumnMoments.of(columns, block.arm, k, origin=columns.mean(axis=0), weights=block.weights)

    cells, X = np.empty(0, dtype=int) if block.cluster is None else block.cluster * k + block.arm, of(block.X)
    return {
        "X": X,
        "Z": X if block.Z is block.X else of(block.Z),
        "y": of(block.y[:, None]),
        "not binary": int((~np.isin(block.y, (0, 1))).sum()),
        "totals": np.bincount(block.arm, block.weights, minlength=k).astype(float),
        "members": np.bincount(cells, minlength=n_clusters * k).reshape(n_clusters, k),
    }


class DesignOnDisk(Design):
    """A design whose rows are on disk. Fields of `Design` with one value per row raise an UnavailableError.

    `parts` has the stored rows, which are not pickled. Results that `Design` computes from its rows are fields here.
    """

    on_disk = True
    # Plain attributes instead of the properties of Design, because instances can override them.
    n = nobs = n_clusters = 0
    outcome_deviation, has_binary_outcome = 0.0, False
    arm_clusters: list[int] = []  # noqa: RUF012
    outcome_limits = varying = counts = np.empty(0)
    parts: tuple[CodedRows, ...]
    folder: Folder  # with the tables of the parts
    outcome_basis: Basis
    propensity_basis: Basis
    constant: Array

    def __init__(self, **known: Any) -> None:
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Any:
        if name == "parts":
            found = "the model was loaded from a file. Its data are on disk, and the file does not contain the rows"
            raise UnavailableError(f"{found}.\nMake the model again with `from_formula`, then fit.")
        if name in self.__dataclass_fields__ or hasattr(Design, name):  # fields, and properties computed from fields
            raise not_on_disk()
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("parts", "folder")}

    def __deepcopy__(self, memo: Any) -> DesignOnDisk:
        return self  # it is never modified

    def over(self, function: Callable[[CodedRows], T]) -> Iterator[T]:
        """Return an iterator over `function(part)` for each of `parts`, in order, computed with Dask."""
        return iter(computed(partial(function, part) for part in self.parts))

    def dask(self, name: str) -> Any:
        """Return all rows of a field of `CodedRows`, such as "X", as a Dask array. A chunk is a part, sorted by arm."""
        one = self.parts[0]
        array = "X" if name == "Z" and one.Z is one.X else name
        if array not in one.arrays:
            raise not_on_disk(repr(name))
        return lazily_mapped(one.file[0], [f"{part.file[1]}-{array}" for part in self.parts])

    def variables(self, block: CodedRows) -> pd.DataFrame:
        """Return the variables on the right-hand sides of both formulas for the rows of a block."""
        path, first = block.table
        table, _ = pd.read_pickle(path)
        return table.loc[block.row - first]

    def _of_rows(self, keep: np.ndarray) -> DesignOnDisk:
        marks, place = [keep[part.position] for part in self.parts], np.cumsum(keep) - 1

        def left(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(part, name)[mark] for part, mark in zip(self.parts, marks, strict=True)])

        clusters = np.unique(left("cluster")) if self.n_clusters else None
        scale = int(keep.sum()) / float(left("weights").sum()) if self.weight_type == "probability" else 1.0
        each = [(mark, part) for mark, part in zip(marks, self.parts, strict=True) if mark.any()]
        steps = (partial(_rows_left, mark, place[part.position[mark]], scale, clusters, part) for mark, part in each)
        return self._with(parts=_stored(steps))

    def extended(self, step: Callable[[Any], Any], encoder: Encoder, notes: list[str], *, given: bool) -> DesignOnDisk:
        """Return the design with outcome columns of `step(rows)`, unchecked if `given`. `encoder` codes new data."""
        made = self._with(parts=_stored([partial(step, part) for part in self.parts]), outcome_encoder=encoder)
        if given:
            p = len(encoder.names)
            return made._with(outcome_basis=plain_basis(np.empty((0, p))), constant=np.zeros(p))
        made = made.supported(notes)  # the columns of the propensity model are unchanged
        return made._with(propensity_basis=self.propensity_basis)

    def _with(self, **other: Any) -> DesignOnDisk:
        return DesignOnDisk(**self.__dict__ | other)

    def supported(self, notes: list[str]) -> DesignOnDisk:
        """Return the design without dependent columns, and compute the fields that need all rows."""
        sums = add_up(self.over(partial(_sums, self.n_arms, self.n_clusters)))
        of_X, of_Z, of_y, totals, members = (sums[name] for name in ("X", "Z", "y", "totals", "members"))
        limits, triangle = np.hstack([of_y.low, of_y.high]), of_y.triangle
        check_magnitude(limits, f"outcome {self.endog_name!r}")
        size = totals if self.weight_type == "frequency" else of_X.rows
        keep, keep_z, dropped = self.kept(of_X, of_Z, size, self.labels, notes)

        def of_columns(block: CodedRows) -> CodedRows:
            X, one = block.X[:, keep], block.Z is block.X and np.array_equal(keep, keep_z)
            return dataclasses.replace(block, X=X, Z=X if one else block.Z[:, keep_z])

        parts = self.parts
        if not (keep.all() and keep_z.all()):
            parts = _stored([partial(of_columns, part) for part in parts])
        basis, constant = of_X.basis(keep)
        return self._with(
            parts=parts,
            dropped_terms=dropped,
            outcome_encoder=self.outcome_encoder.keeping(keep),
            propensity_encoder=self.propensity_encoder.keeping(keep_z),
            n=int(of_X.rows.sum()),
            nobs=int(size.sum()),
            n_clusters=int(members.any(axis=1).sum()),
            arm_clusters=(members > 0).sum(axis=0).tolist(),
            outcome_limits=limits,
            varying=~of_X.steady[keep],
            counts=size.astype(np.intp),
            outcome_basis=basis,
            propensity_basis=basis if parts[0].Z is parts[0].X else of_Z.basis(keep_z)[0],
            constant=constant,
            outcome_deviation=float(abs(triangle[1, 1] / triangle[0, 0])),
            has_binary_outcome=not sums["not binary"],
        )


def _stored(works: Iterable[Callable[[], CodedRows]], folder: Folder | None = None) -> tuple[CodedRows, ...]:
    folder = folder or Folder()
    parts = computed(partial(_store, work, folder, f"{k}") for k, work in enumerate(works))
    # Workers may return copies of the folder, which do not delete it.
    return tuple(dataclasses.replace(part, file=(folder, f"{k}")) for k, part in enumerate(parts))


def _store(work: Callable[[], CodedRows], folder: Folder, name: str) -> CodedRows:
    """Write the rows to files, sorted by arm, and return them memory-mapped."""
    rows = work()
    order = np.argsort(rows.arm, kind="stable")
    for array, values in rows.arrays.items():
        np.save(f"{folder.path}/{name}-{array}.npy", values[order])
    return _mapped_rows(folder, name, list(rows.arrays), rows.table)


def _rows_left(mark: NDArray[np.bool_], position: Any, scale: float, clusters: Any, block: CodedRows) -> CodedRows:
    """Return the marked rows, with their new positions. `clusters` has the codes of the clusters that remain."""
    arrays: dict[str, Any] = {name: values[mark] for name, values in block.arrays.items()} | {"position": position}
    if clusters is not None:
        arrays["cluster"] = np.searchsorted(clusters, arrays["cluster"])
    return dataclasses.replace(block, **{"Z": arrays["X"]} | arrays | {"weights": arrays["weights"] * scale})


# --- from a scan to a design -----------------------------------------------------------------------------------------


@one_blas_thread()
def design_from_scan(
    formula: str, scan: Scan, columns: ColumnOptions, rules: Rules, *, propensity: str | None, frame: Mapping[str, Any]
) -> Design:
    """Make a design from formulas and a scan, like `design_from_formula`. Rows are read, coded and stored."""
    coding, folder = Coding(scan, formula, propensity, columns, frame), Folder()
    found = scan.read(partial(coding.read, folder.path), coding.used)
    ledger = [
        (*same[0][:2], sum(line[2] for line in same), sum(line[3] for line in same))
        for same in zip(*(one.lines for one in found), strict=True)  # every frame has a line for each variable
    ]
    ends = np.cumsum([(0, 0), *(one.size for one in found)], axis=0).tolist()
    drawing.check_rows_left(ledger, *ends[-1])
    kept = [(one, *first) for one, first in zip(found, ends, strict=False) if one.path]
    coding.fix([one for one, *_ in kept])
    parts = _stored((partial(coding.coded, one, *first) for one, *first in kept), folder)
    coding.check_by_row([one for one, *_ in kept])
    made = DesignOnDisk(
        parts=parts,
        folder=folder,
        n_clusters=len(coding.clusters),
        labels=coding.arms.labels,
        levels=coding.arms.levels,
        endog_name=coding.formulas.models[0].outcome_name,
        formula=coding.formulas.models[0].text,
        propensity_formula=f"{in_formula(columns.treat)} ~ {coding.formulas.models[1].right_text}",
        ledger=tuple(line for line in ledger if line[2]),
        rules=rules,
        outcome_encoder=coding.encoders[0],
        propensity_encoder=coding.encoders[1],
        **coding.by.fields(),
    ).supported(coding.notes)
    return made.with_notes(coding.notes)

"""From the rows of a scan to numbers: the reading keeps rows and learns levels; the coding is then fixed, and used."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design import rows as drawing
from causalrisk.design.build import Formulas, check_roles, kept_offset, outcome_values, read_formulas
from causalrisk.design.encoders import INDICATOR, Encoder, FormulaEncoder
from causalrisk.design.formulas.evaluation import Formula, Scope, computed_options, learn
from causalrisk.design.scan.source import Folder, Frame, Scan, mapped, naming
from causalrisk.design.support import check_size
from causalrisk.design.tables import as_table, condition_names, is_column, plain
from causalrisk.design.treatment import arms_in_order, notes_of_spelling, treatment_levels
from causalrisk.errors import DesignError, UnavailableError

VARIABLE = r"\w+|Q\([^()]*\)|C\((\w+|Q\([^()]*\))(,.*)?\)"  # g, Q("g"), C(g), C(g, Treatment("a"))
HEAD = 2  # numbers of each frame that a formula is tried on


class KeptRows(NamedTuple):
    """The rows of a frame that are in the sample, not yet coded.

    `where` names the frame in messages. `variables` are those of the models, an outcome that may be missing as it is.
    `roles` has the treatment, whether the outcome is recorded, and where there are any, weights, cluster and offset;
    its index is the number of the row in the frame.
    """

    where: str
    variables: pd.DataFrame
    roles: pd.DataFrame


class Learnt(NamedTuple):
    """What a frame teaches: rows of the data and of the sample, the ledger, and levels of columns.

    `few` are rows of each variable, and `treat` of the treatment, that have all its levels; `numbers` are the variables
    without levels. `weights` is their sum. `path` is where the rows are.
    """

    where: str
    size: tuple[int, int]
    lines: list[drawing.Line]
    few: Mapping[str, pd.Series] = MappingProxyType({})
    numbers: frozenset[str] = frozenset()
    treat: pd.Series | None = None
    counts: Mapping[Any, int] = MappingProxyType({})
    clusters: Sequence[Any] = ()
    weights: float = 0.0
    path: str = ""


class Coding:
    """Finds the rows and variables of a model in the frames of a scan, and codes them, always in the same way.

    Parameters are those of `design_from_scan`. `read` says what frames teach; once all frames have been seen, `fix`
    sets the coding: `encoders` of the right-hand sides (outcome, propensity and maybe observation), `arms`, `clusters`
    in the order of their numbers, and the `unit` that weights are divided by.
    """

    def __init__(
        self, scan: Scan, formula: str, propensity: str | None, columns: drawing.ColumnOptions, frame: Mapping[str, Any]
    ) -> None:
        _check_given(columns)
        names, self.notes = scan.column_names(), list[str]()
        empty = pd.DataFrame({name: pd.Series(dtype=float) for name in names})
        text = f"{formula} {propensity} {columns.observed}"
        self.frame = {name: frame[name] for name in re.findall(r"(?<![\w.])[^\W\d]\w*", text) if name in frame}
        _check_constants(self.frame, names)
        formulas, _ = read_formulas(formula, propensity, columns, empty, self.frame, self.notes)
        self.part_rows, self.columns, self.formulas = scan.part_rows, columns, formulas.models
        used = {use.name for each in self.formulas for use in each.uses()}
        self.frame = {name: value for name, value in self.frame.items() if name in used}
        self.codes = set().union(*(formula.coded for formula in self.formulas))
        self.scopes = [formulas.left, *formulas.scopes]
        for each in self.formulas:
            for function, option in computed_options(each, names):
                raise DesignError(
                    f"the {each.model} formula {each.text!r} computes an option of {function}() from columns, "
                    f"{option}; with a scan, expected numbers.\nWrite the numbers."
                )
        self.by = drawing.by_rows(as_table(empty, []), columns, {}, [])
        check_roles(formulas, columns.treat, columns.did)
        used |= {getattr(columns, option) for option in drawing.BY_ROW}
        used |= set(condition_names(columns.subpop)) if isinstance(columns.subpop, str) else set()
        self.used = [name for name in names if name in used]

    def look(self, frame: Frame) -> tuple[KeptRows, Learnt]:
        """Return the rows of a frame that are in the sample, and what they teach."""
        columns, whole = self.columns, frame.rows.reset_index(drop=True)
        objects = [name for name, column in whole.items() if column.dtype.kind == "O"]
        texts = [name for name in objects if pd.api.types.infer_dtype(whole[name], skipna=True) == "string"]
        table = whole.astype(dict.fromkeys(texts, "category"))  # whose coding is faster
        formulas, by = Formulas.of(self.formulas, table, self.frame), drawing.by_rows(table, columns, {}, [])
        sources = formulas.sources(columns.treat)
        rows = drawing.draw_rows(sources, by, table.index, columns.missing)
        keep, lines, outcome = rows.keep, rows.lines, self.formulas[0].left[0].name()
        raw = {source.name: source.values[keep] for source in sources}
        variables = {name: plain(values, name, name in self.codes) for name, values in raw.items()} if rows.n else {}
        roles: dict[str, Any] = {"treat": by.treat.values[keep], "recorded": True}
        if rows.weights is not None:
            roles["weights"] = rows.weights[keep]
        if by.cluster is not None:
            roles["cluster"] = by.cluster.values[keep]
        if by.offset is not None:
            roles["offset"] = kept_offset(by, keep, (by.treat.name, outcome))
        if formulas.recorded is not None:
            roles["recorded"] = formulas.recorded[keep]
            lines.append((drawing.UNRECORDED, outcome, int((~roles["recorded"]).sum()), 0))
            left = {name: values[keep].reset_index(drop=True) for name, values in formulas.left.variables.items()}
            variables = left | variables
        kept = KeptRows(frame.where, pd.DataFrame(variables), pd.DataFrame(roles, index=table.index[keep]))
        learnt = Learnt(frame.where, (len(keep), rows.n), lines)
        if not rows.n:
            return kept, learnt
        few = {}
        for name, values in raw.items():
            column = values.astype(object) if name in texts else values
            if kept.variables[name].dtype.kind in "if" and name not in self.codes:
                few[name] = column.iloc[:HEAD].copy()  # and not a view of all rows
                continue
            few[name] = column.drop_duplicates()
            count = len(few[name])
            check_size(max(self.part_rows, count), count, f"the coding of the levels of column {name!r}")
            plain(few[name], name, name in self.codes)  # refuses numbers and dates as text
        treat = kept.roles["treat"]
        codes, levels = treatment_levels(treat, columns.treat)
        return kept, learnt._replace(
            few=few,
            numbers=frozenset(name for name in raw if kept.variables[name].dtype.kind in "bif"),
            treat=treat.drop_duplicates(),
            counts=dict(zip(levels, np.bincount(codes, minlength=len(levels)).tolist(), strict=True)),
            clusters=pd.unique(np.asarray(roles["cluster"], dtype=object)) if "cluster" in roles else (),
            weights=float(np.sum(roles.get("weights", 0.0))),
        )

    def read(self, folder: str, part: int, frames: Iterator[Frame]) -> list[Learnt]:
        """Learn from the frames of a part, and store the rows that are kept in files of a folder."""
        found = []
        for k, frame in enumerate(frames):
            with naming(frame.where):
                kept, learnt = self.look(frame)
            if learnt.size[1]:
                learnt = learnt._replace(path=f"{folder}/{part}-{k}.pickle")
                pd.to_pickle(kept, learnt.path)
            found.append(learnt)
        return found

    def fix(self, found: Sequence[Learnt], notes: list[str]) -> None:
        """Fix the coding on what the frames taught; lines are appended to `notes`."""
        columns, n, self.unit = self.columns, sum(one.size[1] for one in found), 1.0
        if columns.weight_type == "probability":
            self.unit = sum(one.weights for one in found) / n
        names = dict.fromkeys(name for one in found for name in one.few)
        few = {name: _few_rows(found, name, name in self.codes) for name in names}
        counts = sum((Counter(one.counts) for one in found), Counter())
        notes += notes_of_spelling({**few, columns.treat: counts})
        self.clusters = pd.Index(pd.unique(np.concatenate([np.asarray(one.clusters, dtype=object) for one in found])))
        if columns.cluster is not None:
            _check_alike(self.clusters, f"cluster {columns.cluster!r}")
            drawing.check_groups(list(self.clusters), columns.cluster)
        treat = [one.treat for one in found if one.treat is not None]
        _check_alike(counts, f"treatment {columns.treat!r}")
        levels = treatment_levels(pd.concat(treat, ignore_index=True), columns.treat)[1]
        self.arms = arms_in_order(
            levels,
            np.array([counts[level] for level in levels]),
            columns.treat,
            named=any(isinstance(one.dtype, pd.CategoricalDtype) for one in treat),
            **{option: getattr(columns, option) for option in ("treated", "reference", "levels")},
        )
        size = max([HEAD, len(levels), *map(len, few.values())])
        places = {name: np.resize(np.arange(len(values)), size) for name, values in few.items()}
        few = {name: values.iloc[places[name]].reset_index(drop=True) for name, values in few.items()}
        few[columns.treat] = pd.Series(self.arms.coded(np.resize(np.arange(len(levels)), size)))
        constants = {name: value for scope in self.scopes for name, value in scope.constants.items()}
        learnt = learn(self.formulas, constants, lambda: _variables(found, constants))
        self.formulas = [dataclasses.replace(formula, learnt=learnt) for formula in self.formulas]
        scopes = [Scope({name: few[name] for name in scope.variables}, scope.constants) for scope in self.scopes[1:]]
        self.encoders = [_encoder(formula, scope) for formula, scope in zip(self.formulas, scopes, strict=True)]

    def coded(self, rows: KeptRows, row: int = 0, position: int = 0) -> CodedRows:
        """Code the rows of a frame; the numbers are those of the first among all data and those of the sample."""
        (outcome, propensity, *observed), treat = self.encoders, self.columns.treat
        table, roles, n = rows.variables, rows.roles, len(rows.roles)
        arm = self.arms.arm_of(*treatment_levels(roles["treat"], treat), treat)
        with_treat = table.assign(**{treat: self.arms.coded(arm)}) if observed else table
        X, V = outcome.encode(table), np.empty((n, len(kinds := variable_kinds(self.encoders, treat))))
        same = self.formulas[0].right_text == self.formulas[1].right_text and outcome.names == propensity.names
        for j, (name, dtype) in enumerate(kinds.items()):
            levels = isinstance(dtype, pd.CategoricalDtype)
            V[:, j] = pd.Categorical(table[name], dtype=dtype).codes if levels else table[name]
        left = Scope({name: table[name] for name in self.scopes[0].variables}, self.scopes[0].constants)
        cluster = None
        if "cluster" in roles:
            cluster = self.clusters.get_indexer(pd.Index(np.asarray(roles["cluster"], dtype=object), dtype=object))
        return CodedRows(
            where=rows.where,
            position=np.arange(position, position + n),
            y=outcome_values(self.formulas[0], left, roles["recorded"].to_numpy()),
            X=X,
            Z=X if same else propensity.encode(table),
            arm=arm,
            weights=roles["weights"].to_numpy() / self.unit if "weights" in roles else np.ones(n),
            cluster=cluster,
            offset=roles["offset"].to_numpy() if "offset" in roles else None,
            row=row + roles.index.to_numpy(),
            R=observed[0].encode(with_treat) if observed else None,
            V=V,
        )

    def check_by_rows(self, rows: KeptRows, block: CodedRows) -> None:
        """Raise a DesignError where a formula codes rows differently beside other rows, as with ``x - x.mean()``."""
        half, texts = len(block.y) // 2, dict(zip("yXZR", [self.formulas[0], *self.formulas], strict=False))
        for some in (slice(None, half), slice(half, None)):
            alone = self.coded(KeptRows(rows.where, rows.variables.iloc[some], rows.roles.iloc[some]))
            for name, formula in texts.items():
                whole, part = getattr(block, name), getattr(alone, name)
                near = {"rtol": 1e-9, "atol": 1e-13 * np.nanmax(np.abs(whole), axis=0, initial=0)}
                if not np.isclose(whole[some], part, equal_nan=True, **near).all():
                    raise DesignError(
                        f"the formula {formula.text!r} codes a row differently beside other rows, as "
                        "`I(x - x.mean())` would; a scan has some rows at a time.\n"
                        "Write the number itself, or a column to the files."
                    )


def _check_given(columns: drawing.ColumnOptions) -> None:
    """Refuse what is not available, and what is given by rows and not by name."""
    unavailable = [f"{option}=" for option in (*drawing.GIVEN, "design") if getattr(columns, option) is not None]
    unavailable += ['missing="indicator"'] if columns.missing == INDICATOR else []
    if unavailable:
        raise UnavailableError(
            f"{unavailable[0]} is not available for a scan.\n"
            "Leave it out, or use `data=data.collect()` if the rows fit into memory."
        )
    for option in drawing.BY_ROW:
        value = getattr(columns, option)
        if value is not None and not isinstance(value, str):
            raise DesignError(
                f"{option}= is a {type(value).__name__}; with a scan, expected the name of a column.\n"
                f'Write it to the files, and use `{option}="name"`.'
            )


def _check_constants(frame: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse a variable of the caller that goes by rows and is no column."""
    for name, value in frame.items():
        if name not in names and is_column(value) and not isinstance(value, list | tuple):
            raise DesignError(
                f"the formulas use {name!r}, a {type(value).__name__} that is no column of the scan.\n"
                "Write it to the files; if it is an option such as levels=, make it a list."
            )


def _few_rows(found: Sequence[Learnt], name: str, coded: bool) -> pd.Series:
    """Return rows of a variable that have all its levels; a DesignError where some frames have text, others numbers."""
    having = [one for one in found if name in one.few]
    numbers = [one.where for one in having if name in one.numbers]
    text = next((one for one in having if name not in one.numbers), None)
    if numbers and text is not None:
        raise DesignError(
            f"column {name!r} has numbers in {numbers[0]}, and in {text.where} text such as "
            f"{str(text.few[name].iloc[0])!r}; expected the same in every file.\n"
            "Write the files alike, a missing value as an empty cell."
        )
    few = plain(pd.concat([one.few[name] for one in having], ignore_index=True).drop_duplicates(), name, coded)
    return few if isinstance(few.dtype, pd.CategoricalDtype) or few.dtype.kind in "bif" else few.astype("category")


@dataclass(frozen=True)
class CodedRows:
    """Some rows of the sample as numbers.

    Parameters
    ----------
    where : str
        What messages call them.
    position : ndarray of int, shape (n,)
        Number of each row among those of the sample, in the order of the data.
    y : ndarray, shape (n,)
        Outcome; NaN where it is missing and the sample has the row.
    X, Z : ndarray, shape (n, p) and (n, q)
        Outcome and propensity designs; one object where both are the same.
    arm : ndarray of int, shape (n,)
        Arm of each row.
    weights : ndarray, shape (n,)
        Observation weights; probability weights over their mean in all rows.
    row : ndarray of int, shape (n,)
        Number of each row in all data, those counted that are not in the sample.
    cluster : ndarray of int, shape (n,), or None
        Cluster of each row, 0 .. G-1.
    offset : ndarray, shape (n,), or None
        Offset of the outcome models; of an exposure its logarithm.
    R : ndarray, shape (n, r), optional
        Design of the observation model, where outcomes may be missing.
    V : ndarray, shape (n, v), optional
        Variables of the models as in `variable_kinds`: numbers, or numbers of levels.
    file : tuple of Folder and str, optional
        Where they are stored.
    """

    where: str
    position: np.ndarray
    y: np.ndarray
    X: np.ndarray
    Z: np.ndarray
    arm: np.ndarray
    weights: np.ndarray
    row: np.ndarray
    cluster: np.ndarray | None = None
    offset: np.ndarray | None = None
    R: np.ndarray | None = None
    V: np.ndarray | None = None
    file: tuple[Folder, str] | None = None

    @property
    def recorded(self) -> np.ndarray:
        """Which rows have an outcome, bool, shape (n,)."""
        return ~np.isnan(self.y)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by their names; without Z where both designs are one."""
        names = (of.name for of in dataclasses.fields(self) if of.name != "Z" or self.Z is not self.X)
        return {name: getattr(self, name) for name in names if isinstance(getattr(self, name), np.ndarray)}

    def with_arrays(self, arrays: Mapping[str, Any]) -> CodedRows:
        """Return rows with other arrays, as of `arrays`."""
        return dataclasses.replace(self, **({"Z": arrays["X"]} | dict(arrays)))

    def stored(self, folder: Folder, name: str) -> CodedRows:
        """Write the rows to files, sorted by arm, and return them mapped from there."""
        order, kinds = np.argsort(self.arm, kind="stable"), dict[str, tuple[Any, tuple[int, ...]]]()
        for array, values in self.arrays.items():
            values[order].tofile(f"{folder.path}/{name}-{array}")
            kinds[array] = values.dtype, values.shape
        return _mapped_rows(self.where, folder, name, kinds)

    def __reduce__(self) -> Any:
        if self.file is None:
            return super().__reduce__()
        return _mapped_rows, (self.where, *self.file, {k: (v.dtype, v.shape) for k, v in self.arrays.items()})


def _mapped_rows(where: str, folder: Folder, name: str, kinds: Mapping[str, tuple[Any, tuple[int, ...]]]) -> CodedRows:
    """Return stored rows, their arrays mapped from files."""
    arrays = {array: mapped(folder, f"{name}-{array}", *kind) for array, kind in kinds.items()}
    return CodedRows(where=where, file=(folder, name), **({"Z": arrays["X"]} | arrays))


def variable_kinds(encoders: Iterable[Encoder], treat: str) -> dict[str, Any]:
    """Return the dtypes of the variables of some models, without the treatment."""
    found = {name: few.dtype for encoder in encoders for name, few in encoder.sample_variables().items()}
    return {name: dtype for name, dtype in found.items() if name != treat}


def _encoder(formula: Formula, scope: Scope) -> FormulaEncoder:
    """Fix the coding of a right-hand side on rows that have every level of every variable."""
    encoder = FormulaEncoder(formula, scope)
    for factor, known in encoder.info.factor_infos.items():
        code = factor.code
        if known.categories not in (None, (False, True)) and not re.fullmatch(VARIABLE, code):
            raise DesignError(
                f"the {formula.model} formula {formula.text!r} computes categories, {code}, which a scan cannot code.\n"
                "Make it a column of the files, or 0/1 columns by `I(x > 1)`."
            )
    return encoder


def _check_alike(values: Iterable[Any], what: str) -> None:
    """Refuse text in some files and numbers in others."""
    if len({isinstance(value, str) for value in values}) > 1:
        raise DesignError(
            f"{what} has text in one file and numbers in another, and 3 and '3' would be two; expected the same in all."
            "\nWrite the files alike."
        )


def _variables(found: Sequence[Learnt], constants: Mapping[str, Any]) -> Iterator[dict[str, pd.Series]]:
    """Yield the variables of the models of one frame at a time, without those named like a module of the caller."""
    for path in (one.path for one in found if one.path):
        table = pd.read_pickle(path).variables
        yield {str(name): values.copy() for name, values in table.items() if name not in constants}

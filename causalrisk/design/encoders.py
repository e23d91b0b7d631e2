"""Encoders: turn new data into the columns of a fitted design, coded exactly as the estimation sample was."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from causalrisk.design import formulas as language
from causalrisk.design.formulas import Formula, Scope, parse, uses
from causalrisk.design.tables import (
    as_pandas,
    as_table,
    column_of,
    listing,
    missing_mask,
    new_column,
    numbers,
    plain,
)
from causalrisk.errors import DesignError

OF_OTHER_ROWS = (
    "the formula {!r} computes a row from other rows, as `I(x - x.mean())` does, so it cannot be used here.\n"
    "Write the mean as a number, or add the computed column to the data."
)


class Encoder:
    """Coding of a model's columns, fixed by the estimation sample. Dropped columns are not coded."""

    info: Any = None  # patsy's DesignInfo of a formula
    base: Encoder | None = None  # encoder of the columns from which more columns are computed
    _make: Callable[[np.ndarray], np.ndarray]

    def __init__(self, names: Sequence[str], model: str, variables: Mapping[str, pd.Series] | None = None) -> None:
        self._all, self._model, self.sample_variables = tuple(names), model, dict(variables or {})
        self._keep = np.ones(len(self._all), dtype=bool)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(itertools.compress(self._all, self._keep))

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables that new data must have. For a design from arrays, they are the columns."""
        return self.names if self.base is None else self.base.variables

    def levels(self) -> dict[str, dict[Any, str]]:
        """Return the levels of each factor and the column of each level, "" for a reference level without a column."""
        found = dict[str, dict[Any, str]]()
        for factor, coded in self.info.factor_infos.items() if self.info is not None else ():
            columns = found[factor.name()] = {}
            for level in coded.categories or ():
                names = (f"{factor.name()}[T.{level}]", f"{factor.name()}[{level}]")
                columns[level] = next((name for name in names if name in self.info.column_names), "")
        return found

    def made_of(self, names: Collection[str]) -> np.ndarray:
        """Return a mask (p,) of the columns that use any of these variables."""
        found = set(names)
        if self.info is not None:
            found = {
                column
                for term, place in self.info.term_slices.items()
                if any(use.name in names for factor in term.factors for use in uses(factor.name()))
                for column in self.info.column_names[place]
            }
        return np.array([name in found for name in self.names], dtype=bool)

    def keeping(self, keep: np.ndarray) -> Self:
        """Return an encoder of the columns that the mask `keep` (p,) marks."""
        inside = self._keep.copy()
        inside[self._keep] = keep
        return self._with(_keep=inside)

    def extended(self, more: Sequence[str], make: Callable[[np.ndarray], np.ndarray], keep: np.ndarray) -> Self:
        """Return an encoder with further columns, which `make` computes. `keep` is a mask of old and new columns."""
        return self._with(base=self, _make=make, _keep=keep, _all=(*self.names, *more))

    def _with(self, **changed: Any) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__ | changed)  # including what is not pickled
        return other

    def encode(self, newdata: Any) -> np.ndarray:
        """Return the columns of new data, shape (m, p)."""
        if self.base is None:
            return self._coded(newdata)
        columns = self.base.encode(newdata)
        return self._kept(np.hstack([columns, self._make(columns)]))

    def _coded(self, newdata: Any) -> np.ndarray:
        """Return the columns of new data: a table, or an array of either the kept or all original columns."""
        table, use = as_pandas(newdata), f"the {self._model} model uses"
        if not isinstance(table, pd.DataFrame | Mapping):
            matrix, p = np.asarray(table.toarray() if hasattr(table, "toarray") else table), len(self.names)
            if matrix.ndim != 2 or matrix.shape[1] not in (p, len(self._all)):
                raise DesignError(f"new data have shape {matrix.shape}; expected {p} columns: {listing(self.names)}.")
            table = pd.DataFrame(matrix, columns=self.names if matrix.shape[1] == p else self._all)
        table = as_table(table, [])
        columns = [numbers(new_column(table, name, use), f"column {name!r}") for name in self.names]
        return np.column_stack(columns) if columns else np.empty((len(table.index), 0))

    def _kept(self, columns: np.ndarray) -> np.ndarray:
        return columns if self._keep.all() else np.ascontiguousarray(columns[:, self._keep])


class FormulaEncoder(Encoder):
    """Coding of a formula's right-hand side: its variables on the sample, its functions and constants.

    In new data, missing values of the `filled` covariates are filled in as in the sample. After unpickling, patsy's
    DesignInfo is rebuilt from the formula, variables and constants, because it cannot be pickled.
    """

    def __init__(
        self, formula: Formula, scope: Scope, counts: np.ndarray | None = None, filled: Sequence[Filled] = ()
    ) -> None:
        self.formula, self.filled, self.sample_variables = formula, filled, dict(scope.variables)
        self._counts = counts if language.stateful_function(formula, scope.constants) else None
        own = np.ndarray | pd.Series | pd.Index | list | tuple | dict  # the caller may change these
        self._constants = {n: copy.deepcopy(v) if isinstance(v, own) else v for n, v in scope.constants.items()}
        self._packed: dict[str, Any] = {}
        super().__init__(self.info.column_names, formula.model, scope.variables)

    @cached_property
    def info(self) -> Any:
        """Patsy's DesignInfo of the right-hand side."""
        for name, packed in self._packed.items():
            try:
                self._constants[name] = import_module(packed) if isinstance(packed, str) else pickle.loads(packed)
            except (ImportError, AttributeError, TypeError, pickle.UnpicklingError) as error:
                raise DesignError(f"{name!r} could not be pickled.\nDefine it in a module, and fit again.") from error
        variables = self.sample_variables
        if self._counts is not None:  # `center(x)` subtracts the mean of the rows repeated by their weights
            variables = {name: values.repeat(self._counts) for name, values in variables.items()}
        return language.compile_terms(self.formula.right, self.formula, Scope(variables, self._constants))

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables that new data must have."""
        return tuple(self.sample_variables)

    def sample_matrix(self, n: int) -> np.ndarray:
        """Return the design matrix of the estimation sample of n rows, shape (n, p)."""
        return self._kept(language.evaluate(self.info, self.formula, self.sample_variables, n))

    def _coded(self, newdata: Any) -> np.ndarray:
        table = as_table(newdata, [])
        n = len(table.index)
        variables = self.variables_like(table)
        if not self.by_row:
            raise DesignError(OF_OTHER_ROWS.format(self.formula.text))
        if not n:
            return np.empty((0, len(self.names)))
        return self._kept(language.evaluate(self.info, self.formula, variables, n))

    @cached_property
    def by_row(self) -> bool:
        """Whether the columns of a row do not depend on other rows."""
        sample = pd.DataFrame(self.sample_variables, copy=False)
        return is_by_row(lambda rows: language.evaluate(self.info, self.formula, dict(rows), len(rows)), sample)

    def variables_like(self, table: pd.DataFrame) -> dict[str, pd.Series]:
        """Return the variables of new rows, after filling in missing values, with the dtypes of the sample."""
        use, filled = f"the {self.formula.model} model uses", {covariate.name: covariate for covariate in self.filled}
        for name, covariate in filled.items():
            if name in table and covariate.indicator is not None and covariate.indicator not in table:
                table = table.assign(**{covariate.indicator: missing_mask(column_of(table, name)).astype(int)})
        found = dict[str, pd.Series]()
        for name, fitted in self.sample_variables.items():
            column = new_column(table, name, use, complete=name not in filled)
            known = np.flatnonzero(~missing_mask(column))
            values = _like(column.iloc[known], fitted, name, name in self.formula.coded()).set_axis(known)
            found[name] = values.reindex(range(len(column))).fillna(filled[name].value) if name in filled else values
        return found

    def __getstate__(self) -> dict[str, Any]:
        packed = {**self._packed, **{name: _packed(value) for name, value in self._constants.items()}}
        kept = {name: value for name, value in self.__dict__.items() if name != "info"}
        return {**kept, "_constants": {}, "_packed": packed}

    def __deepcopy__(self, memo: Any) -> FormulaEncoder:
        return self  # it is never modified, and its functions need not be picklable


def is_by_row(code: Callable[[pd.DataFrame], np.ndarray], table: pd.DataFrame) -> bool:
    """Return whether `code` works row by row, unlike ``x - x.mean()``: nine rows are coded together and alone."""
    rows = [*np.linspace(0, len(table) - 1, 9).astype(int)] if len(table) else []
    try:
        whole = code(table)
        alone = [code(table.iloc[[row]]) for row in rows]
    except DesignError:  # such as 1 / (x - x.mean())
        return False
    size = np.abs(whole).max(axis=0, initial=0.0)
    close = (np.allclose(one, whole[[row]], rtol=1e-9, atol=1e-13 * size) for row, one in zip(rows, alone, strict=True))
    return all(close)


def _like(column: pd.Series, fitted: pd.Series, name: str, codes: bool) -> pd.Series:
    """Return new values with the dtype of the fitted ones, and with categories in the same order."""
    if not len(column):  # whatever the dtype, there is nothing to convert
        return fitted.iloc[:0]
    kind, levels = fitted.dtype.kind, getattr(fitted.dtype, "categories", None)
    values = plain(column, name, codes=codes or kind not in "bif")
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = plain(pd.Series(values.to_numpy(), dtype=object), name, codes=True)
    odd, expected = list[Any](), "numbers"
    if levels is not None or kind == "b":
        known = {0, 1} if levels is None else set(levels)
        odd = [v for v in pd.unique(values) if v not in known]
        expected = "True and False, or 1 and 0" if levels is None else listing(levels)
    elif kind in "if" and values.dtype.kind not in "bif":
        odd = list(pd.unique(values))
    if odd:
        found = f"column {name!r} of new data has dtype {column.dtype} and values {listing(odd)}; expected {expected}"
        raise DesignError(f"{found}.\nLeave these rows out of the new data.")
    if levels is not None:
        return pd.Series(pd.Categorical(values, dtype=fitted.dtype), name=name)
    return values.astype(fitted.dtype) if "b" in (kind, values.dtype.kind) else values


def _packed(value: Any) -> Any:
    """Return what is pickled for a constant of a formula: a module's name, an object's bytes, or None if impossible."""
    if isinstance(value, ModuleType):
        return value.__name__
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


def outcome_values(outcome: Formula, left: Scope, rows: Mapping[str, pd.Series], seen: np.ndarray) -> np.ndarray:
    """Return the values of the left-hand side, shape (n,), from variables in n `rows`. NaN where `seen` is False."""
    values = np.full(len(seen), np.nan)
    if not seen.any():
        return values
    codes, term = outcome.coded("left"), outcome.left[0].name()
    own = {name: plain(rows[name][seen], name, name in codes) for name in left.variables}
    info = language.compile_terms(outcome.left, outcome, Scope(own, left.constants))
    (factor,) = info.factor_infos.values()
    if factor.categories not in (None, (False, True)):
        found, event = f"has the levels {listing(factor.categories)}", factor.categories[-1]
        typed = f"Use `I({next(iter(codes), term)} == {event!r}) ~ {outcome.right_text}` if {event!r} is the event."
        raise DesignError(f"the outcome {term!r} {found}; expected numbers or bool.\n{typed}")
    if factor.categories is None and factor.num_columns != 1:
        raise DesignError(f"outcome {term!r} has {factor.num_columns} columns; expected one.\nUse one of them.")
    values[seen] = language.evaluate(info, outcome, own, int(seen.sum()))[:, -1]
    return values


INDICATOR = "indicator"  # value of the option `missing`
LEVEL = "(missing)"  # level of missing values of a categorical covariate


class Filled(NamedTuple):
    """A covariate whose missing values were replaced. The mask `rows` (N,) marks the rows where it was missing.

    Missing numbers are replaced by `value`, a mean, and the column named `indicator` is 1 in these rows. In other
    covariates, `value` is a level for missing values, and `indicator` is None.
    """

    name: str
    indicator: str | None
    value: Any
    rows: np.ndarray


def fill_covariates(
    table: pd.DataFrame, formulas: Sequence[Formula], names: Sequence[str], weights: np.ndarray
) -> tuple[pd.DataFrame, list[Formula], tuple[Filled, ...]]:
    """Fill in the covariates in `names` that have missing values in the sample.

    Missing numbers are replaced by the weighted mean. An indicator, 1 where the covariate was missing, is added to the
    table and to each formula that uses the covariate. Other covariates get a level for missing values. `weights` (N,)
    are zero outside the sample. Returns the table, the formulas, and the covariates that were filled in.
    """
    codes = [code for formula in formulas for code in formula.codes("right")]
    coded = set().union(*(formula.coded() for formula in formulas))
    columns, found = dict[str, pd.Series](), list[Filled]()
    for name in names:
        values = column_of(table, name)
        rows = missing_mask(values)
        if not weights[rows].any():
            continue
        if not weights[~rows].any():
            raise DesignError(f"covariate {name!r} is missing in all rows.\nTake {name} out of the formulas.")
        known, indicator = plain(values[~rows], name, name in coded), f"{name}_missing"
        leveled = _has_levels(name, codes, known.dtype.kind in "if")
        if leveled:
            integers = known.dtype.kind == "f" and (known % 1 == 0).all()  # stored as floats
            own = known.astype(int if integers else known.dtype).astype("category").set_axis(np.flatnonzero(~rows))
            own = own.cat.set_categories([*own.cat.categories.drop(LEVEL, errors="ignore"), LEVEL])
            columns[name] = own.reindex(range(len(rows))).fillna(LEVEL).set_axis(values.index)
        elif indicator in table:
            what = f"the data already have {indicator!r}, the name of the missing-value indicator of {name!r}"
            raise DesignError(f"{what}.\nRename this column.")
        else:
            mean = np.average(known.astype(float), weights=weights[~rows])
            number = np.full(len(rows), mean)
            number[~rows] = known
            columns |= {name: pd.Series(number, values.index), indicator: pd.Series(rows.astype(int), values.index)}
        found.append(Filled(name, None if leveled else indicator, LEVEL if leveled else mean, rows))
    models = []
    for formula in formulas:
        used = {use.name for use in formula.uses("right")}
        more = [language.in_formula(one.indicator) for one in found if one.indicator is not None and one.name in used]
        models.append(parse(" + ".join([formula.text, *more]), formula.model, []) if more else formula)
    return table.assign(**columns), models, tuple(found)


def _has_levels(name: str, codes: Sequence[str], numeric: bool) -> bool:
    """Return whether a covariate is categorical. If it is, terms that transform it raise a DesignError."""
    used = [code for code in codes if any(use.name == name and use.role != "called" for use in uses(code))]
    whole = [code for code in used if language.whole_variable(code) == name]
    in_levels = [code for code in whole if code.startswith("C(")]
    if numeric and not in_levels:
        return False
    by_level = in_levels if numeric else whole
    for code in (code for code in used if code not in by_level):
        problem = f"missing values of {name!r} become a level, but the formulas use {code!r}"
        use = in_levels[0] if in_levels else language.in_formula(name)
        raise DesignError(f"{problem}.\nUse `{use}`, or compute the term as a column that is missing in the same rows.")
    return True

"""Variables outside the design matrices: covariates for tables (one column per level), moderators and clusters."""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype, is_scalar

from causalrisk.design import formulas, tables
from causalrisk.design.design import Design
from causalrisk.design.encoders import FormulaEncoder
from causalrisk.design.formulas import Formula, Scope, parse, resolve, uses
from causalrisk.design.rows import cluster_codes, ways_of
from causalrisk.design.scan import naming
from causalrisk.design.support import ColumnMoments
from causalrisk.design.survey import labels_of
from causalrisk.design.tables import align, as_pandas, as_table, check_complete, listing, missing_mask, plain
from causalrisk.design.treatment import show
from causalrisk.errors import DesignError, DesignWarning, OptionError, warn_user
from causalrisk.errors.aliases import near

MANY_LEVELS = 20
PLAIN_LEVELS = ({"0", "1"}, {"False", "True"}, {"0.0", "1.0"})  # levels of 0/1 indicators, printed by name only


class Moderators(NamedTuple):
    """Columns (n, k) on which effects are projected: group indicators, or the columns of a formula.

    `groups` is True for group indicators. `names` has the values of the grouping variables for each group, or the name
    of each column of a formula. `levels` has the names of the grouping variables, or the text of the formula.
    """

    columns: np.ndarray
    names: Sequence[tuple[Any, ...]]
    levels: tuple[str, ...]
    groups: bool
    encoder: FormulaEncoder | None = None

    @property
    def texts(self) -> list[str]:
        """The names as text."""
        return [", ".join(shown_levels(name)) for name in self.names]

    @property
    def keys(self) -> list[Any]:
        """The values of one variable, or the names as text, for an index with one level."""
        return [name[0] if len(name) == 1 else text for name, text in zip(self.names, self.texts, strict=True)]


def moderators(design: Design, by: Any, data: Any = None) -> Moderators:
    """Return the moderators on the sample. `by` is a variable, a list of grouping variables, or a formula ("~ x")."""
    for one in design.filled if data is None and isinstance(by, str) else ():
        if re.search(rf"\b{re.escape(one.name)}\b", by):
            what = f"{one.name!r} has missing values, which missing='indicator' filled in for the models only"
            raise DesignError(f'{what}.\nUse `data=data.fillna({{"{one.name}": value}})` with a value of your choice.')
    if isinstance(by, str) and by.lstrip().startswith("~"):
        formula = parse(by.lstrip().removeprefix("~"), "effects_by", [])
        try:
            scope = resolve(formula, data_on_sample(design, data), {"np": np}, "right")
        except DesignError as error:
            raise error if data is not None else DesignError(f"{error}\nFor other columns, use `data=data`.") from None
        for name, values in scope.variables.items():
            check_complete(values, f"group {name!r}")
        frequency = design.weight_type == "frequency"
        encoder = FormulaEncoder(formula, scope, design.weights.astype(int) if frequency else None)
        matrix = encoder.sample_matrix(design.n)
        told = list[str]()
        keep = ColumnMoments.of(matrix).usable(encoder.names, "effects_by", told)
        if not keep.all():
            warn_user(f"effects_by {told[0]}", DesignWarning)
        kept = encoder.keeping(keep)
        names = [(name,) for name in kept.names]
        return Moderators(matrix[:, keep], names, (f"~ {formula.right_text}",), False, kept)
    groups, found, levels = groups_of(design, by, data)
    for name, values in zip(levels, zip(*found, strict=True), strict=True):
        if len(set(values)) > MANY_LEVELS:
            typed = f"effects_by({show(f'~ {formulas.in_formula(name)}')}{', data' * (data is not None)})"
            raise DesignError(f"{name!r} has more than {MANY_LEVELS} groups.\nUse `{typed}` or `pandas.cut`.")
    indicators = (groups[:, None] == np.arange(len(found))).astype(float)
    return Moderators(indicators, found, tuple(levels), True)


def groups_of(design: Design, by: Any, data: Any = None) -> tuple[np.ndarray, list[tuple[Any, ...]], list[str]]:
    """Return each row's group number, each group's values of the grouping variables, and these variables' names."""
    # A list names several variables, unless it has one value per row.
    listed = isinstance(by, (list, tuple)) and len(by) not in (0, design.n, len(design.in_sample))
    several = listed and all(isinstance(part, str) or not is_scalar(part) for part in by)
    table, codes, every, names = data_on_sample(design, data), list[np.ndarray](), list[list[Any]](), list[str]()
    for part in by if several else [by]:
        values = _values_on_sample(design, part, "group", "group", table, data is None)
        levels = plain(values, str(values.name), codes=True).astype("category").cat
        codes.append(levels.codes.to_numpy())
        every.append([int(v) if isinstance(v, float) and v.is_integer() else v for v in levels.categories.tolist()])
        names.append(str(values.name))
    found, groups = np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)
    return groups.reshape(-1), [tuple(own[k] for own, k in zip(every, row, strict=True)) for row in found], names


def _values_on_sample(
    design: Design, given: Any, role: str, default: str, table: pd.DataFrame, only_formulas: bool = True
) -> pd.Series:
    """Return a variable on the sample. It is given by name, or as one value per row of the data or the sample."""
    if isinstance(given, str):
        if only_formulas and given not in table:
            typed = f'`from_formula(..., cluster="{given}")`' if role == "groups" else "`data=data` for other columns"
            known = f"the columns are {listing(table.columns)}" if len(table.columns) else "arrays have no names"
            advice = f"{near(given, table.columns)} Use {typed}.".strip()
            if role == "group" and re.search(r"[~+*:(]", given):
                advice = f'Use `"~ {given.partition("~")[2].strip() or given}"` for a formula, or a list of columns.'
            raise DesignError(f"column {given!r} is in neither formula; {known}.\n{advice}")
        found = tables.find_column(given, role=role, default=role, table=table, frame={}, notes=[])
    else:
        values, name = as_pandas(given), str(default if getattr(given, "name", None) is None else given.name)
        of_sample = not isinstance(values, pd.Series) and np.shape(values)[:1] == (design.n,)
        found = align(values, design.index if of_sample else design.in_sample.index, f"{role} {name!r}", [])
        found = (found if of_sample else found[design.in_sample.to_numpy()]).rename(name)
    check_complete(found, f"{role} {found.name!r}")
    return found


def clustered(design: Design, groups: Any) -> Design:
    """Return the design with clusters. `groups` is a name, one value per row, or a list of two (two-way clusters)."""
    if design.cluster is not None or design.survey is not None:
        own = "a survey design" if design.survey is not None else f"cluster={design.cluster_name!r}"
        raise OptionError(f"cov_kwds= gives clusters, but the model already has {own}.\nLeave cov_kwds= out.")
    (first, second), table = ways_of(groups, design.n), data_on_sample(design)
    cluster, names = cluster_codes(_values_on_sample(design, first, "groups", "cluster", table))
    design = replace(design, cluster=cluster, cluster_name=str(names.name), clusters=names)
    if second is None:
        return design
    cluster, names = cluster_codes(_values_on_sample(design, second, "groups", "second cluster", table))
    return replace(design, second_cluster=cluster, second_cluster_name=str(names.name))


def shown_levels(levels: Iterable[Any]) -> tuple[str, ...]:
    """Return levels as text: whole floats without ".0", other floats with six digits; `repr` if texts coincide."""
    raw = list(levels)
    rounded = [float(f"{level:.6g}") if isinstance(level, float) and level % 1 else level for level in raw]
    shown = labels_of(rounded)
    return shown if len(set(shown)) == len(raw) else tuple(map(repr, raw))  # distinguishes 1 from "1"


def data_on_sample(design: Design, data: Any = None) -> pd.DataFrame:
    """Return a table of the rows in the sample: the columns of `data` or, if None, the variables of both formulas."""
    filled = {name for one in design.filled for name in (one.name, one.indicator)}
    variables = design.propensity_encoder.sample_variables | design.outcome_encoder.sample_variables
    left = slice(None) if design.left is None else design.left
    known = {name: values.iloc[left] for name, values in variables.items() if name not in filled}
    known = {name: values for name, values in known.items() if len(values) == design.n}
    if data is None:
        return pd.DataFrame({name: values.array for name, values in known.items()}, index=design.index, copy=False)
    table = as_table(data, [])
    advice = "Use `data=` with the data of `from_formula`. With `did=DiD(time=...)`, use only the rows of one period."
    if len(table.index) != len(design.in_sample):
        text = f"data has {len(table.index)} rows, but the model was made from {len(design.in_sample)}"
        raise DesignError(f"{text}.\n{advice}")
    rows = np.flatnonzero(design.in_sample)
    position = tables.matched_rows(table.index, design.in_sample.index)
    rows = rows if position is None else position[rows]
    found = {str(name): tables.column_of(table, name).array.take(rows) for name in table.columns}
    if design.endog_name in found and is_numeric_dtype(found[design.endog_name].dtype) and design.observation is None:
        known[design.endog_name] = pd.Series(design.y)
    shared = [name for name in known if name in found]
    changed = [name for name in shared if not _same(known[name], pd.Series(found[name]))]
    if changed:
        raise DesignError(f"{listing(changed)} in data differ from the model's data.\n{advice}")
    if position is None and not shared and not isinstance(table.index, pd.RangeIndex):
        text = "data has neither the row labels of the model's data nor a variable of the formulas"
        raise DesignError(f"{text}.\n{advice}")
    return pd.DataFrame(found, index=design.index, copy=False)


def _same(values: pd.Series, others: pd.Series) -> bool:
    if missing_mask(others).any():
        return False
    numeric = is_numeric_dtype(values) and is_numeric_dtype(others)
    kind = float if numeric else object
    return np.array_equal(values.to_numpy(dtype=kind), others.to_numpy(dtype=kind))


@dataclass(frozen=True)
class Covariate:
    """One column of a table of covariates: numbers, or the indicator of a factor level.

    `term` is a variable or a product. `level` is empty for numbers and 0/1 factors. `column` (n,) is NaN where a
    variable is missing.
    """

    term: str
    level: str
    column: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The column as numbers, NaN where a variable is missing, shape (n,)."""
        return np.asarray(self.column, dtype=np.float64)

    @property
    def name(self) -> str:
        """Name of the column, such as "race: white"."""
        return f"{self.term}: {self.level}" if self.level else self.term

    @cached_property
    def ends(self) -> tuple[float, float]:
        """Smallest and largest value that is not missing, or (inf, -inf) if there is none."""
        numbers = self.values
        return float(np.fmin.reduce(numbers, initial=np.inf)), float(np.fmax.reduce(numbers, initial=-np.inf))

    @property
    def varies(self) -> bool:
        """True if the column takes more than one value."""
        return self.ends[0] < self.ends[1]

    @cached_property
    def binary(self) -> bool:
        """True if the column takes one or two values."""
        (low, high), numbers = self.ends, self.values
        return low <= high and bool(((numbers == low) | (numbers == high) | np.isnan(numbers)).all())


def display_name(code: str) -> str:
    """Return a factor's name for tables: without ``C()``, ``Q()``, ``I()`` and ``np.``, and with ^ for powers.

    Examples
    --------
    >>> [
    ...     display_name(c)
    ...     for c in (
    ...         "mage",
    ...         "C(race, Treatment('white'))",
    ...         'Q("Lohn 74")',
    ...         "I(mage ** 2)",
    ...         "np.log(x)",
    ...     )
    ... ]
    ['mage', 'race', 'Lohn 74', 'mage^2', 'log(x)']
    """
    tree = formulas.parsed(code).body
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.args and tree.func.id in ("C", "Q", "I"):
        inner = tree.args[0]
        return str(inner.value) if isinstance(inner, ast.Constant) else display_name(ast.unparse(inner))
    return code.replace("np.", "").replace(" ** ", "^").replace("**", "^")


def covariates_of_design(design: Design, keep: np.ndarray, of_observation: bool = False) -> list[Covariate]:
    """Return each covariate of the models once, without constants, on the rows that the mask `keep` (n,) marks."""
    columns = covariates_of_block(design, of_observation=of_observation)
    rows = slice(None) if keep.all() else keep
    return [c for c in (replace(c, column=c.column[rows]) for c in columns) if c.varies]


def covariates_of_block(
    design: Design, variables: pd.DataFrame | None = None, of_observation: bool = False
) -> list[Covariate]:
    """Return each covariate of the models once, without terms that use the treatment, on the sample or `variables`."""
    encoders = [(design.propensity_encoder, "Z"), (design.outcome_encoder, "X")]
    if of_observation and design.observation is not None:
        encoders.append((design.observation.encoder, ""))
    columns = list[Covariate]()
    for encoder, name in encoders:
        if not isinstance(encoder, FormulaEncoder) or encoder.base is not None:
            numbers = zip(encoder.names, getattr(design, name).T, strict=True)
            columns += [Covariate(own, "", column) for own, column in numbers]
            continue
        rows = encoder.sample_variables if variables is None else encoder.variables_like(variables)
        for term in encoder.formula.right:
            names = {use.name for factor in term.factors for use in uses(factor.code)}
            if term.factors and design.treat_name not in names:
                columns += _products(term, encoder.info, encoder.formula, rows)
    found = dict[str, Covariate]()
    for column in columns:
        found.setdefault(column.name, column)
    return list(found.values())


def covariates_in(covariates: Any, table: pd.DataFrame, most: int | None = None) -> list[Covariate]:
    """Return the covariates of a one-sided formula ("~ age + C(race)"), a list of names, or all columns (None)."""
    if isinstance(covariates, str):
        text = covariates.strip().removeprefix("~")
    else:
        names = table.columns if covariates is None else covariates
        text = " + ".join(formulas.in_formula(str(name)) for name in names)
    formula = formulas.right_side(text, "covariates", [])
    scope, found = resolve(formula, table, {"np": np}, "right"), list[Covariate]()
    for term in formula.right:
        of_term = [use for factor in term.factors for use in uses(factor.code)]
        names, codes = [use.name for use in of_term], {use.name for use in of_term if use.coded}
        used = {name: values for name, values in scope.variables.items() if name in names}
        keep = ~np.logical_or.reduce([np.zeros(len(table), dtype=bool), *map(missing_mask, used.values())])
        known = {name: plain(values[keep], name, name in codes) for name, values in used.items()}
        if not term.factors or (covariates is None and not keep.any()):
            continue
        if not keep.any():
            raise DesignError(f"{term.name()!r} has no values.\nLeave it out.")
        named = [name for name in dict.fromkeys(display_name(factor.code) for factor in term.factors) if name in known]
        leveled = [name for name in named if name in codes or known[name].dtype.kind not in "bif"]
        levels = math.prod(int(known[name].nunique()) for name in leveled)
        if most is not None and levels > most:
            shown = " * ".join(leveled)
            raise DesignError(f"{shown!r} has {levels:,} levels; expected at most {most}.\nLeave the variable out.")
        info = formulas.compile_terms([term], formula, Scope(known, scope.constants))
        for covariate in _products(term, info, formula, known):
            column = np.full(len(keep), np.nan)
            column[keep] = covariate.column
            found.append(covariate if keep.all() else replace(covariate, column=column))
    return found


def further_covariates(design: Design, also: Any, data: Any) -> list[Covariate]:
    """Return covariates outside the models, given as a formula, names, or a frame with the data's rows."""
    given = as_pandas(also)
    if isinstance(given, pd.DataFrame):
        also, data = [str(name) for name in given.columns], given
    table = data_on_sample(design, data)
    with naming("also=", "" if data is not None else "\nUse `data=` with the model's data for other variables."):
        found = covariates_in(also, table)
    for covariate in found:
        check_complete(pd.Series(covariate.values, design.index), f"covariate {covariate.term!r}")
    return found


def with_products(covariates: Sequence[Covariate]) -> list[Covariate]:
    """Return the covariates, squares of non-binary covariates, and all pairwise products that are not constant."""
    numbers = [c for c in covariates if not c.binary and "^" not in c.name]
    squares = [Covariate(f"{c.name}^2", "", c.values**2) for c in numbers]
    pairs = [
        Covariate(f"{a.name} * {b.name}", "", a.values * b.values)
        for a, b in itertools.combinations(covariates, 2)
        if a.term.partition("^")[0] != b.term.partition("^")[0]
    ]
    known = {c.name for c in covariates}
    new = (c for c in (*squares, *pairs) if c.name not in known)
    return [*covariates, *(c for c in new if c.varies)]


def renamed(covariates: Iterable[Covariate], names: Mapping[str, str] | None) -> list[Covariate]:
    """Rename variables, terms or columns of covariates, also within products. Unknown names are ignored."""
    new = {old.replace("np.", ""): name for old, name in (names or {}).items()}

    def word(part: str) -> str:
        variable = re.split(r": |\^", part)[0]
        return new.get(part) or new.get(variable, variable) + part.removeprefix(variable)

    found = []
    for c in covariates:
        term = new.get(c.term) or " * ".join(map(word, c.term.split(" * ")))
        found.append(replace(c, term=new[c.name], level="") if c.name in new else replace(c, term=term))
    return found


def _products(term: Any, info: Any, formula: Formula, variables: Mapping[str, pd.Series]) -> Iterator[Covariate]:
    """Yield the columns of a compiled term: each is a product of one column per factor."""
    factors = (_columns(info.factor_infos[factor], formula, variables) for factor in term.factors)
    for parts in itertools.product(*factors):
        if len(parts) == 1:
            yield parts[0]
        else:
            values = np.prod([part.values for part in parts], axis=0)
            yield Covariate(" * ".join(part.name for part in parts), "", values)


def _columns(known: Any, formula: Formula, variables: Mapping[str, pd.Series]) -> list[Covariate]:
    """Return a factor's numeric columns or dummies. Two levels give one dummy. `known` is patsy's FactorInfo."""
    code, name = known.factor.code, display_name(known.factor.code)
    with formulas.as_design_error(formula):
        value = known.factor.eval(known.state, variables)
    if known.type == "numerical":
        columns = value.reshape(len(value), -1).astype(np.float64).T
        formulas.check_finite(np.isfinite(columns).all(axis=0), code, formula)
        return [Covariate(f"{name}[{j}]" if len(columns) > 1 else name, "", own) for j, own in enumerate(columns)]
    levels = shown_levels(known.categories)
    found = [Covariate(name, level, np.asarray(value.codes == k)) for k, level in enumerate(levels)]
    if len(found) == 2:
        return [replace(found[1], level="")] if {one.level for one in found} in PLAIN_LEVELS else found[1:]
    return found

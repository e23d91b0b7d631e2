"""Formulas turned into a design on one estimation sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalrisk.design.build import Models, code_treatment, freeze, merge_sources
from causalrisk.design.columns.dtypes import plain
from causalrisk.design.columns.tables import Table, is_column
from causalrisk.design.design import Design
from causalrisk.design.encoders import FormulaEncoder
from causalrisk.design.formulas.evaluation import Formula, Scope, compile_terms, evaluate, parse
from causalrisk.design.formulas.scope import collect, resolve
from causalrisk.design.formulas.terms import coded_names, in_formula, unquoted
from causalrisk.design.rows import ColumnOptions, Rows, Source, by_rows, draw_sample
from causalrisk.design.support.columns import Matrices
from causalrisk.design.support.size import check_levels
from causalrisk.design.treatment import notes_of_spelling, show
from causalrisk.errors import DesignError


@dataclass(frozen=True)
class Formulas:
    """Both formulas, and the scope of the names on each side.

    Parameters
    ----------
    outcome, assigned : Formula
        Outcome formula and propensity formula.
    left, right, assign : Scope
        Names on the left and right of the outcome formula, and on the right of the propensity formula.
    """

    outcome: Formula
    assigned: Formula
    left: Scope
    right: Scope
    assign: Scope


def design_from_formula(
    formula: str,
    data: Any,
    columns: ColumnOptions,
    *,
    propensity: str | None = None,
    frame: Mapping[str, Any],
    constant_outcome: bool = False,
) -> Design:
    """Make a design from formulas.

    Parameters
    ----------
    formula : str
        Outcome formula, two-sided; the treatment is not in it.
    data : DataFrame, mapping of str to array-like, or None
        The columns; None takes them from `frame`.
    columns : ColumnOptions
        The treatment, weights, clusters and scores: one value per row each.
    propensity : str, optional
        Propensity formula, one-sided or with the treatment on the left; by default the outcome's right-hand side.
    frame : mapping of str to object
        The caller's variables; ``np`` is NumPy unless it is among them.
    constant_outcome : bool
        Whether the estimator's outcome model is one constant per arm (Hajek), so that arms are not checked for more.

    Returns
    -------
    Design
        Frozen arrays on one estimation sample.

    Raises
    ------
    DesignError
        If the data and formulas do not describe a model that can be fitted.
    OptionError
        If an option has a value that is not allowed.
    TypeError
        If an argument is of a type that is not accepted.
    """
    notes: list[str] = []
    frame = {"np": np, **frame}  # what every formula may use, imported by the caller or not
    known = {"treatment": columns.treat} if isinstance(columns.treat, str) else {}
    formulas, table = read_formulas(formula, propensity=propensity, data=data, frame=frame, notes=notes, known=known)
    by = by_rows(table, columns, frame, notes)
    check_roles(formulas, by.treat.name)
    sources = merge_sources({**formulas.left.variables, **formulas.right.variables}, formulas.assign.variables)
    rows, observed = draw_sample(sources, by=by, index=table.index, missing=columns.missing, notes=notes)
    coding = code_treatment(by.treat, rows, columns, call=f"from_formula(..., treat={show(by.treat.name)}, ")
    models = formula_models(formulas, by.treat.name, sources, rows)
    texts = {s.name: rows.of(s.values) for s in sources} | {by.treat.name: rows.of(by.treat.values)}
    notes += notes_of_spelling({n: v.unique() for n, v in texts.items() if v.dtype.kind not in "bif"})
    return freeze(
        models,
        coding=coding,
        by=by,
        rows=rows,
        observed=observed,
        notes=notes,
        columns=columns,
        constant_outcome=constant_outcome,
    )


def check_scored(design: Design, propensity: str | None, propensity_score: Any) -> None:
    """Refuse a propensity model without covariates that nobody asked for: its weights would all be the same.

    Parameters
    ----------
    design : Design
        The data.
    propensity, propensity_score
        Arguments of the caller.

    Raises
    ------
    DesignError
        If neither was given and the outcome formula has no covariates to take.
    """
    if propensity is None and propensity_score is None and set(design.propensity_names) <= {"Intercept"}:
        raise DesignError(
            f"the outcome formula {design.formula!r} has no covariates, and propensity= is not given; expected "
            "covariates in one of them, for without them the effect is the raw difference.\n"
            'Type  propensity="x1 + x2", or  propensity="1"  if the treatment was assigned by chance alone.'
        )


def _outcome_formula(text: Any, notes: list[str], known: Mapping[str, str]) -> Formula:
    outcome = parse(text, "outcome", notes, **known)
    if len(outcome.left) != 1 or not outcome.uses("left"):
        found = "no left-hand side" if not outcome.left else "a left-hand side that is not one variable"
        alone = f'"{outcome.text} ~ 1"  if it is the outcome, or  ' if outcome.text.isidentifier() else ""
        raise DesignError(
            f"the outcome formula {outcome.text!r} has {found}; expected one outcome.\n"
            f'Type  {alone}"<outcome> ~ {outcome.right_text}".'
        )
    return outcome


def read_formulas(
    formula: Any, *, propensity: Any, data: Any, frame: Mapping[str, Any], notes: list[str], known: Mapping[str, str]
) -> tuple[Formulas, Table]:
    """Parse both formulas and look up their names.

    Parameters
    ----------
    formula, propensity : str
        Outcome formula and propensity formula; None for the latter means the outcome's right-hand side.
    data : DataFrame, mapping or None
        The caller's data.
    frame : mapping of str to object
        The caller's variables.
    notes : list of str
        Lines are appended for parts of a formula that probably mean something else.
    known : mapping of str to str
        The name of the "treatment", if it has one, for messages.

    Returns
    -------
    Formulas
        The formulas and the meaning of their names.
    Table
        All columns there are.
    """
    try:
        outcome = _outcome_formula(formula, notes, known)
        assigned = Formula("propensity", outcome.right_text, (), outcome.right)
        if propensity is not None:
            assigned = parse(propensity, "propensity", notes, **known, outcome=outcome.left[0].name())
        if data is None:
            _check_data(outcome, frame, known)
        table = collect(data, frame, (outcome, assigned), notes)
        scopes = (
            resolve(outcome, table, frame, "left"),
            resolve(outcome, table, frame, "right"),
            resolve(assigned, table, frame, "right"),
        )
    except DesignError as error:
        odd = unquoted(f"{formula}, {propensity}", data if isinstance(data, Mapping) else getattr(data, "columns", ()))
        if all(name in str(error) or name.replace('"', "'") in str(error) for name in odd):
            raise
        raise DesignError(f"{error}\nNames that are not plain words need quotes; type  {', '.join(odd)}.") from error
    return Formulas(outcome, assigned, *scopes), table


def _check_data(outcome: Formula, frame: Mapping[str, Any], known: Mapping[str, str]) -> None:
    """Refuse a formula whose outcome is not in the caller's scope: the data were forgotten."""
    names = [use.name for use in outcome.uses("left") if use.role not in ("called", "base")]
    if names and not any(is_column(frame.get(name)) for name in names):
        treat = f", treat={show(known['treatment'])}" if "treatment" in known else ""
        raise DesignError(
            f"data= is missing, and the outcome of {outcome.text!r} is no array where the call is made; expected "
            f"a data frame.\nType  from_formula({show(outcome.text)}, data{treat}, ...)  with your data."
        )


def check_roles(formulas: Formulas, treat: str) -> None:
    """Refuse the treatment among the covariates, and the outcome on any right-hand side.

    Parameters
    ----------
    formulas : Formulas
        Both formulas.
    treat : str
        Name of the treatment.

    Raises
    ------
    DesignError
        Naming the variable and the formula.
    """
    outcome, assigned = formulas.outcome, formulas.assigned
    left, right, assign = formulas.left, formulas.right, formulas.assign
    if assigned.left and [use.name for use in assigned.uses("left") if use.role != "called"] != [treat]:
        raise DesignError(
            f"the propensity formula {assigned.text!r} has something else than the treatment {treat!r} on the left; "
            f'expected the treatment or nothing.\nType  propensity="{assigned.right_text}".'
        )
    if treat in left.variables:
        raise DesignError(
            f"treatment {treat!r} is the outcome of {outcome.text!r}; expected the outcome there, as the weights and "
            f'the effect are estimated in one call.\nType  "<outcome> ~ {outcome.right_text}".'
        )
    own_models = "each arm has its own outcome model"
    reasons = (own_models, own_models, "it would predict itself")
    for scope, formula, reason in zip((left, right, assign), (outcome, outcome, assigned), reasons, strict=True):
        if treat in scope.variables:
            raise DesignError(
                f"treatment {treat!r} is in the {formula.model} formula {formula.text!r}; expected covariates only, as "
                f"{reason}.\nTake {treat} out of the formula; treat= is enough."
            )
    for name in left.variables:
        for scope, formula in ((right, outcome), (assign, assigned)):
            if name in scope.variables:
                raise DesignError(
                    f"outcome {name!r} is on the right-hand side of the {formula.model} formula {formula.text!r}; "
                    f"expected variables that the treatment cannot change.\nTake {name} out of it. (A change from a "
                    "baseline: make it a column of its own first.)"
                )


def formula_models(formulas: Formulas, treat: str, sources: Sequence[Source], rows: Rows) -> Models:
    """Build both models on the rows of the estimation sample.

    Parameters
    ----------
    formulas : Formulas
        Both formulas.
    treat : str
        Name of the treatment.
    sources : sequence of Source
        All their variables.
    rows : Rows
        The rows in the sample.

    Returns
    -------
    Models
        Outcome and both matrices with all columns.

    Raises
    ------
    DesignError
        If a model cannot use a variable or a term.
    """
    outcome, assigned, n = formulas.outcome, formulas.assigned, rows.n
    codes = codes_of(outcome) | codes_of(assigned)
    columns = {s.name: plain(rows.of(s.values), s.name, s.name in codes) for s in sources}
    left, right, assign = (
        Scope({name: columns[name] for name in scope.variables}, scope.constants)
        for scope in (formulas.left, formulas.right, formulas.assign)
    )
    name, y = outcome.left[0].name(), outcome_values(outcome, left, n)
    for formula, scope in ((outcome, right), (assigned, assign)):
        check_levels(n, scope.variables, codes_of(formula), formula.model)
    encoder, assigning = FormulaEncoder(outcome, right), FormulaEncoder(assigned, assign)
    X = encoder.sample_matrix(n)
    same = assigned.right is outcome.right  # no propensity formula was given
    return Models(
        y=y,
        matrices=Matrices(X, X if same else assigning.sample_matrix(n), outcome=encoder, propensity=assigning),
        endog_name=name,
        formula=outcome.text,
        propensity_formula=f"{in_formula(treat)} ~ {assigned.right_text}",
    )


def outcome_values(outcome: Formula, left: Scope, n: int) -> np.ndarray:
    """Return the outcome on n rows, shape (n,), given the plain variables of the left-hand side."""
    y = evaluate(compile_terms(outcome.left, outcome, left, numeric=True), outcome, left, n)
    if y.shape[1] != 1:
        raise DesignError(
            f"outcome {outcome.left[0].name()!r} has {y.shape[1]} columns; expected one.\n"
            f'Name a single numeric column:  "<outcome> ~ {outcome.right_text}".'
        )
    return y[:, 0].copy()


def codes_of(formula: Formula) -> set[str]:
    """Names of the variables of the right-hand side that are category codes."""
    return set().union(*(coded_names(factor.code) for term in formula.right for factor in term.factors))

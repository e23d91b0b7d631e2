"""Build a design from formulas or arrays: select the estimation sample and make the design matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from causalrisk.design import formulas as language
from causalrisk.design import rows as drawing
from causalrisk.design import treatment
from causalrisk.design.design import Design, Observation
from causalrisk.design.did import DiD, Periods, names_before
from causalrisk.design.encoders import INDICATOR, Encoder, Filled, FormulaEncoder, fill_covariates, outcome_values
from causalrisk.design.formulas import Formula, Scope, collect, in_formula, parse, quotes_needed, resolve, right_side
from causalrisk.design.rows import ByRows, ColumnOptions, Rows, Source
from causalrisk.design.support import Rules, check_levels
from causalrisk.design.survey import survey_design
from causalrisk.design.tables import OF_MISSING, align, listing, missing_mask, named_columns, numbers, plain
from causalrisk.design.treatment import Arms, show
from causalrisk.errors import DesignError, OptionError
from causalrisk.runtime import one_blas_thread

COPY = 1 - 1e-12  # correlation with the outcome above which a covariate is a copy of it


def merge_sources(outcome: Mapping[str, pd.Series], propensity: Mapping[str, pd.Series]) -> list[Source]:
    """List each variable once, with the models that use it. Variables of the outcome model come first."""
    both = {name for name, values in outcome.items() if name in propensity and values.equals(propensity[name])}
    sources = [Source("outcome" + ", propensity" * (name in both), name, values) for name, values in outcome.items()]
    return [*sources, *(Source("propensity", name, values) for name, values in propensity.items() if name not in both)]


def _drawn(sources: Sequence[Source], by: ByRows, index: pd.Index, notes: list[str]) -> tuple[Rows, Arms]:
    """Return the rows of the sample and their arms. A variable that is missing in all rows of an arm adds a note."""
    rows, treat = drawing.draw_rows(sources, by, index), by.treat
    drawing.check_rows_left(rows.lines, len(rows.keep), rows.n)
    every = treat.values[~missing_mask(treat.values)].unique() if rows.n < len(rows.keep) else []
    kept = set(rows.of(treat.values).unique()) if len(every) else set()
    for level in (level for level in every if level not in kept):
        of_arm = (treat.values == level).to_numpy(dtype=bool, na_value=False)
        lost = [source.name for source in sources if missing_mask(source.values)[of_arm].all()]
        names = f"{', '.join(map(repr, lost))} {'is' if len(lost) == 1 else 'are'}"
        text = f"{names} missing in all {int(of_arm.sum())} rows with {treat.name} = {show(level)}"
        if lost and len(kept) < 2:
            raise DesignError(f"{text}, so only one group is left.\nDrop these variables, or fill in the values.")
        if lost:
            notes.append(f"{text}, so this group is left out. Drop these rows from the data to avoid this warning.")
    asked = {option: getattr(by.options, option) for option in ("treated", "reference", "levels")}
    return rows, treatment.code_levels(rows.of(treat.values), treat.name, **asked)


@one_blas_thread()
def freeze(models: dict[str, Any], coding: Arms, by: ByRows, rows: Rows, rules: Rules, notes: list[str]) -> Design:
    """Make the design, and drop columns that are linearly dependent in all rows or within an arm."""
    treat, outcome = by.treat, models["endog_name"]
    ways = (None if way is None else rows.of(way.values) for way in (by.cluster, by.second_cluster))
    (cluster, clusters), (second, _) = ((None, None) if way is None else drawing.cluster_codes(way) for way in ways)
    predictions = None
    if by.predictions is not None:
        own = [column for column, _ in by.predictions.of_arms(coding, "predictions")]
        predictions = np.column_stack([numbers(rows.of(one), f"outcome predictions {one.name!r}") for one in own])
    survey = None
    if by.survey is not None:
        survey = survey_design(by.survey, rows.weights, rows.keep, getattr(by.subpop, "name", None), notes)
    made = Design(
        arm=coding.arm,
        weights=drawing.relative_weights(rows.of(rows.weights), by.options.weight_type),
        cluster=cluster,
        offset=None if by.offset is None else drawing.read_offset(by.offset, rows.keep, treat.name, outcome),
        score=None if by.score is None else treatment.score_matrix(by.score, rows.keep, coding),
        predictions=predictions,
        labels=coding.labels,
        levels=coding.levels,
        index=rows.of(treat.values.index),
        in_sample=pd.Series(rows.keep, index=treat.values.index, name="in_sample"),
        ledger=tuple(line for line in rows.lines if line[2]),
        rules=rules,
        clusters=clusters,
        survey=survey,
        second_cluster=second,
        periods=None if by.period is None else Periods.of(by.period.name, rows.of(by.period.values)),
        **models,
        **by.fields(),
    ).supported(notes)
    columns = zip((*made.exog_names, *made.propensity_names), (*made.X.T, *made.Z.T), strict=True)
    for name, column in dict(columns).items():
        if min(np.ptp(column), np.ptp(made.y)) > 0 and abs(np.corrcoef(column, made.y)[0, 1]) > COPY:
            copy = f"covariate {name!r} is a linear function of the outcome {outcome!r}, so it removes the effect"
            notes.append(f"{copy}.\nTake it out of the formulas.")
    return made.with_notes(notes)


def design_from_arrays(
    endog: Any, exog: Any, columns: ColumnOptions, rules: Rules, *, exog_propensity: Any = None
) -> Design:
    """Make a design from arrays: y (N,), outcome columns (N, p), propensity columns (N, q). No constant is added."""
    notes: list[str] = []
    if columns.missing == INDICATOR:
        raise OptionError('missing="indicator" needs formulas.\nUse `from_formula("y ~ x1 + x2", data, treat="d")`.')
    if getattr(columns.treat, "ndim", 1) == 2 and columns.treat.shape[1] > 1:  # other packages take it second
        raise DesignError("treat has several columns; expected one.\nUse `endog=y, exog=X, treat=d`.")
    every = (endog, exog, exog_propensity, *(getattr(columns, name) for name in drawing.BY_ROW))
    labelled = [values.index for values in every if isinstance(values, pd.Series | pd.DataFrame)]
    index = labelled[0] if labelled else pd.RangeIndex(np.size(endog))
    y = align(endog, index, "endog", notes)
    endog_name = "y" if y.name is None else str(y.name)
    given = {"exog": exog} | ({} if exog_propensity is None else {"exog_propensity": exog_propensity})
    designs = {what: named_columns(values, what, index, notes) for what, values in given.items()}
    by = drawing.by_rows(pd.DataFrame(index=index), columns, {}, notes)
    for what, design in designs.items():
        for kind, name in (("treatment", by.treat.name), ("outcome", None if y.name is None else endog_name)):
            if name in design:
                found = f"the {kind} {name!r} is a column of {what}; expected only covariates"
                raise DesignError(f"{found}.\nDrop this column.")
    right, assign = designs["exog"], list(designs.values())[-1]
    sources = [Source("outcome", endog_name, y), *merge_sources(right, assign)]
    rows, coding = _drawn(sources, by, index, notes)
    matrices = [
        np.column_stack([numbers(rows.of(column), f"column {name!r}") for name, column in design.items()])
        for design in designs.values()
    ]
    models = {
        "y": numbers(rows.of(y).rename(endog_name), f"outcome {endog_name!r}"),
        "X": matrices[0],
        "Z": matrices[-1],
        "outcome_encoder": Encoder(list(right), "outcome"),
        "propensity_encoder": Encoder(list(assign), "propensity"),
        "endog_name": endog_name,
    }
    return freeze(models, coding, by, rows, rules, notes)


class Formulas(NamedTuple):
    """The outcome, propensity and (if given) observation formulas, with their scopes. `left` is the outcome's scope."""

    models: list[Formula]
    left: Scope
    scopes: list[Scope]

    @classmethod
    def of(cls, models: list[Formula], table: pd.DataFrame, frame: Mapping[str, Any]) -> Formulas:
        """Look up the names in the formulas, first in the table and then among the caller's variables."""
        left = resolve(models[0], table, frame, "left")
        return cls(models, left, [resolve(model, table, frame, "right") for model in models])

    def sources(self, treat: str) -> list[Source]:
        """List the variables that must not be missing. With an observation model, the outcome may be missing."""
        right, assign, *observed = (scope.variables for scope in self.scopes)
        sources = merge_sources(right if observed else {**self.left.variables, **right}, assign)
        known = {source.name for source in sources} | {treat}
        others = [pair for variables in observed for pair in variables.items() if pair[0] not in known]
        return [*sources, *(Source("observation", name, values) for name, values in others)]


def design_from_formula(
    formula: str, data: Any, columns: ColumnOptions, rules: Rules, *, propensity: str | None, frame: Mapping[str, Any]
) -> Design:
    """Make a design from formulas and data. `frame` has the caller's variables for names that are not columns."""
    notes, filled = list[str](), tuple[Filled, ...]()
    if getattr(data, "shape", ()) == (0, 0):  # otherwise the error would name a missing column
        raise DesignError(drawing.EMPTY)
    formulas, table = read_formulas(formula, propensity, columns, data, frame, notes)
    by = drawing.by_rows(table, columns, frame, notes)
    check_roles(formulas, by.treat.name, columns.did)
    if columns.missing == INDICATOR:
        formulas, filled = _filled(formulas, table, by, frame)
    sources = formulas.sources(by.treat.name)
    _check_order(formulas, {source.name for source in sources if missing_mask(source.values).any()})
    rows, coding = _drawn(sources, by, table.index, notes)
    counts = rows.of(rows.weights).astype(int) if columns.weight_type == "frequency" else None
    models = _formula_models(formulas, by.treat.name, coding, sources, rows, counts, filled)
    if models["observation"] is not None:
        missing = ~models["observation"].recorded
        rows.lines.append((drawing.UNRECORDED, models["endog_name"], int(missing.sum()), 0))
    rows.lines.extend((INDICATOR, one.name, int(rows.of(one.rows).sum()), 0) for one in filled)
    texts = {s.name: rows.of(s.values) for s in sources} | {by.treat.name: rows.of(by.treat.values)}
    notes += _unused_factors(models)
    notes += treatment.notes_of_spelling({n: v.unique() for n, v in texts.items() if v.dtype.kind not in "bif"})
    return freeze(models, coding, by, rows, rules, notes)


def _check_order(formulas: Formulas, missing: set[str]) -> None:
    """Raise a DesignError if a term handles missing values of a variable, because their rows are dropped first."""
    for code in (code for formula in formulas.models for code in formula.codes("right") if OF_MISSING.search(code)):
        for name in (use.name for use in language.uses(code) if use.name in missing):
            problem = f"{code!r} has no effect, because rows where {name!r} is missing are dropped first"
            raise DesignError(f'{problem}.\nUse `missing="indicator"`, or fill in the values before the call.')


def _unused_factors(models: Mapping[str, Any]) -> list[str]:
    """Return a list with one note on the terms that have no columns: factors with one level."""
    infos = [models[f"{model}_encoder"].info for model in ("outcome", "propensity")]
    unused = {term.name() for info in infos for term, place in info.term_slices.items() if place.start == place.stop}
    return (
        [f"dropped {listing(sorted(unused))} (one level). The effect is the same; no action is needed."]
        if unused
        else []
    )


def _filled(
    formulas: Formulas, table: pd.DataFrame, by: ByRows, frame: Mapping[str, Any]
) -> tuple[Formulas, tuple[Filled, ...]]:
    """Fill in missing covariates, and add their indicators as terms. Return the formulas and the filled covariates."""
    used = dict.fromkeys(use.name for model in formulas.models for use in model.uses("right") if use.role != "called")
    names = [name for name in used if name not in (by.treat.name, *formulas.left.variables) and name in table]
    needed = [source for source in formulas.sources(by.treat.name) if source.name not in names]
    rows = drawing.draw_rows(needed, by, table.index)
    weights = np.where(rows.keep, rows.weights, 0.0)
    whole, models, filled = fill_covariates(table, formulas.models, names, weights)
    return Formulas.of(models, whole, frame), filled


def read_formulas(
    formula: Any, propensity: Any, columns: ColumnOptions, data: Any, frame: Mapping[str, Any], notes: list[str]
) -> tuple[Formulas, pd.DataFrame]:
    """Parse all formulas and look up their names. Return the formulas and a table of all columns."""
    roles = str(formula).partition("~")[0].strip(), columns.treat if isinstance(columns.treat, str) else "d"
    try:
        outcome = parse(formula, "outcome", notes, roles)
        if len(outcome.left) != 1 or not outcome.uses("left"):
            found = "no left-hand side" if not outcome.left else "a left-hand side that is not one variable"
            raise DesignError(f"the outcome formula {outcome.text!r} has {found}.\nUse `<outcome> ~ <covariates>`.")
        assigned = Formula("propensity", outcome.right_text, (), outcome.right)
        if propensity is not None:
            assigned = parse(propensity, "propensity", notes, roles)
        models = [outcome, assigned]
        if columns.observed is not None:
            models.append(right_side(columns.observed, "observation", notes))
        table = collect(data, frame, models, notes)
        formulas = Formulas.of(models, table, frame)
    except DesignError as error:
        texts = [text for text in (formula, propensity, columns.observed) if isinstance(text, str)]
        known = data if isinstance(data, Mapping) else getattr(data, "columns", ())
        advice = quotes_needed(map(str, known), " ".join(texts))
        if not advice:
            raise
        raise DesignError(f"{str(error).splitlines()[0]}\n{advice}") from None
    return formulas, table


def check_roles(formulas: Formulas, treat: str, did: DiD | None = None) -> None:
    """Raise a DesignError if the treatment or period is a covariate, or the outcome is on a right-hand side."""
    (outcome, assigned, *observed), left = formulas.models, formulas.left.variables
    if assigned.left and [use.name for use in assigned.uses("left") if use.role != "called"] != [treat]:
        typed = f'propensity="{assigned.right_text}"'
        raise DesignError(f"the left side of {assigned.text!r} must be the treatment {treat!r}.\nUse `{typed}`.")
    if treat in left:
        found = f"the treatment {treat!r} is on the left side of the outcome formula {outcome.text!r}"
        raise DesignError(f'{found}.\nUse `"<outcome> ~ {outcome.right_text}"`.')
    outcomes = [("outcome", name) for name in left if name not in names_before(outcome.text, did)]
    refused = [("treatment", treat), *outcomes]
    if did is not None and did.cross_sections:
        refused.append(("time", str(did.time)))
    for formula, scope in zip(formulas.models, formulas.scopes, strict=True):
        for kind, name in outcomes if formula in observed else refused:
            if name in scope.variables:
                found = f"{kind} {name!r} is in the {formula.model} formula {formula.text!r}"
                raise DesignError(f"{found}.\nTake {name} out of the formula.")


def _formula_models(
    formulas: Formulas,
    treat: str,
    coding: Arms,
    sources: Sequence[Source],
    rows: Rows,
    counts: np.ndarray | None,
    filled: tuple[Filled, ...],
) -> dict[str, Any]:
    """Return fields of `Design`: the encoders, and the design matrices before any columns are dropped."""
    (outcome, assigned, *observed), n = formulas.models, rows.n
    codes = set().union(*(formula.coded() for formula in formulas.models))
    columns = {s.name: plain(rows.of(s.values), s.name, s.name in codes) for s in sources}
    if observed:  # only the observation model may use the treatment
        columns[treat] = pd.Series(pd.Categorical.from_codes(coding.arm, categories=list(coding.levels)))
    encoders = list[FormulaEncoder]()
    for formula, scope in zip(formulas.models, formulas.scopes, strict=True):
        own = {name: columns[name] for name in scope.variables}
        check_levels(n, own, formula.coded(), formula.model)
        encoders.append(FormulaEncoder(formula, Scope(own, scope.constants), counts, filled))
    left = {name: rows.of(values) for name, values in formulas.left.variables.items()}
    seen = ~np.logical_or.reduce([np.zeros(n, dtype=bool), *map(missing_mask, left.values())])
    X = encoders[0].sample_matrix(n)
    return {
        "y": outcome_values(outcome, formulas.left, left, seen),
        "X": X,
        "Z": X if assigned.right == outcome.right else encoders[1].sample_matrix(n),  # the same terms in the same order
        "outcome_encoder": encoders[0],
        "propensity_encoder": encoders[1],
        "endog_name": outcome.outcome_name,
        "formula": outcome.text,
        "propensity_formula": f"{in_formula(treat)} ~ {assigned.right_text}",
        "observation": Observation(seen, encoders[2].sample_matrix(n), encoders[2]) if observed else None,
        "filled": filled,
    }

"""Changes of a case that are to change nothing, and what they changed."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.report.page.methods import call_of
from tests.differential.cases import Case, Data
from tests.differential.fits import apart, coded, label, labelled, model_of, order, silently, tilt
from tests.differential.storage import contained

CLOSE = 1e-7  # of a standard error
NAMES = {
    "y": "the outcome", "x1": "x'1", "x2": 'x "2"', "x3": "C", "g": "größe", "d": "d-1", "w": "w t", "c": "class",
    "t": "t[0]", "e1": "e 1", "h": "h h", "k": "k.k",
}  # fmt: skip
UNIT, ZERO = 4.0, -3.0  # of an outcome in other units


def differences(case: Case, data: Data, res: Any, options: dict[str, Any]) -> Iterator[str]:
    """Yield what a change of the case changed of its fit under some options."""
    change = {
        "rows written out": written_out, "order": permuted, "names": renamed, "units": other_units,
        "pickle": unpickled, "call": called, "one group": one_group,
    }[case.change]  # fmt: skip
    for text in change(case, data, res, options):
        yield text and f"{case.change}, {text}"


def fitted(case: Case, data: Data, options: dict[str, Any], **how: Any) -> Any:
    return silently(lambda: model_of(case, data, **how).fit(small_sample=case.small_sample, **options))


def same(res: Any, other: Any, tolerance: float = CLOSE) -> Iterator[str]:
    """Compare two fits by the numbers they have in common."""
    se = res.bse.to_numpy()
    yield labelled("effects and means", other.params, res.params, se, tolerance)
    yield labelled("standard errors", other.bse, res.bse, se, 100 * tolerance)
    size = res.outcome_bse.to_numpy().max()
    yield labelled("outcome coefficients", other.outcome_params, res.outcome_params, size, 10 * tolerance)
    if res._record.spec.uses_propensity:
        yield labelled("overlap", other.overlap(), res.overlap())
        yield labelled("balance", other.balance(means=True), res.balance(means=True))


def of_rows(options: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """Options of the fit for other rows of the sample, by their old numbers."""
    given = options.get("replicates")
    return options if given is None else options | {"replicates": given[rows]}


def written_out(case: Case, data: Data, res: Any, options: dict[str, Any]) -> Iterator[str]:
    """Repeat each row as often as its frequency weight says."""
    w = data.frame["w"].to_numpy()
    rows = np.repeat(np.arange(len(w)), w)
    repeated = data.frame.iloc[rows].reset_index(drop=True)
    kept = res.in_sample.to_numpy()
    place = np.cumsum(kept) - 1
    options = dict(options)
    if "replicates" in options:
        counts = w[kept][:, None]
        options["replicates"] = (options["replicates"] / counts)[place[rows[kept[rows]]]]
    plain = dataclasses.replace(case, weight_type="")
    other = fitted(plain, dataclasses.replace(data, frame=repeated), options)
    yield from same(res, other)
    yield "" if other.nobs == res.nobs else f"nobs: {other.nobs}, expected {res.nobs}"
    if case.by:
        mine = silently(res.effects_by, "h", held(case, data, data.frame))
        theirs = silently(other.effects_by, "h", held(case, data, repeated))
        yield labelled("effects in groups", mine[["n", "estimate", "std err"]], theirs[["n", "estimate", "std err"]])


def held(case: Case, data: Data, frame: pd.DataFrame) -> Any:
    return contained(case.container, coded(case, frame, data))


def permuted(case: Case, data: Data, res: Any, options: dict[str, Any]) -> Iterator[str]:
    """Mix the rows."""
    order = np.random.default_rng([21, case.seed]).permutation(len(data.frame))
    kept = res.in_sample.to_numpy()
    mixed = data.frame.iloc[order].reset_index(drop=True)
    place = np.cumsum(kept) - 1
    other = fitted(case, dataclasses.replace(data, frame=mixed), of_rows(options, place[order[kept[order]]]))
    yield from same(res, other)
    found = np.full(len(order), np.nan)
    found[order[other.in_sample.to_numpy()]] = other.importance_weights
    yield apart("importance weights", found[kept], res.importance_weights, res.importance_weights)


def renamed(case: Case, data: Data, res: Any, options: dict[str, Any]) -> Iterator[str]:
    """Give columns names that are no names of Python, and the arms labels in another order."""
    turned = dataclasses.replace(case, coding="turned", unused=False)
    other = fitted(turned, data, options, rename=NAMES)
    arms = [order(turned, k) for k in range(case.arms)]
    labels = [label(turned, a) for a in arms]
    count, se = case.arms - 1, res.bse.to_numpy()
    moved = [*(a - 1 for a in arms[1:]), *(count + a for a in arms)]
    yield apart("effects and means", other.params, res.params.iloc[moved], se[moved], CLOSE)
    yield apart("standard errors", other.bse, se[moved], se[moved], 100 * CLOSE)
    columns, means = list(other.outcome_params.columns), list(other.params.index[count:])
    if columns != labels or means != [f"POM[{k}]" for k in labels]:
        yield f"labels: {columns}, {means}, expected {labels}"
    size = res.outcome_bse.to_numpy().max()
    yield apart("outcome coefficients", other.outcome_params, res.outcome_params.iloc[:, arms], size, 10 * CLOSE)
    if res._record.estimate.gamma.size and (res._record.spec.uses_propensity):
        mine, theirs = by_arm(case, res), by_arm(turned, other)
        yield "" if mine.keys() == theirs.keys() else f"propensity labels: {list(theirs)}, expected {list(mine)}"
        size = res.propensity_bse.max()
        for arm in mine.keys() & theirs.keys():
            yield apart(f"propensity coefficients of {arm}", theirs[arm], mine[arm], size, 10 * CLOSE)
    if res._record.spec.uses_propensity:
        numbers = [c for c in res.overlap().columns if case.arms > 2 or not c.startswith(("score", "crump"))]
        expected = res.overlap()[numbers].iloc[arms]
        yield labelled("overlap", other.overlap()[numbers], expected.set_axis(labels))


def by_arm(case: Case, res: Any) -> dict[str, list[float]]:
    """Propensity coefficients of each arm, by its old label."""
    old = {label(case, a): f"arm {a}" for a in range(case.arms)}
    found: dict[str, list[float]] = {}
    for name, value in res.propensity_params.items():
        prefix = next((label for label in (*old, "membership") if name.startswith(f"{label}: ")), "")
        found.setdefault(old.get(prefix, prefix), []).append(value)
    return found


def other_units(case: Case, data: Data, res: Any, options: dict[str, Any]) -> Iterator[str]:
    """Count the outcome in other units, from another zero where effects are differences."""
    zero = ZERO if case.effect == "difference" else 0.0
    moved = {"y": UNIT * data.frame.y + zero} | ({"t": UNIT * data.frame.t} if case.offset else {})
    other = fitted(case, dataclasses.replace(data, frame=data.frame.assign(**moved)), options)
    count, se = case.arms - 1, res.bse.to_numpy()
    factor = np.r_[np.full(count, UNIT if case.effect == "difference" else 1.0), np.full(case.arms, UNIT)]
    shift = np.r_[np.zeros(count), np.full(case.arms, zero)]
    yield apart("effects and means", (other.params - shift) / factor, res.params, se, 10 * CLOSE)
    yield apart("standard errors", other.bse / factor, se, se, 100 * CLOSE)


def unpickled(case: Case, data: Data, res: Any, options: dict[str, Any]) -> Iterator[str]:
    """Write results to bytes and read them."""
    other = pickle.loads(pickle.dumps(res))
    yield from same(res, other, 0.0)
    yield "" if str(other.summary()) == str(res.summary()) else "summary: another"
    mine, theirs = res.estimating_equations(), other.estimating_equations()
    yield labelled("estimating equations", theirs, mine, 0.0)
    if case.by:
        table = silently(res.effects_by, "h", held(case, data, data.frame))
        yield labelled("effects in groups", silently(other.effects_by, "h", held(case, data, data.frame)), table, 0.0)


def called(case: Case, data: Data, res: Any, options: dict[str, Any]) -> Iterator[str]:
    """Run the call that a report prints."""
    scores = data.frame[[f"e{order(case, k)}" for k in range(case.arms)]].to_numpy()
    scope = {
        "data": held(case, data, data.frame), "target_frame": contained(case.container, data.elsewhere), "tilt": tilt,
        "replicates": options.get("replicates"), "scores": scores, "family": res.model.options.family,
    }  # fmt: skip
    silently(exec, call_of(res._record), scope)
    yield from same(res, scope["res"], 0.0)


def one_group(case: Case, data: Data, res: Any, options: dict[str, Any]) -> Iterator[str]:
    """Ask for the effect in the one group that everybody is in."""
    table, count = silently(res.effects_by, np.full(len(data.frame), "all")), case.arms - 1
    yield apart("effects", table["estimate"], res.params.iloc[:count], res.bse.iloc[:count], CLOSE)
    if not case.small_sample:
        yield apart("standard errors", table["std err"], res.bse.iloc[:count], res.bse.iloc[:count], 100 * CLOSE)

"""The package's fit of a case, and how numbers are compared."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm

import causalrisk as cr
from tests.differential import cases, reference
from tests.differential.cases import Case, Data
from tests.differential.joint import JointReference, replicate_weights
from tests.differential.storage import contained

POINT, ERROR = 1e-6, 1e-5  # of a standard error; relative


def model_of(case: Case, data: Data, *, rename: Mapping[str, str] | None = None, source: Any = None) -> Any:
    """Make the package's model of a case.

    Parameters
    ----------
    case : Case
        The case.
    data : Data
        Its data.
    rename : mapping of str to str, optional
        Other names of the columns.
    source : Scan, optional
        What is fitted in the place of the frame.
    """
    rename = rename or {}
    frame, elsewhere = coded(case, data.frame, data).rename(columns=rename), data.elsewhere.rename(columns=rename)
    formula, propensity = formulas(case, data, rename)
    family: Any = case.family
    link = case.outcome_link or None
    if family == "negativebinomial":
        family, link = sm.families.NegativeBinomial(alpha=reference.ALPHA), None
    target: Any = case.target
    if target == "frame":
        target = contained(case.container, elsewhere)
    elif target == "tilt":
        target = tilt
    elif target == "arm":
        target = level(case, case.arms - 1)
    options: dict[str, Any] = {
        "family": family, "link": link, "propensity_link": case.propensity_link, "target": target, "trim": case.trim,
        "clip": case.clip, "effect": case.effect, "reference": level(case, 0),
    }  # fmt: skip
    by_name = case.tables or source is not None

    def column(name: str) -> Any:
        name = rename.get(name, name)
        return name if by_name else frame[name]

    if case.propensity == "calibrated":
        options["propensity_loss"] = "calibrated"
    elif case.propensity == "known":
        scores = data.frame[[f"e{order(case, k)}" for k in range(case.arms)]]
        options["propensity_score"] = column("e1") if case.arms == 2 else scores.to_numpy()
    if case.offset:
        options |= {"offset" if case.offset == "offset" else "exposure": column("t")}
        options["at_exposure"] = {"observed": "observed", "stated": cases.STATED}.get(case.offset)
    model = getattr(cr, case.estimator)
    if case.arrays and case.target != "frame" and not case.factor:
        # column by column: old pandas cannot select several big-endian columns at once
        X, Z = (array_of(case, frame, names) for names in (data.names, reference.propensity_names(case, data.names)))
        if case.weight_type:
            options |= {"weights": frame["w"], "weight_type": case.weight_type}
        if case.clusters:
            options["cluster"] = frame["c"]
        return model(frame["y"], X, frame["d"], exog_propensity=Z, **options)
    if case.weight_type:
        options |= {"weights": rename.get("w", "w"), "weight_type": case.weight_type}
    if case.clusters:
        options["cluster"] = rename.get("c", "c")
    if case.survey:
        options |= {"design": survey_of(case), "subpop": "u" if case.subpop else None}
        options = {name: value for name, value in options.items() if name not in ("weights", "weight_type", "cluster")}
    given = contained(case.container, frame) if source is None else source
    return model.from_formula(formula, given, treat=rename.get("d", "d"), propensity=propensity, **options)


def survey_of(case: Case) -> cr.Survey:
    """Return the survey design of a case."""
    weights = "w" if case.weight_type else None
    if case.survey == "replicates":
        return cr.Survey(weights=weights, replicate_weights="r?", replicate_type="JK1")
    units = {"psu": "p", "nest": case.survey == "nested"} if case.clusters else {}
    return cr.Survey(weights=weights, strata="s", fpc="f" if case.seed % 3 else None, lonely="average", **units)


def formulas(case: Case, data: Data, rename: Mapping[str, str]) -> tuple[str, str]:
    """Formulas of the outcome and of the propensity score."""

    def written(names: tuple[str, ...]) -> str:
        terms = (case.term if case.term and name == "x1" else spelled(name, rename) for name in names)
        square = [f"I({spelled('x1', rename)}**2)"] if case.square else []
        return " + ".join([*([spelled("g", rename)] if case.factor else []), *terms, *square])

    propensity = written(reference.propensity_names(case, data.names))
    return f"{spelled('y', rename)} ~ {written(data.names)}", propensity


def spelled(name: str, rename: Mapping[str, str]) -> str:
    """A column as it is written in a formula."""
    return f"Q({rename[name]!r})" if name in rename else name


def order(case: Case, arm: int) -> int:
    """Which arm comes at a place: those that are compared turn round where the labels do."""
    return case.arms - arm if case.coding == "turned" and arm else arm


def level(case: Case, arm: int) -> Any:
    """Return the level of the treatment that an arm is stored as."""
    text = f"arm {arm}"
    return {
        "text": text, "category": text, "float": float(arm), "bool": bool(arm), "int": arm, "turned": f"no. {9 - arm}"
    }[case.coding]  # fmt: skip


def label(case: Case, arm: int) -> str:
    """Label of an arm; whole floats have no point, and bool is 0 and 1."""
    return f"{arm}" if case.coding in ("float", "bool") else str(level(case, arm))


def array_of(case: Case, frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Return the columns of a model, without a formula."""
    columns = {name: frame[name].astype(float) for name in names}
    if case.square:
        columns["square"] = columns[names[0]] ** 2
    return pd.DataFrame(columns).assign(const=1.0)


def tilt(e: np.ndarray) -> np.ndarray:
    """A target of one's own."""
    return e**2 * (1 - e)


def coded(case: Case, frame: pd.DataFrame, data: Data) -> pd.DataFrame:
    """Store treatment, factor and covariates as the case says."""
    labels = frame["d"].map(lambda k: level(case, k))
    kinds = {"category": lambda: labels.astype("category"), "float": lambda: frame["d"].astype(float)}
    d = kinds.get(case.coding, lambda: labels)()
    g = frame["g"]
    if case.unused:
        g = pd.Series(pd.Categorical(g, ["a", "b", "c", "z"]), index=frame.index)
        d = d.cat.add_categories(["never"]) if case.coding == "category" else d
    return frame.assign(d=d, g=g, **{name: frame[name].astype(case.dtype) for name in data.names})


def how(case: Case, joint: JointReference | None) -> dict[str, Any]:
    """Options of the fit: standard errors without resamples; of the joint estimator also how it is trained."""
    cov_type = "cluster" if case.clusters else "HC1" if case.small_sample else "robust"
    options: dict[str, Any] = {"cov_type": cov_type}
    return options | (trained(case, joint) if joint else {})


def trained(case: Case, joint: JointReference) -> dict[str, Any]:
    """Options of the joint estimator: its replicates weigh observations, which frequency weights count."""
    counted = joint.problem.s[: joint.n_own, None] if case.weight_type == "frequency" else 1.0
    return objective(case) | {"replicates": counted * replicate_weights(case, joint.n_own)}


def objective(case: Case) -> dict[str, Any]:
    """The objective of the joint estimator, under an anchor that is given."""
    given = {"anchor": case.anchor, "share": case.share} if case.objective == "risk" else {}
    return {"objective": case.objective} | given


def quietly(compute: Callable[..., Any], *args: Any) -> Any:
    """Return what the reference computes, None where its equations have no solution that it finds."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return compute(*args)
    except (reference.NoReferenceError, np.linalg.LinAlgError):
        return None


def silently(fit: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Return what the package computes, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(*args, **options)


def seen(differences: Iterator[str]) -> list[str]:
    """What disagrees, an error that is raised on the way among it."""
    found: list[str] = []
    try:
        found.extend(text for text in differences if text)
    except cr.BootstrapError:
        raise
    except Exception as error:
        found.append(f"{type(error).__name__}: {error}, {where(error)}")
    return found


def where(error: Exception) -> str:
    """Say which line an error is from."""
    last = traceback.extract_tb(error.__traceback__)
    own = [line for line in last if "causalrisk/" in line.filename or "differential" in line.filename]
    return f"{Path(own[-1].filename).name} line {own[-1].lineno}"


def apart(what: str, found: Any, expected: Any, scale: Any, tolerance: float = POINT) -> str:
    """Say where two results differ by more than a share of a scale, and by more than rounding; NaN is no scale."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    if found.shape != expected.shape:
        return f"{what}: shape {found.shape}, expected {expected.shape}"
    finite = np.isfinite(found) & np.isfinite(expected)
    other = ~finite & ~((found == expected) | (np.isnan(found) & np.isnan(expected)))
    measured = np.nan_to_num(np.broadcast_to(scale, found.shape)[finite], nan=0.0)
    allowed = tolerance * measured + 1e-9 * np.abs(expected[finite])
    differences = np.abs(found[finite] - expected[finite])
    worst = np.nanmax(differences / np.where(allowed > 0, allowed, 1e-300), initial=np.inf if other.any() else 0)
    if worst > 1:
        return f"{what}: {found.ravel()}, expected {expected.ravel()} ({worst:.3g} times what is allowed)"
    return ""


def labelled(what: str, found: Any, expected: Any, scale: Any = 1.0, tolerance: float = POINT) -> str:
    """As `apart`, of Series or frames, whose labels have to be the same ones in the same order."""
    for axis, mine in enumerate(found.axes):
        theirs = expected.axes[axis]
        if [str(name) for name in mine] != [str(name) for name in theirs]:
            return f"{what}, labels: {list(mine)}, expected {list(theirs)}"
    if expected.ndim == 1:
        return apart(what, found, expected, scale, tolerance)
    numbers = expected.select_dtypes("number").columns
    for name in expected.columns.difference(numbers, sort=False):
        if list(found[name]) != list(expected[name]):
            return f"{what}, {name}: {list(found[name])}, expected {list(expected[name])}"
    each = (
        apart(f"{what}, {name}", found[name], expected[name], scale + np.abs(expected[name]) * 0, tolerance)
        for name in numbers
    )
    return next((text for text in each if text), "")

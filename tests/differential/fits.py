"""The package's fit of a case, and how numbers are compared."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm

import causalrisk as cr
from tests.differential import cases, reference
from tests.differential.cases import Case, Data
from tests.differential.joint import JointReference, replicate_weights

POINT, ERROR = 1e-6, 1e-5  # of a standard error; relative


def model_of(case: Case, data: Data) -> Any:
    """Make the package's model of a case."""
    frame = coded(case, data.frame, data)
    formula, propensity = formulas(case, data)
    family: Any = case.family
    link = case.outcome_link or None
    if family == "negativebinomial":
        family, link = sm.families.NegativeBinomial(alpha=reference.ALPHA), None
    target: Any = case.target
    if target == "frame":
        target = data.elsewhere
    elif target == "tilt":
        target = tilt
    elif target == "arm":
        target = level(case, case.arms - 1)
    options: dict[str, Any] = {
        "family": family, "link": link, "propensity_link": case.propensity_link, "target": target, "trim": case.trim,
        "clip": case.clip, "effect": case.effect, "reference": level(case, 0),
    }  # fmt: skip
    if case.propensity == "calibrated":
        options["propensity_loss"] = "calibrated"
    elif case.propensity == "known":
        scores = data.frame[[f"e{k}" for k in range(case.arms)]]
        options["propensity_score"] = frame["e1"] if case.arms == 2 else scores.to_numpy()
    if case.offset:
        options |= {"offset" if case.offset == "offset" else "exposure": frame["t"]}
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
        options |= {"weights": "w", "weight_type": case.weight_type}
    if case.clusters:
        options["cluster"] = "c"
    return model.from_formula(formula, frame, treat="d", propensity=propensity, **options)


def formulas(case: Case, data: Data) -> tuple[str, str]:
    """Formulas of the outcome and of the propensity score."""

    def written(names: tuple[str, ...]) -> str:
        return " + ".join([*["g"] * case.factor, *names, *["I(x1**2)"] * case.square])

    propensity = written(reference.propensity_names(case, data.names))
    return f"y ~ {written(data.names)}", propensity


def level(case: Case, arm: int) -> Any:
    """Return the level of the treatment that an arm is stored as."""
    text = f"arm {arm}"
    return {
        "text": text, "category": text, "float": float(arm), "bool": bool(arm), "int": arm
    }[case.coding]  # fmt: skip


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
    return frame.assign(d=d, **{name: frame[name].astype(case.dtype) for name in data.names})


def how(case: Case, joint: JointReference | None) -> dict[str, Any]:
    """Options of the fit: standard errors without resamples; of the joint estimator also how it is trained."""
    cov_type = "cluster" if case.clusters else "HC1" if case.small_sample else "robust"
    options: dict[str, Any] = {"cov_type": cov_type}
    return options | (trained(case, joint) if joint else {})


def trained(case: Case, joint: JointReference) -> dict[str, Any]:
    """Options of the joint estimator: its replicates weigh observations, which frequency weights count."""
    counted = joint.problem.s[: joint.n_own, None] if case.weight_type == "frequency" else 1.0
    given: dict[str, Any] = {}
    if case.objective == "risk":
        given = {"shrinkage": case.anchor, "share": case.share, "join_score": False}
    return given | {"objective": case.objective, "replicates": counted * replicate_weights(case, joint.n_own)}


def quietly(compute: Callable[..., Any], *args: Any) -> Any:
    """Return what the reference computes, None where its equations have no solution that it finds."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return compute(*args)
    except (reference.NoReferenceError, np.linalg.LinAlgError):
        return None


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

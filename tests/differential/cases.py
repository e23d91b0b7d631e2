"""Random fits: options and data that a seed stands for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

ESTIMATORS = ("OutcomeRegression", "Hajek", "IPWRA", "AIPW", "JRE")
STATED = 2.5  # exposure


@dataclass(frozen=True)
class Case:
    """One random fit; its fields are all there is to it, and the defaults are the simplest.

    `rows` are those of the data before anything is left out, `arms` their number of arms, `covariates` the numeric
    ones, `factor` whether there is a categorical one too, `square` whether the models have the square of the first.
    `shift` and `scale` move the covariates, `level` a linear outcome; `missing` is the share of rows that miss one.
    `blocks` asks for a bootstrap in two blocks once more with two workers. `objective`, `anchor`, `share` and
    `replicates` are JRE's. `offset` says what the column `t` is: an offset, or an exposure with means at the observed
    ones or at `STATED`. The other fields are options of the fit.
    """

    seed: int = 0
    estimator: str = "IPWRA"
    rows: int = 200
    covariates: int = 2
    factor: bool = False
    square: bool = False
    arms: int = 2
    family: str = "gaussian"
    outcome_link: str = ""
    propensity_link: str = "logit"
    propensity: str = "ml"
    target: str = "all"
    weight_type: str = ""
    weight_scale: float = 1.0
    clusters: int = 0
    small_sample: bool = False
    effect: str = "difference"
    trim: tuple[float, float] | str | None = None
    clip: tuple[float, float] | None = None
    other_propensity: bool = False
    coding: str = "int"
    dtype: str = "float64"
    arrays: bool = False
    level: float = 0.0
    shift: float = 0.0
    scale: float = 1.0
    missing: float = 0.0
    resamples: str = ""
    blocks: bool = False
    objective: str = "risk"
    anchor: float = 1.0
    replicates: int = 4
    share: float | None = None
    offset: str = ""


def some_of(rng: np.random.Generator, values: tuple, usual: float = 0.0):
    """Draw one of the values, the first with a probability of `usual` beforehand."""
    return values[0] if rng.random() < usual else values[rng.integers(len(values))]


def draw(seed: int) -> Case:
    """Return the case of a seed."""
    rng = np.random.default_rng([20260101, seed])
    some = partial(some_of, rng)
    arms = int(some((2, 3, 4), usual=0.5))
    family = some(("gaussian", "gaussian", "binomial", "poisson", "gamma", "negativebinomial"), usual=0.2)
    links = {"binomial": ("logit", "probit", "cloglog"), "gaussian": ("identity", "log")}.get(family, ("log",))
    link = some(links, usual=0.5)
    propensity = some(("ml", "calibrated", "known"), usual=0.6)
    by_arm = ("all", "control", "treated" if arms == 2 else "arm")
    others = ("overlap", "matching", "entropy", "frame", *(("tilt",) if arms == 2 else ()))
    target = some(by_arm if propensity == "calibrated" else (*by_arm, *others), usual=0.3)
    binary = arms == 2 and propensity == "ml"
    weight_type = some(("", "frequency", "probability"), usual=0.3)
    clusters = int(some((0, 15, 40), usual=0.5))
    level = float(some((0.0, 1e3, -1e6), usual=0.6)) if (family, link) == ("gaussian", "identity") else 0.0
    positive = family != "gaussian" or link == "log" or level > 0
    effects = ("difference", "ratio", "percent", *(("odds_ratio",) if family == "binomial" else ()))
    trim = some((None, (0.05, 0.95), (0.1, 0.9), "crump"), usual=0.6) if target != "frame" else None
    if arms > 2 and isinstance(trim, tuple):
        trim = (trim[0] / 2, 0.95)
    case = Case(
        seed=seed,
        estimator=some(ESTIMATORS),
        rows=int(rng.integers(100, 400)) + 100 * (arms - 2),
        covariates=int(rng.integers(1, 4)),
        factor=bool(rng.random() < 0.4),
        square=bool(rng.random() < 0.3),
        arms=arms,
        family=family,
        outcome_link=link,
        propensity_link=some(("logit", "probit", "cloglog"), usual=0.4) if binary else "logit",
        propensity=propensity,
        target=target,
        weight_type=weight_type,
        weight_scale=float(10.0 ** rng.integers(-12, 13)) if weight_type == "probability" else 1.0,
        clusters=clusters,
        small_sample=bool(rng.random() < 0.3),
        effect=some(effects, usual=0.5) if positive else "difference",
        trim=trim,
        clip=some((None, (0.1, 0.9), (0.2, 1.0)), usual=0.6),
        other_propensity=bool(rng.random() < 0.4),
        coding=some(("int", "float", "text", "category", "bool") if arms == 2 else ("int", "text", "category")),
        dtype=some(("float64", "float32", "Float64", "object", ">f8"), usual=0.5),
        arrays=bool(rng.random() < 0.2),
        level=level,
        shift=float(some((0.0, -3.0, 100.0, 1e4), usual=0.6)),
        scale=float(some((1.0, 1e-6, 1e6, 1e-12, 1e12), usual=0.6)),
        missing=float(some((0.0, 0.02, 0.1), usual=0.6)),
        resamples=some(("", "given", "pairs", "bayesian", "stratified", "cluster"), usual=0.5),
        blocks=bool(rng.random(2)[0] < 0.15),  # the second number keeps the cases of the seeds as they were
        objective=some(("risk", "risk", "erm")),
        anchor=float(some((30.0, 3.0, 0.3, 0.03))),
        share=(None, 0.0, 0.4, 1.0)[seed % 4],
        replicates=int(some((2, 4, 6))),
    )
    return replace(case, offset=some(_offsets(case, log=link == "log"), usual=0.6))


def usual_link(case: Case) -> str:
    """Link of the outcome models."""
    return case.outcome_link or {"gaussian": "identity", "binomial": "logit"}.get(case.family, "log")


def _offsets(case: Case, *, log: bool) -> tuple[str, ...]:
    """What the column of times may be: the estimators that have means there, and links that have exposures."""
    if case.estimator == "JRE":
        return ("",)
    observed = () if case.target == "frame" else ("offset", "observed") if log else ("offset",)
    return ("", *observed, *(("stated",) if log and case.estimator != "AIPW" else ()))


@dataclass(frozen=True)
class Data:
    """What a case is about: the frame that is fitted, and another population."""

    frame: pd.DataFrame
    elsewhere: pd.DataFrame
    names: tuple[str, ...]


def data_of(case: Case) -> Data:
    """Draw the data of a case; treatment `d` has codes 0 .. K-1, still."""
    rng = np.random.default_rng([7, case.seed])
    n = case.rows
    x = rng.normal(size=(n + 80, case.covariates))
    g = rng.integers(0, 3, n + 80)
    x[n:] += 0.3
    index = x[:n] @ rng.uniform(-0.5, 0.5, (case.covariates, case.arms)) + 0.3 * (g[:n, None] == 1)
    d = (index + rng.gumbel(size=(n, case.arms))).argmax(axis=1)
    level = 0.3 * x[:n].sum(axis=1) + 0.2 * d + 0.2 * g[:n]
    y = _outcome(case, level, rng)
    names = tuple(f"x{j + 1}" for j in range(case.covariates))
    columns = (x * case.scale + case.shift * case.scale).astype("float32").astype("float64")  # that every dtype holds
    levels = np.array(["a", "b", "c"])[g]
    elsewhere = pd.DataFrame(dict(zip(names, columns[n:].T, strict=True)) | {"g": levels[n:]})
    odds = np.exp(index)
    e = odds / odds.sum(axis=1, keepdims=True)
    w = rng.integers(1, 5, n) if case.weight_type == "frequency" else rng.uniform(0.3, 2, n) * case.weight_scale
    c = rng.integers(0, case.clusters, n) if case.clusters else 0
    kept = [np.where(rng.random(n) < case.missing / case.covariates, np.nan, column) for column in columns[:n].T]
    t = 0.5 * rng.normal(size=n)
    own = pd.DataFrame({
        **dict(zip(names, kept, strict=True)), "g": levels[:n], "y": y, "d": d,
        **{f"e{k}": e[:, k] for k in range(case.arms)}, "w": w, "c": c,
        "t": np.exp(t) if case.offset in ("observed", "stated") else t,
    })  # fmt: skip
    return Data(own, elsewhere, names)


def _outcome(case: Case, level: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = len(level)
    if case.family == "binomial":
        return (rng.random(n) < 1 / (1 + np.exp(-level))).astype(float)
    if case.family == "poisson":
        return rng.poisson(np.exp(0.5 + 0.5 * level)).astype(float)
    if case.family == "negativebinomial":
        return rng.poisson(np.exp(0.5 + 0.5 * level) * rng.gamma(2, 0.5, n)).astype(float)
    if case.family == "gamma":
        return np.exp(0.5 * level) * rng.gamma(2, 0.5, n)
    if case.outcome_link == "log":
        return np.exp(0.4 * level) + 0.2 * rng.normal(size=n)
    return case.level + level + rng.normal(size=n)

"""Random fits: options and data that a seed stands for, and how a case that fails is made smaller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
import pandas as pd

ESTIMATORS = ("OutcomeRegression", "Hajek", "IPWRA", "AIPW", "JRE")
SMALLEST = 60
STATED = 2.5  # exposure


@dataclass(frozen=True)
class Case:
    """One random fit; its fields are all there is to it, and the defaults are the simplest.

    `rows` are those of the data before anything is left out, `arms` their number of arms, `covariates` the numeric
    ones, `factor` whether there is a categorical one too, `square` whether the models have the square of the first.
    `shift` and `scale` move the covariates, `level` a linear outcome; `missing` is the share of rows that miss one.
    `blocks` asks for a bootstrap in two blocks once more with little memory and two workers, `multinomial` for the
    logit of two arms as the multinomial one it is. `objective`, `anchor`, `share` and `replicates` are JRE's. `offset`
    says what the column `t` is: an offset, or an exposure with means at the observed ones or at `STATED`. `survey` is
    the survey design, of `SURVEYS`, whose first-stage units are the clusters. The other fields are options of the fit.
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
    multinomial: bool = False
    objective: str = "risk"
    anchor: float = 1.0
    replicates: int = 4
    share: float | None = None
    offset: str = ""
    tables: bool = False
    by: int = 0
    change: str = ""
    container: str = "pandas"
    unused: bool = False
    gaps: bool = False
    storage: str = ""
    layout: str = "half"
    term: str = ""
    workers: int = 1
    draws: int = 0
    survey: str = ""
    subpop: bool = False


CONTAINERS = ("pandas", "polars", "arrow", "nullable", "arrow dtypes", "decimal", "mapping")
CHANGES = ("rows written out", "order", "names", "units", "pickle", "call", "one group")
STORAGES = ("frames", "function", "parquet", "csv", "dataset", "dask")
LAYOUTS = ("half", "uneven", "single rows", "by arm", "by level", "gaps", "one")
SURVEYS = ("strata", "units", "nested", "replicates")
TERMS = ("bs(x1, df=4)", "cr(x1, df=3, constraints='center')", "center(x1)", "standardize(x1)", "np.exp(x1 / 9)")


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
        blocks=bool(rng.random() < 0.15),
        multinomial=bool(rng.random() < 0.3),
        objective=some(("risk", "risk", "erm")),
        anchor=float(some((30.0, 3.0, 0.3, 0.03))),
        share=(None, 0.0, 0.4, 1.0)[seed % 4],
        replicates=int(some((2, 4, 6))),
    )
    return replace(case, offset=some(_offsets(case, log=link == "log"), usual=0.6))


def draw_crossed(seed: int) -> Case:
    """Return the case of a seed with more of the options at once, small and in ordinary units, and what else to ask."""
    rng = np.random.default_rng([20260102, seed])
    some = partial(some_of, rng)
    case = draw(seed)
    container = some(CONTAINERS, usual=0.3)
    case = replace(
        case,
        rows=int(rng.integers(60, 240)) + 60 * (case.arms - 2),
        level=case.level if case.effect != "difference" or rng.random() < 0.3 else 0.0,
        shift=float(some((0.0, -3.0))),
        scale=float(some((1.0, 10.0))),
        arrays=False,
        tables=True,
        by=int(some((0, 1, 2))) if case.estimator != "JRE" and case.target != "frame" else 0,
        container=container,
        dtype=case.dtype if container == "pandas" else "float64",
        coding="int" if case.coding == "float" and container != "pandas" else case.coding,
        unused=bool(rng.random() < 0.2) and container in ("pandas", "polars", "arrow", "nullable"),
        gaps=bool(rng.random() < 0.3),
        clip=some(((0.1, 0.9), (0.05, 0.7), (0.2, 1.0))) if rng.random() < 0.3 else case.clip,
        weight_type=some(("frequency", "probability", "")) if rng.random() < 0.3 else case.weight_type,
        weight_scale=1.0,
    )
    if case.estimator == "JRE" and rng.random() < 0.4:
        case = replace(case, offset=some(_joint_offsets(case)))
    return replace(case, change=some(_changes(case)))


def _changes(case: Case) -> tuple[str, ...]:
    """What can be done to a case that is to change nothing."""
    found = ["order", "names", "pickle", "call"]
    found += ["rows written out"] * 3 if case.weight_type == "frequency" else []
    found += ["units"] * 2 if (case.family, case.outcome_link) in (("gaussian", "identity"), ("gaussian", "")) else []
    usual = (case.family, case.outcome_link) in (("gaussian", "identity"), ("binomial", "logit"), ("poisson", "log"))
    one = case.estimator != "JRE" and (case.estimator != "IPWRA" or usual)  # residuals that add up to zero
    found += ["one group"] if case.target != "frame" and one else []
    return tuple(found)


def draw_scan(seed: int) -> Case:
    """Return a case that is fitted to a scan and in memory."""
    rng = np.random.default_rng([20260103, seed])
    some = partial(some_of, rng)
    case = draw(seed)
    joint = case.estimator == "JRE"
    plain = joint and rng.random() < 0.95  # other outcome models of the joint estimator read the data a hundred times
    storage = some(STORAGES, usual=0.3)
    clusters = int(some((0, 15, 40), usual=0.5))
    kinds = ("cluster", "bayesian") if clusters else ("pairs", "bayesian", *(() if joint else ("stratified",)))
    resamples = some(kinds) if rng.random() < (0.15 if joint else 0.3) else ""
    case = replace(
        case,
        rows=int(rng.integers(60, 200)) + 50 * (case.arms - 2),
        family="gaussian" if plain else case.family,
        outcome_link="identity" if plain else case.outcome_link,
        effect="difference" if plain and not case.level > 0 else case.effect,
        propensity="ml" if case.propensity == "known" else case.propensity,
        level=case.level if case.effect != "difference" or rng.random() < 0.3 else 0.0,
        shift=float(some((0.0, -3.0, 100.0), usual=0.6)),
        scale=float(some((1.0, 1e3), usual=0.7)),
        arrays=False,
        dtype=some(("float64", "float32", "Float64"), usual=0.6),
        coding=some(("int", "text", "category", "bool") if case.arms == 2 else ("int", "text", "category")),
        weight_scale=1.0,
        clusters=clusters,
        unused=bool(rng.random() < 0.2),
        gaps=bool(rng.random() < 0.3),
        factor=bool(rng.random() < 0.6),
        storage=storage,
        layout=some(LAYOUTS),
        term=some(("", *TERMS), usual=0.5),
        square=case.square and rng.random() < 0.5,
        workers=int(some((1, 2), usual=0.7)),
        resamples=resamples,
        draws=3,
        replicates=4,
    )
    if storage in ("csv", "dataset", "dask"):
        case = replace(case, unused=False, dtype="float64", coding="text" if case.coding == "category" else case.coding)
    kinds = _joint_offsets(case) if joint else _offsets(case, log=usual_link(case) == "log")
    return replace(case, offset=some(kinds, usual=0.6))


def draw_survey(seed: int) -> Case:
    """Return a case of a survey design that is fitted to a scan and in memory."""
    rng, case = np.random.default_rng([20260104, seed]), draw_scan(seed)
    survey, units = SURVEYS[rng.integers(len(SURVEYS))], 15 * int(rng.integers(1, 3))
    weight_type = "probability" if survey == "replicates" or case.weight_type == "frequency" else case.weight_type
    return replace(
        case,
        survey=survey,
        subpop=bool(rng.random() < 0.3),
        clusters=units if survey in ("units", "nested") else 0,
        weight_type=weight_type,
        resamples="",
        small_sample=False,
    )


def _joint_offsets(case: Case) -> tuple[str, ...]:
    """As `_offsets`, of the joint estimator."""
    if case.target == "frame":
        return ("",)
    return ("", "offset", *(("observed",) if usual_link(case) == "log" else ()))


def usual_link(case: Case) -> str:
    """Link of the outcome models."""
    return case.outcome_link or {"gaussian": "identity", "binomial": "logit"}.get(case.family, "log")


DRAWS = {"plain": draw, "crossed": draw_crossed, "scan": draw_scan, "survey": draw_survey}


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
    more = np.random.default_rng([8, case.seed])
    own = pd.DataFrame({
        **dict(zip(names, kept, strict=True)), "g": levels[:n], "y": y, "d": d,
        **{f"e{k}": e[:, k] for k in range(case.arms)}, "w": w, "c": c,
        "t": np.exp(t) if case.offset in ("observed", "stated") else t,
        "h": np.array(["u", "v"])[more.integers(0, 2, n)], "k": more.integers(0, 2, n),
    })  # fmt: skip
    if case.gaps:
        own.loc[more.random(n) < 0.03, "y"] = np.nan
        own["g"] = own["g"].mask(more.random(n) < 0.03)
    if case.survey:
        own = own.join(_surveyed(case, own))
    return Data(own, elsewhere, names)


def _surveyed(case: Case, own: pd.DataFrame) -> pd.DataFrame:
    """Strata of five units each, which may be numbered anew in each; sizes of the population; replicate weights."""
    rng, n = np.random.default_rng([9, case.seed]), len(own)
    stratum = own["c"].to_numpy() // 5 if case.clusters else rng.integers(0, 4, n)
    left_out = rng.integers(0, 6, n)
    return pd.DataFrame(
        {
            "s": [f"no. {9 - h}" for h in stratum] if case.seed % 2 else stratum,
            "p": own["c"] % 5 if case.survey == "nested" else own["c"],
            "f": 200 + 10 * stratum if case.clusters else 1000 + 10 * stratum,
            "u": (rng.random(n) < 0.8) * 1,
            **{f"r{k}": own["w"] * (left_out != k) * 6 / 5 for k in range(6)},
        },
        index=own.index,
    )


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


def smaller(case: Case) -> Iterator[Case]:
    """Yield simpler cases: with all fields, with half of them and with one at their defaults, and with fewer rows."""
    simplest = Case(seed=case.seed, estimator=case.estimator, tables=case.tables, storage="frames" * bool(case.storage))
    left = {"seed", "estimator", "rows", "covariates", "outcome_link", "tables"}
    names = [f.name for f in fields(Case) if f.name not in left and getattr(case, f.name) != getattr(simplest, f.name)]
    half = len(names) // 2
    several = (names, names[:half], names[half:]) if len(names) > 3 else ()
    for reset in (*several, *([name] for name in names)):
        changed = replace(case, **{name: getattr(simplest, name) for name in reset})
        if "family" in reset:
            changed = replace(changed, outcome_link="", effect="difference", level=0.0, offset="")
        if changed != case:
            yield changed
    if case.rows > SMALLEST:
        yield replace(case, rows=max(SMALLEST, case.rows // 2))
    if case.covariates > 1:
        yield replace(case, covariates=1)


def shrink(case: Case, fails, tries: int = 100) -> Case:
    """Return the simplest case found that still fails."""
    while tries:
        for candidate in smaller(case):
            tries -= 1
            if fails(candidate):
                case = candidate
                break
            if not tries:
                break
        else:
            return case
    return case

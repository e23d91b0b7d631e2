"""What some three hundred fits say, kept before a change of the machinery and compared after it.

    python -m tests.differential.kept --store before.json
    python -m tests.differential.kept --against before.json
    python -m tests.differential.kept --against before.json --numbers
    python -m tests.differential.kept --against before.json --only survey

Every estimator with every target, and every feature of the public interface at least once: families and links, several
arms, codings of the treatment, weights, clusters, surveys, frames, arrays, effect scales, quantiles, missing outcomes
and covariates, difference-in-differences, learners, trimming, scores, every kind of standard error, groups, tests,
tables, pooled and compared fits, and scans. Numbers and texts are compared apart. Estimates and robust errors have to
agree to 1e-12 of their size (`--within` says otherwise; a scan's: 1e-10), columns of tables to as much of their largest
value, bootstrap errors within their Monte Carlo error. Texts are compared but for their digits, and whether they differ
by digits alone is told. A refusal is its class, a number, and its first line, a text. The file is for one machine and
one change: it is not kept in the repository, as a snapshot of our own output is no evidence of anything else.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import causalrisk as cr
from tests.differential.kept_cases import (
    ARMS,
    DRAWN,
    N_BOOT,
    PLAIN,
    WEIGHTED,
    blocks,
    data,
    data_cases,
    did_cases,
    error_cases,
    joint_cases,
    learner_cases,
    outcome_cases,
    plain_cases,
    refused_cases,
    rows,
    staggered,
    survey_cases,
    table_cases,
    treatment_cases,
)

EXACT, OF_A_SCAN, ERRORS = 1e-12, 1e-10, 6.0  # the last: Monte Carlo errors of a bootstrap standard error
SMALLEST = 1e-6  # largest value of a column of a table below which differences are taken as absolute
Case = tuple[str, Callable[[], dict[str, Any]]]


def cases() -> Iterator[Case]:
    """Yield the name of each case and what makes its numbers and texts."""
    for name, estimator, given, fit in plain_cases():
        yield name, partial(fitted, estimator, given, fit)
        if name.split(" ", 1)[1] in ("all", "treated", "overlap", "survey", "clusters", "three arms", "bootstrap"):
            yield f"{name}, scan", partial(fitted, estimator, given, fit, blocks)
    for group, made in (
        ("outcome", outcome_cases()),
        ("treatment", treatment_cases()),
        ("data", data_cases()),
        ("errors", error_cases()),
        ("survey", survey_cases()),
        ("did", did_cases()),
        ("learner", learner_cases()),
        ("joint", joint_cases()),
        ("tables", table_cases()),
        ("refused", refused_cases()),
    ):
        for name, estimator, given, fit, *more in made:
            yield f"{group}: {estimator} {name}", partial(fitted, estimator, given, fit, rows, *more)
    for name, function in several_fits().items():
        yield f"several: {name}", function


def several_fits() -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the cases that are not one fit: comparisons, pooled fits, event studies, permutations, Table 1."""
    two = {"estimators": ["IPWRA", "AIPW"]}
    ratio = {"formula": "binary ~ x", "family": "binomial", "effect": "ratio", "estimators": ["Unadjusted", "IPWRA"]}
    clustered = {"target": "treated", "cluster": "clinic", "estimators": ["Hajek", "AIPW"]}
    found = {
        "compare": partial(compared, PLAIN),
        "compare three arms": partial(compared, ARMS | two),
        "compare treated clusters": partial(compared, PLAIN | clustered),
        "compare survey": partial(compared, PLAIN | two | {"design": cr.Survey(**DRAWN)}),
        "compare quantiles": partial(compared, PLAIN | {"effect": "quantile", "quantiles": 0.5}),
        "compare ratios": partial(compared, PLAIN | ratio),
        "pool": partial(pooled, {}),
        "pool clusters": partial(pooled, {"cluster": "clinic"}),
        "pool ratios": partial(pooled, {"formula": "positive ~ x + part", "effect": "ratio"}),
        "pool observed": partial(pooled, {"formula": "lost ~ x + part", "observed": "x + d"}),
        "simultaneous": simultaneous,
        "etable": beside_each_other,
        "permutation": partial(permuted, "IPWRA", {}),
        "permutation within": partial(permuted, "AIPW", {"strata": "g", "alternative": "larger"}),
        "table one": partial(described, "~ x + C(g) + part", {"by": "d", "overall": True}),
        "table one weighted": partial(described, ["x", "g"], WEIGHTED | {"by": "words", "treated": "yes"}),
        "other options": changed_options,
    }
    for name, options in {
        "plain": {},
        "not yet": {"controls": "not yet", "estimator": "IPWRA"},
        "regression": {"estimator": "OutcomeRegression", "formula": "sales ~ 1"},
        "JRE": {"estimator": "JRE"},
        "clusters": {"cluster": "town", "use_t": True},
        "survey": {"design": cr.Survey(weights="s", strata="region", psu="town")},
        "calibrated": {"propensity_loss": "calibrated"},
        "weights": WEIGHTED,
    }.items():
        found[f"event study, {name}"] = partial(studied, options)
    return found


def described(covariates: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return a Table 1."""
    return {"table": cr.table_one(covariates, rows(), **options)}


def compared(given: dict[str, Any]) -> dict[str, Any]:
    """Compare estimators."""
    found = cr.compare(
        data=rows(),
        **given,
        n_boot=N_BOOT,
        rng=6,
        **({} if "estimators" in given or "effect" in given else {"n_replicates": 40}),
    )
    table = found.table
    robust = table[[column for column in ("estimate", "robust se") if column in table]]
    errors = {"bse": table["std err"], "differences": found.differences[["std err"]]}
    return {"params": robust.iloc[:, 0], "robust": robust, **errors, "text": str(found.summary()), "boot": True}


def pooled(given: dict[str, Any]) -> dict[str, Any]:
    """Pool fits to three completed data sets."""
    rng, fits = np.random.default_rng(9), []
    for _ in range(3):
        drawn = rows().assign(part=rows().part.fillna(pd.Series(rng.normal(size=240))))
        options = PLAIN | {"formula": "y ~ x + part", "propensity": "x + part"} | given
        fits.append(cr.AIPW.from_formula(data=drawn, **options).fit())
    found = cr.pool(fits)
    tables = {"frame": found.summary_frame(), "missing": found.missing_information}
    return {"params": found.params, "bse": found.bse, **tables, "text": str(found.summary())}


def studied(given: dict[str, Any]) -> dict[str, Any]:
    """Return the tables of an event study."""
    options = {"formula": "sales ~ x", "begins": "first", "time": "year", "unit": "shop"} | given
    study = cr.event_study(data=staggered(), **options)
    tables = {str(by): study.effects(by, adjust=None) for by in ("exposure", "group", "time", "all", None)}
    tables |= {"simultaneous": study.effects(), "covariance": study.cov_params(), "trends": study.pretrend_test()}
    return {
        "params": tables["None"]["estimate"],
        "bse": tables["None"]["std err"],
        **tables,
        "text": str(study.summary()),
    }


def simultaneous() -> dict[str, Any]:
    """Return joint tests of several outcomes and estimators."""
    fits = [cr.AIPW.from_formula(f"{y} ~ x", rows(), treat="d").fit() for y in ("y", "positive", "before")]
    return {adjust: cr.simultaneous(fits, adjust=adjust) for adjust in ("single-step", "holm", "fdr_bh")}


def beside_each_other() -> dict[str, Any]:
    """Return tables of several fits."""
    fits = [getattr(cr, name).from_formula("y ~ x + g", rows(), treat="d").fit() for name in ("Hajek", "IPWRA", "AIPW")]
    return {"plain": cr.etable(fits), "stars": cr.etable(fits, below="ci", stars=True, keep=["ATE"])}


def permuted(estimator: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return a permutation test."""
    res = getattr(cr, estimator).from_formula("y ~ x + g", rows(), treat="d").fit()
    test = res.permutation_test(99, rng=3, **options)
    return {"statistic": test.statistic, "p": test.pvalue, "text": str(test.summary())}


def changed_options() -> dict[str, Any]:
    """Return fits of one model under other options, and one that was saved and read."""
    model = cr.AIPW.from_formula(data=rows(), **PLAIN)
    treated = model.with_options(target="treated", clip=(0.1, 0.9)).fit()
    return {"params": treated.params, "bse": treated.bse, "text": str(treated.summary()), "name": repr(treated)}


def fitted(
    estimator: str,
    given: dict[str, Any],
    fit: dict[str, Any],
    source: Callable[[], Any] = data,
    reads: dict[str, Callable[[Any], Any]] | None = None,
) -> dict[str, Any]:
    """Fit, and return the estimates, their standard errors, the summary, and the tables that are asked for."""
    model, kind = dict(given), getattr(cr, estimator)
    options = {"n_replicates": 40, "rng": 3} | fit if estimator == "JRE" else dict(fit)
    options = {name: value for name, value in ({"cov_type": "robust"} | options).items() if value is not None}
    if "arrays" in model:
        made = kind(**model["arrays"])
    else:
        source = model.pop("data", source)
        made = kind.from_formula(model.pop("formula"), source(), **model)
    res = made.fit(**options)
    boot = res.cov_type == "bootstrap"
    found = {"params": res.params, "bse": res.bse, "text": str(res.summary()), "boot": boot}
    if not boot:
        found["frame"] = res.summary_frame()
    for name, read in (reads or {}).items():
        found[name] = kept(partial(read, res))
    return found


def kept(function: Callable[[], Any]) -> Any:
    """Return what a function returns, or its error."""
    try:
        return function()
    except Exception as error:
        return error


def collected(function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the numbers and texts of a case."""
    numbers: dict[str, Any] = {}
    texts: dict[str, str] = {}
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        found = kept(function)
    boot = found.pop("boot", False) if isinstance(found, dict) else False
    for name, value in found.items() if isinstance(found, dict) else {"all of it": found}.items():
        add(name, value, numbers, texts)
    told = sorted({f"{type(w.message).__name__}: {str(w.message).splitlines()[0]}" for w in raised})
    return {"numbers": numbers, "texts": texts | {"warnings": "\n".join(told)}, "boot": boot}


def add(name: str, value: Any, numbers: dict[str, Any], texts: dict[str, str]) -> None:
    """Add a value to the numbers or texts; a refusal is its class, and its first line."""
    if isinstance(value, Exception):
        numbers[f"{name} refused"] = type(value).__name__
        texts[f"{name} refused"] = str(value).splitlines()[0]
    elif isinstance(value, pd.DataFrame):
        texts[f"{name} labels"] = f"{list(map(str, value.index))} {list(map(str, value.columns))}"
        for column in value.columns:
            add(f"{name} {column}", value[column].to_numpy(), numbers, texts)
    elif isinstance(value, pd.Series):
        texts[f"{name} labels"] = str(list(map(str, value.index)))
        add(name, value.to_numpy(), numbers, texts)
    elif isinstance(value, str) or not isinstance(value, (np.ndarray, float, int, np.number)):
        texts[name] = str(value)
    elif np.asarray(value).dtype == object:
        texts[name] = "\n".join(map(str, np.ravel(value)))
    else:
        numbers[name] = np.ravel(value).astype(float).tolist()


def number_differences(before: dict[str, Any], now: dict[str, Any], bound: float) -> Iterator[str]:
    """Say in which numbers a case differs."""
    old, new = before["numbers"], now["numbers"]
    for name in old | new:
        if name not in old or name not in new:
            yield f"{name} is {'new' if name in new else 'gone'}"
        elif isinstance(old[name], str) or isinstance(new[name], str):
            if old[name] != new[name]:
                yield f"{name}: {old[name]} -> {new[name]}"
        elif len(old[name]) != len(new[name]):
            yield f"{name}: {len(old[name])} values, then {len(new[name])}"
        else:
            a, b = np.array(old[name]), np.array(new[name])
            estimates = name in ("params", "robust estimate", "robust robust se") or not before["boot"]
            allowed = bound if estimates else ERRORS / np.sqrt(2 * N_BOOT)
            size = np.abs(a) if name in ("params", "bse") else np.max(np.abs(a[np.isfinite(a)]), initial=SMALLEST)
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            with np.errstate(invalid="ignore"):
                apart = np.where(same, 0.0, np.abs(b - a) / np.maximum(size, 1e-300))
            if not (apart <= allowed).all():
                yield f"{name} {np.max(apart):.2g} apart (allowed {allowed:.2g})"


def text_differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Say in which texts a case differs, and whether in their digits alone."""
    old, new = before["texts"], now["texts"]
    for name in old | new:
        sides = [" ".join(side.get(name, "").split()) for side in (old, new)]
        words = [" ".join(re.sub(r"[-=]{3,}|[-+<]?\d[\d.,e+-]*|\bnan\b", "#", side).split()) for side in sides]
        if words[0] != words[1]:
            at = next((i for i, (a, b) in enumerate(zip(*words, strict=False)) if a != b), min(map(len, words)))
            yield f"{name}: ...{words[0][max(at - 20, 0) : at + 60]!r} -> {words[1][max(at - 20, 0) : at + 60]!r}"
        elif sides[0] != sides[1] and not before["boot"]:
            yield f"{name}: digits alone"


def main() -> None:
    """Store the cases, or compare them with those stored."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--numbers", action="store_true", help="compare numbers alone")
    parser.add_argument("--within", type=float, default=EXACT, help="relative difference of numbers that is allowed")
    parser.add_argument("--only", default="", help="cases whose name has this text")
    args = parser.parse_args()
    found = {name: collected(function) for name, function in cases() if args.only in name}
    refused = sum("all of it refused" in case["numbers"] for case in found.values())
    print(f"{len(found)} cases, {refused} refused")
    if args.store:
        args.store.write_text(json.dumps(found), "utf-8")
    if args.against:
        before = {name: case for name, case in json.loads(args.against.read_text("utf-8")).items() if args.only in name}
        compare_cases(before, found, args.within, args.numbers)


def compare_cases(before: dict[str, Any], found: dict[str, Any], within: float, numbers_alone: bool) -> None:
    """Print in what the cases differ."""
    counts = dict.fromkeys(("numbers", "texts", "digits of texts"), 0)
    changed = set()
    for name in sorted({*before, *found}):
        if name not in before or name not in found:
            said = [("numbers", "the case is gone or new")]
        else:
            bound = max(within, OF_A_SCAN) if name.endswith("scan") else within
            said = [("numbers", line) for line in number_differences(before[name], found[name], bound)]
            if not numbers_alone:
                lines = text_differences(before[name], found[name])
                said += [("digits of texts" if line.endswith("digits alone") else "texts", line) for line in lines]
        for kind, line in said:
            counts[kind] += 1
            changed.add(name)
            print(f"{kind}: {name}: {line}")
    print(", ".join(f"{count} {kind} differ" for kind, count in counts.items()), f"in {len(changed)} of {len(found)}")


if __name__ == "__main__":
    main()

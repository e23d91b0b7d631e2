"""What some ninety fits say, kept before a change of the machinery and compared after it.

    python -m tests.differential.kept --store before.json
    python -m tests.differential.kept --against before.json

Every estimator with every target; families, several arms, weights, clusters, offsets, frames, effect scales, trimming,
clipping, calibrated scores; robust, clustered and bootstrap standard errors; in memory and from a scan of uneven
blocks. Estimates and robust errors have to agree to 1e-12 of their size (a scan's: 1e-10), bootstrap errors within
their Monte Carlo error, texts but for the digits of these. The file is for one machine and one change: it is not kept
in the repository, as a snapshot of our own output is no evidence of anything else.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import causalrisk as cr

N_BOOT = 99
EXACT, OF_A_SCAN, ERRORS = 1e-12, 1e-10, 6.0  # the last: Monte Carlo errors of a bootstrap standard error
ESTIMATORS = ("OutcomeRegression", "Hajek", "IPWRA", "AIPW", "JRE")
TARGETS = ("all", "treated", "control", "overlap", "matching", "entropy")


def data() -> pd.DataFrame:
    """Return 240 rows with outcomes of several families, two and three arms, weights, clusters and an exposure."""
    rng, n = np.random.default_rng(20261127), 240
    x, z, g = rng.normal(size=n), rng.normal(size=n), rng.choice(list("abc"), n)
    d = (rng.random(n) < 1 / (1 + np.exp(-0.6 * x - 0.3 * z))).astype(int)
    arm = (np.column_stack([0 * x, 0.4 * x, -0.4 * z]) + rng.gumbel(size=(n, 3))).argmax(axis=1)
    mean = x + 0.5 * x**2 + (g == "b") + d
    exposure = rng.uniform(0.5, 2, n)
    return pd.DataFrame(
        {
            "y": mean + rng.normal(size=n),
            "binary": (rng.random(n) < 1 / (1 + np.exp(-0.6 * mean))).astype(int),
            "count": rng.poisson(exposure * np.exp(0.2 * mean)),
            "positive": rng.gamma(3, np.exp(0.2 * mean) / 3),
            "d": d,
            "arm": arm,
            "x": x,
            "z": z,
            "g": g,
            "units": rng.integers(1, 4, n),
            "s": rng.uniform(0.5, 2, n),
            "clinic": rng.integers(0, 40, n),
            "exposure": exposure,
        }
    )


def cases() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Yield the name of each case, its estimator, what its model is given, and what its fit is given."""
    plain = {"formula": "y ~ x + g", "treat": "d", "propensity": "x + z"}
    for estimator in ESTIMATORS:
        for target in TARGETS:
            yield f"{estimator} {target}", estimator, plain | {"target": target}, {}
        for name, columns in {
            "units": {"weights": "units", "weight_type": "frequency"},
            "survey": {"weights": "s", "weight_type": "probability"},
            "clusters": {"cluster": "clinic"},
            "three arms": {"treat": "arm", "reference": 0, "propensity": "x + z"},
            "ratio": {"formula": "positive ~ x + g", "effect": "ratio"},
        }.items():
            cov_type = {"clusters": "cluster"}.get(name, "robust")
            yield f"{estimator} {name}", estimator, plain | columns, {"cov_type": cov_type}
        yield f"{estimator} bootstrap", estimator, plain, {"cov_type": "bootstrap", "n_boot": N_BOOT, "rng": 1}
    for estimator in ("OutcomeRegression", "IPWRA", "AIPW", "JRE"):
        for family, outcome in {"binomial": "binary", "poisson": "count", "gamma": "positive"}.items():
            yield f"{estimator} {family}", estimator, plain | {"formula": f"{outcome} ~ x", "family": family}, {}
    exposed = {"formula": "count ~ x", "family": "poisson", "exposure": "exposure", "at_exposure": "observed"}
    for name, options in {
        "trim": {"trim": (0.15, 0.85)},
        "crump": {"trim": "crump"},
        "clip": {"clip": (0.2, 0.8)},
        "calibrated": {"propensity_loss": "calibrated"},
        "probit": {"propensity_link": "probit"},
        "exposure": exposed,
        "frame": {"target": data().iloc[:80][["x", "z", "g"]]},
    }.items():
        yield f"IPWRA {name}", "IPWRA", plain | options, {}
        yield f"JRE {name}", "JRE", plain | options, {}
    for kind in ("pairs", "bayesian"):
        boot = {"cov_type": "bootstrap", "bootstrap": kind, "n_boot": N_BOOT, "rng": 2}
        yield f"AIPW {kind} clusters", "AIPW", plain | {"cluster": "clinic"}, boot | {"bootstrap": "cluster"}
        yield f"IPWRA {kind}", "IPWRA", plain, boot
        yield f"JRE {kind}", "JRE", plain, boot
        yield f"JRE {kind} binomial", "JRE", plain | {"formula": "binary ~ x", "family": "binomial"}, boot


def blocks() -> Any:
    """Return the rows as a scan of uneven blocks."""
    frame = data()
    return cr.scan([frame.iloc[:7], frame.iloc[7:100], frame.iloc[100:101], frame.iloc[101:]])


def fitted(estimator: str, given: dict[str, Any], fit: dict[str, Any], source: Any) -> dict[str, Any]:
    """Fit, and return numbers and text; a refusal is its class and first line."""
    model = dict(given)
    options = {"n_replicates": 40, "rng": 3} | fit if estimator == "JRE" else dict(fit)
    options.setdefault("cov_type", "robust")
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        try:
            res = getattr(cr, estimator).from_formula(model.pop("formula"), source, **model).fit(**options)
        except cr.CausalRiskError as error:
            return {"refused": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        text = str(res.summary())
    return {
        "params": res.params.tolist(),
        "bse": res.bse.tolist(),
        "text": text,
        "boot": options["cov_type"] == "bootstrap",
        "warnings": sorted({f"{type(w.message).__name__}: {str(w.message).splitlines()[0]}" for w in raised}),
    }


def collect() -> dict[str, dict[str, Any]]:
    """Fit all cases, in memory and from a scan."""
    found = {}
    for name, estimator, given, fit in cases():
        found[name] = fitted(estimator, given, fit, data())
        if name.split(" ", 1)[1] in ("all", "treated", "overlap", "survey", "clusters", "three arms", "bootstrap"):
            found[f"{name}, scan"] = fitted(estimator, given, fit, blocks())
    return found


def differences(before: dict[str, Any], now: dict[str, Any], name: str) -> list[str]:
    """Say in what a case differs."""
    if "refused" in before or "refused" in now:
        return [] if before == now else [f"{before.get('refused', 'fitted')} -> {now.get('refused', 'fitted')}"]
    found, bound = [], OF_A_SCAN if name.endswith("scan") else EXACT
    for key in ("params", "bse"):
        old, new = np.array(before[key]), np.array(now[key])
        errors = key == "bse" and before["boot"]
        if old.shape != new.shape:
            found.append(f"{key}: {len(old)} values, then {len(new)}")
            continue
        worst = float(np.max(np.abs(new - old) / np.maximum(np.abs(old), 1e-300)))
        allowed = ERRORS / np.sqrt(2 * N_BOOT) if errors else bound
        if worst > allowed:
            found.append(f"{key} {worst:.2g} apart (allowed {allowed:.2g})")
    texts = [re.sub(r"[-\d.e+<]+", "#", " ".join(side["text"].split())) for side in (before, now)]
    if texts[0] != texts[1]:
        found.append("text")
    if before["warnings"] != now["warnings"]:
        found.append(f"warnings {before['warnings']} -> {now['warnings']}")
    return found


def main() -> None:
    """Store the cases, or compare them with those stored."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--against", type=Path)
    args, found = parser.parse_args(), collect()
    if args.store:
        args.store.write_text(json.dumps(found), "utf-8")
    refused = sum("refused" in case for case in found.values())
    print(f"{len(found)} fits, {refused} refused")
    if args.against:
        before = json.loads(args.against.read_text("utf-8"))
        changed = 0
        for name in sorted({*before, *found}):
            said = (
                differences(before[name], found[name], name) if name in before and name in found else ["is gone or new"]
            )
            changed += bool(said)
            for line in said:
                print(f"{name}: {line}")
        print(f"{changed} of {len(found)} differ")


if __name__ == "__main__":
    main()

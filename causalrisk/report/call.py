"""The Python call that repeats a fit, from its record."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from causalrisk._version import __version__
from causalrisk.estimators.options import JREOptions, ModelOptions
from causalrisk.estimators.record import FitRecord
from causalrisk.inference.covariance import robust_covariance
from causalrisk.numerics.multiplicities import repeating, seed_text
from causalrisk.propensity.targets import TargetPopulation

SPECIAL = {"family", "propensity_score", "target"}  # options of a model that are no plain values
SPELLED = [field.name for field in dataclasses.fields(ModelOptions) if field.name not in SPECIAL]


def call_of(record: FitRecord) -> str:
    """Return the call that repeats a fit.

    Parameters
    ----------
    record : FitRecord
        The fit.

    Returns
    -------
    str
        Python code that leaves the results in `res`. Objects without a spelling (a data frame, a function, scores
        and resamples given as arrays) get a name, which a comment explains.
    """
    design, lines = record.design, [f"from causalrisk import {record.spec.name}{_numpy(record)}", ""]
    given = _data_options(record) | _model_options(record)
    if design.formula is not None:
        head = [f"    {design.formula!r},", "    data,", f"    treat={design.treat_name!r},"]
        lines.append(f"model = {record.spec.name}.from_formula(")
    else:
        head = ["    y, X, treat,  # outcome, outcome design, treatment"]
        lines.append(f"model = {record.spec.name}(")
    lines += [*head, *(f"    {name}={value}," for name, value in given.items()), ")"]
    fit = ", ".join(f"{name}={value}" for name, value in _fit_options(record).items())
    return "\n".join([*lines, f"res = model.fit({fit})"])


def _numpy(record: FitRecord) -> str:
    return "" if isinstance(repeating(record.seed), int) else "\nimport numpy as np"


def _data_options(record: FitRecord) -> dict[str, str]:
    """Return the options that describe the data."""
    design, given = record.design, {}
    if design.formula is None:
        given["exog_propensity"] = "Z"
    elif design.propensity_formula is not None and not _same_right_side(design.formula, design.propensity_formula):
        given["propensity"] = repr(design.propensity_formula.partition("~")[2].strip())
    if tuple(design.levels) not in ((0, 1), (False, True)):
        given["reference"] = _plain(design.levels[0])
    if any(str(level) != label for level, label in zip(design.levels, design.labels, strict=True)):
        pairs = zip(design.levels, design.labels, strict=True)
        given["levels"] = "{" + ", ".join(f"{_plain(level)}: {label!r}" for level, label in pairs) + "}"
    if design.weight_type is not None:
        given |= {"weights": repr(design.weights_name), "weight_type": repr(design.weight_type)}
    if design.cluster_name is not None:
        given["cluster"] = repr(design.cluster_name)
    if design.offset_kind is not None:
        given[design.offset_kind] = repr(design.offset_name)
    if design.score is not None:
        given["propensity_score"] = repr(design.score_name) if design.score_name else "scores"
    if design.missing != "drop":
        given["missing"] = repr(design.missing)
    if design.rules.collinear != "drop":
        given["collinear"] = repr(design.rules.collinear)
    return given


def _model_options(record: FitRecord) -> dict[str, str]:
    """Return the options of the model that are not the default."""
    options, usual, given = record.options, ModelOptions(), {}
    if record.sample.family.name != "gaussian":
        text = isinstance(options.family, str)
        given["family"] = repr(options.family) if text else f"family,  # {type(options.family).__name__}"
    for name in SPELLED:
        if getattr(options, name) != getattr(usual, name):
            given[name] = repr(getattr(options, name))
    if options.propensity_score is not None:
        given["propensity_score"] = repr(options.propensity_score).replace("\n", " ")
    if isinstance(options.target, (str, TargetPopulation)):
        given |= {} if options.target == "all" else {"target": repr(options.population.name)}
    else:
        frame = isinstance(options.target, Mapping) or hasattr(options.target, "columns")
        given["target"] = "target_frame" if frame else "tilt"
    return given


def _same_right_side(outcome: str, propensity: str) -> bool:
    return "".join(outcome.partition("~")[2].split()) == "".join(propensity.partition("~")[2].split())


def _plain(level: Any) -> str:
    return repr(level.item() if isinstance(level, np.generic) else level)


def _fit_options(record: FitRecord) -> dict[str, str]:
    """Return the options of `fit`: the kind of standard errors and the seed, then options other than defaults."""
    given = {"cov_type": repr(record.cov_type)}
    if record.boot is not None:
        given["bootstrap"] = repr(record.bootstrap)
        given |= {"resamples": "resamples"} if record.given_resamples else {"n_boot": str(len(record.boot.failures))}
    elif record.cov_type == "cluster" and not np.allclose(robust_covariance(record, False), record.covariance):
        given["small_sample"] = "True"
    if record.joint is not None:
        own, usual = record.joint.options, JREOptions(objective=record.joint.options.objective)
        for field in dataclasses.fields(JREOptions):
            value = getattr(own, field.name)
            if value != getattr(usual, field.name) or field.name == "objective":
                given[field.name] = repr(value)
        if len(record.joint.replicates.failures) != own.n_drawn:
            given["replicates"] = "replicates"
        if record.boot is None and record.bootstrap == "stratified":  # its replicates are stratified
            given["bootstrap"] = repr(record.bootstrap)
    module = "" if isinstance(repeating(record.seed), int) else "np.random."
    given["rng"] = f"{module}{seed_text(record.seed)}"
    return given


LIBRARIES = ("numpy", "scipy", "pandas", "patsy", "statsmodels")


def versions_text() -> str:
    """Return the versions of the package, of Python and of the libraries."""
    found = [f"{name} {version(name)}" for name in LIBRARIES]
    return f"causalrisk {__version__}, Python {platform.python_version()}, {', '.join(found)}"

"""Data and small helpers shared by the tests."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one test process per core; must be set before numpy loads

import numpy as np
import pandas as pd
import pytest
from _pytest.doctest import DoctestModule

import causalrisk as cr
from causalrisk.design.build import design_from_arrays, design_from_formula
from causalrisk.design.rows import ColumnOptions
from causalrisk.design.support import Rules
from causalrisk.inference.simultaneous import FEW_POINTS, LargestModulus

REFERENCE = Path(__file__).parent / "reference"
LALONDE_RHS = "age + educ + race + married + nodegree + re74 + re75"
CATTANEO_RHS = "prenatal1 + mmarried + mage + fbaby"
CATTANEO_PROPENSITY = "mmarried + mage + I(mage**2) + fbaby + medu"


def our_names(formula):
    """Drop the trailing underscores of statsmodels' cattaneo2 column names."""
    return formula.replace("_ ", " ").removesuffix("_") if isinstance(formula, str) else formula


@pytest.fixture
def unprinted_plots(monkeypatch):
    """For tests of the words of a report: its plots are drawn and not written, which takes longer than all else."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, stream, **options: None)


@pytest.fixture
def few_points(monkeypatch):
    """For tests of adjustments of one package beside itself: their integrals have a sixteenth of the points."""
    monkeypatch.setattr(LargestModulus.__init__, "__defaults__", (FEW_POINTS,))


@pytest.fixture(scope="session")
def lalonde():
    return pd.read_csv(REFERENCE / "lalonde614.csv.gz", index_col=0)


@pytest.fixture(scope="session")
def cattaneo():
    return cr.datasets.load_cattaneo2()


@pytest.fixture(scope="session")
def frames(lalonde, cattaneo):
    return {"lalonde_matchit": lalonde, "lalonde": lalonde, "cattaneo2": cattaneo}


@functools.cache
def jre_reference(name, objective="risk"):
    """The reference file of one objective; "share" is "risk" with a share of the start's heterogeneity left out.

    "constrained" has no net bias at the fitted score; the two others a penalty of n^2 on it.
    """
    suffix = {"risk": "_risk", "share": "_robust", "constrained": "_constrained", "erm": ""}[objective]
    return json.loads((REFERENCE / f"jre_{name}{suffix}.json").read_text())


@functools.cache
def reference_weights(name, n, objective="risk"):
    """Weights of the replicates of the JRE reference files, shape (n, 40): multiplicities for "erm"."""
    rng = np.random.RandomState({"lalonde": 7, "cattaneo2": 11}[name])
    if objective != "erm":
        gamma = rng.standard_gamma(4.0, size=(n, 40))
        return gamma / gamma.mean(axis=0)
    return np.stack([np.bincount(rows, minlength=n) for rows in rng.randint(0, n, size=(40, n))], axis=1)


def formula_design(formula, data, *, propensity=None, frame=None, constant_outcome=False, **columns):
    """A design from formulas, its columns by keyword."""
    given, frame = ColumnOptions(**columns), {"np": np, **(frame or {})}
    rules = Rules.of(given, constant_outcome)
    return design_from_formula(formula, data, given, rules, propensity=propensity, frame=frame)


def array_design(endog, exog, treat, *, exog_propensity=None, constant_outcome=False, **columns):
    """A design from arrays, its columns by keyword."""
    given = ColumnOptions(treat, **columns)
    rules = Rules.of(given, constant_outcome)
    return design_from_arrays(endog, exog, given, rules, exog_propensity=exog_propensity)


def in_blocks(frames):
    """A scan whose parts are these frames."""
    return cr.scan(frames)


def in_parts(source, rows):
    """A scan whose parts have at most so many rows."""
    return dataclasses.replace(cr.scan(source), part_rows=rows)


def stored(design, name):
    """An array of a design on disk, its rows in the order of the data."""
    return design.dask(name).compute()[np.argsort(design.dask("position").compute())]


def simulate(n=400, p=3, seed=0, strength=0.8):
    """Quadratic outcome, logit treatment; columns y, d, x1 .. xp."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    score = 1 / (1 + np.exp(-strength * (x[:, 0] + 0.5 * x[:, 1])))
    d = (rng.random(n) < score).astype(int)
    y = x @ np.ones(p) + x[:, 0] ** 2 + d + rng.normal(size=n)
    return pd.DataFrame({"y": y, "d": d, **{f"x{j + 1}": x[:, j] for j in range(p)}})


RHS = "x1 + x2 + x3"

# What `pytest -m quick` leaves out besides the examples of pages and docstrings: tests of scans, and those whose names
# begin like this.
WORDS = (
    "tests/cli", "tests/test_aliases.py", "tests/end_to_end/test_as_seen.py", "tests/end_to_end/test_commands.py",
    "tests/end_to_end/test_evidence.py", "tests/end_to_end/test_faults", "tests/end_to_end/test_habits.py",
    "tests/end_to_end/test_missing_covariates.py::test_what_is_said", "tests/hle", "tests/models/test_versions.py",
    "tests/report", "tests/test_lessons.py",
)  # fmt: skip
LONG = (
    "tests/design/test_frames.py::test_same_digits",
    "tests/design/test_support.py", "tests/diagnostics/test_influence.py", "tests/diagnostics/test_overlap.py",
    "tests/differential", "tests/end_to_end/test_arms.py", "tests/end_to_end/test_boot_reference.py",
    "tests/end_to_end/test_did.py", "tests/end_to_end/test_exposure.py", "tests/end_to_end/test_hypotheses.py",
    "tests/end_to_end/test_identities.py", "tests/end_to_end/test_jackknife.py",
    "tests/end_to_end/test_missing_covariates.py::test_in_a_trial", "tests/end_to_end/test_missing_outcomes.py",
    "tests/end_to_end/test_one_path.py", "tests/end_to_end/test_reference.py::test_jre_reference_by_other_methods",
    "tests/end_to_end/test_same_draws.py", "tests/end_to_end/test_small_samples.py",
    "tests/end_to_end/test_studies.py", "tests/end_to_end/test_survey.py",
    "tests/end_to_end/test_late.py", "tests/end_to_end/test_targets.py", "tests/end_to_end/test_tmle.py",
    "tests/estimation/test_fit.py::test_a_model_that_extrapolates",
    "tests/estimation/test_learned.py::test_terms_are", "tests/estimation/test_quantiles.py",
    "tests/inference/test_bootstrap.py", "tests/inference/test_fitted_models.py",
    "tests/inference/test_heterogeneity.py", "tests/inference/test_intervals.py",
    "tests/inference/test_multiplied.py", "tests/inference/test_permutation.py",
    "tests/inference/test_start_difference.py", "tests/inference/test_units.py",
    "tests/learners/test_smooth.py::test_equals_a_plain", "tests/models/test_comparison.py",
    "tests/models/test_pooled.py", "tests/models/test_results.py", "tests/numerics/test_resampling.py",
    "tests/runtime", "tests/simulation", "tests/test_architecture.py", "tests/test_package.py",
)  # fmt: skip

collect_ignore = ["benchmarks", "studies"]  # scripts without tests; `test_package.py` imports them


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Of `-n 2`: each process has half of the tests, so that what a module shares is made once, and then takes over."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


@pytest.hookimpl(wrapper=True)
def pytest_collect_file():
    """No file of tests has examples in docstrings, and to look for them takes as long as to find the tests."""
    return [found for found in (yield) if not isinstance(found, DoctestModule)]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Pages come first, as one takes half a minute, and two processes are then done at the same time.

    LaLonde's survey controls overlap badly, of which fits to everybody warn; their tests mind other things.
    """
    items.sort(key=lambda item: item.path.suffix != ".md")
    mark = pytest.mark.filterwarnings("ignore::causalrisk.errors.OverlapWarning")
    for item in items:
        if {"lalonde", "lalonde_model", "frames"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(mark)
        slow = isinstance(item, pytest.DoctestItem) or item.get_closest_marker("slow")
        if not slow and "scan" not in item.nodeid and not item.nodeid.startswith(WORDS + LONG):
            item.add_marker(pytest.mark.quick)

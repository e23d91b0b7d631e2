"""Identities over random cases: units, storage, the order of rows, the names of arms, and repeated rows change nothing.

hypothesis draws the cases and shrinks one that fails; with HYPOTHESIS_PROFILE=thorough it draws two hundred a test.
"""

from __future__ import annotations

import dataclasses
import os
import warnings

import numpy as np
import pytest

import causalrisk as cr
from tests.differential import cases
from tests.differential.cases import Case
from tests.differential.fits import how, model_of

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import strategies as st  # noqa: E402

hypothesis.settings.register_profile("suite", max_examples=8, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("thorough", max_examples=200, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
FAMILIES = ("gaussian", "binomial", "poisson", "gamma")
STORAGE = {
    "scale": st.integers(-40, 40).map(lambda k: 2.0**k),  # 1e-12 to 1e12, and exact
    "dtype": st.sampled_from(("float64", "float32", "Float64", "object", ">f8")),
    "coding": st.sampled_from(("int", "text", "category")),
    "weight_scale": st.integers(-12, 12).map(lambda k: 10.0**k),
    "arrays": st.booleans(),
}


@st.composite
def some_case(draw, **fixed):
    """A case, simple where nothing is said."""
    arms = fixed.get("arms") or draw(st.sampled_from((2, 3)))
    targets = ("all", "control", "overlap", "matching", "entropy", *(("treated",) if arms == 2 else ("arm",)))
    return Case(**{
        "seed": draw(st.integers(0, 10_000)),
        "estimator": draw(st.sampled_from(cases.ESTIMATORS[:4])),
        "rows": draw(st.integers(150, 300)),
        "covariates": draw(st.integers(1, 3)),
        "factor": draw(st.booleans()),
        "arms": arms,
        "family": draw(st.sampled_from(FAMILIES)),
        "target": draw(st.sampled_from(targets)),
        "weight_type": draw(st.sampled_from(("", "frequency", "probability"))),
        "clusters": draw(st.sampled_from((0, 30))),
    } | fixed)  # fmt: skip


def fitted(case, change=lambda frame: frame, of=None):
    """Results of a case whose frame, or that of another case, is changed beforehand."""
    data = cases.data_of(of or case)
    data = dataclasses.replace(data, frame=change(data.frame))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return model_of(case, data).fit(**how(case, None))
        except cr.CausalRiskError:
            hypothesis.assume(False)


def close(res, other, tolerance=1e-7):
    """Assert that two results are the same to a share of their standard errors."""
    se = np.sqrt(np.diag(res.cov_params()))
    assert (np.abs(np.asarray(other.params) - np.asarray(res.params)) <= tolerance * se).all()
    np.testing.assert_allclose(np.asarray(other.bse), se, rtol=100 * tolerance)


@hypothesis.given(some_case(), st.fixed_dictionaries(STORAGE))
def test_units_storage_and_the_size_of_probability_weights_change_nothing(case, storage):
    if case.weight_type != "probability":
        storage = storage | {"weight_scale": 1.0}
    close(fitted(case), fitted(dataclasses.replace(case, **storage)))


@hypothesis.given(some_case(), st.integers(0, 2**32 - 1))
def test_the_order_of_the_rows_changes_nothing(case, seed):
    def mixed(frame):
        return frame.iloc[np.random.default_rng(seed).permutation(len(frame))].reset_index(drop=True)

    close(fitted(case), fitted(case, mixed))


@hypothesis.given(some_case(arms=2))
def test_the_other_reference_turns_the_sign(case):
    other = {"treated": "control", "control": "treated"}.get(case.target, case.target)
    res = fitted(case)
    turned = fitted(dataclasses.replace(case, target=other), lambda frame: frame.assign(d=1 - frame.d))
    se = res.effect_se
    assert abs(res.effect + turned.effect) <= 1e-7 * se
    assert turned.effect_se == pytest.approx(se, rel=1e-5)
    np.testing.assert_allclose(turned.params.iloc[:0:-1], res.params.iloc[1:], atol=1e-7 * se)


@hypothesis.given(some_case(weight_type="frequency", clusters=0))
def test_frequency_weights_are_repeated_rows(case):
    repeated = dataclasses.replace(case, weight_type="")
    close(fitted(case), fitted(repeated, lambda f: f.loc[f.index.repeat(f.w)].reset_index(drop=True), of=case))


@hypothesis.given(
    some_case(family="gaussian"), st.integers(-12, 12).map(lambda k: 10.0**k), st.sampled_from((-1e6, -3.0, 0.0, 1e3))
)
def test_the_outcome_in_other_units_scales_the_effect(case, scale, shift):
    res, other = fitted(case), fitted(case, lambda frame: frame.assign(y=scale * (shift - frame.y)))
    count = len(res.params) - case.arms
    se = np.sqrt(np.diag(res.cov_params()))
    np.testing.assert_allclose(other.params.iloc[:count] / scale, -res.params.iloc[:count], atol=1e-7 * se.min())
    np.testing.assert_allclose(other.params.iloc[count:] / scale, shift - res.params.iloc[count:], atol=1e-6 * se.min())
    np.testing.assert_allclose(other.bse / scale, se, rtol=1e-5)

"""The table of faults: every number has a test, and what no other file tests."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import causalrisk as cr
from tests.conftest import simulate

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("model", [cr.IPWRA, cr.AIPW, cr.JRE])
def test_fault_52_a_resample_that_is_separated_is_left_out_with_its_reason(model):
    """One row alone keeps a cell from being separated: resamples without it are."""
    data = simulate(120).assign(cell=0)
    treated, control = np.flatnonzero(data.d == 1)[:8], np.flatnonzero(data.d == 0)[:1]
    data.loc[[*treated, *control], "cell"] = 1
    built = model.from_formula("y ~ x1", data, treat="d", propensity="x1 + cell")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        res = built.fit(bootstrap="pairs", n_boot=150, max_failed=0.9)
    ledger = res.boot_ledger
    lost = ~ledger["used"]
    drawn_away = (1 - 1 / 120) ** 120
    assert abs(lost.mean() - drawn_away) < 0.12
    assert ledger.loc[lost, "reason"].str.contains("treatment was predicted perfectly|singular").all()
    assert res.boot_params[lost].isna().all(axis=None)
    assert not res.boot_params[~lost].isna().any(axis=None)
    effects, se = res.boot_params["ATE"], res.boot_params["ATE"].std()
    if model is cr.JRE:
        se = np.sqrt(res._record.choice_variance * ((effects - res.effect) ** 2).mean())
    np.testing.assert_allclose(res.effect_se, se)
    assert any(f"leave out {lost.sum()} of 150 resamples" in str(w.message) for w in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(cr.BootstrapError, match=r"\d+ of \d+ (resamples|propensity replicates) failed") as refused:
            built.fit(bootstrap="pairs", n_boot=20, max_failed=0.05)
    if model is not cr.JRE:
        assert refused.value.results.effect == res.effect


# --- processes -----------------------------------------------------------------------------------------------------


# --- hostile names -------------------------------------------------------------------------------------------------

HOSTILE = ("<script>alert(1)</script>", "$x^$", r"\input{/passwd}")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_level_with_markup_is_text_in_html_and_latex(name):
    data = simulate(150)
    data = data.assign(arm=np.where(data.d == 1, name, "none")).rename(columns={"x1": name})
    res = cr.IPWRA.from_formula(f"y ~ Q({name!r}) + x2", data, treat="arm", reference="none").fit()
    summary = res.summary(coefficients=True)
    assert "<script" not in summary.as_html()
    assert r"\input{" not in summary.as_latex()
    assert re.search(r"(?<!\\)\$x", summary.as_latex()) is None

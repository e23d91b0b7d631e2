"""Number formats of the summary's tables."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk import AIPW, IPWRA, datasets
from tests.conftest import simulate


def test_a_covariate_in_money_leaves_the_others_their_digits():
    frame = datasets.load_lalonde("cps3")
    formula = "re78 ~ age + educ + black + hispan + married + nodegree + re74 + re75"
    summary = IPWRA.from_formula(formula, frame, treat="treat", target="treated").fit().summary(coefficients=True)
    rows = {row[0]: row for row in summary.tables[-1].body}
    assert rows["age"][1:3] == ["0.01578", "0.01332"]  # 0.01577707 and 0.01331672
    assert rows["black"][1:3] == ["3.0654", "0.2897"]
    assert rows["re74"][1:3] == ["-0.00007178", "0.00003148"]
    for table in summary.tables[3:]:
        for row in table.body:
            assert len(re.sub(r"\.", "", row[2]).lstrip("0")) >= 4, row
            assert {len(row[j].split(".")[1]) for j in (1, 2, 5, 6)} == {len(row[2].split(".")[1])}
    assert max(map(len, str(summary).splitlines())) <= 78


def test_names_that_are_numbers_are_printed():
    shown = str(AIPW.from_formula("y ~ x1", simulate(120), treat="d").fit().summary(0.1, 2024, 3))
    assert shown.split()[0] == "2024" and "Dep. Variable:                      3" in shown


def short(slope, n=300, square=1.0):
    """A score of this slope, and an outcome whose square the formula misses."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=n)
    d = (rng.random(n) < 1 / (1 + np.exp(-slope * x))).astype(int)
    return pd.DataFrame({"y": x + square * x**2 + d + rng.normal(size=n), "x": x, "d": d, "g": np.arange(n)})


POOR, SHORT = "Overlap is limited. After weighting, the effective n of group", "IPWRA's 95% intervals were too short"


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_a_note_says_where_the_interval_of_ipwra_is_too_short():
    model = IPWRA.from_formula("y ~ x", short(2.2), treat="d")
    res = model.fit()
    arms = res.overlap()
    worst = (arms["effective n"] / arms["n"]).idxmin()
    assert arms["effective n"][worst] < arms["n"][worst] / 2
    text = " ".join(str(res.summary()).split())
    left = f"{worst} is {arms['effective n'][worst]:.0f}, out of {arms['n'][worst]} rows."
    assert f"{POOR} {left}" in text and SHORT in text
    assert 'fit(cov_type="jackknife", use_t=True)' in text and "AIPW" in text
    for options in ({"cov_type": "HC1"}, {"use_t": True}):
        assert SHORT in " ".join(str(model.fit(**options).summary()).split())
    alike = [kind.from_formula("y ~ x", short(2.2), treat="d").fit() for kind in (cr.IPW, AIPW, cr.TMLE)]
    for other in (model.fit(n_boot=19), *alike):
        text = " ".join(str(other.summary()).split())
        assert f"{POOR} {left} See `res.overlap()`." in text and SHORT not in text


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_no_such_note_with_good_overlap_a_warning_or_another_target():
    good = IPWRA.from_formula("y ~ x", short(0.5), treat="d")
    poor = IPWRA.from_formula("y ~ x", short(2.2), treat="d")
    fits = [
        good.fit(), poor.with_options(target="overlap").fit(),
        cr.Matching.from_formula("y ~ x", short(2.2), treat="d").fit(),
        AIPW.from_formula("y ~ x", short(4.0), treat="d").fit(),  # has the warning of poor overlap instead
    ]  # fmt: skip
    for res in fits:
        text = " ".join(str(res.summary()).split())
        assert POOR not in text and SHORT not in text
    assert "Poor overlap:" in text
    assert SHORT not in " ".join(str(poor.fit(cov_type="jackknife", use_t=True).summary()).split())


def test_a_percent_of_a_logged_outcome_says_of_what_it_is():
    data = short(0.5).assign(y=lambda f: np.exp(f.y / 4 + 3))
    logged, plain = (
        " ".join(str(IPWRA.from_formula(f"{y} ~ x", data, treat="d", effect="percent").fit().summary()).split())
        for y in ("np.log(y)", "y")
    )
    assert "The effect compares means of np.log(y)." in logged
    assert "compares means" not in plain


def logged_or(a, b):
    return (a > b) * 1.0


@pytest.mark.parametrize(("outcome", "noted"), [
    ("np.log1p(y)", True), ("np.log10(y)", True), ("math.log(y)", True), ("I(np.log(y))", True), ("log(y)", True),
    ("np.logical_or(y > 25, y < 15)", False), ("logged_or(y, 25)", False),
])  # fmt: skip
def test_other_logarithms_and_what_only_begins_alike(outcome, noted):
    math, log = np, np.log  # noqa: F841 (used in formulas)
    data = short(0.5).assign(y=lambda f: np.exp(f.y / 4 + 3))
    text = str(IPWRA.from_formula(f"{outcome} ~ x", data, treat="d", effect="percent").fit().summary())
    assert ("The effect compares means" in " ".join(text.split())) == noted


def test_dropped_rows_are_counted_as_in_the_file():
    data = simulate(120)
    data.loc[:5, "x1"] = np.nan
    data.loc[3:9, "x2"] = np.nan
    data.loc[[20, 21], "y"] = np.nan
    text = " ".join(str(cr.IPWRA.from_formula("y ~ x1 + x2", data, treat="d").fit().summary()).split())
    said = "12 rows dropped: y missing in 2, x1 missing in 6, x2 missing in 7 (some rows lack several)."
    assert f"{said} See `res.sample_ledger`. `causalrisk.pool` combines fits to imputed data" in text


def test_filled_values_are_noted_below_the_table_of_covariates():
    data = simulate(120)
    data.loc[:5, "x1"] = np.nan
    res = cr.IPWRA.from_formula("y ~ np.exp(x1) + x2", data, treat="d", missing="indicator").fit()
    text = " ".join(str(res.table_one(names={"np.exp(x1)": "Dose"})).split())
    assert "Covariates with missing values: x1 (6 rows). Missing numbers are replaced by" in text and "Dose" in text

"""Tables of several models: every number against its result, the layout, and every format."""

from __future__ import annotations

import re

import numpy as np
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from causalrisk import (
    AIPW,
    IPW,
    IPWRA,
    JRE,
    BootstrapError,
    OptionError,
    OutcomeRegression,
    compare,
    etable,
)
from tests.conftest import simulate

FORMULA = "y ~ x1 + x2"


@pytest.fixture(scope="module")
def frame():
    return simulate(300, seed=6)


@pytest.fixture(scope="module")
def fits(frame):
    return [m.from_formula(FORMULA, frame, treat="d").fit() for m in (OutcomeRegression, IPWRA, AIPW)]


@pytest.fixture(scope="module")
def ols(frame):
    return smf.ols("y ~ d + x1 + x2", frame).fit(cov_type="HC1")


def test_numbers_are_those_of_the_results(fits, ols):
    table = etable([*fits, ols], alpha=0.1, below="ci", stars=True)
    for key, res in zip(table.frame, [*fits, ols], strict=True):
        for name in res.params.index:
            low, high = np.asarray(res.conf_int(0.1))[list(res.params.index).index(name)]
            expected = [res.params[name], res.bse[name], res.tvalues[name], res.pvalues[name], low, high]
            np.testing.assert_array_equal(table.frame.loc[name, key], expected)
    cells = {row[0]: row for row in table.tables[0].body if row[0]}
    for j, res in enumerate(fits, 1):
        shown = cells["ATE"][j]
        assert float(shown.rstrip("*")) == pytest.approx(
            res.effect, abs=0.5 * 10 ** -len(shown.rstrip("*").split(".")[1])
        )
        assert shown.count("*") == sum(res.pvalues["ATE"] < level for level in (0.01, 0.05, 0.1))
        sizes = [f"{n:.0f}" for n in res.overlap()["effective n"]] if j > 1 else []
        assert cells["Effective n by group"][j] == " / ".join(sizes)
    assert cells["Estimand"][1:] == ["ATE", "ATE", "ATE", ""]
    assert cells["Standard errors"][1:] == ["robust", "robust", "robust", "HC1"]
    assert cells["Observations"][1:] == ["300"] * 4
    assert cells["R-squared"][1:] == ["", "", "", f"{ols.rsquared:.4f}"]
    assert table.notes == ["90% confidence intervals in brackets.", "* p < 0.1, ** p < 0.05, *** p < 0.01."]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_models_of_statsmodels_without_a_kind_of_errors_or_r_squared(frame):
    models = smf.rlm("y ~ d", frame).fit(), smf.quantreg("y ~ d", frame).fit()
    table = etable(models)
    assert "Standard errors" not in [row[0] for row in etable(models[0]).tables[0].body]
    np.testing.assert_array_equal(
        [table.frame.loc["d", key].iloc[0] for key in table.frame], [m.params["d"] for m in models]
    )
    assert "R-squared" not in str(table)


def test_each_standard_error_has_four_significant_digits(frame):
    money = frame.assign(x1=1e4 * frame.x1, x2=1e-3 * frame.x2)
    table = etable(smf.ols("y ~ x1 + x2", money).fit())
    for row in table.tables[0].body[1:6:2]:
        digits = re.sub(r"[().]", "", row[1]).lstrip("0")
        assert len(digits) == 4 or (len(digits) > 4 and row[1][-4] == ".")  # at least two decimals


def test_names_kinds_of_results_and_rows_asked_for(fits, frame, ols):
    named = etable(
        {"plain": fits[1], "other": fits[2]}, keep=["POM[1]"], rename={"POM[1]": "Mean, treated"}, below=None
    )
    assert [row[0] for row in named.tables[0].body[:2]] == ["Mean, treated", "Estimator"]
    assert named.tables[0].heads[1] == ["", "plain", "other"]
    assert named.notes == []
    both = compare(FORMULA, frame, treat="d", estimators=["Unadjusted", "IPWRA"], n_boot=30)
    assert etable(both).tables[0].heads[1] == ["", "Unadjusted", "IPWRA"]
    arrays = sm.OLS(frame.y.to_numpy(), sm.add_constant(frame[["x1"]].to_numpy())).fit()
    assert [row[0] for row in etable(arrays).tables[0].body[:4:2]] == ["const", "x1"]
    joint = JRE.from_formula(FORMULA, frame, treat="d").fit(cov_type="robust")
    extra = etable([joint, fits[1]], names=["A", "B"], extra={"Sample": ["all", 1]}, statistics=["nobs"], notes=["So."])
    assert extra.tables[0].body[-2:] == [["Observations", "300", "300"], ["Sample", "all", "1"]]
    assert str(extra).endswith("Notes: Standard errors in parentheses. So.")
    other = OutcomeRegression.from_formula("x3 ~ x1", frame, treat="d").fit()
    assert etable([other, fits[1]]).tables[0].heads[1] == ["", "x3", "y"]
    for below, start in (("z", "("), ("p", "(")):
        assert etable(fits[1], below=below).tables[0].body[1][1].startswith(start)


def test_learners_have_a_row_where_a_column_has_one(fits, frame):
    learned = OutcomeRegression.from_formula(FORMULA, frame, treat="d", learner="smooth", n_folds=3).fit()
    rows = {row[0]: row[1:] for row in etable([learned, fits[1]]).tables[0].body}
    assert rows["Learner"] == ["smooth (3 folds)", ""]
    assert "Learner" not in str(etable(fits[1]))
    assert "Learner" not in str(etable([learned], statistics=["nobs"]))


def test_a_comparison_among_fits_is_spread_with_the_errors_of_its_table(fits, frame, ols):
    both = compare(FORMULA, frame, treat="d", estimators=["Unadjusted", "IPWRA"], n_boot=30)
    expected = both.table.loc[["Unadjusted", "IPWRA"], ["estimate", "std err", "[0.025", "0.975]"]].to_numpy()
    for table in (etable(both), etable([ols, both]), etable([both, fits[1]]), etable({"A": both, "OLS": ols})):
        where = [k for k, column in enumerate(table.frame) if column.split(") ")[1].removeprefix("A: ") in both.results]
        found = table.frame.loc["ATE"].T[["estimate", "std err", "lower", "upper"]].iloc[where[:2]]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        errors = next(row for row in table.tables[0].body if row[0] == "Standard errors")
        assert {errors[1 + k] for k in where[:2]} == {both.glance().std_errors[0]}
    named = etable({"A": both, "OLS": ols})
    assert named.tables[0].heads[1] == ["", "A: Unadjusted", "A: IPWRA", "OLS"]
    assert etable([ols, both], names=["a", "b", "c"]).tables[0].heads[1] == ["", "a", "b", "c"]


def test_a_comparison_without_its_bootstrap_has_robust_errors(frame):
    resamples = np.ones((len(frame), 30))
    resamples[frame["d"] == 1, 0] = 0
    with pytest.raises(BootstrapError) as caught:
        compare(FORMULA, frame, treat="d", estimators=["Unadjusted", "IPWRA"], resamples=resamples, max_failed=0)
    kept = caught.value.results
    assert list(etable([kept]).frame.loc[("ATE", "std err")]) == list(kept.table["robust se"])


def test_names_that_rename_makes_one_have_one_row(fits, ols):
    both = etable([ols, fits[1]], rename={"d": "effect", "ATE": "effect"}, keep=["d", "ATE"])
    assert [row[0] for row in both.tables[0].body[:2]] == ["effect", ""] and list(both.frame.index.unique(0)) == [
        "effect"
    ]


def test_a_parameter_that_is_dropped_and_renamed_leaves_the_others_of_that_name(fits, ols):
    both = etable([ols, fits[1]], rename={"d": "ATE"}, drop=["d", "POM[0]", "POM[1]"]).frame
    assert both["(2) IPWRA"].loc[("ATE", "estimate")] == fits[1].effect and both["(1) OLS"].loc["ATE"].isna().all()


def test_models_of_several_equations_are_refused(frame):
    levels = smf.mnlogit("g ~ x1", frame.assign(g=np.arange(len(frame)) % 3)).fit(disp=0)
    with pytest.raises(OptionError, match="several equations"):
        etable([levels])


def test_weights_and_clusters_have_rows_and_means_stand_below_the_effects_of_all_columns(fits, frame):
    given = {"weights": "x4", "weight_type": "probability", "cluster": "g"}
    frame = frame.assign(x4=1 + frame.x1**2, g=np.arange(len(frame)) % 60)
    weighted = IPWRA.from_formula(FORMULA, frame, treat="d", target="ATT", **given).fit()
    body = etable([fits[1], weighted]).tables[0].body
    rows = {row[0]: row[1:] for row in body}
    assert rows["Weights"] == ["", "x4 (probability)"] and rows["Clusters"] == ["", "g (60)"]
    assert [row[0] for row in body if row[0]][:4] == ["ATE", "ATT", "POM[0]", "POM[1]"]
    renamed = etable([fits[1], weighted], rename={"POM[0]": "Controls", "POM[1]": "Treated"})
    assert list(renamed.frame.index.unique(0)) == ["ATE", "ATT", "Controls", "Treated"]
    numbered, plain = (etable(fits[1], keep=["ATE"], rename=named).tables[0].body[0] for named in ({"ATE": 5}, None))
    assert numbered == ["5", *plain[1:]]
    medians = [IPW.from_formula(FORMULA, frame, treat="d", effect="quantile", quantiles=q).fit() for q in (0.5, 0.25)]
    found = [name[:3] for name in etable(medians).frame.index.unique(0)]
    assert found == ["QTE"] * 2 + ["POQ"] * 4
    assert not {"Weights", "Clusters"} & {row[0] for row in etable(fits).tables[0].body}
    assert "Clusters" not in str(etable(weighted, statistics=["nobs"]))


def test_columns_that_do_not_fit_stand_below(fits):
    lines = str(etable(fits * 3)).splitlines()
    assert max(map(len, lines)) <= 78
    assert [int(i) for line in lines for i in re.findall(r"\((\d)\)", line)] == list(range(1, 10))


def test_formats(fits, tmp_path):
    table = etable(fits[1:], title="A & B", notes=["50% of <x>."])
    assert etable(fits[1:]).as_latex().startswith("\\begin{center}\n\\begin{tabular}{lcc}\n\\toprule")
    assert table.as_latex().startswith("\\begin{table}[htbp]\n\\centering\n\\caption{A \\& B}\n\\smallskip\n")
    floating = table.as_latex(caption="C_1", label="tab:c")
    assert "\\caption{C\\_1}\n\\label{tab:c}" in floating and floating.endswith("\\end{table}")
    assert floating.count("\\midrule") == 2 and "50\\% of \\textless{}x\\textgreater{}." in floating
    assert "<p>Notes: Standard errors in parentheses. 50% of &lt;x&gt;.</p>" in table._repr_html_()
    lines = table.as_markdown().splitlines()
    assert lines[0] == "**A & B**" and lines[2:4] == ["| y | (1) IPWRA | (2) AIPW |", "| :--- | :---: | :---: |"]
    assert lines[-1].endswith(r"50% of \<x\>.")
    for kind, text in {"txt": str(table), "md": table.as_markdown(), "tex": table.as_latex()}.items():
        assert table.save(tmp_path / f"t.{kind}").read_text("utf-8") == f"{text}\n"
    assert table.save(tmp_path / "t.csv").read_text("utf-8").startswith("A & B\n")


def test_refusals(fits, ols, tmp_path):
    both = [*fits, fits[1].model.with_options(target="ATT").fit()]
    for error, words, call in (
        (OptionError, "keep: 'ATT' .*'ATE'", lambda: etable(fits, keep=["ATT"])),
        (
            OptionError,
            r"no parameter in column \(4\).\nIts parameters are ATT, POM",
            lambda: etable(both, keep=["ATE"]),
        ),
        (OptionError, "rename: 'ATT' .*'ATE'", lambda: etable(fits, rename={"ATT": "effect"})),
        (OptionError, "rename: 'AT' .*'ATE'", lambda: etable(fits, rename={"AT": "POM[0]"})),
        (OptionError, r"keep='ATE'.*`keep=\['ATE'\]`", lambda: etable(fits, keep="ATE")),
        (OptionError, "names has 1 entries; expected 3", lambda: etable(fits, names=["a"])),
        (OptionError, "no results", lambda: etable([])),
        (OptionError, "rename= .*'a'", lambda: etable(ols, rename={"x1": "a", "x2": "a"})),
        (OptionError, "extra: 'x' has 2 values; expected 3", lambda: etable(fits, extra={"x": [1, 2]})),
        (OptionError, "statistics='aic'", lambda: etable(fits, statistics=["aic"])),
        (OptionError, "below='sd'", lambda: etable(fits, below="sd")),
        (OptionError, "expected one of 'se', 'ci'", lambda: etable(fits, ci=True)),
        (TypeError, "no params", lambda: etable([fits[0].model])),
        (TypeError, "no params", lambda: etable(fits[0].model)),
        (TypeError, "str has no params", lambda: etable("res")),
        (OptionError, r"'.xls' .*`save\(\"t.docx\"\)`", lambda: etable(fits).save("t.xls")),
        (FileNotFoundError, "no", lambda: etable(fits).save(tmp_path / "no" / "t.md")),
    ):
        with pytest.raises(error, match=f"(?s){words}"):
            call()


def test_decimals_are_equal_in_one_unit_and_as_asked_for(fits, frame, ols):
    def decimals(table):
        rows = [" ".join(row[1:]) for row in table.tables[0].body[:6]]
        return [{len(text) for text in re.findall(r"\.([0-9]+)", row)} for row in rows]

    (one,) = set().union(*decimals(etable(fits)))
    assert one >= 2
    beside = etable([*fits, ols], rename={"d": "ATE"}, keep=["ATE", "POM[0]", "POM[1]"])
    assert all(len(row) == 1 for row in decimals(beside))
    assert set().union(*decimals(etable([*fits, ols], digits=1))) == {1}
    with pytest.raises(OptionError, match="digits=-1"):
        etable(fits, digits=-1)
    share = AIPW.from_formula("I(y > 0) ~ x1", frame.assign(y=frame.y), treat="d").fit()
    large = AIPW.from_formula("big ~ x1", frame.assign(big=1e4 * frame.y), treat="d").fit()
    cells = etable([large, share]).tables[0].body[0][1:]
    assert [len(cell.rpartition(".")[2]) for cell in cells] == [
        len(etable([one]).tables[0].body[0][1].rpartition(".")[2]) for one in (large, share)
    ]


def test_the_means_of_a_ratio_have_equal_decimals(cattaneo):
    res = AIPW.from_formula("lbweight ~ mage", cattaneo, treat="mbsmoke", effect="ratio").fit()
    rows = {row[0]: row[1] for row in etable([res]).tables[0].body}
    assert len(rows["POM[0]"]) == len(rows["POM[1]"])


def test_the_estimator_has_no_row_below_its_own_name(fits):
    by_name = {"OutcomeRegression": fits[0], "IPWRA": fits[1]}
    assert "Estimator" not in str(etable(by_name)) and "Estimator" in str(etable({"a": fits[0], "b": fits[1]}))


def test_stars_are_superscripts_in_latex(fits):
    text = etable(fits, stars=True).as_latex()
    assert etable(fits, stars=True).to_latex() == text
    assert re.search(r"[0-9]\$\^\{\*\*\*\}\$ ", text) and "{*}{*}{*} p" in text
    assert not re.search(r"POM.*[*]", str(etable(fits, stars=True))) and "***" in str(etable(fits, stars=True))


def test_effective_n_of_several_groups_names_their_order():
    data = simulate(300).assign(k=lambda f: np.array(["none", "online", "in person"])[np.arange(300) % 3])
    res = AIPW.from_formula("y ~ x1", data, treat="k", reference="none").fit()
    text = " ".join(str(etable([res], keep=["ATE[online]"])).split())
    assert "Groups in order: none, in person, online." in text

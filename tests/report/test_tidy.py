"""Results for other programs: tidy frames, summary_col beside an OLS, maketables."""

from __future__ import annotations

import csv
import io

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from statsmodels.iolib.summary2 import summary_col

import causalrisk as cr
from tests.conftest import RHS, simulate

COLUMNS = ["term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high"]


@pytest.fixture(scope="module")
def frame():
    return simulate(300)


@pytest.fixture(scope="module")
def jre(frame):
    return cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d").fit(n_boot=60, n_replicates=80)


@pytest.fixture(scope="module")
def arms(frame):
    three = frame.assign(d=np.where(frame.d == 0, "a", np.where(frame.x3 > 0, "b", "c")))
    return cr.IPWRA.from_formula("y ~ x1 + x2", three, treat="d", reference="a").fit()


def test_small_p_values_are_printed_as_decimals(arms):
    table = arms.pairwise()
    table["P>|z|"] = 1e-9
    assert "e-" not in repr(table) and (table["P>|z|"] == 1e-9).all()


def test_names_of_frames_are_escaped_in_latex(frame):
    named = frame.rename(columns={"x1": "x_1%"})
    table = cr.IPWRA.from_formula("y ~ Q('x_1%')", named, treat="d").fit().balance()
    assert r"x\_1\%" in table.to_latex() and "x_1%" in table.to_latex(escape=False)


def test_tidy_is_the_summary_in_columns(jre):
    tidy = jre.tidy()
    assert list(tidy.columns) == COLUMNS
    assert list(tidy.term) == ["ATE", "POM[0]", "POM[1]"]
    limits = jre.conf_int().to_numpy()
    together = np.column_stack([jre.params, jre.bse, jre.tvalues, jre.pvalues, limits])
    np.testing.assert_array_equal(tidy[COLUMNS[1:]].to_numpy(), together)
    assert list(jre.tidy(conf_int=False).columns) == COLUMNS[:5]
    np.testing.assert_array_equal(jre.tidy(alpha=0.2, method="percentile")[["conf_low", "conf_high"]].to_numpy(),
                                  jre.conf_int(0.2, "percentile").to_numpy())  # fmt: skip
    with pytest.raises(cr.OptionError, match="alpha"):
        jre.tidy(alpha=95)


def test_glance_rows_of_several_estimators_stack(jre, arms):
    stacked = pd.concat([jre.glance(), arms.glance()])
    assert stacked.shape == (2, jre.glance().shape[1])
    assert list(stacked.nobs) == [300, 300]
    assert list(stacked.estimator) == ["JRE", "IPWRA"]
    assert list(stacked.estimand) == ["ATE", "ATE"]
    assert list(stacked.contrast) == ["1 vs 0", "b, c vs a"]
    assert list(stacked.std_errors) == ["bootstrap (pairs)", "robust"]
    first = jre.glance().iloc[0]
    assert (first.n_boot, first.n_boot_used) == (60, 60)
    assert not any("r2" in name or "rsquared" in name for name in stacked)


def test_comparison_exports(frame):
    together = cr.compare(f"y ~ {RHS}", frame, treat="d", estimators=["IPWRA", "AIPW"], n_boot=40)
    tidy = together.tidy()
    assert list(tidy.columns) == ["estimator", *COLUMNS[:3], "robust_std_error", *COLUMNS[3:]]
    assert list(tidy.estimator) == ["IPWRA", "AIPW"]
    assert set(tidy.term) == {"ATE"}
    table = together.table
    np.testing.assert_array_equal(tidy[["estimate", "std_error", "robust_std_error"]], table.iloc[:, :3])
    np.testing.assert_array_equal(tidy[["conf_low", "conf_high"]], table[["[0.025", "0.975]"]])
    wide = together.tidy(alpha=0.01)
    assert (wide.conf_high - wide.conf_low > tidy.conf_high - tidy.conf_low).all()
    assert "conf_low" not in together.tidy(conf_int=False)
    glance = together.glance()
    assert list(glance.estimator) == ["IPWRA", "AIPW"]
    assert set(glance.std_errors) == {"bootstrap (pairs)"}
    assert set(glance.n_boot) == {40}


def test_summary_col_beside_least_squares(frame, jre, arms):
    ols = smf.ols(f"y ~ d + {RHS}", frame).fit()
    text = summary_col([ols, jre, arms], stars=True).as_text()
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()}
    assert lines["d"] == [next(iter(lines["d"]))]  # of least squares only
    assert lines["POM[0]"] == [f"{jre.params['POM[0]']:.4f}{stars(jre.pvalues['POM[0]'])}"]
    assert lines["ATE[c]"][0].startswith(f"{arms.params['ATE[c]']:.4f}")
    assert lines["R-squared"] == ["Adj.", f"{ols.rsquared_adj:.4f}"]  # none is made up for the others
    assert lines["Estimator"] == ["JRE", "IPWRA"]
    assert lines["N"] == ["300", "300"]
    assert "(pairs)" in text


def stars(p):
    return "*" * sum(p < level for level in (0.1, 0.05, 0.01))


def test_protocol_of_maketables(jre):
    """What maketables 0.2.0 reads of a model, by its `PluginExtractor`."""
    table = jre.__maketables_coef_table__
    assert {"b", "se", "t", "p", "ci95l", "ci95u"} == set(table.columns)
    assert table.index.name == "Coefficient"
    assert table.loc["ATE", "b"] == jre.effect
    assert table.loc["ATE", "ci95l"] == jre.conf_int().loc["ATE", 0]
    assert jre.__maketables_depvar__ == "y"
    assert jre.__maketables_vcov_info__ == {"vcov_type": "bootstrap (pairs)", "clustervar": None}
    keys = jre.__maketables_default_stat_keys__
    assert keys == list(jre.__maketables_stat_labels__)
    assert [jre.__maketables_stat__(key) for key in keys] == [300, "JRE", "ATE", "bootstrap (pairs)"]
    assert jre.__maketables_stat__("r2") is None


def test_maketables_itself(frame, jre):
    """maketables 0.2.0 takes what looks like a result of statsmodels for one before it asks for the protocol."""
    maketables = pytest.importorskip("maketables")
    ols = smf.ols(f"y ~ d + {RHS}", frame).fit()
    latex = maketables.ETable([ols, jre], model_stats=["N", "r2", "se_type"]).make("tex")
    assert f"ATE &  & \\makecell{{{jre.effect:.3f}***" in latex
    assert "S.E. type & nonrobust & bootstrap" in latex
    assert f"{ols.rsquared:.3f} & - " in latex
    plugin = pytest.importorskip("maketables.extractors").PluginExtractor()
    assert plugin.can_handle(jre)
    assert plugin.default_stat_keys(jre) == list(plugin.stat_labels(jre))
    pd.testing.assert_frame_equal(plugin.coef_table(jre), jre.__maketables_coef_table__)


def test_summary_formats_agree(jre):
    summary = jre.summary()
    rows = list(csv.reader(io.StringIO(summary.as_csv())))
    effect = next(row for row in rows if row and row[0] == "ATE")
    line = next(line for line in str(summary).splitlines() if line.startswith("ATE "))
    assert effect == line.split()
    assert all(cell.replace("-", "$-$", 1) in summary.as_latex() for cell in effect if cell.startswith("-"))
    assert all(f">{cell}</td>" in summary.as_html().replace("&lt;", "<") for cell in effect[1:])


def test_comparison_of_several_arms(arms, frame):
    three = frame.assign(d=np.where(frame.d == 0, "a", np.where(frame.x3 > 0, "b", "c")))
    together = cr.compare("y ~ x1 + x2", three, treat="d", reference="a", estimators=["IPWRA", "AIPW"], n_boot=30)
    tidy = together.tidy().set_index(["estimator", "term"])
    assert list(tidy.index) == [(e, t) for e in ("IPWRA", "AIPW") for t in ("ATE[b]", "ATE[c]")]
    np.testing.assert_allclose(tidy.loc["IPWRA", "estimate"], arms.params.iloc[:2])
    assert len(together.glance()) == 2

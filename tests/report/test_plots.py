"""Plots show the numbers of the tables, on the axes they are given, and leave matplotlib's state alone."""

from __future__ import annotations

import itertools
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

import causalrisk as cr
from tests.conftest import RHS, simulate

PLOTS = ["balance", "overlap", "anchor_path", "bootstrap", "influence", "calibration"]
pytestmark = [
    pytest.mark.filterwarnings("ignore::causalrisk.errors.OverlapWarning"),  # three arms of few rows
]


@pytest.fixture(scope="module")
def res():
    frame = simulate(120, seed=4).set_index("row" + np.arange(120).astype(str).astype(object))
    model = cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d", levels={0: "old", 1: "new"})
    return model.fit(n_boot=299, n_replicates=12)


@pytest.fixture(scope="module")
def arms():
    frame = simulate(150, seed=5)
    frame["d"] = np.where(frame.x2 + np.random.default_rng(1).normal(size=150) > 0.8, 2, frame.d)
    return cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d", reference=0).fit(cov_type="robust", n_replicates=8)


@pytest.fixture(scope="module")
def resampled_arms():
    frame = simulate(200, seed=5).assign(d=np.arange(200) % 3)
    return cr.IPWRA.from_formula("y ~ x1", frame, treat="d", reference=0).fit(cov_type="bootstrap", n_boot=200)


@pytest.fixture
def ax():
    return Figure().subplots()


def lines(ax):
    return {line.get_label(): np.array(line.get_data(), dtype=float) for line in ax.get_lines()}


@pytest.mark.parametrize("name", PLOTS)
def test_axes_are_taken_and_returned(res, ax, name):
    before, settings = plt.get_fignums(), dict(matplotlib.rcParams)
    assert getattr(res, f"plot_{name}")(ax) is ax
    assert plt.get_fignums() == before
    assert dict(matplotlib.rcParams) == settings
    assert ax.get_xlabel()
    ax.figure.draw_without_rendering()


@pytest.mark.parametrize("name", ["balance", "diagnostics"])
def test_without_matplotlib_it_says_what_to_install(res, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(cr.CausalRiskError, match="pip install matplotlib"):
        getattr(res, f"plot_{name}")()


def test_balance(res, ax):
    table = res.balance()[["diff before", "diff after"]].abs().sort_values("diff before", kind="stable")
    drawn = lines(res.plot_balance(ax))
    np.testing.assert_allclose(drawn["before weighting"][0], table["diff before"])
    np.testing.assert_allclose(drawn["after weighting"][0], table["diff after"])
    assert [text.get_text() for text in ax.get_yticklabels()] == list(table.index)


def test_balance_marks_binary_columns_and_takes_the_largest_contrast(arms, ax, cattaneo):
    births = cr.IPWRA.from_formula("bweight ~ mage + mmarried", cattaneo, treat="mbsmoke").fit()
    assert [t.get_text() for t in births.plot_balance(ax).get_yticklabels()] == ["mage", "propensity score", "mmarried"]
    raw = births.plot_balance(Figure().subplots(), binary="raw")
    assert [t.get_text() for t in raw.get_yticklabels()] == ["mmarried*", "mage", "propensity score"]
    largest = arms.balance()["diff before"].abs().groupby(level="covariate").max().sort_values()
    np.testing.assert_allclose(lines(arms.plot_balance(Figure().subplots()))["before weighting"][0], largest)


def test_a_constant_score_is_no_row_of_the_balance(ax):
    fits = [cr.IPW.from_formula(f"y ~ {x}", simulate(120), treat="d", propensity_score=0.5).fit() for x in ("x1", "1")]
    assert [text.get_text() for text in fits[0].plot_balance(ax).get_yticklabels()] == ["x1"]
    with pytest.raises(cr.UnavailableError, match="no covariate that varies"):
        fits[1].plot_balance(Figure().subplots())
    with pytest.raises(cr.UnavailableError, match="no covariate that varies"):
        fits[1].table_one()
    titles = [panel.get_title(loc="left") for panel in fits[1].plot_diagnostics(Figure()).axes]
    assert "Overlap" in titles and "Balance" not in titles


def test_legends_are_no_wider_than_their_panels():
    groups = np.array([f"a group with a long name {k}" for k in range(4)])[np.arange(200) % 4]
    fit = cr.IPWRA.from_formula("y ~ x1", simulate(200).assign(d=groups), treat="d", reference=groups[0]).fit()
    for panel in fit.plot_influence():
        panel.figure.canvas.draw()
        assert panel.get_legend().get_window_extent().width <= panel.get_window_extent().width


def test_overlap(res, arms, ax):
    res.plot_overlap(ax)
    heights = np.array([[bar.get_height() for bar in container] for container in ax.containers])
    np.testing.assert_allclose(heights.sum(axis=1), [1, -1])
    scores = res.propensity_scores[res.overlap(by="unit")["arm"] == "new"]
    edges = np.linspace(res.propensity_scores.min(), res.propensity_scores.max(), 31)
    np.testing.assert_allclose(heights[0] * len(scores), np.histogram(scores, edges)[0], atol=1e-9)
    assert ax.get_xlabel() == "propensity score: probability of d = new"
    assert ax.yaxis.get_major_formatter()(-0.25, 0) == "25%"
    assert arms.plot_overlap(Figure().subplots(), arm=2).get_xlabel() == "propensity score: probability of d = 2"
    with pytest.raises(cr.CausalRiskError, match="arm="):
        arms.plot_overlap(ax, arm=7)


PANELS = ("overlap", "calibration", "influence", "bootstrap")


@pytest.mark.parametrize("name", PANELS)
def test_every_arm_is_drawn(arms, resampled_arms, name):
    fit = resampled_arms if name == "bootstrap" else arms
    plot = getattr(fit, f"plot_{name}")
    panels = plot()
    assert panels.shape == (2,) and len({ax.figure for ax in panels}) == 1
    for ax, arm in zip(panels, ("1", "2"), strict=True):
        alone = plot(Figure().subplots(), arm=arm)
        assert ax.get_xlabel().split() == alone.get_xlabel().split()  # broken at another width
        assert ax.get_ylabel().split() == alone.get_ylabel().split()
        assert "comparisons" not in ax.get_xlabel()
        for drawn, expected in zip(ax.get_lines(), alone.get_lines(), strict=True):
            np.testing.assert_array_equal(drawn.get_xydata(), expected.get_xydata())
    plt.close(panels[0].figure)
    assert plot(Figure().subplots()).get_xlabel().endswith("(1 of 2 comparisons)")


def segments(ax):
    return [np.array(lines.get_segments()) for lines in ax.collections if hasattr(lines, "get_segments")]


@pytest.mark.usefixtures("few_points")
def test_effects_of_groups_are_drawn_with_their_intervals(arms, ax):
    old = np.where(np.arange(arms.nobs) % 2, "young", "old")
    each, joint = (arms.effects_by(old, adjust=how).xs("ATE[1]") for how in (None, "single-step"))
    arms.plot_effects_by(old, ax=ax, arm=1)
    for drawn, frame in zip(segments(ax), (joint, each), strict=True):
        np.testing.assert_allclose(drawn[:, :, 0], frame.iloc[:, -2:])
    np.testing.assert_allclose(ax.get_lines()[0].get_xdata(), each["estimate"])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["old", "young"]
    assert [text.get_text() for text in ax.get_legend().get_texts()][:2] == ["simultaneous 95%", "pointwise 95%"]


def test_effects_along_a_covariate_are_drawn_as_a_curve(res, ax):
    curve = res.effects_by("~ x1 + I(x1 ** 2)", at=5)
    drawn = res.plot_effects_by("~ x1 + I(x1 ** 2)", ax=ax, at=5).get_lines()[0]
    np.testing.assert_allclose(drawn.get_xydata(), np.column_stack([curve.index, curve["estimate"]]))
    assert ax.get_xlabel() == "x1"
    with pytest.raises(cr.OptionError, match="2 variables; expected one"):
        res.plot_effects_by("~ x1 + x2")


def test_clusters_are_drawn(ax):
    data = simulate(240, seed=8)
    fit = cr.IPWRA.from_formula(f"y ~ {RHS}", data.assign(site=np.arange(240) % 20), treat="d", cluster="site").fit()
    fit.plot_influence(ax, top=3, clusters=True)
    table = fit.influence(clusters=True)
    assert sum(len(line.get_xdata()) for line in ax.get_lines() if line.get_linestyle() == "None") == 20
    assert {text.get_text().strip() for text in ax.texts} == {str(k) for k in fit.influence(top=3, clusters=True).index}
    assert "cluster" in ax.get_ylabel() and table["weight share"].max() < 1


def test_clusters_with_rows_of_several_groups_have_their_own_marker(ax):
    data = simulate(240).assign(site=np.arange(240) // 12, d=lambda f: np.where(f.site < 5, 0, f.d))
    fit = cr.IPWRA.from_formula("y ~ x1", data, treat="d", cluster="site").fit()
    counts = fit.influence(clusters=True)["arm"].value_counts()
    drawn = {name: len(points[0]) for name, points in lines(fit.plot_influence(ax, clusters=True)).items()}
    assert counts["0, 1"] == drawn["d = 0, 1"] == 15 and counts["0"] == drawn["d = 0"] == 5


def test_many_covariates_are_drawn_as_far_as_they_fit(ax):
    data = simulate(2000).assign(k=np.arange(2000) % 60)
    fit = cr.IPWRA.from_formula("y ~ x1 + C(k)", data, treat="d").fit()
    sizes = fit.balance()[["diff before", "diff after"]].abs().max(axis=1)
    shown = [text.get_text() for text in fit.plot_balance(ax).get_yticklabels()]
    assert set(shown) == set(sizes.nlargest(len(shown)).index) and 10 < len(shown) < 40
    assert f"({len(shown)} largest of {len(sizes)})" in ax.get_xlabel()
    assert len(fit.plot_balance().get_yticklabels()) == len(sizes)


def test_matching_is_no_weighting(ax):
    fit = cr.Matching.from_formula("y ~ x1 + x2", simulate(200), treat="d").fit()
    assert {"before matching", "after matching"} <= set(lines(fit.plot_balance(ax)))
    assert {text.get_text() for text in ax.get_yticklabels()} == {"x1", "x2"}
    scored = cr.Matching.from_formula("y ~ x1", simulate(200), treat="d", metric="propensity").fit()
    assert "propensity score" in {t.get_text() for t in scored.plot_balance(Figure().subplots()).get_yticklabels()}


def test_labels_of_groups_do_not_touch(cattaneo):
    by = [f"a group with a name of several words, number {k}" for k in np.arange(len(cattaneo)) % 14]
    fit = cr.OutcomeRegression.from_formula("bweight ~ mage", cattaneo, treat="mbsmoke").fit()
    with pytest.warns(cr.DesignWarning):
        drawn = [fit.plot_effects_by(by, ax=given) for given in (None, Figure().subplots())]
    for ax in drawn:
        ax.figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in ax.get_yticklabels()]
        assert all(one.y0 >= other.y1 - 1 for one, other in itertools.pairwise(boxes))


@pytest.mark.usefixtures("few_points")
def test_without_groups_all_effects_of_a_fit_are_drawn(arms, ax):
    frame = arms.summary_frame(0.1).iloc[:2]
    arms.plot_effects_by(ax=ax, alpha=0.1)
    np.testing.assert_allclose(segments(ax)[0][:, :, 0], frame.iloc[:, -2:])
    assert [text.get_text() for text in ax.get_yticklabels()] == list(frame.index)
    assert "90% interval" in ax.get_xlabel()


def test_anchor_path(res, ax):
    path = res.anchor_path()
    anchor = res.joint.shrinkage
    drawn = lines(res.plot_anchor_path(ax))
    np.testing.assert_allclose(drawn["JRE"], [path.index, path["effect"]])
    np.testing.assert_allclose(drawn[f"chosen: {anchor:g}"], [[anchor], [res.effect]])
    np.testing.assert_allclose(drawn["IPWRA"][1], res.start.effect)
    half = 1.959963984540054 * path["std err"]
    np.testing.assert_allclose(ax.collections[0].get_paths()[0].vertices[:, 1].min(), (path["effect"] - half).min())


def test_dollars_in_a_name_begin_no_formula(ax):
    frame = simulate(200, seed=4).rename(columns={"y": "cost$US$"})
    model = cr.JRE.from_formula(f'Q("cost$US$") ~ {RHS}', frame, treat="d")
    assert r"\$US\$" in model.fit(cov_type="robust", n_replicates=20).plot_anchor_path(ax).get_ylabel()


def test_bootstrap_draws_the_intervals_of_conf_int(res, ax):
    methods = ("normal", "percentile", "bca")
    res.plot_bootstrap(ax, alpha=0.1, intervals=methods)
    drawn = [line.get_xdata() for line in ax.get_lines() if line.get_marker() == "|"]
    for limits, method in zip(drawn, methods, strict=True):
        np.testing.assert_allclose(limits, res.conf_int(0.1, method).loc["ATE"])
    assert sum(bar.get_height() for bar in ax.patches) == 299
    assert [text.get_text() for text in ax.get_yticklabels()][:3] == ["90% normal", "90% percentile", "90% bca"]
    ax.clear()
    res.plot_bootstrap(ax, intervals="bca")
    assert ax.get_yticklabels()[0].get_text() == "95% bca"
    ax.clear()
    assert not [line for line in res.plot_bootstrap(ax, intervals=None).get_lines() if line.get_marker() == "|"]
    with pytest.raises(cr.CausalRiskError, match="bootstrap"):
        res.start.plot_bootstrap(ax)


def test_influence_names_the_rows_that_matter(res, ax):
    res.plot_influence(ax, top=4)
    table = res.influence()
    new = table[table["arm"] == "new"]
    np.testing.assert_allclose(lines(ax)["d = new"], [100 * new["weight share"], new["change"]])
    assert {text.get_text().strip() for text in ax.texts} == set(res.influence(top=4).index)
    for text in ax.texts:
        row = table.loc[text.get_text().strip()]
        assert text.xy == pytest.approx((100 * row["weight share"], row["change"]))
        assert text.xyann[1] <= ax.get_ylim()[1]


def test_calibration(res, arms, ax):
    table = res.calibration(5)
    points = next(line for line in res.plot_calibration(ax, bins=5).get_lines() if line.get_marker() == "o")
    np.testing.assert_allclose(np.array(points.get_data(), dtype=float), table[["predicted", "observed"]].T)
    assert arms.plot_calibration(Figure().subplots(), arm="2").get_xlabel() == "propensity score: probability of d = 2"
    single = res.plot_calibration(Figure().subplots(), bins=120)  # shares of 0 and 1, without a standard error
    assert single.get_ylim()[1] >= 1


@pytest.mark.parametrize(
    ("which", "more"),
    [("res", ["Shrinkage", "Bootstrap"]), ("arms", ["Shrinkage"]), ("start", [])],
)
def test_one_page_of_diagnostics(res, arms, which, more):
    fit = {"res": res, "arms": arms, "start": res.start}[which]
    figure = Figure(figsize=(11.7, 8.3), layout="constrained")
    assert fit.plot_diagnostics(figure) is figure
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
    assert titles == ["Overlap", "Balance", "Calibration", "Influence", *more]
    if which != "res":  # whose page is the fullest
        return
    figure.draw_without_rendering()  # which lays it out
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    widths = [ax.get_position().width for ax in panels]
    assert min(widths) > 0.15 and max(widths) < 1.5 * min(widths)  # nothing squeezed the others


def test_the_page_makes_its_own_figure_and_refuses_fits_without_scores(res):
    before = len(plt.get_fignums())
    plt.close(res.plot_diagnostics())
    plain = cr.OutcomeRegression.from_formula(f"y ~ {RHS}", simulate(200), treat="d").fit()
    with pytest.raises(cr.CausalRiskError, match="no propensity score"):
        plain.plot_diagnostics()
    assert len(plt.get_fignums()) == before

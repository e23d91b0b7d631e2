"""The report: one file that holds everything, loads nothing, says what the numbers say, and repeats the fit."""

from __future__ import annotations

import base64
import re
import sys
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import causalrisk as cr
from causalrisk.estimation.specification import EVERYBODY
from causalrisk.report.explain import (
    BAD,
    CAUTION,
    GOOD,
    read_balance,
    read_influence,
    read_overlap,
    read_sensitivity,
)
from causalrisk.report.methods import call_of
from causalrisk.report.sections import _ledgers
from tests.conftest import CATTANEO_PROPENSITY, CATTANEO_RHS, LALONDE_RHS, simulate
from tests.report.test_explain import FRAME, KINDS, fitted, matching

VOID = {"meta", "img", "br", "wbr"}
ANCHORS = ["summary", "assumptions", "overlap", "balance", "table-1", "influence", "sensitivity", "ledgers",
           "explained", "methods", "repeat"]  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")


class Reader(HTMLParser):
    """Collects attributes and text, and checks that every element is closed in order."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.seen, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.seen if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def read(path):
    reader = Reader()
    reader.feed(path.read_text("utf-8"))
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def jobs(lalonde):
    return cr.JRE.from_formula(f"re78 ~ {LALONDE_RHS}", lalonde, treat="treat").fit(n_boot=60, n_replicates=40)


@pytest.fixture(scope="module")
def jobs_page(jobs, tmp_path_factory):
    return jobs.report(tmp_path_factory.mktemp("report") / "jobs.html")


def test_one_file_that_loads_nothing(jobs_page):
    reader = read(jobs_page)
    assert jobs_page.stat().st_size < 3e6
    assert [attrs["id"] for attrs in reader.all("section")] == ANCHORS
    assert {attrs["href"] for attrs in reader.all("a")} <= {f"#{name}" for name in ANCHORS}
    tags = {tag for tag, _ in reader.seen}
    assert not tags & {"script", "link", "iframe", "object", "video"}
    assert not re.search(r"url\(|@import", jobs_page.read_text("utf-8"))
    images = reader.all("img")
    assert len(images) == 3
    for image in images:
        kind, data = re.fullmatch(r"data:(image/[\w+]+);base64,(.*)", image["src"]).groups()
        content = base64.b64decode(data)
        assert kind == "image/png" and content.startswith(b"\x89PNG")
        assert len(image["alt"]) > 40
    assert reader.all("html") == [{"lang": "en"}]


def test_the_same_fit_gives_the_same_bytes(jobs, jobs_page, tmp_path):
    assert jobs.report(tmp_path / "again.html").read_bytes() == jobs_page.read_bytes()


def test_lalonde_is_told_that_overlap_is_bad(jobs, jobs_page):
    text = read(jobs_page).text
    top = text[: text.index("Contents")]
    row = jobs.overlap().loc["1"]
    kept = f"{row['effective n']:.0f} out of {row['n']:.0f} rows"
    assert f"Overlap is poor: after weighting, group 1 has an effective n of {kept}." in top
    assert "3 assumptions to argue for; see Assumptions" in top
    assert '"ratio" is the risk ratio behind the E-value, and "basis" says how it was computed.' in text
    assert f"{jobs.start.effect:.2f}" in top
    outside = int(jobs.overlap()["outside crump"].sum())
    assert f"Scores of {outside} of 614 rows ({outside / 614:.0%}) are outside the limits of Crump et al." in text


@pytest.mark.usefixtures("unprinted_plots")
def test_trimming_is_suggested_only_if_it_drops_rows(tmp_path):
    for seed, drops in ((0, True), (2, False)):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=400).clip(-1.5, 1.5)
        d = rng.random(400) < 1 / (1 + np.exp(-1.5 * x))
        data = pd.DataFrame({"y": x + rng.normal(size=400), "x": x, "d": d})
        res = cr.IPW.from_formula("y ~ x", data, treat="d").fit()
        assert (res.overlap()["outside crump"].sum() > 0) == drops
        text = read(res.report(tmp_path / "page.html")).text
        assert "Try logarithms or squares" in text and ('trim="crump"' in text) == drops


@pytest.mark.usefixtures("unprinted_plots")
def test_a_short_report_has_the_findings_a_picture_and_the_methods(jobs, jobs_page, tmp_path):
    reader = read(jobs.report(tmp_path / "short.html", short=True))
    assert [attrs["id"] for attrs in reader.all("section")] == ["balance", "methods"]
    assert not reader.all("a") and not reader.all("table") and len(reader.all("img")) == 1
    texts = ["".join(page.text.split()).partition("Inshort")[2] for page in (read(jobs_page), reader)]
    assert texts[0].partition("toarguefor")[0] == texts[1].partition("toarguefor")[0] != ""
    assert "toarguefor;seeAssumptions" in texts[0] and "toarguefor:Dothecovariatesinclude" in texts[1]
    assert " ".join(jobs.methods().split()) in reader.text


def test_rows_from_the_data_to_the_groups_add_up():
    frame = FRAME.assign(x1=FRAME.x1.where(FRAME.index % 10 > 0))
    res = cr.IPWRA.from_formula("y ~ x1", frame, treat="d", trim=(0.2, 0.8)).fit()
    cells = re.findall(r"<th>(.*?)</th>\s*<td>(-?\d+)</td>", _ledgers(res._record, 0.05)[0])
    flow = pd.Series({name: int(rows) for name, rows in cells})
    lost = (frame.x1.isna()).sum()
    assert flow["rows of the data"] == len(frame) and flow["left out: x1 missing"] == -lost
    assert flow[:"rows of the sample"].iloc[:-1].sum() == flow["rows of the sample"] == res.in_sample.sum()
    assert flow[flow.index.str.startswith("d = ")].sum() == flow["rows of the sample"] < len(frame) - lost


@pytest.mark.usefixtures("unprinted_plots")
def test_assumptions_are_the_authors(jobs, tmp_path):
    said = {"unconfoundedness": "Caseworkers <saw> only these & nothing else.", "no_interference": "  "}
    path = jobs.report(tmp_path / "said.html", title="A <title> & more", assumptions=said)
    reader = read(path)
    assert "Caseworkers <saw> only these & nothing else." in reader.text
    assert "2 assumptions to argue for; see Assumptions" in reader.text
    assert reader.text.count("of one unit affect re78 of another") == 1
    assert reader.text.count("Not yet answered") == 2
    assert reader.text.startswith("A <title> & more A <title> & more")
    with pytest.raises(cr.OptionError, match="no_interference"):
        jobs.report(tmp_path / "never.html", assumptions={"interference": "none"})
    assert not (tmp_path / "never.html").exists()
    with pytest.raises(cr.OptionError, match="alpha"):
        jobs.report(tmp_path / "never.html", alpha=2)


@pytest.mark.usefixtures("unprinted_plots")
@pytest.mark.parametrize("kind", [
    "outcome regression", "jre", "three arms, overlap", "frame", "function", "binomial", "classifier", "weighted",
    "clusters",
])  # fmt: skip
def test_kinds_of_fits_have_a_report(kind, tmp_path):
    res, _ = fitted(kind)
    reader = read(res.report(tmp_path / "report.html"))
    anchors = [attrs["id"] for attrs in reader.all("section")]
    scored = res._record.spec.uses_propensity
    assert ("overlap" in anchors) == ("balance" in anchors) == scored
    assert "Not available for this fit: " not in reader.text
    call = call_of(res._record)
    assert call in unescape(reader.text) or " ".join(call.split()) in reader.text


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fit_has_a_call_that_repeats_it(kind):
    res, _ = fitted(kind)
    call, scope = call_of(res._record), {"data": FRAME, "target": matching if kind == "function" else FRAME.iloc[:50]}
    if kind == "classifier":
        call = "from sklearn.linear_model import LogisticRegression\n" + call
    exec(call, scope)
    pd.testing.assert_series_equal(scope["res"].params, res.params)
    pd.testing.assert_series_equal(scope["res"].bse, res.bse)


def test_calls_of_a_score_for_each_arm_name_the_array():
    rng = np.random.default_rng(1)
    arm, one = rng.integers(0, 3, len(FRAME)), rng.uniform(0.3, 0.7, len(FRAME))
    scores = rng.dirichlet(np.full(3, 9.0), len(FRAME))
    for frame, given in ((FRAME, np.column_stack([1 - one, one])), (FRAME.assign(d=arm), scores)):
        res = cr.AIPW.from_formula("y ~ x1", frame, treat="d", reference=0, propensity_score=given).fit()
        scope = {"data": frame, "propensity_score": given}
        exec(call_of(res._record), scope)
        pd.testing.assert_series_equal(scope["res"].params, res.params)


def test_calls_of_other_codings_and_options():
    frame = FRAME.assign(d=np.where(FRAME.d == 1, "drug", "placebo"))
    fits = [
        cr.JRE.from_formula("y ~ x1", frame, treat="d", treated="drug", propensity="x1 + I(x2**2)",
                            propensity_link="probit").fit(n_boot=20, n_replicates=30, shrinkage=0.7, rng=5,
                                                          bootstrap="stratified"),
        cr.IPWRA.from_formula("y ~ x1", FRAME, treat="d", levels={0: "no", 1: "yes"}, cluster="site",
                              trim="crump").fit(small_sample=True),
        cr.AIPW.from_formula("y ~ x1", FRAME, treat="d").fit(cov_type="HC1", rng=None),
        cr.JRE.from_formula("y ~ x1", FRAME, treat="d").fit(objective="erm", cov_type="robust", n_replicates=30,
                                                            rng=np.random.SeedSequence([3, 4])),
    ]  # fmt: skip
    for res, data in zip(fits, [frame, FRAME, FRAME, FRAME], strict=True):
        scope = {"data": data}
        exec(call_of(res._record), scope)
        pd.testing.assert_series_equal(scope["res"].params, res.params)
        pd.testing.assert_series_equal(scope["res"].bse, res.bse)
    names = ["Unadjusted", "IPWRA", "JRE"]
    both = cr.compare("y ~ x1", FRAME, treat="d", estimators=names, n_boot=29, rng=3)
    within = [both.bootstrapped[name] for name in names] + [both.results[name] for name in names]
    for res in (*within, cr.JRE.from_formula("y ~ x1", FRAME, treat="d").fit(n_boot=29).start):
        scope = {"data": FRAME}
        exec(call_of(res._record), scope)
        pd.testing.assert_series_equal(scope["res"].bse, res.bse)
    arrays = cr.AIPW(FRAME.y, FRAME[["x1"]].assign(const=1.0), FRAME.d).fit()
    scope = {"y": FRAME.y, "X": FRAME[["x1"]].assign(const=1.0), "treat": FRAME.d, "Z": None}
    exec(call_of(arrays._record), scope)
    assert scope["res"].effect == arrays.effect


class Mean:
    """A learner without a text of its own."""

    def fit(self, X, y, sample_weight=None):
        self.mean = np.average(y, weights=sample_weight)
        return self

    def predict(self, X):
        return np.full(len(X), self.mean)


def test_calls_of_objects_and_columns():
    frame = FRAME.assign(w=1.0, count=np.arange(len(FRAME)) % 4)
    count = {"formula": "count ~ x1", "data": frame, "treat": "d"}
    res = cr.IPWRA.from_formula(**count, family=sm.families.NegativeBinomial(alpha=0.5)).fit()
    assert "family=NegativeBinomial(...)," in call_of(res._record)
    adults = {"design": cr.Survey(weights=frame.w), "subpop": frame.x1 > 0}
    res, scope = cr.IPWRA.from_formula(**count, **adults).fit(), {"data": frame, "subpop": frame.x1 > 0}
    exec(call_of(res._record), scope | {"weights": frame.w})
    assert "subpop=subpop," in call_of(res._record) and "design=Survey(weights=weights)," in call_of(res._record)
    learned = cr.IPWRA.from_formula(**count, learner={"0": Mean(), "1": "smooth"}).fit()
    assert "learner={'0': Mean(...), '1': 'smooth'}," in call_of(learned._record)


RNGS = {
    "int": lambda: 5,
    "None": lambda: None,
    "of several": lambda: np.random.SeedSequence([3, 4]),
    "spawned twice": lambda: np.random.SeedSequence([3, 4]).spawn(2)[1].spawn(3)[2],
    "generator": lambda: np.random.default_rng(5),
    "generator of a spawned sequence": lambda: np.random.default_rng(np.random.SeedSequence(5).spawn(2)[1]),
}


@pytest.mark.parametrize("rng", RNGS.values(), ids=RNGS.keys())
def test_the_call_and_the_seed_repeat_the_digits_whatever_the_source_of_randomness(rng):
    model = cr.IPWRA.from_formula("y ~ x1", FRAME, treat="d")
    res, scope = model.fit(n_boot=10, rng=rng()), {"data": FRAME}
    exec(call_of(res._record), scope)
    pd.testing.assert_frame_equal(scope["res"].boot_params, res.boot_params)
    pd.testing.assert_frame_equal(model.fit(n_boot=10, rng=res.seed).boot_params, res.boot_params)
    said = res.glance()["seed"].item()
    assert f"from seed {said}." in res.methods() and said in call_of(res._record)


def test_so_do_those_of_a_scan():
    blocks, rng = cr.scan([FRAME[:100], FRAME[100:]]), RNGS["spawned twice"]()
    joint = cr.JRE.from_formula("y ~ x1", blocks, treat="d")
    of_scan = joint.fit(n_replicates=20, cov_type="robust", rng=rng)
    scope = {"data": blocks}
    exec(call_of(of_scan._record), scope)
    pd.testing.assert_series_equal(scope["res"].params, of_scan.params)


def test_methods_say_where_the_scores_of_jre_come_from():
    given = np.random.default_rng(0).gamma(4, size=(len(FRAME), 15))
    model = cr.JRE.from_formula("y ~ x1", FRAME, treat="d")
    drawn, chosen = (
        model.fit(cov_type="robust", **own).methods() for own in ({"n_replicates": 20}, {"replicates": given})
    )
    assert "20 random draws of the propensity score" in drawn and "15 given draws of the propensity score" in chosen
    large = cr.JRE.from_formula("y ~ x1", simulate(5000), treat="d").fit(cov_type="robust", shrinkage=1.0).methods()
    assert "4 points of the distribution of the propensity score" in large and "random draws" not in large


def test_without_matplotlib(jobs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(cr.CausalRiskError, match="pip install matplotlib"):
        jobs.report(tmp_path / "never.html")


def overlap_frame(effective, outside):
    return pd.DataFrame(
        {"n": [100, 100], "effective n": [100.0, effective], "largest weight": [1.0, 5.0], "outside support": [0, 0],
         "outside crump": [outside, 0], "crump low": 0.1, "crump high": 0.9}, index=["a", "b"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("effective", "outside", "warned", "verdict"),
    [(90, 0, False, GOOD), (60, 0, False, CAUTION), (90, 11, False, CAUTION), (30, 0, False, BAD),
     (90, 41, False, BAD), (90, 0, True, BAD)],
)  # fmt: skip
def test_verdict_of_overlap(effective, outside, warned, verdict):
    reading = read_overlap(overlap_frame(effective, outside), warned, EVERYBODY, "")
    assert reading.verdict == verdict
    assert {GOOD: "good", CAUTION: "limited", BAD: "poor"}[verdict] in reading.headline


def test_verdicts_of_the_others():
    balance = pd.DataFrame({"kind": ["continuous"] * 2, "diff before": [0.5, -0.3], "diff after": [0.02, -0.15]},
                           index=["x", "z"])  # fmt: skip
    assert read_balance(balance, 0.001).verdict == CAUTION
    assert "0.15 (z)" in read_balance(balance, 0.001).headline
    assert read_balance(balance.head(1), None).verdict == GOOD
    assert (
        "in the outcome formula, with squares"
        in read_balance(balance, None, "matching", "the outcome formula").texts[-1]
    )
    rows = pd.DataFrame({"arm": ["b"], "change": [-3.0], "in std errors": [-0.6], "weight share": [0.2]}, index=["r7"])
    assert read_influence(rows).verdict == BAD
    assert "Without row r7, the effect changes by -3.000 (0.60 standard errors)" in read_influence(rows).headline
    for number, verdict in ((20, GOOD), (50, CAUTION), (500, BAD)):  # 3 / sqrt(G) is 0.67, 0.42, 0.13
        assert read_influence(rows, ("clinic", number)).verdict == verdict


def test_an_effect_that_is_not_clear_is_not_to_be_explained_away():
    clear = pd.Series({"E-value": 2.4, "E-value of limit": 2.1, "ratio": 1.5, "basis": "difference over the SD",
                       "robustness value": np.nan})  # fmt: skip
    assert "A risk ratio of 2.10 is enough for the 95% interval to" in read_sensitivity(clear, 0.05).headline
    unclear = clear.replace({2.1: 1.0})
    headline = read_sensitivity(unclear, 0.1).headline
    assert headline.startswith("The 90% interval already includes zero. To explain the effect away, a confounder")
    ratio = unclear.replace({"difference over the SD": "ratio of the means"})
    assert "The 90% interval of the ratio of the means already includes 1." in read_sensitivity(ratio, 0.1).headline


@pytest.mark.usefixtures("unprinted_plots")
def test_with_clusters_clusters_are_left_out(tmp_path):
    data = simulate(300, seed=2).assign(clinic=[f"no. {k}" for k in np.arange(300) % 25])
    res = cr.IPWRA.from_formula("y ~ x1 + x2", data, treat="d", cluster="clinic").fit()
    reader = read(res.report(tmp_path / "clinics.html"))
    first = res.influence(top=1, clusters=True)
    assert "Influential clusters" in reader.text and "Influential rows" not in reader.text
    assert f"Without the cluster clinic = {first.index[0]}, the effect changes by" in reader.text


@pytest.mark.usefixtures("unprinted_plots")
def test_methods_cite_what_was_used(cattaneo, tmp_path):
    model = cr.IPWRA.from_formula(f"bweight ~ {CATTANEO_RHS}", cattaneo, treat="mbsmoke",
                                  propensity=CATTANEO_PROPENSITY, target="overlap")  # fmt: skip
    text = read(model.fit().report(tmp_path / "births.html")).text
    methods = text[text.index("Methods We estimated") :]
    for words in ("Wooldridge, J. M. (2007)", "Li, F., Morgan", "Stefanski", CATTANEO_PROPENSITY, "in the overlap"):
        assert words in methods
    for words in ("Efron", "Robins, J. M.", "Crump, R. K."):
        assert words not in methods


@pytest.mark.parametrize(("effect", "name", "means"), [
    ("ratio", "risk ratio", "= POM[1] / POM[0]; POM"),
    ("odds_ratio", "odds ratio", "(POM[1] / (1 - POM[1])) / (POM[0]"),
    ("percent", "percentage change in the mean", "POM is the potential-outcome mean of a group."),
])  # fmt: skip
@pytest.mark.usefixtures("unprinted_plots")
def test_methods_name_the_effect_that_is_a_ratio(cattaneo, tmp_path, effect, name, means):
    model = cr.AIPW.from_formula("lbweight ~ mage", cattaneo[::4], treat="mbsmoke", family="binomial", effect=effect)
    res = model.fit()
    text = res.methods()
    assert f"We estimated the {name} (ATE {effect.replace('_', ' ')}) of mbsmoke" in text and means in text
    assert "average treatment effect" not in text
    assert "and the interval use the logarithm of the ratio" in text
    assert "resamples" not in text
    assert "its standard error over the resamples" in model.fit(n_boot=29).methods()
    page = read(res.report(tmp_path / "a.html")).text
    assert page.count(name) > 1 and "The average treatment effect" not in page
    amounts = cr.AIPW.from_formula("bweight ~ mage", cattaneo[::4], treat="mbsmoke", effect=effect)
    if effect == "ratio":
        assert "We estimated the ratio of means (ATT ratio) on" not in amounts.fit().methods()
        treated = amounts.with_options(target="treated").fit().methods()
        assert "We estimated the ratio of means on the treated (ATT ratio)" in treated


def test_methods_of_jre(cattaneo):
    model = cr.JRE.from_formula("bweight ~ mage", cattaneo.iloc[::8], treat="mbsmoke")
    res = model.fit(n_boot=29)
    text = res.methods()
    assert res.share == 0 and "the share" not in text and "from seed 0." in text
    robust = model.fit(cov_type="robust", share=0.5).methods()
    left_out = "leaves out 50.0% of this heterogeneity, as estimated by IPWRA. The standard errors include all of it."
    assert left_out in robust
    assert "Zhang's idea. The objective used here is the package's own and is unpublished." in robust
    assert "unpublished" not in model.fit(cov_type="robust", objective="erm", n_replicates=40).methods()


def test_methods_of_learners_have_the_weights_of_a_stack_and_the_median_of_repeats():
    options = {"treat": "d", "learner": "smooth", "n_folds": 2}
    stack = cr.JRE.from_formula("y ~ x1 + x2", simulate(200), **options).fit(cov_type="robust", n_replicates=40)
    text = stack.methods()
    for weight in stack.stack["weight"]:
        assert f"{weight:.3f} (" in text
    repeated = cr.AIPW.from_formula("y ~ x1 + x2", simulate(200), **options, n_repeats=3).fit().methods()
    assert "The folds were drawn 3 times, and the fit with the median effect is shown." in repeated
    assert "median" not in text

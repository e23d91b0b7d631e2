"""Several arms to the end: the rows of one arm as the target, a target frame, clipping and trimming, the report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import causalrisk as cr
from causalrisk.estimation.overlap import crump_cut, limits_at
from tests.conftest import RHS
from tests.end_to_end.test_targets import random_arms

ARMS = {"treat": "arm", "reference": "a"}


def model(frame, kind=cr.IPWRA, formula=f"y ~ {RHS}", **options):
    return kind.from_formula(formula, frame, **{**ARMS, **options})


@pytest.fixture(scope="module")
def frame():
    return random_arms()


@pytest.fixture(scope="module")
def cells():
    """Three arms whose probability depends on four cells only."""
    rng = np.random.default_rng(7)
    n = 900
    cell = rng.integers(4, size=n)
    p = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.3, 0.2, 0.5], [0.4, 0.4, 0.2]])[cell]
    arm = (rng.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1)
    x = rng.normal(size=n)
    y = x + 0.3 * x**2 + cell + arm * (1 + 0.5 * x) + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "cell": cell, "arm": np.array(["a", "b", "c"])[arm]})


# --- the rows of one arm -----------------------------------------------------------------------------------------


def pair(frame, kind, formula, target, arm="c", **options):
    """The fit of two levels alone, arm against a."""
    two = frame[frame.arm.isin(["a", arm])]
    return kind.from_formula(formula, two, treat="arm", reference="a", target=target, **options).fit()


@pytest.mark.parametrize("kind", [cr.OutcomeRegression, cr.IPW, cr.IPWRA, cr.AIPW], ids=lambda m: m.__name__)
@pytest.mark.parametrize("target", ["c", "control"])
def test_a_saturated_score_makes_the_effect_that_of_the_pair(cells, kind, target):
    """Then e_c / e_a is the ratio of the shares in the cell, whatever other arms there are; so is its variance."""
    formula = "y ~ 1" if kind is cr.IPW else "y ~ x"
    options = {"propensity": "C(cell)"}
    three = model(cells, kind, formula, target=target, **options).fit()
    two = pair(cells, kind, formula, "treated" if target == "c" else "control", **options)
    name = "ATT(c)[c]" if target == "c" else "ATC[c]"
    rows = [name, "POM[a]", "POM[c]"]
    np.testing.assert_allclose(three.params[rows], two.params, rtol=1e-9)
    np.testing.assert_allclose(three.bse[rows], two.bse, rtol=1e-7)


@pytest.mark.parametrize("kind", [cr.IPW, cr.IPWRA, cr.AIPW], ids=lambda m: m.__name__)
@pytest.mark.parametrize("arm", ["b", "c"])
def test_calibrated_scores_make_the_effect_that_of_the_pair(frame, kind, arm):
    """Each arm's weights are calibrated to the target by themselves."""
    formula = "y ~ 1" if kind is cr.IPW else f"y ~ {RHS}"
    options = {"propensity": RHS, "propensity_loss": "calibrated"}
    three = model(frame, kind, formula, target=arm, **options).fit()
    two = pair(frame, kind, formula, "att", arm, **options)
    rows = [f"ATT({arm})[{arm}]", "POM[a]", f"POM[{arm}]"]
    np.testing.assert_allclose(three.params[rows], two.params, rtol=1e-8)
    np.testing.assert_allclose(three.bse[rows], two.bse, rtol=1e-6)


def test_known_scores_make_the_effect_that_of_the_pair(frame):
    eta = np.column_stack([np.zeros(len(frame)), 0.6 * frame.x1, -0.5 * frame.x2])
    e = pd.DataFrame(np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True), columns=["a", "b", "c"], index=frame.index)
    three = model(frame, target="b", propensity_score=e).fit()
    two = pair(frame.assign(e=e.b / (e.a + e.b)), cr.IPWRA, f"y ~ {RHS}", "att", "b", propensity_score="e")
    np.testing.assert_allclose(three.params[["ATT(b)[b]", "POM[a]", "POM[b]"]], two.params, rtol=1e-10)


@pytest.mark.parametrize("focal", ["a", "b", "c"])
def test_focal_weights_by_hand(frame, focal):
    """Weights e_focal / e_own of R's WeightIt with focal=, coefficients by statsmodels; the sandwich by hand too."""
    codes = pd.Categorical(frame.arm).codes
    X = sm.add_constant(frame[["x1", "x2"]]).to_numpy()
    e = np.asarray(sm.MNLogit(codes, X).fit(disp=0, method="newton", tol=1e-13).predict())
    f = "abc".index(focal)
    weights = e[:, f] / e[np.arange(len(codes)), codes]
    means = [np.average(frame.y[codes == a], weights=weights[codes == a]) for a in range(3)]
    res = model(frame, cr.IPW, "y ~ 1", propensity="x1 + x2", target=focal).fit()
    np.testing.assert_allclose(res.params.iloc[2:], means, rtol=1e-8)
    np.testing.assert_allclose(res.importance_weights, weights, rtol=1e-6)
    assert res.params[f"POM[{focal}]"] == pytest.approx(frame.y[frame.arm == focal].mean(), rel=1e-12)
    assert res.params.index[0] == ("ATC[b]" if focal == "a" else f"ATT({focal})[b]")


def test_shares_of_the_arms_put_the_ate_together(frame):
    """The outcome regression of everybody is the average over the arms, and so are its means."""
    kind = cr.OutcomeRegression
    everybody = model(frame, kind).fit().params.iloc[2:]
    shares = frame.arm.value_counts(normalize=True)
    parts = sum(shares[arm] * model(frame, kind, target=arm).fit().params.iloc[2:].to_numpy() for arm in "abc")
    np.testing.assert_allclose(parts, everybody, rtol=1e-12)


@pytest.mark.parametrize("spelling", ["treated", "ATT", "yes", "control", "atc", "no"])
def test_a_level_of_two_arms_is_the_treated_or_the_control(frame, spelling):
    two = frame.assign(arm=np.where(frame.arm == "a", "no", "yes"))
    res = cr.AIPW.from_formula(f"y ~ {RHS}", two, treat="arm", treated="yes", target=spelling).fit()
    plain = "control" if spelling in ("control", "atc", "no") else "treated"
    expected = cr.AIPW.from_formula(f"y ~ {RHS}", two, treat="arm", treated="yes", target=plain).fit()
    assert res.params.equals(expected.params) and res.glance()["target"].item() == plain


@pytest.mark.parametrize("target", [7, "c", np.int64(7)])
def test_an_arm_is_named_by_level_or_label(frame, target):
    numbers = frame.assign(arm=frame.arm.map({"a": 5, "b": 6, "c": 7}))
    options = {"treat": "arm", "reference": 5, "levels": {5: "a", 6: "b", 7: "c"}}
    made = cr.IPWRA.from_formula(f"y ~ {RHS}", numbers, target=target, **options)
    expected = model(frame, target="c").fit()
    pd.testing.assert_series_equal(made.fit().params, expected.params)
    again = cr.IPWRA.from_formula(f"y ~ {RHS}", numbers, **options).with_options(target=target).fit()
    pd.testing.assert_series_equal(again.params, expected.params)
    arrays = sm.add_constant(frame[["x1", "x2"]]).to_numpy()
    named = cr.IPWRA(frame.y, arrays, numbers.arm, target=target, reference=5, levels=options["levels"]).fit()
    pair = cr.IPWRA.from_formula("y ~ x1 + x2", frame, target="c", **ARMS).fit()
    np.testing.assert_allclose(named.params, pair.params, rtol=1e-10)


def test_what_names_no_arm(frame):
    with pytest.raises(cr.OptionError, match=r"target='treated' is for two groups[^$]*`target='b'` or `target='c'`"):
        model(frame, target="treated").fit()
    with pytest.raises(cr.OptionError, match=r"target='d' is not known; expected one of .*, a level of the treatment"):
        model(frame, target="d")
    with pytest.raises(cr.OptionError, match="target= of type int is not a level of the treatment"):
        model(frame, target=3)


def test_balance_is_in_standard_deviations_of_the_target(frame):
    table = model(frame, target="c").fit().balance().xs("b vs a")
    x = frame.groupby("arm").x1
    by_hand = (x.mean()["b"] - x.mean()["a"]) / x.std()["c"]
    assert table.loc["x1", "diff before"] == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_jre_takes_an_arm_as_the_target(frame, family):
    own = frame.assign(y=(frame.y > frame.y.median()).astype(float)) if family == "binomial" else frame
    res = model(own, cr.JRE, target="b", family=family).fit(cov_type="robust", n_replicates=40)
    np.testing.assert_allclose(res.start.params, model(own, target="b", family=family).fit().params, rtol=1e-12)
    assert list(res.params.index[:2]) == ["ATT(b)[b]", "ATT(b)[c]"] and np.isfinite(res.bse).all()


def test_a_comparison_takes_an_arm_as_the_target(frame):
    both = cr.compare(f"y ~ {RHS}", frame, estimators=["IPWRA", "AIPW"], target="c", n_boot=20, **ARMS)
    assert both.table.loc[("AIPW", "ATT(c)[b]"), "estimate"] == model(frame, cr.AIPW, target="c").fit().params.iloc[0]


class Shares:
    """A classifier of several arms that knows a single cut."""

    def fit(self, X, y, sample_weight=None):
        self.classes_, above = np.unique(y), X[:, 1] > 0
        self.p = [[np.mean(y[above == side] == arm) for arm in self.classes_] for side in (False, True)]

    def predict_proba(self, X):
        return np.where((X[:, 1] > 0)[:, None], self.p[1], self.p[0])


@pytest.mark.parametrize("score", ["known", "classifier"])
def test_clipping_scores_from_elsewhere_of_several_arms(frame, score):
    given = model(frame).fit().propensity_scores if score == "known" else Shares()
    options = {"propensity": "x1 + x2", "propensity_score": given, "target": "c", "clip": (0.3, 0.35)}
    res = model(frame, cr.IPW, "y ~ 1", **options).fit()
    p = res.propensity_scores.to_numpy()
    codes = pd.Categorical(frame.arm).codes
    assert p.min() >= 0.3 and p.max() <= 0.35
    expected = np.where(codes == 2, 1.0, p[:, 2] / p[np.arange(len(codes)), codes])
    np.testing.assert_allclose(res.importance_weights, expected, rtol=1e-10)
    assert np.isfinite(res.bse).all()


# --- a target frame ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [cr.OutcomeRegression, cr.IPWRA, cr.AIPW], ids=lambda m: m.__name__)
def test_a_target_frame_by_hand(frame, kind):
    other = random_arms(250, seed=9)[["x1", "x2"]]
    formula = "y ~ x1 + x2"
    res = model(frame, kind, formula, target=other).fit()
    X, Xf = sm.add_constant(frame[["x1", "x2"]]).to_numpy(), sm.add_constant(other).to_numpy()
    codes = pd.Categorical(frame.arm).codes
    e = np.asarray(sm.MNLogit(codes, X).fit(disp=0, method="newton", tol=1e-13).predict())
    both, member = np.vstack([X, Xf]), np.r_[np.zeros(len(X)), np.ones(len(Xf))]
    ratio = np.exp(X @ sm.Logit(member, both).fit(disp=0, tol=1e-13).params)
    w = ratio / e[np.arange(len(codes)), codes]
    means = []
    for a in range(3):
        rows = codes == a
        own = w[rows] if kind is cr.IPWRA else np.ones(rows.sum())
        beta = sm.WLS(frame.y[rows], X[rows], own).fit().params
        mean = (Xf @ beta).mean()
        if kind is cr.AIPW:
            mean += (w[rows] * (frame.y[rows] - X[rows] @ beta)).sum() / ratio.sum()
        means.append(mean)
    np.testing.assert_allclose(res.params.iloc[2:], means, rtol=1e-7)
    assert res.params.index[0] == "transported ATE[b]" and "250 rows" in str(res.summary())


# --- clipping and trimming ---------------------------------------------------------------------------------------

TARGETS = ["all", "control", "c", "overlap", "entropy"]


@pytest.mark.parametrize("target", TARGETS)
def test_clipped_scores_of_several_arms_by_hand(frame, target):
    codes = pd.Categorical(frame.arm).codes
    X = sm.add_constant(frame[["x1", "x2"]]).to_numpy()
    e = np.asarray(sm.MNLogit(codes, X).fit(disp=0, method="newton", tol=1e-13).predict()).clip(0.25, 0.4)
    tilt = {"all": np.ones(len(e)), "control": e[:, 0], "c": e[:, 2], "overlap": 1 / (1 / e).sum(axis=1),
            "entropy": -(e * np.log(e)).sum(axis=1)}[target]  # fmt: skip
    weights = tilt / e[np.arange(len(codes)), codes]
    if target in ("control", "c"):
        weights[frame.arm == {"control": "a"}.get(target, target)] = 1.0
    res = model(frame, cr.IPW, "y ~ 1", propensity="x1 + x2", target=target, clip=(0.25, 0.4)).fit()
    np.testing.assert_allclose(res.importance_weights, weights, rtol=1e-6)
    np.testing.assert_allclose(res.propensity_scores, e, rtol=1e-7)
    own = np.isin(e[np.arange(len(codes)), codes], (0.25, 0.4)).sum()
    assert f"{own} to [0.25, 0.4]" in str(res.summary())
    for diagnostic in (res.balance, res.overlap, res.calibration, res.explain, res.sensitivity):
        assert len(str(diagnostic())) > 100


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", [cr.IPW, cr.AIPW], ids=lambda m: m.__name__)
def test_standard_errors_under_clipping_are_the_infinitesimal_jackknife(frame, kind, target):
    """The influence function against the change of the estimate as the weight of a row changes."""
    formula = "y ~ 1" if kind is cr.IPW else "y ~ x1 + x2"
    options = {"propensity": "x1 + x2", "target": target, "clip": (0.2, 0.45)}
    res = model(frame, kind, formula, **options).fit()
    influence, step = res._record.sample.restore(res._record.estimate.influence)[:, :5], 1e-4
    for row in (0, 333):
        estimates = []
        for sign in (1, -1):
            weights = np.ones(len(frame))
            weights[row] += sign * step
            moved = model(frame.assign(w=weights), kind, formula, weights="w", weight_type="probability", **options)
            estimates.append(moved.fit().params.to_numpy())
        slope = (estimates[0] - estimates[1]) / (2 * step)
        np.testing.assert_allclose(slope * len(frame), influence[row], rtol=1e-4, atol=1e-5)


def test_the_cut_of_several_arms_is_that_of_yang_et_al():
    rng = np.random.default_rng(0)
    scores = rng.dirichlet([0.7, 0.5, 0.9], 4000).T
    weights = rng.random(4000) + 0.5
    cost = (1 / scores).sum(axis=0)

    def variance(cut):  # of the effect among the rows kept, which the cut minimises
        kept = cost <= cut
        return np.average(cost[kept], weights=weights[kept]) / (weights[kept].sum() / weights.sum())

    cut = crump_cut(scores, weights)
    kept = cost <= cut
    assert 0.3 < kept.mean() < 0.99
    assert cut == pytest.approx(2 * np.average(cost[kept], weights=weights[kept]), rel=1e-12)
    assert variance(cut) <= min(map(variance, np.quantile(cost, np.linspace(0.02, 1, 2000)))) * (1 + 1e-9)


def test_the_cut_of_two_arms_is_crump_s():
    e = np.random.default_rng(1).beta(0.5, 0.5, 3000)
    low, _ = limits_at(crump_cut(np.stack([1 - e, e]), np.ones(3000)))
    assert 1 / (low * (1 - low)) == pytest.approx(crump_cut(np.stack([1 - e, e]), np.ones(3000)), rel=1e-9)


def few_like_it(n=900):
    """Three arms of which the last is rare at one end of x1."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=n)
    eta = np.column_stack([np.zeros(n), 0.2 * x, 2.5 * x])
    p = np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True)
    arm = (rng.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1)
    return pd.DataFrame({"y": x + arm + rng.normal(size=n), "x1": x, "arm": np.array(["a", "b", "c"])[arm]})


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
def test_trimming_several_arms_is_the_fit_to_the_rows_left():
    frame = few_like_it()
    plain = model(frame, formula="y ~ x1").fit()
    e = plain.propensity_scores
    cost = (1 / e).sum(axis=1)
    cut = crump_cut(e.to_numpy().T, np.ones(len(e)))
    res = model(frame, formula="y ~ x1", trim="crump").fit()
    rest = model(frame[cost <= cut], formula="y ~ x1").fit()
    np.testing.assert_allclose(res.params, rest.params, rtol=1e-9)
    dropped = int((cost > cut).sum())
    assert 0 < dropped < 500
    assert f"{dropped} with sum of 1/score > {cut:.3g}" in str(res.summary())
    table = plain.overlap()
    assert table["crump cut"].iloc[0] == pytest.approx(cut) and table["outside crump"].sum() == dropped
    assert (~plain.overlap(by="unit")["in crump"]).sum() == dropped


# --- the diagnostics of each contrast ----------------------------------------------------------------------------


def test_influence_is_of_the_arm_that_is_named(frame):
    res = model(frame, cr.IPWRA).fit()
    changes = {arm: res.influence(arm=arm)["change"] for arm in "bc"}
    for row in (3, 77, 200):
        left_out = model(frame.drop(index=row)).fit().params - res.params
        assert [changes[arm][row] for arm in "bc"] == pytest.approx(left_out.iloc[:2].tolist(), rel=1e-6)
    assert res.influence().equals(res.influence(arm="b"))
    with pytest.raises(cr.OptionError, match=r"arm='a' is the reference group[^$]*arm='c'"):
        res.influence(arm="a")

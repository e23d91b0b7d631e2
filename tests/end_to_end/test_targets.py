"""Targets, outcome families, several arms and scores from elsewhere, through the public interface."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.special
import statsmodels.api as sm
import statsmodels.formula.api as smf
from statsmodels.treatment.treatment_effects import TreatmentEffect

import causalrisk as cr
from causalrisk.estimation import engine
from causalrisk.numerics.resampling import folds_of
from tests.conftest import CATTANEO_PROPENSITY, CATTANEO_RHS, REFERENCE, RHS, our_names, simulate

MODELS = {"ra": cr.OutcomeRegression, "ipw": cr.IPW, "ipwra": cr.IPWRA, "aipw": cr.AIPW}
R_RUNS = pd.read_csv(REFERENCE / "r_cattaneo2_all_targets.csv.gz", keep_default_na=False)
R_RUNS = R_RUNS[R_RUNS.estimator.isin(list(MODELS))]
R_KEYS = ["outcome", "om", "ps", "ps_link", "om_family", "estimand", "estimator", "note"]
R_CASES = [tuple(row) for row in R_RUNS[R_KEYS].drop_duplicates().to_numpy()]
PRINTED = pd.read_csv(REFERENCE / "stata_cattaneo2_printed.csv", keep_default_na=False)
OTHER_STATA = PRINTED[(PRINTED.estimand != "ATE") | PRINTED.stata_cmd.str.contains("poisson")]
OTHER_STATA = OTHER_STATA[OTHER_STATA.estimator.isin(list(MODELS)) & OTHER_STATA.estimand.isin(["ATE", "ATET"])]
CLASSIC = list(MODELS.values())
ALL = [*CLASSIC, cr.JRE]
QUICK = {"n_boot": 40, "n_replicates": 40}


def fitted(model, frame, formula=f"y ~ {RHS}", **options):
    quick = QUICK if model is cr.JRE else {}
    return model.from_formula(formula, frame, treat=options.pop("treat", "d"), **options).fit(**quick)


def random_arms(n=600, seed=4):
    """Three arms that depend on the covariates."""
    frame = simulate(n, seed=seed)
    rng = np.random.default_rng(seed)
    eta = np.column_stack([np.zeros(n), 0.6 * frame.x1, -0.5 * frame.x2])
    p = np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True)
    arm = (rng.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1)
    return frame.assign(arm=np.array(["a", "b", "c"])[arm], y=frame.y + 0.5 * arm)


# --- outside numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", R_CASES, ids=lambda case: "-".join(str(case[k]) for k in (0, 6, 5, 4, 3, 7)))
def test_every_target_and_family_equals_r(cattaneo, case):
    rows = R_RUNS[(R_RUNS[R_KEYS] == list(case)).all(axis=1)].set_index("param").loc[["effect", "pom0", "pom1"]]
    outcome, om, ps, link, family, target, estimator, _ = case
    res = (
        MODELS[estimator]
        .from_formula(
            f"{outcome.replace('lbw25', 'lbweight')} ~ {our_names(om)}",
            cattaneo,
            treat="mbsmoke",
            propensity=our_names(ps).replace("^", "**") or None,
            propensity_link=link or "logit",
            family=family or "gaussian",
            target=target,
        )
        .fit()
    )
    assert res.params.index[0] == target
    np.testing.assert_allclose(res.params, rows.estimate.astype(float), rtol=1e-8)
    np.testing.assert_allclose(res.bse, rows.se_m_estimation.astype(float), rtol=1e-6)


@pytest.mark.parametrize("row", [row for _, row in OTHER_STATA.iterrows()], ids=OTHER_STATA.stata_cmd)
def test_stata_poisson_and_atet(cattaneo, row):
    res = (
        MODELS[row.estimator]
        .from_formula(
            our_names(row.outcome_formula) or "bweight ~ 1",
            cattaneo,
            treat="mbsmoke",
            propensity=our_names(row.ps_formula).replace("^", "**") or None,
            propensity_link=row.ps_link or "logit",
            family="poisson" if "poisson" in row.stata_cmd else "gaussian",
            target=row.estimand,
        )
        .fit()
    )
    assert res.effect == pytest.approx(float(row.effect), rel=2e-6)
    assert res.effect_se == pytest.approx(float(row.effect_se), rel=2e-6)


@pytest.mark.parametrize("effect_group", ["all", 1, 0])
def test_statsmodels_treatment_effect(cattaneo, effect_group):
    """Points of all its estimators; its AIPW and IPW know the ATE only."""
    propensity = sm.Probit.from_formula(f"mbsmoke ~ {CATTANEO_PROPENSITY}", cattaneo).fit(disp=0, tol=1e-12)
    theirs = TreatmentEffect(smf.ols(f"bweight ~ {CATTANEO_RHS}", cattaneo), cattaneo.mbsmoke.to_numpy(), propensity)
    target = {"all": "ATE", 1: "ATT", 0: "ATC"}[effect_group]
    ours = {
        name: model.from_formula(
            f"bweight ~ {CATTANEO_RHS}", cattaneo, treat="mbsmoke", propensity=CATTANEO_PROPENSITY,
            propensity_link="probit", target=target,
        ).fit()
        for name, model in MODELS.items()
    }  # fmt: skip
    pairs = {"ra": "ra", "ipw": "ipw", "ipwra": "ipw_ra"} | ({"aipw": "aipw"} if effect_group == "all" else {})
    for name, method in pairs.items():
        options = {} if method == "aipw" else {"effect_group": effect_group}
        effect = getattr(theirs, method)(return_results=False, **options)[0]
        assert ours[name].effect == pytest.approx(effect, rel=1e-7)


# --- targets -----------------------------------------------------------------------------------------------------


def test_att_and_atc_weighted_by_shares_are_the_ate():
    frame = simulate(300)
    model = cr.OutcomeRegression.from_formula(f"y ~ {RHS}", frame, treat="d")
    ate, att, atc = (model.with_options(target=target).fit().effect for target in ("ATE", "ATT", "atc"))
    share = frame.d.mean()
    assert share * att + (1 - share) * atc == pytest.approx(ate, rel=1e-12)


@pytest.mark.parametrize("model", CLASSIC)
def test_the_sample_as_its_own_target_frame_gives_the_ate(model):
    frame = simulate(300)
    plain, moved = fitted(model, frame), fitted(model, frame, target=frame)
    np.testing.assert_allclose(moved.params, plain.params, rtol=1e-8)
    assert moved.estimand == "transported ATE" and plain.estimand == "ATE"
    again = fitted(model, frame, target=frame.drop(columns=["y", "d"]).sample(frac=1, random_state=1))
    np.testing.assert_allclose(again.params, plain.params, rtol=1e-8)


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")  # one of non-convergence would be an error
@pytest.mark.parametrize("below", [16, 18, 20])
def test_membership_of_a_narrow_frame(cattaneo, below):
    """Rows far outside of the frame, with log odds in the hundreds, do not hold the others back."""
    frame, formula = cattaneo[cattaneo.mage < below], "mage + I(mage**2)"
    res = cr.IPWRA.from_formula(f"bweight ~ {formula}", cattaneo, treat="mbsmoke", target=frame).fit()
    assert res.converged
    sample, gamma = res._record.sample, res._record.weight_fit.beta["member"]
    eta = sample.Z.columns @ gamma[0, :, 0]
    assert eta.min() < -40
    score = sample.Z.columns.T @ ((sample.in_sample == 0) - scipy.special.expit(eta))
    np.testing.assert_allclose(score / sample.n, 0, atol=1e-10)


@pytest.mark.parametrize("model", [cr.OutcomeRegression, cr.IPWRA, cr.AIPW, cr.JRE])
def test_transported_effects_are_near_the_truth(model):
    """The effect is x1, whose mean is 0 in the sample and 0.5 in the target."""
    rng = np.random.default_rng(0)
    frame = simulate(4000).assign(y=lambda f: f.x1 * f.d + f.x2 + rng.normal(size=4000) * 0.5)
    new = pd.DataFrame(rng.normal(size=(3000, 3)) * 0.7 + [0.5, 0, 0], columns=["x1", "x2", "x3"])
    res = fitted(model, frame, target=new)
    assert res.effect == pytest.approx(new.x1.mean(), abs=4 * res.effect_se)
    assert res.effect_se < 0.06
    assert "the 3000 rows of the target frame" in str(res.summary()).replace("\n    ", " ")


@pytest.mark.parametrize("model", [cr.IPWRA, cr.AIPW])
@pytest.mark.parametrize(
    "target", ["overlap", "treated", "frame", lambda e: np.minimum(e, 1 - e)], ids=["ato", "att", "frame", "matching"]
)
def test_robust_and_bootstrap_standard_errors_agree(model, target):
    frame = simulate(500)
    if isinstance(target, str) and target == "frame":
        target = simulate(300, seed=8).assign(x1=lambda f: f.x1 + 0.2)
    made = model.from_formula(f"y ~ {RHS}", frame, treat="d", target=target)
    robust, boot = made.fit(), made.fit(cov_type="bootstrap", n_boot=399)
    np.testing.assert_allclose(boot.bse, robust.bse, rtol=0.15)


@pytest.mark.parametrize("model", ALL)
def test_matching_weights_as_a_function_of_the_score(model):
    """Li and Greene (2013): the smaller of both probabilities over that of the own arm."""
    frame = simulate(300)
    res = fitted(model, frame, target=lambda e: np.minimum(e, 1 - e))
    assert res.estimand == "WATE"
    if model is not cr.OutcomeRegression:
        e = res.propensity_scores
        expected = np.minimum(e, 1 - e) / np.where(frame.d == 1, e, 1 - e)
        np.testing.assert_allclose(res.importance_weights, expected, rtol=1e-12)
    overlap = fitted(model, frame, target="overlap")
    same = fitted(model, frame, target=lambda e: e * (1 - e))
    np.testing.assert_allclose(same.params, overlap.params, rtol=1e-9)
    np.testing.assert_allclose(same.bse, overlap.bse, rtol=1e-6)


# --- several arms ------------------------------------------------------------------------------------------------


def test_three_arms_equal_ipwra_on_mnlogit_by_hand():
    frame = random_arms()
    res = fitted(cr.IPWRA, frame, treat="arm", reference="a")
    X = sm.add_constant(frame[["x1", "x2", "x3"]])
    scores = sm.MNLogit(pd.Categorical(frame.arm).codes, X).fit(disp=0, tol=1e-12).predict(X).to_numpy()
    means = []
    for code, arm in enumerate("abc"):
        rows = (frame.arm == arm).to_numpy()
        weighted = sm.WLS(frame.y[rows], X[rows], weights=1 / scores[rows, code]).fit()
        means.append(weighted.predict(X).mean())
    assert res.params.index.tolist() == ["ATE[b]", "ATE[c]", "POM[a]", "POM[b]", "POM[c]"]
    np.testing.assert_allclose(res.params.iloc[2:], means, rtol=1e-8)
    np.testing.assert_allclose(res.params.iloc[:2], np.array(means[1:]) - means[0], rtol=1e-7)
    np.testing.assert_allclose(res.propensity_scores, scores, rtol=1e-7)
    assert res.cov_params().shape == (5, 5)


TILTS = {  # PSweight's tilting functions, of the probabilities (n, K)
    "ATO": lambda e: 1 / (1 / e).sum(axis=1),
    "ATM": lambda e: e.min(axis=1),
    "ATEN": lambda e: -(e * np.log(e)).sum(axis=1),
}


@pytest.mark.parametrize("target", TILTS)
@pytest.mark.parametrize("treat", ["mbsmoke", "msmoke"])
def test_tilted_means_are_those_of_psweight_by_hand(cattaneo, target, treat):
    """Weighted means with weights h(x) / e_a(x), of two and of four arms; coefficients by statsmodels."""
    first = sorted(cattaneo[treat].unique())[0]
    X = sm.add_constant(cattaneo[["mage", "medu"]])
    codes = pd.Categorical(cattaneo[treat]).codes
    e = np.asarray(sm.MNLogit(codes, X).fit(disp=False, method="newton", tol=1e-12).predict(X))
    weights = TILTS[target](e) / e[np.arange(len(codes)), codes]
    means = [np.average(cattaneo.bweight[codes == a], weights=weights[codes == a]) for a in range(e.shape[1])]
    res = cr.IPW.from_formula("bweight ~ 1", cattaneo, treat=treat, reference=first, target=target.lower(),
                                propensity="mage + medu").fit()  # fmt: skip
    assert res.params.index[0].startswith(target)
    np.testing.assert_allclose(res.params.iloc[-len(means) :], means, rtol=1e-8)
    np.testing.assert_allclose(res.importance_weights, weights, rtol=1e-6)


@pytest.mark.parametrize("model", [*CLASSIC, cr.JRE], ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    ("name", "tilt"),
    [("matching", lambda e: np.minimum(e, 1 - e)), ("entropy", lambda e: -e * np.log(e) - (1 - e) * np.log1p(-e))],
    ids=["matching", "entropy"],
)
def test_named_tilts_equal_the_same_tilt_as_a_function(model, name, tilt):
    """Points and robust standard errors; the function's derivative is numerical."""
    frame = simulate(300)
    options = {"n_replicates": 40} if model is cr.JRE else {}
    named, function = (
        model.from_formula(f"y ~ {RHS}", frame, treat="d", target=target).fit(cov_type="robust", **options)
        for target in (name, tilt)
    )
    np.testing.assert_allclose(named.params, function.params, rtol=1e-9)
    np.testing.assert_allclose(named.bse, function.bse, rtol=1e-6)


@pytest.mark.parametrize("target", ["all", "overlap"])
def test_joint_effects_of_several_arms_do_not_depend_on_the_reference(target):
    frame = random_arms()
    given = {"treat": "arm", "target": target}
    models = [cr.JRE.from_formula(f"y ~ {RHS}", frame, reference=arm, **given) for arm in "ac"]
    first, other = (model.fit(cov_type="robust", n_replicates=20) for model in models)
    assert first.joint.shrinkage == other.joint.shrinkage
    assert other.params.iloc[0] - other.params.iloc[1] == pytest.approx(-first.params.iloc[0], rel=1e-8)
    assert -other.params.iloc[0] == pytest.approx(first.params.iloc[1], rel=1e-8)
    assert other.bse.iloc[0] == pytest.approx(first.bse.iloc[1], rel=1e-6)
    assert first.expected_ate_risk == pytest.approx(other.expected_ate_risk, rel=1e-6)


# --- scores from elsewhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [cr.IPW, cr.IPWRA, cr.AIPW, cr.JRE])
def test_known_scores_give_the_point_and_no_propensity_uncertainty(model):
    frame = simulate(300)
    estimated = fitted(model, frame)
    known = fitted(model, frame.assign(ps=estimated.propensity_scores), propensity_score="ps")
    if model is not cr.JRE:
        np.testing.assert_allclose(known.params, estimated.params, rtol=1e-9)
    assert "known (ps)" in str(known.summary()) and "scores as known" in " ".join(str(known.summary()).split())
    with pytest.raises(cr.UnavailableError, match=r"known scores[^$]*res.propensity_scores"):
        _ = known.propensity_params


def test_standard_error_with_known_scores_by_hand():
    frame = simulate(400)
    score = np.full(400, frame.d.mean())
    res = fitted(cr.IPW, frame, "y ~ 1", propensity_score=score)
    arms = [frame.y[frame.d == d] for d in (0, 1)]
    expected = np.sqrt(sum(((a - a.mean()) ** 2).sum() / len(a) ** 2 for a in arms))
    assert res.effect == pytest.approx(arms[1].mean() - arms[0].mean(), rel=1e-12)
    assert res.effect_se == pytest.approx(expected, rel=1e-10)


def test_joint_erm_with_known_scores_is_ipwra():
    frame = simulate(300)
    score = np.clip(0.5 + 0.1 * frame.x1, 0.1, 0.9)
    model = cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d", propensity_score=score)
    res = model.fit(objective="erm", cov_type="robust")
    ipwra = fitted(cr.IPWRA, frame, propensity_score=score)
    np.testing.assert_allclose(res.params, ipwra.params, rtol=1e-9)
    np.testing.assert_allclose(res.bse, ipwra.bse, rtol=1e-6)


def test_calibrated_scores_balance_and_make_aipw_a_weighted_mean():
    """With exact balance of the outcome's columns the correction is all there is: AIPW = weighted means' difference."""
    frame = simulate(400)
    res = fitted(cr.AIPW, frame, propensity_loss="calibrated")
    weights = res.importance_weights * frame.d / 400
    np.testing.assert_allclose(weights @ frame[["x1", "x2", "x3"]], frame[["x1", "x2", "x3"]].mean(), atol=1e-9)
    own = res.importance_weights / 400 * frame.y
    assert res.effect == pytest.approx(own[frame.d == 1].sum() - own[frame.d == 0].sum(), rel=1e-9)
    boot = cr.AIPW.from_formula(f"y ~ {RHS}", frame, treat="d", propensity_loss="calibrated").fit(
        cov_type="bootstrap", n_boot=299
    )
    assert boot.effect_se == pytest.approx(res.effect_se, rel=0.15)
    assert "calibrated logit" in str(res.summary())


class Frequencies:
    """A classifier that knows a single cut, and takes weights only if told to."""

    def fit(self, X, y, sample_weight=None):
        w = np.ones(len(y)) if sample_weight is None else sample_weight
        self.classes_ = np.unique(y)
        above = X[:, 0] > 0
        self.p = [np.average(y[above == side], weights=w[above == side]) for side in (False, True)]
        return self

    def predict_proba(self, X):
        p = np.where(X[:, 0] > 0, self.p[1], self.p[0])
        return np.column_stack([1 - p, p])


class Unweighted(Frequencies):
    """The same without weights."""

    def fit(self, X, y):
        return super().fit(X, y)


def test_a_classifier_is_cross_fitted():
    frame = simulate(300)
    res = fitted(cr.AIPW, frame, propensity_score=Frequencies(), n_folds=3)
    scores = res.propensity_scores
    assert scores.nunique() == 6  # two values a fold
    assert "Frequencies, 3 folds" in str(res.summary())
    model = cr.AIPW.from_formula(f"y ~ {RHS}", frame, treat="d", propensity_score=Frequencies(), n_folds=3)
    boot = model.fit(cov_type="bootstrap", n_boot=60)
    again = fitted(cr.AIPW, frame, propensity_score=Unweighted(), n_folds=3)
    np.testing.assert_allclose(again.params, res.params, rtol=1e-12)
    assert boot.effect_se == pytest.approx(res.effect_se, rel=0.4)


def test_a_classifier_s_bootstrap_counts_repeated_rows():
    frame = simulate(200)
    draws = np.random.default_rng(0).multinomial(200, np.full(200, 1 / 200), size=3).T
    runs = [
        cr.IPWRA.from_formula(f"y ~ {RHS}", frame, treat="d", propensity_score=made).fit(resamples=draws)
        for made in (Frequencies(), Unweighted())
    ]
    np.testing.assert_allclose(runs[0].boot_params, runs[1].boot_params, rtol=1e-10)
    jre = cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d", propensity_score=Frequencies())
    assert np.isfinite(jre.fit(n_boot=10, n_replicates=10).effect_se)


def test_scikit_learn_classifiers():
    linear_model = pytest.importorskip("sklearn.linear_model")
    frame = simulate(400)
    logit = linear_model.LogisticRegression(C=1e10, tol=1e-10, max_iter=1000)
    res = fitted(cr.AIPW, frame, propensity_score=logit, n_folds=20)
    plain = fitted(cr.AIPW, frame)
    assert np.corrcoef(res.propensity_scores, plain.propensity_scores)[0, 1] > 0.99
    assert res.effect == pytest.approx(plain.effect, abs=0.2 * plain.effect_se)
    three = random_arms(300)
    several = fitted(cr.IPWRA, three, treat="arm", reference="a", propensity_score=logit)
    assert several.propensity_scores.shape == (300, 3)


def test_frequency_weights_repeat_rows_for_every_step_of_a_pipeline():
    pipeline, preprocessing = pytest.importorskip("sklearn.pipeline"), pytest.importorskip("sklearn.preprocessing")
    linear_model = pytest.importorskip("sklearn.linear_model")
    frame = simulate(200).assign(w=lambda f: np.where(f.x1 > 0, 9, 1))
    made = pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression(C=0.01))
    model = cr.IPW.from_formula(
        "y ~ x1 + x2", frame, treat="d", propensity_score=made, n_folds=2, weights="w", weight_type="frequency"
    )
    found, fold = model.fit().propensity_scores, folds_of(frame.d.to_numpy(), None, 2)
    for k in (0, 1):
        used, left = frame[fold != k], frame[["x1", "x2"]][fold == k].to_numpy()
        used = used.loc[used.index.repeat(used.w)]
        by_hand = made.fit(used[["x1", "x2"]].to_numpy(), used.d).predict_proba(left)[:, 1]
        np.testing.assert_allclose(found[fold == k], by_hand, rtol=1e-6)


def test_folds_keep_clusters_together():
    seen = []

    class Recording(Frequencies):
        def fit(self, X, y, sample_weight=None):
            assert X.shape[1] == 2  # without the constant
            seen.append(set(X[:, 1]))
            return super().fit(X, y, sample_weight)

    frame = simulate(200).assign(firm=np.arange(200) % 20)
    model = cr.AIPW.from_formula(
        f"y ~ {RHS}", frame, treat="d", propensity="x1 + firm", cluster="firm", propensity_score=Recording(), n_folds=4
    )
    model.fit()
    assert sorted(len(firms) for firms in seen) == [15, 15, 15, 15]


def test_rows_are_trimmed_by_scores_that_are_not_clipped():
    frame = simulate(400, strength=2)
    both = fitted(cr.IPWRA, frame, trim=(0.1, 0.9), clip=(0.2, 0.8))
    assert both.nobs == fitted(cr.IPWRA, frame, trim=(0.1, 0.9)).nobs < 400


def test_the_summary_counts_the_weights_that_clipping_changes():
    """Calibrated scores of two arms are of two models: each row's own counts."""
    frame = simulate(400, strength=1.5)
    free, res = (fitted(cr.IPWRA, frame, propensity_loss="calibrated", clip=clip) for clip in (None, (0.2, 0.8)))
    changed = int((free.importance_weights != res.importance_weights).sum())
    assert changed > 10 and f"{changed} to [0.2, 0.8]" in str(res.summary())


def test_a_classifier_that_is_certain_is_refused_unless_clipped():
    class Certain(Frequencies):
        def predict_proba(self, X):
            return np.column_stack([X[:, 1] <= 0, X[:, 1] > 0]).astype(float)

    frame = simulate(200)
    with pytest.raises(cr.SeparationError, match=r"Certain scores 200 of 200 rows.*as 0 or 1[^$]*clip=\(0.01, 0.99\)"):
        fitted(cr.IPWRA, frame, propensity_score=Certain())
    res = fitted(cr.IPWRA, frame, propensity_score=Certain(), clip=(0.1, 0.9))
    assert res.importance_weights.max() == pytest.approx(10)


# --- trimming and clipping ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
def test_trimming_equals_the_fit_to_the_rows_left(lalonde):
    formula = "re78 ~ age + educ + re74 + re75"
    model = cr.IPWRA.from_formula(formula, lalonde, treat="treat")
    scores = model.fit().propensity_scores
    kept = lalonde[(scores >= 0.1) & (scores <= 0.9)]
    res, plain = model.with_options(trim=(0.1, 0.9)).fit(), cr.IPWRA.from_formula(formula, kept, treat="treat").fit()
    np.testing.assert_allclose(res.params, plain.params, rtol=1e-8)
    np.testing.assert_allclose(res.bse, plain.bse, rtol=1e-8)
    assert res.estimand == "trimmed ATE" and res.nobs == len(kept) == res.in_sample.sum()
    dropped = len(lalonde) - len(kept)
    text = str(res.summary())
    assert f"{dropped} outside [0.1, 0.9]" in text
    assert res.sample_ledger.dropped.sum() == dropped
    assert f"{dropped} rows dropped: propensity score outside [0.1, 0.9]." in " ".join(text.split())


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
def test_crump_s_rule_by_hand(lalonde):
    model = cr.IPWRA.from_formula("re78 ~ age + educ", lalonde, treat="treat", propensity="age + educ + re74 + re75")
    e = model.fit().propensity_scores.to_numpy()
    spread = 1 / (e * (1 - e))

    def cost(alpha):
        inside = (e >= alpha) & (e <= 1 - alpha)
        return spread[inside].mean() / inside.mean()

    grid = np.linspace(0.001, 0.4, 4000)
    best = grid[np.argmin([cost(alpha) for alpha in grid])]
    text = str(model.with_options(trim="crump").fit().summary())
    low = float(text.partition("outside [")[2].partition(",")[0])
    assert low == pytest.approx(best, abs=0.004)
    assert cost(low) <= cost(best) * 1.001


def test_nothing_is_trimmed_where_overlap_is_good():
    frame = simulate(400, strength=0.2)
    res = fitted(cr.IPWRA, frame, trim="crump")
    assert res.nobs == 400
    np.testing.assert_allclose(res.params, fitted(cr.IPWRA, frame).params, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")  # of the fit without limits
@pytest.mark.parametrize("model", [cr.IPW, cr.IPWRA, cr.AIPW, cr.JRE])
def test_clipping_is_counted_and_changes_the_weights(model):
    frame = simulate(400, strength=2)
    res = fitted(model, frame, clip=(0.1, 0.9))
    e = fitted(model, frame).propensity_scores
    expected = 1 / np.where(frame.d == 1, np.clip(e, 0.1, 0.9), 1 - np.clip(e, 0.1, 0.9))
    np.testing.assert_allclose(res.importance_weights, expected, rtol=1e-9)
    assert f"{int(((e < 0.1) | (e > 0.9)).sum())} to [0.1, 0.9]" in str(res.summary())
    assert res.estimand == "ATE"


# --- effects on other scales -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize(
    ("effect", "form", "label"),
    [
        ("ratio", lambda m0, m1: m1 / m0, "ATE ratio"),
        ("percent", lambda m0, m1: 100 * (m1 - m0) / m0, "ATE percent"),
        ("odds_ratio", lambda m0, m1: m1 / (1 - m1) / (m0 / (1 - m0)), "ATE odds ratio"),
    ],
)
def test_effects_are_functions_of_the_means_by_the_delta_method(model, effect, form, label):
    frame = simulate(200).assign(y=lambda f: (f.y > f.y.median()).astype(float))
    made = model.from_formula(f"y ~ {RHS}", frame, treat="d", family="binomial", effect=effect)
    res = made.fit(cov_type="robust", n_replicates=10, shrinkage=1.0) if model is cr.JRE else made.fit()
    means = res.params.iloc[1:].to_numpy()
    assert res.params.index[0] == res.estimand == label
    assert res.effect == pytest.approx(form(*means), rel=1e-10)
    step = 1e-6 * np.eye(2)
    slope = np.array([(form(*(means + s)) - form(*(means - s))) / 2e-6 for s in step])
    covariance = res.cov_params().iloc[1:, 1:].to_numpy()
    assert res.effect_se == pytest.approx(np.sqrt(slope @ covariance @ slope), rel=1e-6)
    text = " ".join(str(res.summary()).split())
    tested = f"The test of {label} = {0 if effect == 'percent' else 1}"
    assert f"{tested} and the interval use the logarithm of the ratio" in text
    # The formula printed below the table, worked out with the printed means, is the effect.
    printed = text.partition(f"{label} = ")[2].partition(". The means")[0].replace("100 (", "100 * (")
    assert eval(printed, {"POM": means.tolist()}) == pytest.approx(res.effect, rel=1e-10)
    explained = " ".join(str(res.explain()).split()).partition("5. The effect")[2]
    explained = explained.partition(f" {label} = ")[2].partition(" = ")[0]
    assert explained.replace("100 (", "100 * (") == printed


def test_ratio_does_not_depend_on_the_unit_of_the_outcome():
    frame = simulate(300).assign(y=lambda f: f.y - f.y.min() + 1)
    first, other = (fitted(cr.JRE, frame.assign(y=frame.y * k), effect="ratio") for k in (1, 1000))
    assert other.effect == pytest.approx(first.effect, rel=1e-9)
    assert other.effect_se == pytest.approx(first.effect_se, rel=1e-6)


def test_a_ratio_of_means_below_zero_is_refused():
    frame = simulate(200).assign(y=lambda f: f.y - 50)
    with pytest.raises(cr.CausalRiskError, match=r'effect="ratio" needs positive means; POM\[0\] is -[^$]*difference'):
        fitted(cr.IPWRA, frame, effect="ratio")


# --- outcome families --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "link", "made"),
    [
        ("binomial", None, sm.families.Binomial()),
        ("binomial", "probit", sm.families.Binomial(sm.families.links.Probit())),
        ("binomial", "cloglog", sm.families.Binomial(sm.families.links.CLogLog())),
        ("poisson", None, sm.families.Poisson()),
        ("gamma", None, sm.families.Gamma(sm.families.links.Log())),
        ("inversegaussian", None, sm.families.InverseGaussian(sm.families.links.Log())),
        ("gaussian", "log", sm.families.Gaussian(sm.families.links.Log())),
        (sm.families.NegativeBinomial(alpha=0.5), None, sm.families.NegativeBinomial(alpha=0.5)),
    ],
    ids=[
        "logit",
        "probit",
        "cloglog",
        "poisson",
        "gamma",
        "inverse Gaussian",
        "gaussian log",
        "negative binomial",
    ],
)
def test_outcome_models_equal_statsmodels(family, link, made):
    """Fractions and non-integers too: only the variance function counts."""
    frame = simulate(400).assign(y=lambda f: 1 / (1 + np.exp(-f.y / 4)))
    res = fitted(cr.IPWRA, frame, family=family, link=link)
    for d in (0, 1):
        rows = (frame.d == d).to_numpy()
        weights = res.importance_weights[rows]
        glm = smf.glm(f"y ~ {RHS}", frame[rows], family=made, freq_weights=weights).fit(tol=1e-13, maxiter=200)
        np.testing.assert_allclose(res.outcome_params.iloc[:, d], glm.params, rtol=1e-6)
        assert res.params.iloc[1 + d] == pytest.approx(glm.predict(frame).mean(), rel=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_a_log_link_of_a_normal_outcome_converges_where_the_loss_is_concave(seed):
    rng = np.random.default_rng(seed)
    x1, x2, d = rng.normal(size=200), rng.normal(size=200), np.arange(200) % 2
    y = rng.poisson(np.exp(0.6 * (0.3 * x1 + 0.4 * x1 * x2 + 0.4 * d)))
    frame = pd.DataFrame({"y": y, "x1": x1, "x2": x2, "d": d})
    res = fitted(cr.OutcomeRegression, frame, "y ~ x1 + x2", family="gaussian", link="log")
    assert res.converged
    for arm in (0, 1):
        family = sm.families.Gaussian(sm.families.links.Log())
        glm = smf.glm("y ~ x1 + x2", frame[frame.d == arm], family=family).fit(tol=1e-13, maxiter=200)
        assert res.params.iloc[1 + arm] == pytest.approx(glm.predict(frame).mean(), rel=1e-6)


@pytest.mark.parametrize("options", [{"objective": "erm"}, {"shrinkage": 1}])
def test_joint_binary_outcomes_reach_a_minimum_by_any_method(options):
    frame = simulate(200).assign(y=lambda f: (f.y > 1).astype(int))
    model = cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d", family="binomial")
    quick = {"cov_type": "robust", "n_replicates": 10, **options}
    runs = [model.fit(**quick, **more) for more in ({}, {"method": "BFGS"}, {"method": "trust-ncg"})]
    for run in runs:
        assert run.converged
        assert run.effect == pytest.approx(runs[0].effect, rel=1e-6)


def test_one_replicate_without_spread_is_ipwra_for_a_binary_outcome():
    frame = simulate(300).assign(y=lambda f: (f.y > 1).astype(int))
    model = cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d", family="binomial")
    res = model.fit(cov_type="robust", objective="erm", replicates=np.ones((300, 1)))
    np.testing.assert_allclose(res.params, res.start.params, rtol=1e-8)
    np.testing.assert_allclose(res.bse, res.start.bse, rtol=1e-6)


def test_outcomes_a_family_does_not_know():
    frame = simulate(200)
    with pytest.raises(
        cr.DesignError, match=r"outcome 'y' has \d+ values that family='binomial'.*from 0 to 1[^$]*gaussian"
    ):
        fitted(cr.IPWRA, frame, family="binomial")
    with pytest.raises(cr.DesignError, match=r"I\(y == 2\)"):
        fitted(cr.IPWRA, frame.assign(y=frame.d + 1), family="binomial")
    with pytest.raises(cr.DesignError, match="values above zero"):
        fitted(cr.IPWRA, frame.assign(y=0.0), family="gamma")


# --- faults ------------------------------------------------------------------------------------------------------


def test_fault_42_zero_variance_outcome_in_every_family():
    frame = simulate(200).assign(y=1.0)
    with pytest.warns(cr.DesignWarning, match="constant"):
        res = fitted(cr.IPWRA, frame, effect="ratio")
    assert res.effect == 1.0 and res.effect_se < 1e-14
    assert np.isnan(res.tvalues.iloc[0])


def test_fault_46_a_linear_model_may_leave_the_unit_interval_a_logit_does_not():
    chance = np.random.default_rng(2).normal(size=300)
    frame = simulate(300, strength=1.5).assign(y=lambda f: (2 * f.x1 + f.d + chance > 0.5).astype(int))
    linear, logit = fitted(cr.IPWRA, frame), fitted(cr.IPWRA, frame, family="binomial")
    assert linear.potential_outcomes.max().max() > 1
    assert logit.potential_outcomes.max().max() <= 1 and logit.potential_outcomes.min().min() >= 0


@pytest.mark.parametrize("model", [cr.OutcomeRegression, cr.IPWRA, cr.AIPW, cr.JRE])
@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_fault_47_an_arm_of_zeros(model, family):
    frame = simulate(200).assign(y=lambda f: (f.y > 1) * f.d)
    with pytest.raises(cr.SeparationError, match=r"outcome 'y' is 0 in all rows of group '0'[^$]*family=\"gaussian\""):
        fitted(model, frame, family=family)
    with pytest.warns(cr.DesignWarning, match="does not vary within a group"):
        assert fitted(cr.IPW, frame, family=family).params.loc["POM[0]"] == 0


@pytest.mark.filterwarnings("ignore:the outcome does not vary within a group:causalrisk.DesignWarning")
@pytest.mark.parametrize("model", [cr.IPW, cr.OutcomeRegression, cr.IPWRA, cr.AIPW])
@pytest.mark.parametrize(("constant", "effect"), [(0, "ratio"), (0, "odds_ratio"), (1, "odds_ratio")])
def test_means_on_a_bound_of_the_scale_are_refused_whatever_the_rounding(model, constant, effect):
    frame = simulate(200).assign(y=lambda f: abs((f.y > 1) * f.d - constant))
    with pytest.raises(cr.CausalRiskError, match=rf"POM\[0\] is {constant}\."):
        fitted(model, frame, effect=effect)


def test_fault_47_separation_within_an_arm():
    frame = simulate(200).assign(y=lambda f: np.where(f.d == 1, f.x1 > 0, f.y > 1).astype(int))
    with pytest.raises(cr.SeparationError, match=r"of group '1' has no finite fit[^$]*Simplify"):
        fitted(cr.IPWRA, frame, family="binomial")
    both = frame.assign(y=(frame.x1 + frame.x2 > 0).astype(int))
    for source, terms in ((both, "'x.', 'x.' predict 'y'"), (cr.scan([both]), "a combination of the terms ")):
        with pytest.raises(cr.SeparationError, match=f"group '0' has no finite fit: {terms}"):
            cr.OutcomeRegression.from_formula("y ~ x1 + x2", source, treat="d", family="binomial").fit()


def test_fault_48_weights_with_a_target_and_a_family():
    frame = simulate(300).assign(y=lambda f: (f.y > 1).astype(int), w=np.random.default_rng(1).integers(1, 4, 300))
    repeated = frame.loc[frame.index.repeat(frame.w)].reset_index(drop=True)
    options = {"target": "overlap", "family": "binomial"}
    weighted = fitted(cr.IPWRA, frame, weights="w", weight_type="frequency", **options)
    np.testing.assert_allclose(weighted.params, fitted(cr.IPWRA, repeated, **options).params, rtol=1e-9)
    np.testing.assert_allclose(weighted.bse, fitted(cr.IPWRA, repeated, **options).bse, rtol=1e-9)
    with pytest.raises(cr.DesignError, match="negative"):
        fitted(cr.IPWRA, frame.assign(w=-frame.w), weights="w", weight_type="frequency", **options)


def test_classifiers_that_cannot_be_fitted_are_refused():
    neighbors = pytest.importorskip("sklearn.neighbors")
    options = {"propensity_score": neighbors.KNeighborsClassifier()}  # takes no weights
    frame = simulate(200).assign(w=np.linspace(0.5, 1.5, 200))
    with pytest.raises(cr.OptionError, match=r"has no sample_weight[^$]*propensity_score=LogisticRegression\(\)"):
        fitted(cr.IPWRA, frame, weights="w", weight_type="probability", **options)
    with pytest.raises(cr.OptionError, match="is a class"):
        fitted(cr.IPWRA, frame, propensity_score=neighbors.KNeighborsClassifier)
    with pytest.raises(cr.OptionError, match="KNeighborsRegressor without predict_proba"):
        fitted(cr.IPWRA, frame, propensity_score=neighbors.KNeighborsRegressor())
    few = frame.assign(d=(frame.index < 6).astype(int), site=np.maximum(frame.index - 5, 0))
    with pytest.raises(cr.SeparationError, match="of 5, a group has no rows"):
        fitted(cr.AIPW, few, "y ~ 1", propensity="x1", cluster="site", **options)


def test_an_outcome_model_that_stops_early_is_not_called_separated(monkeypatch):
    frame = simulate(300).assign(y=lambda f: (f.y > 0).astype(int))
    model = cr.OutcomeRegression.from_formula(f"y ~ {RHS}", frame, treat="d", family="binomial")
    monkeypatch.setattr(engine, "MAX_ITERATIONS", 2)
    with pytest.warns(cr.ConvergenceWarning, match="outcome model"):
        assert not model.fit().converged

"""Standard errors of a record: failures, few clusters, contributions of the rows."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import causalrisk as cr
from tests.conftest import RHS, simulate

MODELS = [cr.OutcomeRegression, cr.IPW, cr.IPWRA, cr.AIPW, cr.JRE]
QUICK = {"n_replicates": 40}


def built(model, frame=None, **options):
    return model.from_formula(f"y ~ {RHS}", simulate(200) if frame is None else frame, treat="d", **options)


@pytest.mark.parametrize("model", MODELS)
def test_sandwich_by_hand_from_the_contributions(model):
    rng = np.random.default_rng(0)
    frame = simulate(200).assign(w=rng.uniform(0.5, 2, 200), g=rng.integers(0, 30, 200))
    res = built(model, frame, weights="w", weight_type="probability", cluster="g").fit(
        cov_type="cluster", **(QUICK if model is cr.JRE else {})
    )
    psi = res.estimating_equations()
    assert psi.index.equals(frame.index)
    by_cluster = psi.mul(frame.w, axis=0).groupby(frame.g).sum()
    covariance = by_cluster.T @ by_cluster / frame.w.sum() ** 2 * res._record.choice_variance
    np.testing.assert_allclose(covariance.iloc[:3, :3], res.cov_params(), rtol=1e-10)
    names = [f"outcome[1]: {term}" for term in res.outcome_params.index]
    np.testing.assert_allclose(np.sqrt(np.diag(covariance.loc[names, names])), res.outcome_bse["1"], rtol=1e-9)
    if model is not cr.OutcomeRegression:
        names = [f"propensity: {term}" for term in res.propensity_params.index]
        np.testing.assert_allclose(np.sqrt(np.diag(covariance.loc[names, names])), res.propensity_bse, rtol=1e-9)
    np.testing.assert_allclose(psi.mul(frame.w, axis=0).sum() / psi.abs().sum(), 0, atol=1e-10)


def test_cluster_robust_errors_against_hand_summed_scores():
    """Coefficients of a least-squares fit in each arm, by hand as R's package sandwich has them.

    sandwich::vcovCL(lm(y ~ 0 + factor(d) + factor(d):x1), cluster = ~ g, type = "HC0", cadjust = FALSE) is CR0, and
    its default, type = "HC1" with cadjust = TRUE, is CR1, which has the factor G/(G-1) (n-1)/(n-k).
    """
    frame = simulate(200).assign(g=np.arange(200) % 20)
    model = cr.OutcomeRegression.from_formula("y ~ x1", frame, treat="d", cluster="g")
    res = model.fit()
    x, d = frame.x1.to_numpy(), frame.d.to_numpy()
    design = np.column_stack([1 - d, (1 - d) * x, d, d * x])
    by_hand = hand_summed(design, frame.y.to_numpy(), frame.g.to_numpy())
    names = [f"outcome[{a}]: {t}" for a in (0, 1) for t in ("Intercept", "x1")]
    psi = res.estimating_equations()[names].groupby(frame.g).sum()
    np.testing.assert_allclose(psi.T @ psi / 200**2, by_hand, rtol=1e-9)
    np.testing.assert_allclose(res.outcome_bse.to_numpy().T.ravel(), np.sqrt(np.diag(by_hand)), rtol=1e-9)
    factor = 20 / 19 * 199 / (200 - 4)
    np.testing.assert_allclose((model.fit(small_sample=True).bse / res.bse) ** 2, factor, rtol=1e-10)


def hand_summed(design, y, cluster):
    """CR0 covariance of a least-squares fit, its scores added up within clusters one by one."""
    bread = np.linalg.inv(design.T @ design)
    scores = design * (y - design @ bread @ design.T @ y)[:, None]
    sums = [scores[cluster == g].sum(axis=0) for g in np.unique(cluster)]
    return bread @ sum(np.outer(s, s) for s in sums) @ bread


@pytest.mark.parametrize("nested", [False, True], ids=["clusters across arms", "clusters within arms"])
def test_cluster_robust_effect_is_that_of_a_plain_regression(nested):
    """Without covariates the effect is the slope of lm(y ~ d), and its cluster-robust error that of the slope.

    CR0: sandwich::vcovCL(lm(y ~ d), cluster = ~ g, type = "HC0", cadjust = FALSE)["d", "d"];
    CR1: sandwich::vcovCL(lm(y ~ d), cluster = ~ g)["d", "d"], factor G/(G-1) (n-1)/(n-k) with k = 2. statsmodels has
    the same two as use_correction=False and True.
    """
    rng = np.random.default_rng(5)
    frame = simulate(200).assign(g=rng.integers(0, 25, 200))  # clusters of unequal sizes
    frame["g"] += 25 * frame.d if nested else 0
    frame["y"] += rng.normal(size=50)[frame.g]
    n_clusters = frame.g.nunique()
    model = cr.OutcomeRegression.from_formula("y ~ 1", frame, treat="d", cluster="g")
    design = np.column_stack([np.ones(200), frame.d])
    cr0 = hand_summed(design, frame.y.to_numpy(), frame.g.to_numpy())[1, 1]
    cr1 = cr0 * n_clusters / (n_clusters - 1) * 199 / 198
    ols = sm.OLS(frame.y, design)
    for options, by_hand in (({"small_sample": False}, cr0), ({"small_sample": True}, cr1)):
        res = model.fit(cov_type="cluster", **options)
        assert res.effect_se == pytest.approx(np.sqrt(by_hand), rel=1e-10)
        theirs = ols.fit(
            cov_type="cluster", cov_kwds={"groups": frame.g, "use_correction": options["small_sample"]}
        ).bse.iloc[1]
        assert res.effect_se == pytest.approx(theirs, rel=1e-10)


def test_fault_50_few_clusters_are_told():
    frame = simulate(200).assign(g=np.arange(200) % 6)
    with pytest.warns(cr.DesignWarning, match="only 6 clusters of 'g' are in the data. With fewer than 50, normal"):
        res = built(cr.IPWRA, frame, cluster="g").fit()
    assert "Only 6 clusters of 'g' are in the data. With" in " ".join(str(res.summary()).split())
    with pytest.raises(cr.DesignError, match="g"):
        built(cr.IPWRA, frame.assign(g=1), cluster="g")
    missing = built(cr.IPWRA, frame.assign(g=np.where(np.arange(200) < 3, np.nan, np.arange(200))), cluster="g")
    assert missing.fit().nobs == 197


def test_fault_50_more_clusters_than_rows_cannot_be():
    """Levels of a category without rows are no clusters; a cluster for each row is no clustering."""
    frame = simulate(200)
    levels = pd.Categorical.from_codes(np.arange(200) % 50, [f"c{k}" for k in range(1000)])
    used = built(cr.IPWRA, frame.assign(g=levels), cluster="g").fit(small_sample=True)
    plain = built(cr.IPWRA, frame.assign(g=np.arange(200) % 50), cluster="g").fit(small_sample=True)
    np.testing.assert_array_equal(used.bse, plain.bse)
    assert "g (50)" in str(used.summary())


def alone(n=200, clusters=20):
    """A treatment group in a single cluster; its scores sum to zero there."""
    frame = simulate(n)
    return frame.assign(g=np.where(frame.d == 1, 0, 1 + np.arange(n) % (clusters - 1)))


ONE_CLUSTER = "(?s)only one cluster of 'g' is in group '1', so clustered .* cannot be estimated. They are NaN.*"


@pytest.mark.parametrize("options", [{}, {"cov_type": "jackknife", "use_t": True}, {"n_boot": 50}], ids=str)
@pytest.mark.parametrize("model", [*MODELS, cr.TMLE])
def test_fault_61_an_arm_with_a_single_cluster(model, options):
    with pytest.warns(cr.DesignWarning, match=ONE_CLUSTER + "finer `cluster=`.*permutation_test"):
        res = built(model, alone(), cluster="g").fit(**options, **(QUICK if model is cr.JRE else {}))
    plain = built(model, alone()).fit(cov_type="robust", **(QUICK if model is cr.JRE else {}))
    if model is not cr.JRE:  # clusters are kept together in its cross-validation
        np.testing.assert_array_equal(res.params, plain.params)
    assert res.params.notna().all()
    frame = res.summary_frame()
    assert frame.drop(columns="estimate").isna().all(axis=None)
    assert res.cov_params().isna().all(axis=None) and res.conf_int(method="percentile").isna().all(axis=None)
    assert "They are NaN" in " ".join(str(res.summary()).split())
    if model is not cr.OutcomeRegression:
        assert np.isnan(res.propensity_bse).all()


def test_results_after_an_arm_with_a_single_cluster(tmp_path):
    with pytest.warns(cr.DesignWarning, match=ONE_CLUSTER):
        res = built(cr.JRE, alone(), cluster="g").fit(**QUICK)
    assert res.start.bse.isna().all() and np.isnan(res.pairwise()["std err"]).all()
    assert res.effects_by(pd.Series(alone().x1 > 0, name="high"))["std err"].isna().all()
    assert np.isnan(res.sensitivity().iloc[0]["robustness value of limit"])
    res.report(tmp_path / "a.html")
    report = (tmp_path / "a.html").read_text()
    assert "explain the effect away" in report and "With nan" not in report
    with pytest.raises(cr.UnavailableError, match='statistic="difference"'):
        res.permutation_test(n_permutations=3)
    assert res.permutation_test(n_permutations=3, statistic="difference").pvalue > 0
    with pytest.warns(cr.DesignWarning, match=ONE_CLUSTER):
        both = cr.compare(f"y ~ {RHS}", alone(), treat="d", cluster="g", estimators=["IPW", "AIPW"], n_boot=50,
                          bootstrap="bayesian")  # fmt: skip
    assert both.table["std err"].isna().all() and both.differences["std err"].isna().all()


def test_the_only_cluster_of_a_group_with_two_ways_or_two_clusters():
    frame = alone(clusters=2)
    with pytest.warns(cr.DesignWarning, match=r"(?s)Use a finer `cluster=`\.$"):  # two clusters have no permutations
        assert built(cr.IPWRA, frame, cluster="g").fit().bse.isna().all()
    with pytest.warns(cr.DesignWarning, match=ONE_CLUSTER) as caught:
        res = built(cr.IPWRA, alone().assign(h=np.arange(200) % 8), cluster=["h", "g"]).fit()
    assert res.bse.isna().all() and len(caught) == 1
    design = cr.Survey(psu="g", weights="w")  # has its own rules
    survey = built(cr.IPWRA, alone().assign(w=1.0), design=design).fit()
    assert survey.bse.notna().all()


def test_numbers_of_clusters_that_lost_digits_are_refused():
    """Two whole numbers of 18 digits are one float, and their clusters would be one."""
    frame = simulate(200).assign(g=lambda f: 1e17 + np.arange(200) // 10)
    with pytest.raises(cr.DesignError, match=r"lose digits as floats(?s:.)*dtype="):
        built(cr.IPWRA, frame, cluster="g")


def test_fault_61_strata_and_clusters_together_or_a_stratum_of_one_row():
    frame = simulate(200).assign(g=np.arange(200) % 20)
    with pytest.raises(
        cr.OptionError, match=r'(?s)bootstrap="stratified" treats rows as independent.*bootstrap="cluster"'
    ):
        built(cr.IPWRA, frame, cluster="g").fit(bootstrap="stratified")
    alone = frame.drop(index=np.flatnonzero(frame.d == 1)[1:])
    with pytest.raises(cr.DesignError, match="group '1' has 1 row"):
        cr.IPW.from_formula("y ~ x1", alone, treat="d").fit(bootstrap="stratified")


def test_fault_51_52_failed_resamples_are_counted_once_and_left_out():
    frame = simulate(60, strength=0.8)
    draws = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=50).T
    draws[:, 7] = np.where(frame.d == 0, draws[:, 7], 0)
    separated = np.where((frame.x1 > 0) == (frame.d == 1), 1, 0)
    draws[:, 8] = separated
    with pytest.warns(cr.ResampleWarning) as caught:
        res = built(cr.IPWRA, frame).fit(resamples=draws, max_failed=0.5)
    assert len(caught) == 1
    assert res.boot_ledger.reason[7] == "a group had no rows"
    assert "perfectly" in res.boot_ledger.reason[8]
    assert res.boot_params.iloc[[7, 8]].isna().all(axis=None)
    used = res.boot_ledger.used
    np.testing.assert_allclose(res.bse, res.boot_params[used].std(ddof=1), rtol=1e-12)
    assert f"{used.sum()} of 50 used" in str(res.summary())


def test_fault_53_all_resamples_fail():
    frame = simulate(100)
    draws = np.tile((frame.d == 0).to_numpy()[:, None], 20)
    with pytest.raises(
        cr.BootstrapError, match=r"(?s)20 of 20 resamples failed.*a group had no rows.*robust"
    ) as caught:
        built(cr.JRE, frame).fit(resamples=draws, **QUICK)
    kept = caught.value.results
    assert kept.effect == built(cr.JRE, frame).fit(cov_type="robust", **QUICK).effect
    assert np.isfinite(kept.bse).all()
    assert isinstance(kept.start.model, cr.IPWRA)


def test_progress_with_and_without_tqdm(monkeypatch, capsys):
    built(cr.IPWRA).fit(cov_type="bootstrap", n_boot=70, progress=True)
    assert "70/70" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    built(cr.IPWRA).fit(cov_type="bootstrap", n_boot=70)
    with pytest.raises(cr.UnavailableError, match=r"tqdm.*\nUse"):
        built(cr.IPWRA).fit(cov_type="bootstrap", n_boot=70, progress=True)


def test_given_multiplicities_carry_the_probability_weights():
    frame = simulate(200).assign(w=np.random.default_rng(1).uniform(0.5, 2, 200))
    ones = np.ones((200, 3))
    weighted = built(cr.JRE, frame, weights="w", weight_type="probability")
    res = weighted.fit(objective="erm", replicates=ones, resamples=ones)
    ipwra = built(cr.IPWRA, frame, weights="w", weight_type="probability").fit()
    np.testing.assert_allclose(res.params, ipwra.params, rtol=1e-10)
    np.testing.assert_allclose(res.boot_params, np.tile(ipwra.params, (3, 1)), rtol=1e-9)


def test_contributions_of_a_target_frame_and_without_a_propensity_model():
    """Rows of the sample, then those of the frame: together they give the standard errors."""
    sample = simulate(200)
    frame = sample.head(60).assign(x1=lambda f: f.x1 / 2).set_index(np.arange(1000, 1060))
    res = built(cr.IPWRA, sample, target=frame).fit()
    psi = res.estimating_equations()
    assert psi.index.tolist() == [*(("sample", i) for i in sample.index), *(("target", i) for i in frame.index)]
    np.testing.assert_allclose(psi.iloc[:, :3].T @ psi.iloc[:, :3] / 200**2, res.cov_params(), rtol=1e-10)
    assert psi.columns[-1] == "propensity: membership: x3"
    for other in (built(cr.OutcomeRegression), built(cr.IPWRA, sample.assign(e=0.5), propensity_score="e")):
        names = other.fit().estimating_equations().columns
        assert list(names[-2:]) == ["outcome[1]: x2", "outcome[1]: x3"]


@pytest.mark.parametrize("blocks", [False, True], ids=["memory", "scan"])
@pytest.mark.parametrize("clustered", [False, True])
def test_small_samples_of_counted_rows_with_a_target_frame_are_those_of_the_rows_written_out(blocks, clustered):
    frame = simulate(120).assign(count=1 + np.arange(120) % 3, id=np.arange(120) // 4)
    written = frame.loc[frame.index.repeat(frame["count"])].reset_index(drop=True)
    of = {"treat": "d", "target": simulate(40, seed=5), "cluster": "id" if clustered else None}
    fits = []
    for rows, weights in ((frame, {"weights": "count", "weight_type": "frequency"}), (written, {})):
        source = cr.scan([rows[:70], rows[70:]]) if blocks else rows
        model = cr.IPWRA.from_formula(f"y ~ {RHS}", source, **of, **weights)
        fits.append(model.fit(small_sample=True) if clustered else model.fit(cov_type="HC1"))
    np.testing.assert_allclose(fits[0].bse, fits[1].bse, rtol=1e-9)

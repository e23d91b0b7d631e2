"""Randomisation inference: against full enumeration, scipy, and fits to data whose treatment is permuted by hand."""

from __future__ import annotations

import itertools
import math
import pickle
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

import causalrisk as cr
from causalrisk.models.estimators import Unadjusted
from causalrisk.models.permutation import assignment_of, coded_strata
from causalrisk.numerics.resampling import seed_sequence
from tests.conftest import simulate
from tests.end_to_end.test_faults import raises_with

pytestmark = pytest.mark.filterwarnings("ignore:group .* observations. Robust standard errors")  # trials of eight

EIGHT = pd.DataFrame({"d": [1, 0, 0, 1, 1, 0, 1, 0], "y": [3.1, 0.2, 1.4, 2.2, 5.0, -0.3, 1.9, 2.6]})
NINE = pd.DataFrame({"d": [1, 0, 0, 1, 1, 0, 0, 0, 0], "y": [0.3, 0.2, 1.4, 2.2, -5.0, -0.3, 1.9, 2.6, 0.8]})


def assigned(res, strata=None, arm=1):
    design = res._record.design
    return assignment_of(design, *coded_strata(design, strata, None), arm)


def unadjusted(data, **options):
    return Unadjusted.from_formula("y ~ 1", data, treat="d", **options).fit()


def mean_difference(a, b):
    return a.mean() - b.mean()


def studentized(a, b):
    return (a.mean() - b.mean()) / math.sqrt(a.var() / len(a) + b.var() / len(b))


@pytest.mark.parametrize("data", [EIGHT, NINE], ids=["4 + 4", "3 + 6"])
@pytest.mark.parametrize(("statistic", "of"), [("difference", mean_difference), ("studentized", studentized)])
@pytest.mark.parametrize(("alternative", "scipys"), [("larger", "greater"), ("smaller", "less"), ("two-sided", None)])
def test_every_assignment_as_scipy_lists_them(data, statistic, of, alternative, scipys):
    found = unadjusted(data).permutation_test("all", statistic=statistic, alternative=alternative)
    sides = of if scipys else lambda a, b: abs(of(a, b))  # "two-sided" of scipy doubles a tail
    arms = (data.y[data.d == 1].to_numpy(), data.y[data.d == 0].to_numpy())
    known = stats.permutation_test(arms, sides, alternative=scipys or "greater", n_resamples=np.inf)
    assert found.exact and found.mc_se == 0
    assert found.pvalue == pytest.approx(known.pvalue, abs=1e-12)
    assert found.statistic == pytest.approx(of(*arms), rel=1e-10)
    null = found.null_distribution if scipys else np.abs(found.null_distribution)
    np.testing.assert_allclose(np.sort(null), np.sort(known.null_distribution), rtol=1e-9, atol=1e-12)


def test_seventy_assignments_of_four_and_four_are_taken_without_being_asked_for():
    res = unadjusted(EIGHT)
    assert res.permutation_test().n_permutations == res.permutation_test(70).n_permutations == 70
    drawn = res.permutation_test(69)
    assert drawn.n_permutations == 69 and not drawn.exact
    extreme = (np.abs(drawn.null_distribution) >= abs(drawn.statistic) * (1 - 1e-9)).sum()
    assert drawn.pvalue == (1 + extreme) / 70
    assert drawn.mc_se == pytest.approx(math.sqrt(drawn.pvalue * (1 - drawn.pvalue) / 70))


def test_draws_within_strata_are_equally_likely():
    data = EIGHT.assign(site=["a", "a", "a", "a", "b", "b", "c", "c"])
    made = assigned(unadjusted(data), data.site)
    drawn = made.drawn(seed_sequence(0), 0, 6000)
    for site in "abc":
        assert (drawn[data.site == site].sum(axis=0) == data.d[data.site == site].sum()).all()
    kinds, counts = np.unique(drawn, axis=1, return_counts=True)
    assert kinds.shape[1] == made.count == 6 * 2 * 2
    assert stats.chisquare(counts).pvalue > 0.01
    np.testing.assert_array_equal(made.drawn(seed_sequence(0), 0, 20), drawn[:, :20])  # however wide a block is


N = 120
PAIRS = np.r_[np.repeat([0, 1], 2), np.arange(2, N - 2)]  # two pairs can change places, and nothing else


def pairs():
    """Data whose first four rows are two pairs of a treated and an untreated one."""
    data = simulate(n=N, seed=5)
    rows = np.arange(N)
    treated, control = np.flatnonzero(data.d == 1), np.flatnonzero(data.d == 0)
    first = [treated[0], control[0], treated[1], control[1]]
    data = data.iloc[[*first, *np.setdiff1d(rows, first)]].reset_index(drop=True)
    return data.assign(
        ill=(data.y > 0).astype(int),
        w=1.0 + rows % 3,
        f=1 + rows % 2,
        rare=((rows == 0) | (rows == np.flatnonzero(data.d == 0)[-1])).astype(int),
        site=rows % 30,
        u=1 + rows % 4 / 2,
    )


DATA = pairs()


def swapped(data, column="d"):
    """The data under each of the four assignments, that of the fit first."""
    for one, other in itertools.product([False, True], repeat=2):
        order = np.r_[[1, 0] if one else [0, 1], [3, 2] if other else [2, 3], np.arange(4, len(data))]
        yield data.assign(**{column: data[column].to_numpy()[order]})


class StartOfStack:
    """The IPWRA fit that a stack starts from."""

    @staticmethod
    def from_formula(**options):
        model = cr.JRE.from_formula(**options)
        return SimpleNamespace(fit=lambda cov_type: model.fit(cov_type=cov_type, n_replicates=20).start)


CASES = {
    "outcome regression": (cr.OutcomeRegression, {}),
    "the treated": (cr.OutcomeRegression, {"target": "treated"}),
    "ratio": (cr.OutcomeRegression, {"formula": "ill ~ x1 + x2", "effect": "ratio"}),
    "another population": (cr.OutcomeRegression, {"target": DATA.head(50)}),
    "clusters": (cr.OutcomeRegression, {"cluster": np.r_[0, 0, 1, 1, np.arange(N - 4) // 2 + 2]}),
    "clusters, another population": (
        cr.OutcomeRegression, {"target": DATA.head(50), "cluster": np.r_[0, 0, 1, 1, np.arange(N - 4) // 2 + 2]}
    ),
    "level without rows": (cr.OutcomeRegression, {"formula": "y ~ x1 + rare"}),
    "logistic": (cr.OutcomeRegression, {"formula": "ill ~ x1 + x2", "family": "binomial", "effect": "odds_ratio"}),
    "rates": (cr.OutcomeRegression, {"formula": "ill ~ x1", "family": "poisson", "exposure": "u", "effect": "percent"}),
    "learner": (cr.OutcomeRegression, {"learner": "smooth", "n_repeats": 3}),
    "IPWRA": (cr.IPWRA, {"target": "overlap"}),
    "AIPW": (cr.AIPW, {"weights": "w", "weight_type": "probability"}),
    "JRE": (cr.JRE, {}),
    "stack": (cr.JRE, {"learner": "smooth"}),
    "start of a stack": (StartOfStack, {"learner": "smooth"}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
@pytest.mark.parametrize(("estimator", "options"), CASES.values(), ids=CASES)
def test_a_permutation_is_a_fit_to_permuted_data(estimator, options):
    def fit(data):
        return estimator.from_formula(**{"formula": "y ~ x1 + x2", "data": data, "treat": "d"} | options).fit(
            cov_type="cluster" if "cluster" in options else "robust"
        )

    found = fit(DATA).permutation_test(strata=PAIRS)
    z = [fit(data).tvalues.iloc[0] for data in swapped(DATA)]
    assert found.n_permutations == 4
    np.testing.assert_allclose(found.null_distribution[np.argsort(found.null_distribution)], np.sort(z), rtol=1e-7)
    assert found.statistic == pytest.approx(z[0], rel=1e-9)
    assert found.pvalue == (np.abs(z) >= abs(z[0]) * (1 - 1e-9)).mean()


def by_village():
    """Six villages of unequal sizes, each in one arm; 20 assignments."""
    sizes, rng = [3, 5, 8, 4, 9, 6], np.random.default_rng(2)
    village = np.repeat(np.arange(6), sizes)
    arm = np.array([0, 1, 1, 0, 0, 1])
    x = rng.normal(size=len(village))
    y = x + rng.normal(size=6)[village] + 0.5 * arm[village] + rng.normal(size=len(village))
    return pd.DataFrame({"y": y, "x": x, "village": village, "d": arm[village], "county": (village > 2).astype(int)})


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")  # few clusters
def test_clusters_of_one_arm_are_permuted_as_a_whole():
    data = by_village()

    def fit(d):
        model = cr.OutcomeRegression.from_formula("y ~ x", data.assign(d=d), treat="d", cluster="village")
        return model.fit().tvalues.iloc[0]

    found = fit_villages(data).permutation_test()
    z = [fit(np.isin(data.village, treated).astype(int)) for treated in itertools.combinations(range(6), 3)]
    np.testing.assert_allclose(np.sort(found.null_distribution), np.sort(z), rtol=1e-8)
    assert found.pvalue == (np.abs(z) >= abs(found.statistic) * (1 - 1e-9)).sum() / 20
    within = fit_villages(data).permutation_test(strata="county", data=data)
    assert within.n_permutations == 9  # three assignments in each county
    z = [
        fit(np.isin(data.village, (*west, *east)).astype(int))
        for west, east in itertools.product(itertools.combinations(range(3), 2), [(3,), (4,), (5,)])
    ]
    np.testing.assert_allclose(np.sort(within.null_distribution), np.sort(z), rtol=1e-8)


def fit_villages(data, **options):
    return cr.OutcomeRegression.from_formula("y ~ x", data, treat="d", cluster="village", **options).fit()


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
def test_where_the_treatment_varies_within_each_cluster_rows_are_permuted_within_them():
    data = by_village()
    data["d"] = np.concatenate([np.arange(size) % 2 for size in [3, 5, 8, 4, 9, 6]])
    every = fit_villages(data)
    made = assigned(every)
    assert made.count == math.prod(math.comb(size, size // 2) for size in [3, 5, 8, 4, 9, 6])
    drawn = made.drawn(seed_sequence(3), 0, 40)
    for village in range(6):
        assert (drawn[data.village == village].sum(axis=0) == data.d[data.village == village].sum()).all()
    one = data.assign(d=np.where(data.village == 0, 1, data.d))
    with raises_with(cr.OptionError, "strata='village'"):
        fit_villages(one).permutation_test()
    stated = fit_villages(one).permutation_test(99, strata="village")
    assert stated.failed == 0 and len(set(stated.null_distribution)) > 50


def three_arms():
    arm = np.array(["a", "b", "c"])[(3 * DATA.d + np.arange(N)) % 5 % 3]
    return DATA.assign(arm=arm)


@pytest.mark.parametrize("estimator", [cr.OutcomeRegression, cr.IPWRA])
def test_of_several_arms_one_changes_places_with_the_reference_or_all_do_jointly(estimator):
    data = three_arms()
    res = estimator.from_formula("y ~ x1", data, treat="arm", reference="a").fit()
    moved = assigned(res, arm=2).drawn(seed_sequence(0), 0, 20)
    assert ((moved == 1) == (data.arm == "b").to_numpy()[:, None]).all() and (np.ptp(moved, axis=1) > 0).any()
    trio = np.r_[[0, 0, 0], np.arange(1, N - 2)]
    data.loc[:2, "arm"] = ["a", "b", "c"]
    res = estimator.from_formula("y ~ x1", data, treat="arm", reference="a").fit()
    orders = [[*order, *data.arm[3:]] for order in itertools.permutations("abc")]
    fits = [estimator.from_formula("y ~ x1", data.assign(arm=arm), treat="arm", reference="a").fit() for arm in orders]
    joint = res.permutation_test(strata=trio)
    wald = [np.ravel(fit.wald_test("ATE[b] = 0, ATE[c] = 0").statistic)[0] for fit in fits]
    np.testing.assert_allclose(np.sort(joint.null_distribution), np.sort(wald), rtol=1e-7)
    assert joint.asymptotic_pvalue == pytest.approx(float(res.wald_test("ATE[b] = 0, ATE[c] = 0").pvalue))
    one = res.permutation_test(strata=trio, arm="c")
    z = [fits[k].tvalues["ATE[c]"] for k, arm in enumerate(orders) if arm[1] == "b"]
    np.testing.assert_allclose(np.sort(one.null_distribution), np.sort(z), rtol=1e-7)
    with raises_with(cr.OptionError, "arm='b'"):
        res.permutation_test(alternative="larger")


def test_frequency_weights_are_refused():
    res = cr.IPWRA.from_formula("y ~ x1", DATA, treat="d", weights="f", weight_type="frequency").fit()
    with pytest.raises(cr.UnavailableError, match="frequency weights"):
        res.permutation_test(20)


@pytest.mark.parametrize("estimator", [cr.OutcomeRegression, cr.IPW])
def test_digits_depend_on_the_seed_and_not_on_workers(estimator):
    res = estimator.from_formula("y ~ x1", DATA.head(80), treat="d").fit()
    count = 3300 if estimator is cr.OutcomeRegression else 40
    alone, threads, other = (
        res.permutation_test(count, rng=rng, n_jobs=jobs) for rng, jobs in ((1, 1), (1, 2), (2, 1))
    )
    np.testing.assert_array_equal(alone.null_distribution, threads.null_distribution)
    assert (alone.null_distribution != other.null_distribution).any()
    with joblib.parallel_config("threading"):
        again = res.permutation_test(count, rng=1, n_jobs=2)
    np.testing.assert_array_equal(alone.null_distribution, again.null_distribution)


def test_studentized_it_holds_for_the_average_effect_where_variances_differ():
    """The weak hypothesis: no average effect, and a small arm of large variance."""
    rng = np.random.default_rng(0)
    d = np.r_[np.ones(150), np.zeros(600)].astype(int)
    y = np.where(d == 1, 4.0, 1.0) * rng.normal(size=750)
    res = unadjusted(pd.DataFrame({"y": y, "d": d}))
    found, raw = res.permutation_test(1999), res.permutation_test(1999, statistic="difference")
    normal = res.pvalues.iloc[0]
    assert found.asymptotic_pvalue == pytest.approx(normal)
    assert abs(found.pvalue - normal) < 5 * found.mc_se + 0.01
    assert raw.pvalue < normal / 2  # twice the standard error of a permutation is missing


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
@pytest.mark.parametrize("alternative", ["two-sided", "larger", "smaller"])
def test_permutations_without_an_estimate_count_as_extreme(alternative):
    # it separates the groups if the first pair changes places
    far = np.where(DATA.d == 1, 1.0, -1.0) * (1 + DATA.x1.abs())
    far.iloc[:4] *= [-1, -1, 0, 0]
    model = cr.IPW.from_formula("y ~ 1", DATA.assign(far=far), treat="d", propensity="far")
    with pytest.warns(cr.ResampleWarning):
        found = model.fit().permutation_test(strata=PAIRS, alternative=alternative)
    null = found.null_distribution
    assert found.failed == np.isnan(null).sum() == 2
    worked, t = null[np.isfinite(null)], found.statistic
    worked = np.where(np.isclose(worked, t, rtol=1e-9), t, worked)  # the assignment of the fit
    beyond = {"two-sided": np.abs(worked) >= abs(t), "larger": worked >= t, "smaller": worked <= t}[alternative]
    assert found.pvalue == (beyond.sum() + 2) / 4
    assert "count as extreme: 2." in " ".join(str(found.summary()).split())


def test_an_effect_without_sampling_error_has_a_difference_only():
    data = pd.DataFrame({"d": [0, 1] * 4, "y": [0.0, 1.0] * 4})
    with pytest.warns(cr.DesignWarning):
        res = unadjusted(data)
    with raises_with(cr.UnavailableError, 'statistic="difference"'):
        res.permutation_test()
    assert res.permutation_test(statistic="difference").pvalue == 2 / 70


def test_known_scores_that_differ_are_strata():
    rng = np.random.default_rng(1)
    data = DATA.assign(chance=np.where(np.arange(N) % 3 > 0, 0.4, 0.6))
    data = data.assign(d=(rng.random(N) < data.chance).astype(int))
    res = cr.AIPW.from_formula("y ~ x1", data, treat="d", propensity_score="chance").fit()
    with raises_with(cr.OptionError, "strata='chance', data=data"):
        res.permutation_test(9)
    within = cr.AIPW.from_formula("y ~ x1", data, treat="d", propensity_score="chance", cluster="chance")
    with pytest.warns(cr.DesignWarning):
        assert within.fit().permutation_test(3).n_permutations == 3
    assert res.permutation_test(9, strata=["chance", data.site % 2], data=data).n_permutations == 9


def test_what_cannot_be_permuted_is_refused(tmp_path):
    res = unadjusted(EIGHT)
    with pytest.raises(cr.OptionError, match="n_permutations"):
        res.permutation_test(1.5)
    with raises_with(cr.OptionError, "strata="):
        res.permutation_test(strata=EIGHT.index)
    with raises_with(cr.OptionError, "n_permutations=9999"):
        unadjusted(DATA).permutation_test("all")
    with pytest.raises(cr.OptionError, match="rng='a'; expected"):
        res.permutation_test("all", rng="a")
    data = by_village()
    with pytest.warns(cr.DesignWarning):
        clustered = fit_villages(data)
    with raises_with(cr.OptionError, "strata="):
        clustered.permutation_test(strata=data.x > 0)
    EIGHT.to_csv(tmp_path / "eight.csv", index=False)
    scanned = cr.IPW.from_formula("y ~ 1", cr.scan(tmp_path / "eight.csv"), treat="d", propensity="1").fit()
    with raises_with(cr.UnavailableError, "data=causalrisk.scan(data).collect()"):
        scanned.permutation_test()
    given = cr.JRE.from_formula("y ~ x1", DATA, treat="d").fit(cov_type="robust", replicates=np.ones((N, 3)))
    with raises_with(cr.UnavailableError, "res.model.fit().permutation_test()"):
        given.permutation_test()


def test_jre_with_multipliers_is_permuted_as_with_resamples():
    model = cr.JRE.from_formula("y ~ x1", DATA, treat="d")
    found = [model.fit(n_boot=9, bootstrap=kind).permutation_test(5) for kind in ("pairs", "multiplier")]
    assert np.array_equal(found[0].null_distribution, found[1].null_distribution)


def test_the_results_say_what_was_done():
    res = unadjusted(EIGHT)
    found = res.permutation_test()
    assert f"{found.statistic:.3f}" in str(found.summary()) and "70 assignments" in repr(found)
    (row,) = found.tidy().to_dict("records")
    assert row["term"] == "ATE" and row["p_value"] == found.pvalue and row["statistic"] == found.statistic
    assert pickle.loads(pickle.dumps(found)).pvalue == found.pvalue
    assert "all 70 assignments" in found.methods() and "seed" not in found.methods()
    assert "from seed 3." in res.permutation_test(20, rng=3).methods()
    with pytest.raises(cr.UnavailableError, match=r"`pvalues`.\nDid you mean `pvalue`"):
        found.pvalues  # noqa: B018
    with pytest.raises(cr.UnavailableError, match=r"Use `res\.|`res.params`"):
        found.conf_int()


def test_the_permutations_are_drawn_with_the_statistic_of_the_fit():
    found = unadjusted(EIGHT).permutation_test()
    ax = found.plot(Figure().subplots())
    assert sum(bar.get_height() for bar in ax.patches) == np.isfinite(found.null_distribution).sum()
    assert {line.get_xdata()[0] for line in ax.get_lines()} == {found.statistic, -found.statistic}


@pytest.mark.parametrize(
    ("estimator", "options", "given", "count", "told"),
    [
        (cr.OutcomeRegression, {}, (), 9999, False),
        (cr.IPWRA, {}, (), 199, True),
        (cr.IPW, {"propensity": "1"}, (9,), 9, False),
    ],
)
def test_the_default_is_quick_and_an_adjusted_treatment_is_told(estimator, options, given, count, told):
    found = estimator.from_formula("y ~ x1", DATA.head(60), treat="d", **options).fit().permutation_test(*given)
    assert found.n_permutations == count
    assert ("for randomized trials" in repr(found)) is told
    assert ("observational" in str(found.summary())) is told


def test_two_way_clusters_count_in_every_permutation():
    """With a constant score, IPWRA, which refits every permutation, is the outcome regression."""
    data = simulate(n=120, seed=3).assign(a=lambda rows: np.arange(len(rows)) // 12, b=lambda rows: np.arange(120) % 6)
    options = {"treat": "d", "cluster": ["a", "b"]}
    tests = [
        model.from_formula("y ~ x1", data, **options, **more).fit().permutation_test(19, strata="a", data=data)
        for model, more in ((cr.OutcomeRegression, {}), (cr.IPWRA, {"propensity": "1"}))
    ]
    assert tests[0].statistic == pytest.approx(tests[1].statistic, rel=1e-9)
    np.testing.assert_allclose(tests[0].null_distribution, tests[1].null_distribution, rtol=1e-7)


@pytest.mark.parametrize("cluster", [["village", "month"], ["month", "village"]])
def test_of_two_ways_of_clusters_the_assigned_one_is_permuted(cluster):
    rng, village = np.random.default_rng(0), np.repeat(np.arange(12), 10)
    data = pd.DataFrame({"village": village, "month": np.tile(np.arange(10), 12), "d": village % 2})
    res = cr.Unadjusted.from_formula("y ~ 1", data.assign(y=rng.normal(size=120)), treat="d", cluster=cluster).fit()
    test = res.permutation_test(statistic="difference", n_permutations=99)
    assert "the 12 clusters (village) as a whole" in str(test.summary()).replace("\n    ", " ")


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")  # few clusters
@pytest.mark.parametrize("cluster", [["village", "district"], ["district", "village"]])
def test_of_nested_clusters_the_larger_are_permuted(cluster):
    rng, village = np.random.default_rng(0), np.repeat(np.arange(12), 10)
    data = pd.DataFrame({"village": village, "district": village // 2, "d": village // 2 % 2})
    res = cr.Unadjusted.from_formula("y ~ 1", data.assign(y=rng.normal(size=120)), treat="d", cluster=cluster).fit()
    test = res.permutation_test(statistic="difference", n_permutations="all")
    assert "the 6 clusters (district) as a whole" in str(test.summary()).replace("\n    ", " ")
    assert test.n_permutations == 20

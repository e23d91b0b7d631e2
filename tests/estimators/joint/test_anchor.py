"""The anchor and its choice: against another hand, what does not move it, and what follows it."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.estimators.joint.anchor import BEYOND, CAUTION, EXCESS_VARIANCE, LADDER, mean_anchor, shares_of_least
from causalrisk.estimators.joint.equations import RowsAtSolution
from causalrisk.estimators.joint.influence import known_score_sums, known_terms, weight_products
from causalrisk.estimators.joint.leave_one_out import RowParts, steps_without_clusters, steps_without_rows
from causalrisk.estimators.joint.objective import bias_contrasts
from causalrisk.estimators.joint.train import Trainer, joint_criterion
from causalrisk.simulation.designs import Linear, find_design
from tests.conftest import simulate
from tests.problems import RISK, problem
from tests.studies.study_defaults import Rows, Setting, choose, fractional_weights, held_out, solve, winners

COVARIATES = ["x1", "x2", "x3", "x4"]
FORMULA = f"y ~ {' + '.join(COVARIATES)}"


def sample_of(name, n=300, seed=3):
    return find_design(name).draw(n, np.random.default_rng(seed)).data


def weights_of(n, seed=8):
    return fractional_weights(n, 20, 0.5, np.random.default_rng(seed))


def fitted(
    data, *, cov_type="robust", resamples=None, anchor=None, replicates=None, n_boot=None, share=None, **options
):
    model = cr.JRE.from_formula(FORMULA, data, treat="d", **options)
    replicates = weights_of(len(data)) if replicates is None else replicates
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        return model.fit(
            cov_type=cov_type, replicates=replicates, resamples=resamples, anchor=anchor, n_boot=n_boot, share=share
        )


def prototype(data, weights=None, share=None):
    return Rows(data, COVARIATES, COVARIATES, weights_of(len(data)) if weights is None else weights, share)


def chosen(path):
    return path.index[path["chosen"]].item()


def held_out_anchor(path):
    return path.index[path["held out"]].item()


@pytest.mark.parametrize("name", ["strong", "kang_schafer", "linear_strong", "heavy_tails"])
@pytest.mark.parametrize("share", [None, 0.0])
def test_every_anchor_against_the_normal_equations_written_apart(name, share):
    """The prototype of the studies: plain numpy, weights and influence functions of its own."""
    data = sample_of(name)
    path, rows = fitted(data, share=share).anchor_path(), prototype(data, share=share)
    np.testing.assert_allclose(path["effect"], [rows.effect(solve(rows, anchor)) for anchor in path.index], rtol=1e-7)
    ses = [choose(rows, Setting((anchor,)))[1] for anchor in path.index]
    np.testing.assert_allclose(path["std err"], ses, rtol=1e-3)
    # the prototype draws the errors of the variances by itself, 4000 times
    rungs = path.loc[list(LADDER)]
    np.testing.assert_allclose(rungs["share"], winners(held_out_squares(rows), CAUTION), atol=0.04)
    assert held_out_anchor(path) == pytest.approx(np.exp(rungs["share"] @ np.log(LADDER)), rel=5e-3)
    assert fitted(data, share=share).effect == pytest.approx(rows.effect(solve(rows, chosen(path))), rel=1e-7)


def held_out_squares(rows):
    return np.array([held_out(rows, anchor) for anchor in LADDER]) ** 2


def test_path_is_the_ladder_and_the_anchor_chosen():
    for name in ("strong", "linear_strong", "kang_schafer"):
        path = fitted(sample_of(name)).anchor_path()
        assert path.index.is_monotonic_decreasing
        assert set(path.index) - {chosen(path)} == set(LADDER) - {chosen(path)}
        assert path["variance ratio"].iloc[0] == 1
        assert path["ratio se"].iloc[0] == 0
        assert path["share"].sum() == pytest.approx(1)
        assert path["share"].isna().sum() == (chosen(path) not in LADDER)


WRONG_SCORE = Linear(confounding=1.0, score_curvature=0.5, heterogeneity=1.5, baseline=-1.0)  # and weak overlap


def wrong_score(k, n=300):
    return WRONG_SCORE.draw(n, np.random.default_rng([11, k, n])).data


def climbed(error_at, limit, anchor):
    """The anchor that a climb from an anchor reaches, written apart: (anchor, the anchors tried)."""
    tried, excess = [anchor], error_at(anchor) ** 2 - limit
    for rung in sorted(rung for rung in LADDER + BEYOND if rung > anchor):
        if excess <= 0:
            break
        tried.append(rung)
        above = error_at(rung) ** 2 - limit
        if above < 0:
            slope = (np.log(rung) - np.log(anchor)) / (excess - above)
            return float(f"{np.exp(np.log(anchor) + excess * slope):.3g}"), tried
        anchor, excess = rung, above
    return anchor, tried


@pytest.mark.parametrize(("k", "to"), [(0, 59.7), (2, 0.809), (3, 24.2), (7, 0.284)])
def test_an_anchor_with_more_robust_variance_than_ipwra_is_raised(k, to):
    """Beside fits whose anchor is given: a wrong score, so that the errors of the outcome models count too."""
    data = wrong_score(k)
    res = fitted(data)
    path, limit = res.anchor_path(), (1 + EXCESS_VARIANCE / np.sqrt(len(data))) * res.start.effect_se**2
    errors = {anchor: fitted(data, anchor=anchor).effect_se for anchor in path.index[path["robust se"].notna()]}
    np.testing.assert_allclose(path["robust se"].dropna(), list(errors.values()), rtol=1e-9)
    anchor, tried = climbed(errors.__getitem__, limit, held_out_anchor(path))
    assert chosen(path) == anchor == to
    assert set(errors) == {*tried, anchor}
    assert res.effect == pytest.approx(fitted(data, anchor=anchor).effect, rel=1e-12)
    assert errors[anchor] < 1.08 * res.start.effect_se
    assert (held_out_anchor(path) == anchor) == (errors[held_out_anchor(path)] ** 2 <= limit)
    words = " ".join(str(res.explain()).split())
    assert (f"raised from {held_out_anchor(path):.3g}, chosen between" in words) == (k != 2)
    assert f"{anchor:g} ({'chosen' if k == 2 else 'raised'})" in str(res.summary())
    assert (f"was raised from {held_out_anchor(path):.3g}" in res.methods()) == (k != 2)
    assert "at the end of those tried" not in words


def test_an_anchor_raised_beyond_the_ladder_has_no_luck_to_allow_for():
    res = fitted(wrong_score(0))
    assert chosen(res.anchor_path()) > LADDER[0]
    assert res._record.choice_variance == 1
    assert res.effect_se == pytest.approx(res.anchor_path()["robust se"][chosen(res.anchor_path())], rel=1e-12)


@pytest.mark.parametrize("case", ["arms", "clusters", "ratio", "treated", "given scores", "logit"])
def test_robust_variance_of_the_choice_is_that_of_the_contrasts(case):
    """From the covariance of the arm means of the fit, the variance of the choice taken off again."""
    data = wrong_score(1)
    rng = np.random.default_rng(4)
    data = data.assign(g=np.arange(300) // 4, y=data["y"] - data["y"].min() + 1, e=rng.uniform(0.2, 0.8, 300))
    options = {
        "arms": {"reference": 0}, "clusters": {"cluster": "g", "cov_type": "cluster"}, "ratio": {"effect": "ratio"},
        "treated": {"target": "treated"}, "given scores": {"propensity_score": "e"}, "logit": {"family": "binomial"},
    }[case]  # fmt: skip
    if case == "arms":
        data["d"] = np.where(data["d"] == 1, 1 + rng.integers(0, 2, 300), 0)
    if case == "logit":
        data["y"] = (data["y"] > data["y"].median()).astype(int)
    res = fitted(data, **options)
    path, n_arms = res._record.joint.path, len(np.unique(data["d"]))
    slopes = 1 / res.start.params.to_numpy()[-n_arms:] if case == "ratio" else np.ones(n_arms)
    contrasts = bias_contrasts(n_arms) * slopes / np.sqrt((slopes**2).mean())
    for fit, found, factor in (
        (res, path.robust_errors[path.chosen], res._record.choice_variance),
        (res.start, np.sqrt(res._record.joint.problem.start_robust_variance), 1.0),
    ):
        covariance = fit.cov_params().iloc[-n_arms:, -n_arms:].to_numpy() / factor
        assert found**2 == pytest.approx(np.trace(contrasts @ covariance @ contrasts.T), rel=1e-9)


def test_a_row_moves_the_anchor_and_does_not_tip_it():
    """Of a sample in which three anchors are nearly tied, so that a row tips the smallest variance."""
    data = find_design("strong").draw(200, np.random.default_rng([20251218, 5, 200])).data
    weights = weights_of(200)
    left_out = [fitted(data.drop(index=row), replicates=np.delete(weights, row, axis=0)) for row in range(0, 200, 10)]
    paths = [fit.anchor_path() for fit in left_out]
    tipped = {path.loc[list(LADDER), "variance ratio"].add(CAUTION * path["ratio se"]).idxmin() for path in paths}
    assert len(tipped) > 1
    anchors = np.log([chosen(path) for path in paths])
    assert np.ptp(anchors) < 1


@pytest.mark.parametrize(
    ("gap", "sd", "share"), [(0.0, 1.0, 0.5), (1.0, 1.0, 0.841), (2.0, 1.0, 0.977), (9.0, 1.0, 1.0), (1.0, 0.0, 1.0)]
)
def test_share_of_draws_of_two_is_that_of_the_normal_distribution(gap, sd, share):
    means, covariance = np.array([0.0, gap]), np.array([[0.0, 0.0], [0.0, sd**2]])
    np.testing.assert_allclose(shares_of_least(means, covariance), [share, 1 - share], atol=0.02)


def test_ties_are_broken_evenly():
    """Each draw has its opposite."""
    np.testing.assert_array_equal(shares_of_least(np.zeros(2), np.diag([0.0, 1.0])), [0.5, 0.5])


def test_one_rung_that_wins_each_time_is_the_anchor():
    assert mean_anchor(LADDER, np.eye(7)[2]) == 3.0
    assert mean_anchor((30.0, 0.3), np.array([0.5, 0.5])) == 3.0


def test_it_is_never_ipwra_itself():
    """Where nothing is clearly better it is a cautious joint fit, whose risk is below IPWRA's."""
    res = fitted(sample_of("linear_strong"))
    assert f"{chosen(res.anchor_path()):g} (chosen)" in str(res.summary())
    assert res.effect != pytest.approx(res.start.effect, rel=1e-9)
    table = res.risk_table()["risk"]
    assert table["JRE"] < table["IPWRA"]


def test_where_the_outcome_model_is_wrong_the_anchor_is_small():
    res = fitted(sample_of("strong", 500))
    anchor = chosen(res.anchor_path())
    assert anchor < 1
    assert f"{anchor:g} (chosen)" in str(res.summary())
    assert res.bse["ATE"] < res.start.bse["ATE"]
    assert abs(res.params["POM[1]"] - res.params["POM[0]"] - res.effect) < 1e-9


def test_a_given_anchor_is_the_rung_of_the_ladder():
    data = sample_of("strong")
    path, given = fitted(data).anchor_path(), fitted(data, anchor=0.3)
    assert given.effect == pytest.approx(path.loc[0.3, "effect"], rel=1e-12)
    assert "0.3 (given)" in str(given.summary())
    with pytest.raises(AttributeError, match=r"anchor=0.3 was given"):
        given.anchor_path()


@pytest.mark.parametrize("name", ["strong", "lalonde_like", "linear_strong"])
def test_factor_for_the_choice_written_apart(name):
    """One standard error of the variance chosen: of its difference to the first, or its own where that is smaller."""
    data = find_design("strong" if name == "strong" else name).draw(300, np.random.default_rng(3)).data
    data = data.rename(columns=dict(zip(data.columns.drop(["y", "d"]), COVARIATES, strict=False)))
    res, rows = fitted(data), prototype(data)
    first, best = (held_out(rows, anchor) ** 2 for anchor in (LADDER[0], chosen(res.anchor_path())))
    errors = [part.std() * np.sqrt(len(data)) for part in (best - first, best)]
    assert res._record.choice_variance == pytest.approx(1 + min(errors) / best.sum(), rel=1e-3)


def test_resamples_keep_the_anchor_and_standard_errors_allow_for_its_choice():
    data = sample_of("strong")
    resamples = np.random.default_rng(2).multinomial(300, np.full(300, 1 / 300), 5).T
    res = fitted(data, cov_type="bootstrap", resamples=resamples)
    anchor = chosen(res.anchor_path())
    same = fitted(data, cov_type="bootstrap", resamples=resamples, anchor=anchor)
    np.testing.assert_allclose(res.boot_params, same.boot_params, rtol=1e-12)
    about = np.sqrt(((same.boot_params - same.params) ** 2).mean())
    np.testing.assert_allclose(same.bse, about, rtol=1e-12)
    factor = np.sqrt(res._record.choice_variance)
    assert factor > 1.05
    np.testing.assert_allclose(res.bse, factor * about, rtol=1e-12)
    assert f"multiplied by {factor:.3f} for the choice" in " ".join(str(res.summary()).split())
    assert "for the choice of the anchor" not in str(same.summary())


@functools.cache
def chosen_and_given():
    """Bootstraps under an anchor that is chosen, and under the same one given."""
    data = sample_of("strong")
    res = fitted(data, cov_type="bootstrap", n_boot=60)
    return res, fitted(data, cov_type="bootstrap", n_boot=60, anchor=chosen(res.anchor_path()))


@pytest.mark.parametrize("method", ["normal", "percentile", "basic", "bc", "bca", "studentized"])
def test_every_interval_allows_for_the_choice_alike(method):
    """Beside the fit whose anchor was given, which has the same resamples; at 50% sixty of them are enough."""
    res, same = chosen_and_given()
    factor = np.sqrt(res._record.choice_variance)
    limits, plain = (
        fit.conf_int(0.5, method=method).to_numpy() - fit.params.to_numpy()[:, None] for fit in (res, same)
    )
    np.testing.assert_allclose(limits, factor * plain, rtol=1e-9, atol=1e-12)


def test_interval_of_a_ratio_allows_for_the_choice_as_a_logarithm():
    data = sample_of("strong")
    data = data.assign(y=data["y"] - data["y"].min() + 1)
    res = fitted(data, cov_type="bootstrap", n_boot=40, effect="ratio")
    factor, effect = np.sqrt(res._record.choice_variance), np.log(res.effect)
    assert factor > 1.05
    logs = effect + factor * (np.log(res.boot_params["ATE ratio"]) - effect)
    quantiles = np.quantile(np.exp(logs), [0.25, 0.75])
    np.testing.assert_allclose(res.conf_int(0.5, method="percentile").iloc[0], quantiles, rtol=1e-12)


def test_every_standard_error_allows_for_the_choice_alike():
    """Of the fit, of a comparison, of a ratio on the log scale, of the group of everybody."""
    data = sample_of("strong")
    data = data.assign(y=data["y"] - data["y"].min() + 1)
    resamples = np.random.default_rng(2).multinomial(300, np.full(300, 1 / 300), 40).T
    res = fitted(data, cov_type="bootstrap", resamples=resamples, effect="ratio")
    factor = np.sqrt(res._record.choice_variance)
    assert factor > 1.05
    logs = np.log(res.boot_params["ATE ratio"])
    error = factor * np.sqrt(((logs - np.log(res.effect)) ** 2).mean())
    half = 1.959963984540054 * error
    np.testing.assert_allclose(np.log(res.conf_int().iloc[0]), np.log(res.effect) + np.array([-half, half]), rtol=1e-10)
    np.testing.assert_allclose(res.tvalues.iloc[0], np.log(res.effect) / error, rtol=1e-10)
    np.testing.assert_allclose(res.pairwise()["z"], res.tvalues.iloc[:1], rtol=1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        table = cr.compare(FORMULA, data, treat="d", estimators=["IPWRA", "JRE"], resamples=resamples).table
        alone = cr.JRE.from_formula(FORMULA, data, treat="d").fit(resamples=resamples)
    assert alone._record.choice_variance > 1.1
    np.testing.assert_allclose(table.loc["JRE", "std err"], alone.effect_se, rtol=1e-10)


def test_an_anchor_that_does_not_converge_is_said(monkeypatch):
    train = Trainer.train

    def stopped_short(trainer, criterion, *near):
        solution = train(trainer, criterion, *near)
        solution.result.success = solution.result.success and criterion.alpha_sigma2 > 0.5
        return solution

    data, weights = sample_of("strong", 200), weights_of(200)
    monkeypatch.setattr(Trainer, "train", stopped_short)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        res = cr.JRE.from_formula(FORMULA, data, treat="d").fit(cov_type="robust", replicates=weights)
    told = [str(w.message) for w in caught if w.category is cr.ConvergenceWarning]
    assert len(told) == 1 and "did not converge at anchor 0.3, 0.1, 0.03, so that it was not chosen" in told[0]
    assert chosen(res.anchor_path()) >= 1
    assert "did not converge at anchor" in " ".join(str(res.summary()).split())


def test_a_curved_valley_is_followed_to_its_end():
    """A logit whose objective under small anchors is a narrow valley: from the IPWRA fit the last anchors fail."""
    births = cr.datasets.load_cattaneo2().sample(600, random_state=1)
    model = cr.JRE.from_formula(
        "lbweight ~ mmarried + mage", births, treat="mbsmoke", propensity="mmarried + mage + medu", family="binomial"
    )
    path = model.fit(cov_type="robust", n_replicates=20).anchor_path()
    assert path["converged"].all()
    alone = [model.fit(cov_type="robust", n_replicates=20, anchor=anchor).effect for anchor in path.index[:4]]
    np.testing.assert_allclose(path["effect"].iloc[:4], alone, rtol=1e-7)


def test_what_does_not_move_the_choice():
    data = sample_of("strong", 200)
    path = fitted(data).anchor_path()
    columns = ["std err", "variance ratio", "ratio se"]
    other = data.assign(x1=3 - 2 * data["x1"], x2=data["x2"] + data["x3"])
    pd.testing.assert_frame_equal(fitted(other).anchor_path(), path, rtol=1e-6)
    scaled = fitted(data.assign(y=5 - 3 * data["y"])).anchor_path()
    np.testing.assert_allclose(scaled[columns], path[columns] * [3, 1, 1], rtol=1e-6)
    swapped = fitted(data.assign(d=1 - data["d"])).anchor_path()
    pd.testing.assert_frame_equal(swapped.assign(effect=-swapped["effect"]), path, rtol=1e-6)
    order = np.random.default_rng(0).permutation(200)
    shuffled = fitted(data.iloc[order], replicates=weights_of(200)[order]).anchor_path()
    pd.testing.assert_frame_equal(shuffled, path, rtol=1e-6)
    alone = fitted(data.assign(row=np.arange(200)), cluster="row", cov_type="cluster").anchor_path()
    pd.testing.assert_frame_equal(alone, path, rtol=1e-6)


def test_frequency_weights_and_clusters():
    data = sample_of("strong", 150).assign(times=np.arange(150) % 3 + 1)
    times, weights = data["times"].to_numpy(), weights_of(150)
    repeated = data.loc[data.index.repeat(times)].reset_index(drop=True)
    # given weights of a frequency-weighted row are those of all that it counts
    weighted = fitted(data, weights="times", weight_type="frequency", replicates=weights * times[:, None])
    of_rows = fitted(repeated, replicates=np.repeat(weights, times, axis=0))
    pd.testing.assert_frame_equal(weighted.anchor_path(), of_rows.anchor_path(), rtol=1e-6)
    # in clusters too, where a copy is an observation
    towns = {"cluster": "town", "cov_type": "cluster", "anchor": 1.0}
    data, repeated = (frame.assign(town=frame["x1"].rank(method="dense") // 10) for frame in (data, repeated))
    counted = fitted(data, weights="times", weight_type="frequency", replicates=weights * times[:, None], **towns)
    as_rows = fitted(repeated, replicates=np.repeat(weights, times, axis=0), **towns)
    assert 0 < counted.share < 1
    assert counted.share == pytest.approx(as_rows.share, rel=1e-9)
    # Copies of a row are no news: held out as clusters, the errors are about those of the rows themselves.
    copies = pd.concat([data.assign(row=np.arange(150))] * 4, ignore_index=True)
    four = np.tile(weights, (4, 1))
    clustered = fitted(copies, cluster="row", cov_type="cluster", replicates=four).anchor_path()["std err"]
    rows = fitted(data, replicates=weights).anchor_path()["std err"]
    np.testing.assert_allclose(clustered[list(LADDER)], rows[list(LADDER)], rtol=0.1)
    alone = fitted(copies, replicates=four).anchor_path()["std err"]
    assert (alone[list(LADDER)] < 0.7 * rows[list(LADDER)]).all()


def test_probability_weights_count_units_not_their_sum():
    """Weights that add up to another total are the same weights."""
    data = sample_of("strong", 200)
    data = data.assign(w=np.random.default_rng(1).uniform(0.5, 2, 200))
    path = fitted(data, weights="w", weight_type="probability").anchor_path()
    scaled = fitted(data.assign(w=1000 * data["w"]), weights="w", weight_type="probability").anchor_path()
    pd.testing.assert_frame_equal(scaled, path, rtol=1e-7)


@pytest.mark.parametrize("target", ["all", "treated", "control", "overlap", "matching"])
@pytest.mark.parametrize("family", ["gaussian", "binomial", "poisson"])
def test_risk_is_never_above_that_of_ipwra(target, family):
    """IPWRA minimises the fit and has no net bias at the fitted score, so a lower objective is a lower risk."""
    for seed in range(2):
        data = simulate(150, 4, seed)
        if family != "gaussian":
            binary = (data["y"] > data["y"].mean()).astype(int)
            data = data.assign(y=binary if family == "binomial" else binary + (data["y"] > 2))
        for anchor in (30.0, 1.0, 0.03):
            res = fitted(data, target=target, family=family, anchor=anchor)
            joint = res._record.joint.estimate
            assert res.converged
            assert joint.expected_risk <= joint.start_risk * (1 + 1e-12)


@pytest.mark.filterwarnings("ignore::causalrisk.MonteCarloWarning")
def test_options_that_have_no_effect_are_refused():
    model = cr.JRE.from_formula(FORMULA, simulate(100, 4), treat="d")
    with pytest.raises(cr.OptionError, match=r'(?s)anchor=.*objective="risk"'):
        model.fit(anchor=0.3, objective="erm")
    with pytest.raises(cr.OptionError, match=r'penalty= has no effect with objective="risk"'):
        model.fit(penalty=10.0)
    with pytest.raises(cr.OptionError, match=r"replicates= and spread="):
        model.fit(spread=0.7, replicates=np.ones((100, 3)))
    for spread in (0, 1.5, "half"):
        with pytest.raises(cr.OptionError, match="spread="):
            model.fit(spread=spread)
    with pytest.raises(AttributeError, match=r'objective="erm" has none'):
        model.fit(objective="erm", cov_type="robust").anchor_path()
    with pytest.raises(AttributeError, match=r'objective="risk" has no penalty'):
        fitted(simulate(100, 4)).penalty_path()


@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
def test_a_joint_fit_that_does_not_converge_is_said(monkeypatch):
    train = Trainer.train

    def stopped_short(trainer, criterion, *near):
        solution = train(trainer, criterion, *near)
        solution.result.success, solution.result.message = False, "no steps are left"
        return solution

    monkeypatch.setattr(Trainer, "train", stopped_short)
    model = cr.JRE.from_formula(FORMULA, sample_of("strong", 200), treat="d")
    with pytest.warns(cr.ConvergenceWarning, match=r"the joint objective(.|\n)*no steps are left"):
        res = model.fit(cov_type="robust", replicates=weights_of(200), anchor=1.0)
    assert not res.converged


@pytest.mark.parametrize(("family", "link"), [("gaussian", None), ("binomial", "logit"), ("poisson", "log")])
def test_a_row_left_out_is_a_cluster_of_one_row(family, link, monkeypatch):
    """The step for rows is of low rank; that for clusters has a Hessian each, from the weights under each replicate."""
    monkeypatch.setattr("causalrisk.estimators.joint.leave_one_out.AT_ONCE", 500)  # some clusters at a time
    trained = problem(2, family, link, "logit", "all", "difference", n=60, seed=2).joint(RISK, count=3)[0]
    trainer = Trainer(trained)
    solution = trainer.train(joint_criterion(trained, RISK))
    rows = RowsAtSolution(solution, trainer.whole)
    sums = known_score_sums(rows, trainer.centres(solution)[0], weight_products([solution], rows.data)[0])
    parts = RowParts.of(rows, sums, known_terms(rows, sums), trained.units(slice(0, rows.sample.n), rows.sample))
    shares = rows.sample.s / rows.sample.total
    alone = steps_without_rows(solution, parts, shares)
    clusters = steps_without_clusters(rows, parts=parts, shares=shares, codes=np.arange(rows.sample.n))
    assert np.abs(alone).max() > 0
    np.testing.assert_allclose(alone, clusters, rtol=1e-6, atol=1e-9 * np.abs(alone).max())

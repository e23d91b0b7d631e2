"""The objective "adaptive": its anchors against another hand, what does not move the choice, and what follows it."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.simulation.designs import find_design
from tests.conftest import simulate
from tests.studies.study_defaults import Rows, estimate, ladder, solve

COVARIATES = ["x1", "x2", "x3", "x4"]
FORMULA = f"y ~ {' + '.join(COVARIATES)}"


def sample_of(name, n=300, seed=3):
    return find_design(name).draw(n, np.random.default_rng(seed)).data


def fitted(data, *, objective="adaptive", cov_type="robust", resamples=None, **options):
    model = cr.JRE.from_formula(FORMULA, data, treat="d", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        return model.fit(objective=objective, cov_type=cov_type, n_replicates=20, resamples=resamples)


def prototype(data):
    return Rows(data, COVARIATES, COVARIATES, 2, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["strong", "kang_schafer", "linear_strong", "heavy_tails"])
def test_every_anchor_against_the_normal_equations_written_apart(name):
    """The prototype of the studies: plain numpy, weights and influence functions of its own."""
    data = sample_of(name)
    path, rows = fitted(data).anchor_path, prototype(data)
    np.testing.assert_allclose(path["effect"], [rows.effect(solve(rows, rung).z) for rung in ladder()], rtol=1e-7)
    np.testing.assert_allclose(path["std err"], [estimate(rows, rung)[1] for rung in ladder()], rtol=1e-3)
    assert path.loc[path["chosen"], "effect"].item() == pytest.approx(estimate(rows, ladder())[0], rel=1e-7)


def test_choice_is_the_smallest_ratio_with_its_error():
    for name in ("strong", "linear_strong", "kang_schafer"):
        path = fitted(sample_of(name)).anchor_path
        assert path.index[0] == np.inf
        assert path["variance ratio"].iloc[0] == 1
        assert path["ratio std err"].iloc[0] == 0
        assert path.index[path["chosen"]].item() == (path["variance ratio"] + path["ratio std err"]).idxmin()


def test_where_nothing_is_better_it_is_ipwra():
    data, resamples = sample_of("linear_strong"), np.random.default_rng(1).multinomial(300, np.full(300, 1 / 300), 40).T
    res = fitted(data, cov_type="bootstrap", resamples=resamples)
    assert res.anchor_path["chosen"].iloc[0]
    ipwra = cr.IPWRA.from_formula(FORMULA, data, treat="d").fit(cov_type="bootstrap", resamples=resamples)
    assert res.effect == pytest.approx(ipwra.effect, rel=1e-9)
    np.testing.assert_allclose(res.boot_params, ipwra.boot_params, rtol=1e-8)
    np.testing.assert_allclose(fitted(data).bse, res.start.bse, rtol=1e-8)
    assert "none, as IPWRA" in str(res.summary())
    assert "JRE kept that fit" in " ".join(str(res.summary()).split())


def test_where_the_outcome_model_is_wrong_it_lets_the_biases_cancel():
    res = fitted(sample_of("strong", 500))
    anchor = res.anchor_path.index[res.anchor_path["chosen"]].item()
    assert anchor < 1
    assert f"{anchor:g}, chosen" in str(res.summary())
    assert res.mc_se == 0
    assert res.bse["ATE"] < res.start.bse["ATE"]
    assert abs(res.params["POM[1]"] - res.params["POM[0]"] - res.effect) < 1e-9


def test_resamples_keep_the_anchor():
    data = sample_of("strong")
    resamples = np.random.default_rng(2).multinomial(300, np.full(300, 1 / 300), 5).T
    res = fitted(data, cov_type="bootstrap", resamples=resamples)
    rung = ladder()[int(np.argmax(res.anchor_path["chosen"]))]
    for j in range(5):
        again = data.loc[data.index.repeat(resamples[:, j])].reset_index(drop=True)
        rows = prototype(again)
        # The penalty and the unit of the full sample are kept; at no net bias neither matters to these digits.
        assert res.boot_params["ATE"].iloc[j] == pytest.approx(rows.effect(solve(rows, rung).z), rel=1e-5)


def test_what_does_not_move_the_choice():
    data = sample_of("strong", 200)
    path = fitted(data).anchor_path
    columns = ["std err", "variance ratio", "ratio std err"]
    other = data.assign(x1=3 - 2 * data["x1"], x2=data["x2"] + data["x3"])
    pd.testing.assert_frame_equal(fitted(other).anchor_path, path, rtol=1e-6)
    scaled = fitted(data.assign(y=5 - 3 * data["y"])).anchor_path
    np.testing.assert_allclose(scaled[columns], path[columns] * [3, 1, 1], rtol=1e-6)
    swapped = fitted(data.assign(d=1 - data["d"])).anchor_path
    pd.testing.assert_frame_equal(swapped.assign(effect=-swapped["effect"]), path, rtol=1e-6)
    shuffled = fitted(data.sample(frac=1, random_state=0)).anchor_path
    pd.testing.assert_frame_equal(shuffled, path, rtol=1e-6)
    alone = fitted(data.assign(row=np.arange(200)), cluster="row", cov_type="cluster").anchor_path
    pd.testing.assert_frame_equal(alone, path, rtol=1e-6)


def test_frequency_weights_and_clusters():
    data = sample_of("strong", 150).assign(times=np.arange(150) % 3 + 1)
    repeated = data.loc[data.index.repeat(data["times"])].reset_index(drop=True)
    weighted = fitted(data, weights="times", weight_type="frequency").anchor_path
    pd.testing.assert_frame_equal(weighted, fitted(repeated).anchor_path, rtol=1e-6)
    # Copies of a row are no news: held out as clusters, the errors are about those of the rows themselves.
    copies = pd.concat([data.assign(row=np.arange(150))] * 4, ignore_index=True)
    clustered = fitted(copies, cluster="row", cov_type="cluster").anchor_path["std err"]
    rows = fitted(data).anchor_path["std err"]
    np.testing.assert_allclose(clustered, rows, rtol=0.1)
    assert (fitted(copies).anchor_path["std err"] < 0.7 * rows).all()


@pytest.mark.parametrize("target", ["treated", "control", "overlap"])
@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_first_anchor_is_ipwra_for_every_target(target, family):
    data = simulate(400, 4)
    if family == "binomial":
        data = data.assign(y=(data["y"] > data["y"].mean()).astype(int))
    res = fitted(data, target=target, family=family)
    assert res.anchor_path["effect"].iloc[0] == pytest.approx(res.start.effect, rel=1e-6)
    assert res.anchor_path["converged"].all()


def test_options_that_have_no_effect_are_refused():
    model = cr.JRE.from_formula(FORMULA, simulate(100, 4), treat="d")
    with pytest.raises(cr.OptionError, match=r'"adaptive", which chooses it.*\n.*objective="mse"'):
        model.fit(anchor=0.3)
    with pytest.raises(cr.OptionError, match=r'"erm", whose fit has weight one'):
        model.fit(anchor=0.3, objective="erm")
    with pytest.raises(cr.OptionError, match=r'no effect with objective="adaptive"'):
        model.fit(bootstrap_replicates="nested")
    with pytest.raises(AttributeError, match=r'objective="mse" does not choose its anchor'):
        _ = fitted(simulate(100, 4), objective="mse").anchor_path

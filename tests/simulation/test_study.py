"""Studies: the same frame whatever the number of processes and order; failures; tables by hand."""

from __future__ import annotations

import os
import signal
import time
import warnings
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import causalrisk as cr
from causalrisk.simulation import designs, run_study
from causalrisk.simulation import study as module
from causalrisk.simulation.results import mse_ratio
from causalrisk.simulation.study import choose_estimators

FAST = ["Unadjusted", "IPWRA", "AIPW"]
STRONG = designs.DESIGNS["strong"]
SMALL = {"design": ["linear", "strong"], "n": [100, 150], "n_sims": 6, "estimators": FAST}


@pytest.fixture(scope="module")
def small():
    return run_study(**SMALL)


def assert_same(left, right):
    pd.testing.assert_frame_equal(left.raw, right.raw, check_exact=True)
    pd.testing.assert_frame_equal(left.table, right.table, check_exact=True)


# --- seeds, processes ----------------------------------------------------------------------------------------------


def test_a_cell_does_not_depend_on_the_others(small):
    alone = run_study("strong", n=150, n_sims=4, estimators=["AIPW"]).raw
    raw = small.raw
    part = raw[(raw["design"] == "strong") & (raw["n"] == 150) & (raw["estimator"] == "AIPW") & (raw["sample"] < 4)]
    pd.testing.assert_frame_equal(alone, part.reset_index(drop=True), check_exact=True)


def test_an_estimator_fails_in_the_same_samples_whatever_others_are_in_the_study():
    """Sample 5 has a group of 41 rows for 41 coefficients, which estimators without outcome models do not need."""
    options = {"n": 100, "n_sims": 6, "rng": 3, "reference": "AIPW"}
    alone, after = (
        run_study("forty_covariates", estimators=names, **options).raw.set_index(["estimator", "sample"]).loc["AIPW"]
        for names in (["AIPW"], ["IPW", "AIPW"])
    )
    pd.testing.assert_frame_equal(alone, after, check_exact=True)
    assert "41 rows for 41" in alone["failure"][5]


def test_samples_can_be_drawn_again(small):
    seed, _ = module.sample_seeds(small.entropy, STRONG, 150, 5)
    drawn = STRONG.draw(150, np.random.default_rng(seed))
    res = cr.IPWRA.from_formula(STRONG.formula, drawn.data, treat="d").fit()
    raw = small.raw.set_index(["design", "n", "sample", "estimator"]).loc[("strong", 150, 5, "IPWRA")]
    assert (raw["estimate"], raw["se"]) == (res.effect, res.effect_se)


def test_sizes_have_samples_of_their_own():
    small, large = (np.random.default_rng(module.sample_seeds(0, STRONG, n, 0)[0]) for n in (100, 200))
    x = STRONG.draw(100, small).data["x1"], STRONG.draw(200, large).data["x1"]
    assert not np.isin(x[0], x[1]).any()


def test_another_seed_gives_other_samples(small):
    other = run_study("linear", n=100, n_sims=5, estimators=FAST, rng=1).raw
    assert not np.isin(other["estimate"], small.raw["estimate"]).any()


def test_processes_do_not_change_the_frame(small):
    assert_same(small, run_study(**SMALL, n_jobs=2))


def killed(trial, home):
    """End the process, unless it is that of the test."""
    if os.getpid() != home:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0, 1.0


def test_a_worker_that_dies_is_named():
    estimators = {"fast": "Unadjusted", "killed": (killed, {"home": os.getpid()})}
    with pytest.raises(BrokenProcessPool):
        run_study("strong", n=100, n_sims=20, estimators=estimators, n_jobs=2)


def test_an_error_of_a_worker_ends_the_others():
    begun = time.monotonic()
    with pytest.raises(cr.OptionError, match="shrinkage"):
        run_study("strong", n=100, n_sims=100, estimators={"JRE": ("JRE", {"shrinkage": "x"})}, n_jobs=2)
    assert time.monotonic() - begun < 30


def test_generator_and_seed_sequence_as_rng():
    by_int = run_study("linear", n=100, n_sims=2, estimators="IPWRA", rng=3)
    assert_same(by_int, run_study("linear", n=100, n_sims=2, estimators="IPWRA", rng=np.random.SeedSequence(3)))
    one, two = (
        run_study("linear", n=100, n_sims=2, estimators="IPWRA", rng=np.random.default_rng(3)) for _ in range(2)
    )
    assert_same(one, two)


def test_spawned_seeds_give_different_studies():
    seeds = np.random.SeedSequence(3).spawn(2)
    one, two = (run_study("linear", n=100, n_sims=2, estimators="IPWRA", rng=seed) for seed in seeds)
    assert not np.isin(one.raw["estimate"], two.raw["estimate"]).any()
    assert_same(one, run_study("linear", n=100, n_sims=2, estimators="IPWRA", rng=np.random.SeedSequence(one.entropy)))


def test_progress_goes_to_standard_error(capsys):
    run_study("linear", n=100, n_sims=30, estimators="Unadjusted", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "30" in err
    assert "sample" in err


# --- estimators ----------------------------------------------------------------------------------------------------


def test_estimators_are_those_of_the_package(small):
    study = run_study("strong", n=150, n_sims=3)
    assert study.estimators == ["Unadjusted", "OutcomeRegression", "IPW", "IPWRA", "AIPW", "JRE"]
    data_seed, fit_seed = module.sample_seeds(0, STRONG, 150, 2)
    data = STRONG.draw(150, np.random.default_rng(data_seed)).data
    estimates = study.raw[study.raw["sample"] == 2].set_index("estimator")
    warnings.simplefilter("ignore", cr.CausalRiskWarning)
    for model in (cr.OutcomeRegression, cr.IPW, cr.IPWRA, cr.AIPW, cr.JRE):
        res = model.from_formula(STRONG.formula, data, treat="d").fit(cov_type="robust", rng=fit_seed)
        assert estimates.loc[model.__name__, "estimate"] == pytest.approx(res.effect, rel=1e-12)
        assert estimates.loc[model.__name__, "se"] == pytest.approx(res.effect_se, rel=1e-12)
    arms = [data["y"][data["d"] == arm] for arm in (1, 0)]
    assert estimates.loc["Unadjusted", "estimate"] == pytest.approx(arms[0].mean() - arms[1].mean(), rel=1e-12)


def test_options_of_models_and_fits():
    estimators = {
        "IPWRA": "IPWRA",
        "probit": ("IPWRA", {"propensity_link": "probit"}),
        "oracle": (cr.IPWRA, {"formula": STRONG.oracle_formula}),
        "erm": ("JRE", {"objective": "erm", "n_replicates": 40}),
        "shrunk": ("JRE", {"shrinkage": 3, "n_replicates": 40}),
    }
    study = run_study("strong", n=200, n_sims=4, estimators=estimators, n_boot=0)
    wide = study.raw.pivot(index="sample", columns="estimator", values="estimate")
    assert study.estimators == list(estimators)
    assert (wide.nunique(axis=1) == 5).all()
    data_seed, fit_seed = module.sample_seeds(0, STRONG, 200, 1)
    data = STRONG.draw(200, np.random.default_rng(data_seed)).data
    model = cr.JRE.from_formula(STRONG.formula, data, treat="d")
    res = model.fit(cov_type="robust", objective="erm", n_replicates=40, rng=fit_seed)
    assert wide.loc[1, "erm"] == pytest.approx(res.effect, rel=1e-12)


def test_bootstrap_standard_errors():
    study = run_study("strong", n=100, n_sims=2, estimators=["IPWRA"], n_boot=30)
    data_seed, fit_seed = module.sample_seeds(0, STRONG, 100, 0)
    data = STRONG.draw(100, np.random.default_rng(data_seed)).data
    model = cr.IPWRA.from_formula(STRONG.formula, data, treat="d")
    assert study.raw["se"][0] == model.fit(cov_type="bootstrap", n_boot=30, rng=fit_seed).effect_se
    assert "from the bootstrap (30 resamples)" in " ".join(str(study.summary()).split())


def median_difference(trial):
    arms = [trial.data["y"][trial.data["d"] == arm] for arm in (1, 0)]
    return arms[0].median() - arms[1].median(), np.nan


def test_a_function_as_estimator():
    study = run_study("linear", n=100, n_sims=4, estimators=[median_difference, "IPWRA"], n_jobs=2)
    assert study.estimators == ["median_difference", "IPWRA"]
    assert study.table["coverage"].isna().tolist() == [True, False]
    assert np.isfinite(study.table["mse_ratio"]).all()


def constant(trial, value):
    return value, 1.0


def test_options_of_a_function():
    study = run_study("linear", n=100, n_sims=2, estimators={"three": (constant, {"value": 3.0})})
    assert study.raw["estimate"].tolist() == [3.0, 3.0]
    with pytest.raises(TypeError, match="unexpected keyword argument 'x'"):
        run_study("linear", n=100, n_sims=2, estimators={"a": (constant, {"x": 1})})


@pytest.mark.parametrize(
    ("estimators", "message"),
    [
        ("IPRWA", r"'IPRWA' is not known; .*`IPWRA`"),
        ([], "estimators is empty"),
        (["IPWRA", cr.IPWRA], "'IPWRA' twice"),
        ([dict], "is not known"),
        ([3], '3 is not known.*Use `"IPWRA"`'),
        ({"t": ("IPW", {"use_t": True})}, "use_t= is not available in a study"),
        ({"log": ("IPW", {"effect": "ratio"})}, "effect= is not available in a study"),
        ({"t": ("IPW", {"target": "treated"})}, "target= is not available in a study.*over all units.*a function"),
        ({"t": ("IPW", {"trim": "crump"})}, "trim= is not available in a study"),
        (3, '3 is not known.*Use `"IPWRA"`'),
    ],
)
def test_estimators_that_are_refused(estimators, message):
    with pytest.raises(cr.OptionError, match=f"(?s){message}"):
        choose_estimators(estimators)


def test_wrong_options_are_the_callers_mistake_and_no_failure():
    with pytest.raises(cr.OptionError, match="shrinkage=-1"):
        run_study("linear", n=100, n_sims=2, estimators={"JRE": ("JRE", {"shrinkage": -1})})
    with pytest.raises(cr.OptionError, match=r"'mine' returned 1.0; expected estimate"):
        run_study("linear", n=100, n_sims=2, estimators={"mine": lambda trial: 1.0})
    with pytest.raises(TypeError, match="anker"):
        run_study("linear", n=100, n_sims=2, estimators={"JRE": ("JRE", {"anker": 1})})


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"n": 1}, "n=1"),
        ({"n_sims": 1}, "n_sims=1"),
        ({"n_boot": -1}, "n_boot=-1"),
        ({"n": []}, "n is empty"),
        ({"n": [100, 100]}, "'100' twice"),
        ({"design": []}, "design is empty"),
        ({"design": ["strong", STRONG]}, "'strong' twice"),
        ({"design": "stong"}, "Did you mean `strong`"),
    ],
)
def test_options_that_are_refused(keywords, message):
    with pytest.raises(cr.OptionError, match=message):
        run_study(**({"design": "linear", "estimators": "IPWRA", "n_sims": 2} | keywords))


# --- failures ------------------------------------------------------------------------------------------------------


def moody(trial):
    mean = trial.data["y"].mean()
    if mean > 0.6:
        raise np.linalg.LinAlgError(f"singular\nbecause {mean}")
    return (np.inf, 1.0) if mean > 0.4 else (mean, 1.0)


def test_failures_are_counted_and_not_fatal():
    study = run_study("linear", n=100, n_sims=20, estimators=[moody, "IPWRA"])
    raw = study.raw[study.raw["estimator"] == "moody"]
    failed = raw["failure"].value_counts()
    assert set(failed.index) == {"", "LinAlgError: singular", "the estimate is inf"}
    row = study.table.loc[("linear", 100, "moody")]
    assert row["samples"] == 20
    assert row["failed"] == 20 - failed[""]
    assert study.failures["samples"].sum() == row["failed"]
    assert "moody failed on" in " ".join(str(study.summary()).split())
    # the ratio is over the samples in which both worked
    errors = study.errors("linear", 100).dropna()
    assert row["mse_ratio"] == pytest.approx((errors["moody"] ** 2).mean() / (errors["IPWRA"] ** 2).mean())


def test_separation_is_a_failure():
    study = run_study(designs.Linear(confounding=6.0), n=40, n_sims=8, estimators=["Unadjusted", "IPWRA"])
    table = study.table.droplevel(["design", "n"])
    assert table.loc["IPWRA", "failed"] > 0
    assert table.loc["Unadjusted", "failed"] == 0
    assert study.failures["failure"].str.contains("SeparationError").any()


def never(trial):
    raise ValueError("never")


def test_an_estimator_that_always_fails():
    with pytest.warns(cr.ResampleWarning, match="never failed on every sample of linear: ValueError: never"):
        study = run_study("linear", n=100, n_sims=3, estimators=[never, "IPWRA"])
    row = study.table.loc[("linear", 100, "never")]
    assert row["failed"] == 3
    assert row.drop(["samples", "failed"]).isna().all()
    assert "nan" in str(study.summary())


# --- tables --------------------------------------------------------------------------------------------------------


def test_table_by_hand(small):
    raw = small.raw[(small.raw["design"] == "strong") & (small.raw["n"] == 100)]
    wide = raw.pivot(index="sample", columns="estimator", values="estimate") - 1.0
    se = raw.pivot(index="sample", columns="estimator", values="se")
    row = small.table.loc[("strong", 100, "AIPW")]
    error = wide["AIPW"]
    covered = (error.abs() <= stats.norm.ppf(0.975) * se["AIPW"]).mean()
    by_hand = {
        "samples": 6, "failed": 0, "bias": error.mean(), "bias_mc": error.std() / np.sqrt(6), "sd": error.std(),
        "rmse": np.sqrt((error**2).mean()), "mse_ratio": (error**2).sum() / (wide["IPWRA"] ** 2).sum(),
        "mean_se": se["AIPW"].mean(), "median_se": se["AIPW"].median(), "coverage": covered,
        "coverage_mc": np.sqrt(covered * (1 - covered) / 6),
        "mse_over_bound": 100 * (error**2).mean() / STRONG.efficiency_bound,
    }  # fmt: skip
    for name, value in by_hand.items():
        assert row[name] == pytest.approx(value, rel=1e-9), name
    assert small.table.loc[("strong", 100, "IPWRA"), "mse_ratio"] == 1
    assert small.table.loc[("strong", 100, "IPWRA"), "mse_ratio_mc"] == 0
    assert small.table_at(0.5)["coverage"].mean() < small.table["coverage"].mean()


def test_monte_carlo_error_of_the_ratio_against_brute_force():
    rng = np.random.default_rng(0)

    def errors(m):
        shared = rng.normal(size=m)
        return shared + 0.3 * rng.normal(size=m), 1.2 * shared + 0.4 * rng.normal(size=m)

    ratios = [mse_ratio(*errors(400))[0] for _ in range(2000)]
    claimed = np.mean([mse_ratio(*errors(400))[1] for _ in range(200)])
    assert claimed == pytest.approx(np.std(ratios), rel=0.06)
    apart = np.std([mse_ratio(errors(400)[0], errors(400)[1])[0] for _ in range(500)])
    assert apart > 2 * claimed  # what unpaired samples would cost


def test_ratio_is_over_the_samples_in_which_both_worked():
    error, reference = np.array([1.0, np.nan, 2.0, 3.0]), np.array([2.0, 5.0, np.nan, 6.0])
    assert mse_ratio(error, reference) == (0.25, 0.0)


def test_ratios_of_nothing_are_nan():
    assert np.isnan(mse_ratio(np.array([1.0]), np.array([1.0]))).all()
    assert np.isnan(mse_ratio(np.ones(3), np.zeros(3))).all()


def test_reference_can_be_another_and_is_the_first_estimator_without_ipwra():
    study = run_study("linear", n=100, n_sims=5, estimators=FAST, reference="AIPW")
    assert study.table.loc[("linear", 100, "AIPW"), "mse_ratio"] == 1
    without = run_study("linear", n=100, n_sims=5, estimators=["AIPW", "IPW"])
    assert without.table["mse_ratio"].notna().all() and "error of AIPW" in str(without.summary())
    with pytest.raises(cr.OptionError, match=r"(?s)reference='AIWP'.*expected one of.*'AIPW'"):
        run_study("linear", n=100, n_sims=5, estimators=FAST, reference="AIWP")


def test_errors_of_a_cell(small):
    assert small.errors("strong", 100).shape == (6, 3)
    with pytest.raises(KeyError, match="strong"):
        small.errors("strong", 99)


def test_summary_and_repr(small):
    text = str(small.summary())
    assert repr(small) == "Study of 3 estimators: linear, strong, n 100, 150, 6 samples"
    for words in ("Monte Carlo Study", "strong, n 150", "6 samples per design and size", "True effects: linear 1.000"):
        assert words in text
    assert small._repr_html_() == small.summary().as_html()
    assert "Heading" in str(small.summary(title="Heading", alpha=0.1))
    assert " 90% " in str(small.summary(alpha=0.1))


def test_plot(small):
    import matplotlib

    matplotlib.use("Agg")
    ax = small.plot()
    assert [tick.get_text() for tick in ax.get_yticklabels()][-1] == "linear, n 100"
    assert ax.get_xlabel() == "mean squared error relative to IPWRA"
    points = ax.containers[-1].lines[0].get_xdata()
    np.testing.assert_allclose(np.asarray(points, dtype=float), small.table.xs("AIPW", level="estimator")["mse_ratio"])
    assert small.plot(ax=ax, estimators=["AIPW"]) is ax and small.plot(ax=ax, estimators="AIPW") is ax
    with pytest.raises(KeyError, match="JRE"):
        small.plot(ax=ax, estimators=["JRE"])
    matplotlib.pyplot.close("all")

"""The designs of the studies, and what the studies add to the package."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.simulation import run_study
from causalrisk.simulation.designs import find_design
from causalrisk.simulation.study import Trial
from tests.conftest import simulate
from tests.studies import (
    designs,
    groups,
    study_bootstraps,
    study_coverage,
    study_learners,
    study_outside,
    study_robust,
    study_small_samples,
)


@pytest.mark.parametrize("design", [designs.mild, designs.strong])
def test_effect_is_the_one_that_a_right_propensity_model_finds(design):
    frame, effect = design(40_000, np.random.default_rng(1))
    res = cr.AIPW.from_formula(f"y ~ {designs.RHS} + I(x1**2)", frame, treat="d", propensity=designs.RHS).fit()
    assert abs(res.effect - effect) < 4 * res.effect_se


@pytest.mark.parametrize("design", study_robust.MISSED.values(), ids=study_robust.MISSED)
@pytest.mark.filterwarnings("ignore::causalrisk.OverlapWarning")
def test_scores_are_missed_and_outcomes_are_not(design):
    assert design.formula == design.oracle_formula
    assert design.propensity != design.oracle_propensity
    drawn = design.draw(40_000, np.random.default_rng(0))
    res = cr.IPWRA.from_formula(design.formula, drawn.data, treat="d").fit(cov_type="robust")
    assert abs(res.effect - design.effect) < 4 * res.effect_se
    assert np.abs(res.propensity_scores - drawn.score).max() > 0.2


DRAWN = [*map(study_outside.NieWager, "ABCD"), study_outside.InteractiveModel()]


@pytest.mark.parametrize("design", [*DRAWN, *map(study_learners.Shaped, study_learners.SHAPES)])
def test_effects_of_benchmarks_that_are_drawn(design):
    drawn = design.draw(200_000, np.random.default_rng(1))
    effects = drawn.y1 - drawn.y0
    assert abs(effects.mean() - design.effect) <= 4 * effects.std() / np.sqrt(len(effects)) + 1e-12
    assert abs(drawn.score.mean() - drawn.data["d"].mean()) < 0.01


def test_a_finished_study_is_read_and_other_settings_begin_anew(tmp_path):
    calls = []

    def run(design, **options):
        calls.append(options)
        return run_study(design, **options)

    settings = {"n": 100, "n_sims": 2, "estimators": {"IPWRA": ("IPWRA", {"clip": (0.1, 0.9)})}}
    found = [groups.kept(tmp_path, find_design("linear"), run, **settings).raw for _ in range(2)]
    assert len(calls) == 1 and found[0].equals(found[1])
    for other in ({"n_sims": 3}, {"n_boot": 9}, {"estimators": {"IPWRA": "IPWRA"}}, {"estimators": {"IPWRA": "AIPW"}}):
        groups.kept(tmp_path, find_design("linear"), run, **(settings | other))
    groups.kept(tmp_path, find_design("strong"), run, **settings)
    assert len(calls) == 6 == len(list(tmp_path.iterdir()))


def test_jackknife_of_the_difference_of_means_is_the_textbook_one():
    frame = simulate(60)
    y = [frame.y[frame.d == arm] for arm in (0, 1)]
    res = cr.OutcomeRegression.from_formula("y ~ 1", frame, treat="d").fit()
    # Leaving a row of an arm of m rows out moves its mean by residual / (m - 1).
    moves = np.concatenate([(v - v.mean()) / (len(v) - 1) for v in y])
    expected = np.sqrt((len(frame) - 1) / len(frame) * (moves**2).sum())
    assert study_coverage.jackknife_se(res._record) == pytest.approx(expected, rel=1e-9)


def test_entropy_balancing_by_hand():
    """Where both arms have the covariate means of the sample under their weights, a linear outcome leaves no error."""
    design = find_design("linear")
    data = design.draw(200, np.random.default_rng(0)).data
    data["y"] = 1 + data[["x1", "x2", "x3", "x4"]] @ [1, 2, -1, 3] + 5 * data["d"]
    trial = Trial(data, design.formula, design.propensity, np.random.SeedSequence(0))
    assert study_outside.entropy_balancing(trial)[0] == pytest.approx(5, abs=0.01)


def test_page_shows_the_stored_comparison_of_bootstraps():
    page = (study_bootstraps.TABLE.parents[3] / "docs/explanation/standard_errors.md").read_text("utf-8")
    for line in study_bootstraps.markdown(pd.read_csv(study_bootstraps.TABLE)).splitlines():
        assert line in page


def test_a_table_of_many_samples_is_not_replaced_by_one_of_few(tmp_path, capsys):
    path = tmp_path / "small_rows.csv"
    path.write_text("samples\n1000\n")
    with pytest.raises(SystemExit):
        study_small_samples.main(["rows", "--sims", "1", "--tables", str(tmp_path)])
    assert path.read_text() == "samples\n1000\n" and "use --sims 1000, or --tables" in capsys.readouterr().err
    path.write_text("samples\n1\n")
    with mock.patch.object(study_small_samples, "coverage", lambda *_: pd.DataFrame({"samples": [2]})):
        study_small_samples.main(["rows", "--sims", "2", "--tables", str(tmp_path)])
    assert path.read_text() == "samples\n2\n"

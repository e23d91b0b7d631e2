"""The command that writes the pages of evidence, on the smallest grid."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.simulation.designs import Strong
from tests.studies import evidence, evidence_pages, study_choice, study_defaults
from tests.studies.study_defaults import LADDER, Rows, Setting, choose, fractional_weights, held_out, solve

N = 150
COVARIATES = ["x1", "x2", "x3", "x4"]


def test_tables_are_markdown():
    assert evidence_pages.markdown([["a", "1"]], ["x", "y"]) == "|x|y|\n|---|---|\n|a|1|"
    assert evidence_pages.number(0.5, 0.0123, 3) == "0.500 (0.012)"


def test_biases_have_a_row_a_cell_and_a_column_an_estimator():
    rows = [["a", 500, "IPWRA", 0.1, 0.01, 0.2], ["a", 500, "JRE", -0.1, 0.02, 0.3]]
    table = pd.DataFrame(rows, columns=["design", "n", "estimator", "bias", "bias_mc", "rmse"])
    written = evidence_pages.biases_table(table, ["design", "n"]).splitlines()
    assert written[0] == "|design|n|IPWRA|JRE|"
    assert written[2] == "|a|500|+0.100 (0.010); 0.200|-0.100 (0.020); 0.300|"


def test_lines_are_filled_but_tables_and_lists_kept():
    words = "word " * 40
    text = evidence_pages.filled(f"# Title\n\n{words}\n\n- {words}\n- short\n\n|a|\n|---|\n|{words}|")
    assert [len(line) <= 120 for line in text.splitlines()].count(False) == 1
    assert "\n- short\n\n|a|\n" in text


def test_pages_are_those_of_the_stored_tables(tmp_path):
    """The pages in the documentation are written by the command, not by hand, and the losses stand first."""
    evidence_pages.write_pages(evidence_pages.TABLES, tmp_path, tmp_path)
    for folder, name in (("explanation", "evidence.md"), ("reference", "evidence_notebook.md")):
        assert (tmp_path / name).read_text("utf-8") == (evidence.DOCS / folder / name).read_text("utf-8")
    assert (tmp_path / "evidence.svg").stat().st_size > 10_000
    rows = [
        line
        for line in (tmp_path / "evidence.md").read_text("utf-8").splitlines()
        if "(0." in line and line.count("|") == 9
    ]
    largest = [max(float(cell.split()[0]) for cell in row.split("|")[4:7]) for row in rows]
    assert largest == sorted(largest, reverse=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_command_stores_tables_and_writes_pages(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "QUICK", evidence.Grid(3, 3, 3, 3, 3, 20, 3, 30, 2, 20))
    (tmp_path / "t").mkdir()
    for name in ("wrong_scores", "cells", "outside"):  # which have commands of their own
        shutil.copy(evidence_pages.TABLES / f"{name}.csv", tmp_path / "t")
    folders = ["--out", str(tmp_path), "--tables", str(tmp_path / "t"), "--store", str(tmp_path / "s")]
    monkeypatch.setattr("sys.argv", ["evidence", "--quick", *folders])
    evidence.main()
    page = (tmp_path / "explanation" / "evidence.md").read_text("utf-8")
    assert "|lalonde_like|" in page
    assert "--quick --jobs 1" in page
    assert "-0.51 / 3.38" in (tmp_path / "reference" / "evidence_notebook.md").read_text("utf-8")
    evidence.main()  # from the store, the same to the last digit
    assert (tmp_path / "explanation" / "evidence.md").read_text("utf-8") == page


# --- the prototype behind the defaults -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    return Strong().draw(N, rng).data, fractional_weights(N, 60, 0.5, rng)


@pytest.fixture(scope="module")
def rows(drawn):
    return Rows(drawn[0], COVARIATES, COVARIATES, drawn[1])


@pytest.mark.parametrize("anchor", [30.0, 1.0, 0.03])
@pytest.mark.parametrize("share", [None, 0.0, 1.0])
def test_prototype_and_package_agree(drawn, anchor, share):
    data, weights = drawn
    rows = Rows(data, COVARIATES, COVARIATES, weights, share)
    model = cr.JRE.from_formula(Strong().formula, data, treat="d")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        res = model.fit(cov_type="robust", replicates=weights, anchor=anchor, share=share)
    assert rows.share == pytest.approx(res.share, rel=1e-9)
    assert rows.effect(solve(rows, anchor)) == pytest.approx(res.effect, rel=1e-9)
    assert rows.start == pytest.approx(res.start.effect, rel=1e-9)


@pytest.mark.parametrize("anchor", [1.0, 0.3])
def test_held_out_psi_against_leaving_rows_out(drawn, anchor):
    """The row left out of the fit; propensity scores, replicates and penalties stay; without a share."""
    rows = Rows(drawn[0], COVARIATES, COVARIATES, drawn[1], share=0.0)
    n_replicates, slope_at_fit, right_at_fit = drawn[1].shape[1], *rows.psi(rows.weight)
    mean, spread = rows.own.mean(axis=1), rows.own.var(axis=1)
    slope_all, right_all = rows.psi(mean)
    signed = rows.sign[:, None] * np.column_stack([rows.weight, rows.own])
    penalties = np.r_[N**2, np.full(n_replicates, N / n_replicates)]
    exact = np.empty(N)
    for i in range(N):
        kept = np.arange(N) != i
        slope = slope_all[kept] - slope_all[kept].mean(axis=0)
        right = right_all[kept] - right_all[kept].mean()
        block, residual = rows.block[kept], rows.residual[kept]
        fit = block * (anchor * rows.weight + spread)[kept][:, None]
        net, net_right = (signed[kept].T @ part / (N - 1) for part in (block, residual))
        hessian = (fit.T @ block + slope.T @ slope) / (N - 1) + net.T @ (penalties[:, None] * net)
        z = np.linalg.solve(hessian, (fit.T @ residual + slope.T @ right) / (N - 1) + net.T @ (penalties * net_right))
        exact[i] = slope_at_fit[i] @ z - right_at_fit[i]
    inside = rows.project(slope_at_fit @ solve(rows, anchor) - right_at_fit)
    true, quick, naive = (np.mean(psi**2) for psi in (rows.project(exact), held_out(rows, anchor), inside))
    assert quick == pytest.approx(true, rel=0.02)
    assert abs(naive - true) > 10 * abs(quick - true)


def test_choice_lies_between_the_rungs(rows):
    effects = [rows.effect(solve(rows, anchor)) for anchor in LADDER]
    assert choose(rows, Setting(caution=1e9))[0] == pytest.approx(effects[0], rel=1e-12)
    rung = choose(rows, Setting(mixed="one rung"))[0]
    assert rung in effects
    assert choose(rows, Setting(mixed="half"))[0] == pytest.approx((rung + effects[0]) / 2, rel=1e-12)


def test_choice_and_factor_are_those_of_the_package(drawn, rows):
    model = cr.JRE.from_formula(Strong().formula, drawn[0], treat="d")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        res = model.fit(cov_type="robust", replicates=drawn[1])
    path = res.anchor_path()
    anchor, own, first = study_choice.chosen(rows)
    assert np.log(anchor) == pytest.approx(np.log(path.index[path["chosen"]].item()), abs=0.15)
    assert anchor < LADDER[0]
    by_difference, of_package = study_choice.factors(own, first)
    assert of_package == pytest.approx(np.sqrt(res._record.choice_variance), rel=0.01)
    assert 1 < of_package <= by_difference


def test_resample_of_every_row_is_the_sample(rows):
    again = rows.resampled(np.arange(N))
    assert again.effect(solve(again, 0.3)) == pytest.approx(rows.effect(solve(rows, 0.3)), rel=1e-9)
    twice = rows.resampled(np.zeros(N, dtype=int) + np.arange(N) // 2)
    assert twice.start != pytest.approx(rows.start, rel=1e-3)


@pytest.mark.parametrize(("mixed", "expected"), [("one rung", [0, 0, 1]), ("half", [0.5, 0, 0.5])])
def test_shares_of_the_anchors(mixed, expected):
    squares = np.array([[4.0] * 50, [3.0] * 50, [1.0] * 50])
    share = study_defaults.mixture(squares, Setting((30.0, 1.0, 0.1), mixed=mixed))
    np.testing.assert_array_equal(share, expected)
    np.testing.assert_array_equal(study_defaults.winners(squares, 0.5), [0, 0, 1])


def test_shares_follow_the_rows_that_tip_the_choice():
    rng = np.random.default_rng(0)
    close = np.stack([np.full(200, 1.0), rng.exponential(size=200)])
    share = study_defaults.mixture(close, Setting((30.0, 1.0), caution=0.0, mixed="bagged"))
    assert share.sum() == pytest.approx(1)
    assert share.min() > 0.05
    np.testing.assert_allclose(study_defaults.winners(close, 0.0), share, atol=0.1)


def test_command_prints_its_tables(monkeypatch, capsys):
    options = ["--n", "150", "--sims", "3", "--n-replicates", "20", "--designs", "strong", "linear"]
    monkeypatch.setattr("sys.argv", ["study_defaults", *options])
    study_defaults.main()
    out = capsys.readouterr().out
    assert "geometric mean" in out
    assert "the default" in out

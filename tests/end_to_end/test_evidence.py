"""The command that writes the evidence page, on the smallest grid."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import causalrisk as cr
from causalrisk.simulation.designs import Strong
from tests.studies import evidence, study_defaults
from tests.studies.study_defaults import Rows, Setting, estimate, held_out, solve

N = 150
COVARIATES = ["x1", "x2", "x3", "x4"]


def test_tables_are_markdown():
    assert evidence.markdown([["a", "1"]], ["x", "y"]) == "| x | y |\n| --- | --- |\n| a | 1 |"
    assert evidence.number(0.5, 0.0123, 3) == "0.500 (0.012)"


@pytest.mark.slow
def test_command_writes_the_page_and_its_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "QUICK", evidence.Grid(3, 3, 3, 3, 3, 20, 3, 30, 2))
    monkeypatch.setattr("sys.argv", ["evidence", "--quick", "--out", str(tmp_path), "--store", str(tmp_path / "s")])
    evidence.main()
    page = (tmp_path / "evidence.md").read_text("utf-8")
    for words in (
        "geometric mean of these six",
        "| lalonde_like |",
        "-0.51 / 3.38",
        "held out, u^2",
        "--quick --jobs 1",
    ):
        assert words in page
    assert (tmp_path / "evidence.svg").stat().st_size > 10_000
    evidence.main()  # from the store, the same to the last digit
    assert (tmp_path / "evidence.md").read_text("utf-8") == page


# --- the prototype behind the defaults -------------------------------------------------------------------------------


class Given:
    """A generator that draws what it was given."""

    def __init__(self, multiplicities):
        self.multiplicities = multiplicities

    def multinomial(self, n, p, size):
        return self.multiplicities.T


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    return Strong().draw(N, rng).data, rng.multinomial(N, np.full(N, 1 / N), size=60).T.astype(float)


@pytest.fixture(scope="module")
def rows(drawn):
    return Rows(drawn[0], COVARIATES, COVARIATES, 60, Given(drawn[1]))


@pytest.mark.parametrize(
    ("setting", "options"),
    [
        (Setting(), {"objective": "mse", "anchor": 0.3, "penalty": "10n"}),
        (Setting(0.1, penalty=(1, 1)), {"objective": "mse", "anchor": 0.1, "penalty": "n"}),
        (Setting(1.0, False, penalty=(1, 2)), {"objective": "erm", "penalty": "n2"}),
    ],
)
def test_prototype_and_package_agree(drawn, rows, setting, options):
    data, multiplicities = drawn
    model = cr.JRE.from_formula(Strong().formula, data, treat="d")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        res = model.fit(cov_type="robust", replicates=multiplicities, **options)
    assert estimate(rows, setting)[0] == pytest.approx(res.effect, rel=1e-9)
    assert rows.start == pytest.approx(res.start.effect, rel=1e-9)


@pytest.mark.parametrize("anchor", [1.0, 0.3])
def test_held_out_psi_against_leaving_rows_out(rows, anchor):
    setting = Setting(anchor, risk="fitted", penalty=(1, 2))
    exact = np.empty(N)
    for i in range(N):
        kept = np.arange(N) != i
        slope, right = rows.psi_slope[kept], rows.psi_right[kept]
        slope, right = slope - slope.mean(axis=0), right - right.mean()
        fit = rows.block[kept] * (anchor * rows.average[kept])[:, None]
        signed = (rows.sign * rows.weight)[kept]
        net, net_right = signed @ rows.block[kept] / (N - 1), signed @ rows.residual[kept] / (N - 1)
        hessian = (fit.T @ rows.block[kept] + slope.T @ slope) / (N - 1) + N**2 * np.outer(net, net)
        z = np.linalg.solve(hessian, (fit.T @ rows.residual[kept] + slope.T @ right) / (N - 1) + N**2 * net * net_right)
        exact[i] = rows.psi_slope[i] @ z - rows.psi_right[i]
    found = solve(rows, setting)
    inside = rows.project(rows.psi_slope @ found.z - rows.psi_right)
    true, quick, naive = (np.mean(psi**2) for psi in (rows.project(exact), held_out(rows, found), inside))
    assert quick == pytest.approx(true, rel=0.05)
    assert abs(naive - true) > 3 * abs(quick - true)


def test_ladder_returns_one_of_its_rungs(rows):
    ladder = study_defaults.ladder()
    effects = [estimate(rows, rung)[0] for rung in ladder]
    assert estimate(rows, ladder)[0] in effects
    assert estimate(rows, ladder, caution=1e9)[0] == effects[0]
    assert effects[0] == pytest.approx(rows.start, rel=1e-9)  # IPWRA: its net bias at the fitted score is zero


def test_command_prints_its_tables(monkeypatch, capsys):
    options = ["--n", "150", "--sims", "3", "--n-replicates", "20", "--designs", "strong", "linear"]
    monkeypatch.setattr("sys.argv", ["study_defaults", *options])
    study_defaults.main()
    out = capsys.readouterr().out
    assert "geometric mean" in out
    assert "held out, u^2" in out

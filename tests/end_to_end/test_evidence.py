"""The pages of evidence are those of the stored tables, and the prototype behind the defaults is the package's."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.simulation import DESIGNS
from tests.studies import evidence, evidence_pages, study_everybody
from tests.studies.study_defaults import Rows, fractional_weights, orthonormal, solve


def test_pages_are_those_of_the_stored_tables(tmp_path):
    """The pages in the documentation are written by the command, not by hand, and the losses stand first."""
    evidence_pages.write_pages(evidence_pages.TABLES, tmp_path, tmp_path)
    for folder, name in (("explanation", "evidence.md"), ("development", "evidence_notebook.md")):
        assert (tmp_path / name).read_text("utf-8") == (evidence.DOCS / folder / name).read_text("utf-8")
    everybody = pd.read_csv(evidence_pages.TABLES / "everybody.csv")
    assert study_everybody.page(everybody, study_everybody.COMMAND) == study_everybody.PAGE.read_text("utf-8")
    lines = (tmp_path / "evidence.md").read_text("utf-8").splitlines()
    rows = [line for line in lines if "(0." in line and line.count("|") == 9]
    largest = [max(float(cell.split()[0]) for cell in row.split("|")[4:7]) for row in rows]
    assert largest == sorted(largest, reverse=True)


@pytest.mark.parametrize("anchor", [30.0, 1.0, 0.03])
@pytest.mark.parametrize("share", [None, 0.0, 1.0])
def test_prototype_and_package_agree(anchor, share):
    rng = np.random.default_rng(0)
    data, weights = DESIGNS["strong"].draw(150, rng).data, fractional_weights(150, 60, 0.5, rng)
    x = orthonormal(data[["x1", "x2", "x3", "x4"]])
    rows = Rows(x, x, data["y"].to_numpy(), data["d"].to_numpy(), weights, share=share)
    model = cr.JRE.from_formula(DESIGNS["strong"].formula, data, treat="d")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        res = model.fit(cov_type="robust", replicates=weights, shrinkage=anchor, share=share)
    assert rows.share == pytest.approx(res.share, rel=1e-9)
    assert rows.effect(solve(rows, anchor)) == pytest.approx(res.effect, rel=1e-9)
    assert rows.start == pytest.approx(res.start.effect, rel=1e-9)

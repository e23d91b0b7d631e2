"""Number formats of the summary's tables."""

from __future__ import annotations

import re
from html import unescape

import pytest

import causalrisk as cr
from causalrisk import IPWRA, datasets
from tests.conftest import simulate


def test_a_covariate_in_money_leaves_the_others_their_digits():
    frame = datasets.load_lalonde("cps3")
    formula = "re78 ~ age + educ + black + hispan + married + nodegree + re74 + re75"
    summary = IPWRA.from_formula(formula, frame, treat="treat", target="treated").fit().summary()
    rows = {row[0]: row for row in summary.tables[-1].body}
    assert rows["age"][1:3] == ["0.01578", "0.01332"]  # 0.01577707 and 0.01331672
    assert rows["black"][1:3] == ["3.0654", "0.2897"]
    assert rows["re74"][1:3] == ["-0.00007178", "0.00003148"]
    for table in summary.tables[3:]:
        for row in table.body:
            assert len(re.sub(r"\.", "", row[2]).lstrip("0")) >= 4, row
            assert {len(row[j].split(".")[1]) for j in (1, 2, 5, 6)} == {len(row[2].split(".")[1])}
    assert max(map(len, str(summary).splitlines())) <= 78


@pytest.mark.usefixtures("unprinted_plots")
@pytest.mark.parametrize("end", [30.0, 0.03])
def test_an_anchor_at_the_end_of_the_ladder_is_said_to_be_there(monkeypatch, end, tmp_path):
    frame = simulate(120)
    model = cr.JRE.from_formula("y ~ x1", frame, treat="d")

    def noted(res):
        page = re.sub("<[^>]+>", "", unescape(res.report(tmp_path / "jre.html").read_text("utf-8")))
        words = [" ".join(text.split()) for text in (str(res.summary()), str(res.explain()), page)]
        return ["at the end of those tried" in text for text in words]

    options = {"cov_type": "robust", "n_replicates": 15}
    assert not any(noted(model.fit(**options, anchor=end)))  # given, not chosen
    monkeypatch.setattr("causalrisk.estimators.joint.anchor.mean_anchor", lambda anchors, shares: 0.2)
    assert not any(noted(model.fit(**options)))
    monkeypatch.setattr("causalrisk.estimators.joint.anchor.mean_anchor", lambda anchors, shares: end)
    res = model.fit(**options)
    assert res._record.joint.anchor == end and all(noted(res))
    (beyond,) = re.findall(r"fit\(anchor=([0-9.]+)\)", " ".join(str(res.summary()).split()))
    assert float(beyond) == pytest.approx(end * (3 if end > 1 else 1 / 3))
    model.fit(**options, anchor=float(beyond))

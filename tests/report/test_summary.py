"""Number formats of the summary's tables."""

from __future__ import annotations

import re

from causalrisk import IPWRA, datasets


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

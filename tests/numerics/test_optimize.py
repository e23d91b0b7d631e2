"""Rows that a direction tells for certain."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from causalrisk.numerics import optimize
from causalrisk.numerics.optimize import MARGIN, separating_direction


def told_by_one_programme(rows):
    """Which rows a direction can tell without contradicting any, with all constraints stated at once."""
    rest = np.ones(len(rows), dtype=bool)
    while rest.any():
        solved = scipy.optimize.linprog(
            -rows[rest].sum(axis=0), A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1, 1), method="highs"
        )
        moved = rest & (rows @ solved.x > MARGIN)
        if not moved.any():
            break
        rest &= ~moved
    return ~rest


@pytest.mark.parametrize("cuts", [1, 6, 5000])
@pytest.mark.parametrize("kind", ["nothing", "one row", "a cell", "two cells", "all rows"])
def test_rows_that_can_be_told_are_found_by_rounds_of_a_linear_programme(kind, cuts, monkeypatch):
    """Whatever the number of constraints that a round adds."""
    rng = np.random.default_rng(11)
    columns = np.column_stack([np.ones(300), rng.normal(size=(300, 3)), rng.integers(0, 2, (300, 2))])
    sign = rng.choice([-1.0, 1.0], 300)
    if kind == "one row":
        columns[:, 1], sign[0] = np.r_[9.0, np.zeros(299)], 1.0
    if "cell" in kind:
        sign[columns[:, 4] == 1] = 1.0
    if kind == "two cells":
        sign[(columns[:, 5] == 1) & (columns[:, 4] == 0)] = -1.0
    if kind == "all rows":
        sign = np.sign(columns @ rng.normal(size=6))
    monkeypatch.setattr(optimize, "CUTS", cuts)
    rows = columns * sign[:, None]
    expected = told_by_one_programme(rows)
    assert expected.any() == (kind != "nothing")
    direction = separating_direction(rows)
    found = np.zeros(300, dtype=bool) if direction is None else rows @ direction > MARGIN
    np.testing.assert_array_equal(found, expected)
    assert direction is None or (rows @ direction).min() > -MARGIN

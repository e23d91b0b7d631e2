"""Number formats of the summary."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalrisk.report.summary import numbers_table
from causalrisk.report.table import column_format, format_number


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (-228.5, "-228.50"),
        (25123.456, "25123.46"),
        (0.1469, "0.1469"),
        (0.00000123, "0.000001230"),
        (9.9e-7, "9.900e-07"),
        (1234567.89, "1234568"),
        (1e9, "1.000e+09"),
        (0.0, "0.00"),
        (-0.0, "0.00"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_format_number(x, text):
    assert format_number(x) == text


@pytest.mark.parametrize(
    ("errors", "estimates", "spec"),
    [
        ([27.6, 10.12, 25.31], [-228.5, 3403.21], "z.2f"),
        ([0.0, 0.0123, np.nan, np.inf], [np.nan], "z.5f"),
        ([1.5e-5], [0.1], "z.8f"),
        ([1.5e-6], [0.1], "z.3e"),
        ([1e-4, 1.0], [5e8], "z.3e"),
        ([], [], "z.2f"),
        ([0.0], [0.0], "z.2f"),
    ],
)
def test_column_format(errors, estimates, spec):
    assert column_format(errors, estimates) == spec


def test_column_format_shows_four_digits_of_the_smallest_standard_error():
    rng = np.random.default_rng(1)
    for scale in 10.0 ** np.arange(-4, 6):
        errors = scale * rng.uniform(1, 9, size=5)
        shown = format(errors.min(), column_format(errors))
        assert float(shown) == pytest.approx(errors.min(), rel=6e-4)


def test_column_format_prints_no_negative_zero():
    assert format(-0.0004, column_format([27.6])) == "0.00"


def test_a_difference_near_zero_has_the_decimals_of_the_estimates():
    estimates = pd.DataFrame({"estimate": [0.1469, 0.1511], "std err": [0.0212, 0.0224]}, index=["JRE", "IPWRA"])
    differences = pd.DataFrame({"estimate": [0.00000122], "std err": [0.0000031]}, index=["JRE - IPWRA"])
    assert numbers_table(differences, "", like=estimates).body == [["JRE - IPWRA", "0.00000", "0.00000"]]
    assert numbers_table(differences, "").body != numbers_table(differences, "", like=estimates).body
